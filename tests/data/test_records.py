"""Records by number, and plain folders of ArrayRecord files."""

import concurrent.futures
import json

import numpy as np
import pytest

from scaling.data import pipeline, sources
from scaling.data.decode import decode
from scaling.data.records import Records, Shard, count
from scaling.errors import UserError


def write(path, records):
  from array_record.python.array_record_module import ArrayRecordWriter

  writer = ArrayRecordWriter(str(path), 'group_size:1')
  for record in records:
    writer.write(record)
  writer.close()


def example(encoded: bytes, *labels: int) -> bytes:
  from tensorflow_datasets.proto import tf_example_pb2

  made = tf_example_pb2.Example()
  made.features.feature['image'].bytes_list.value.append(encoded)
  made.features.feature['label'].int64_list.value.extend(labels)
  return made.SerializeToString()


@pytest.fixture
def shards(tmp_path):
  for i, size in enumerate((3, 1, 5)):
    write(tmp_path / f'{i}.array_record', [f'{i}:{k}'.encode() for k in range(size)])
  return [str(tmp_path / f'{i}.array_record') for i in range(3)]


def test_records_by_number_over_shards(shards):
  parts = [
    Shard(path, skip, take, count(path))
    for path, skip, take in zip(shards, (1, 0, 2), (2, 1, 3), strict=True)
  ]
  records = Records(parts)
  flat = [b'0:1', b'0:2', b'1:0', b'2:2', b'2:3', b'2:4']
  assert len(records) == 6
  assert records(np.arange(6)) == flat
  ids = np.random.default_rng(0).integers(6, size=100)
  assert records(ids) == [flat[i] for i in ids]
  assert records(np.array([], int)) == []
  assert records.where(2) == 'record 0 of 1.array_record'
  assert records.where(5) == 'record 4 of 2.array_record'
  for beyond in (-1, 6):
    with pytest.raises(IndexError, match=r'leaves 0\.\.5'):
      records(np.array([0, beyond]))


def test_threads_read_at_once(shards):
  records = Records([Shard(path, 0, count(path), count(path)) for path in shards])
  expected = records(np.arange(9))
  with concurrent.futures.ThreadPoolExecutor(8) as threads:
    for found in threads.map(lambda _: records(np.arange(9)), range(200)):
      assert found == expected


def test_more_files_than_a_thread_keeps_open(tmp_path, monkeypatch):
  monkeypatch.setattr('scaling.data.records._OPEN', 3)
  paths = [tmp_path / f'{i}' for i in range(10)]
  for i, path in enumerate(paths):
    write(path, [str(i).encode()])
  records = Records([Shard(str(path), 0, 1, 1) for path in paths])
  ids = np.random.default_rng(0).integers(10, size=50)
  assert records(ids) == [str(i).encode() for i in ids]


def test_a_file_that_goes_away_is_named(shards, tmp_path):
  records = Records([Shard(path, 0, 1, count(path)) for path in shards])
  (tmp_path / '1.array_record').unlink()
  with pytest.raises(UserError, match=r'record 0 of .*1\.array_record cannot be read'):
    records(np.arange(3))
  assert records(np.array([0, 2])) == [b'0:0', b'2:0']


@pytest.fixture
def folder(tmp_path, png, data):
  """Three training and two test files of flat images whose grey is their number."""
  data.update(source='array_record', num_classes=3, image_size=8, max_labels=2)
  number = 0
  for name, size in (
    ('train-0', 4),
    ('train-1', 1),
    ('train-2', 3),
    ('test-0', 2),
    ('test-1', 1),
  ):
    made = []
    for _ in range(size):
      pixels = np.full((10, 12, 3), number, np.uint8)
      made.append(example(png(pixels), number % 3, (number + 1) % 3))
      number += 1
    write(tmp_path / f'{name}.array_record', made)
  return tmp_path


def test_plain_folder(folder, data):
  assert sources.at_hand(data, str(folder))
  train, test = sources.load(data, str(folder))
  assert (train.num_images, test.num_images) == (8, 3)
  ids = np.array([7, 0, 4])
  assert [decode(e, 3, 'x')[0, 0, 0] for e in train.encoded(ids)] == [7, 0, 4]
  assert train.labels(ids).tolist() == [[1, 2], [0, 1], [1, 2]]
  assert train.where(4) == 'record 0 of train-1.array_record'
  index = json.loads((folder / 'train.index.json').read_text())
  assert [records for _, records in index.values()] == [4, 1, 3]
  sources._load.cache_clear()
  assert sources.load(data, str(folder))[0].fingerprint == train.fingerprint


def test_names_of_classes(folder, data):
  (folder / 'classes.txt').write_text('ant\nbee\ncow\n')
  assert sources.load(data, str(folder))[0].label_names == ('ant', 'bee', 'cow')
  sources._load.cache_clear()
  (folder / 'classes.txt').write_text('ant\nbee\nant\n')
  with pytest.raises(UserError, match=r'classes\.txt must name each class once'):
    sources.load(data, str(folder))


def test_a_set_that_is_not_its_index(folder, data):
  sources.load(data, str(folder))

  def refuses(message):
    sources._load.cache_clear()
    with pytest.raises(UserError, match=message):
      sources.load(data, str(folder))

  path = folder / 'train-1.array_record'
  whole = path.read_bytes()
  path.write_bytes(whole[:-5])
  refuses(r'train-1\.array_record has \d+ bytes, where train\.index\.json has \d+')
  path.unlink()
  refuses(r'train-1\.array_record is missing, where train\.index\.json has')
  path.write_bytes(whole)
  index = folder / 'train.index.json'
  for text in ('torn', '[1]', '{"a": 1}'):
    index.write_text(text)
    refuses(r'train\.index\.json is no index')
  index.unlink()
  path.write_bytes(whole[:100])
  refuses(r'train-1\.array_record is no whole ArrayRecord file')
  path.write_bytes(b'')
  refuses(r'train-1\.array_record is no whole ArrayRecord file')


def test_bad_folders(folder, data, tmp_path):
  with pytest.raises(UserError, match=r'needs --data_dir'):
    sources.load(data)
  data.train_split = 'validation'
  with pytest.raises(UserError, match=r'has no validation\*\.array_record\*'):
    sources.load(data, str(folder))


def test_records_of_another_kind(tmp_path, data, png):
  data.update(source='array_record', num_classes=3, image_size=8)
  write(
    tmp_path / 'train.array_record',
    [b'text', example(png(np.zeros((9, 9, 3), np.uint8)), 7)],
  )
  write(tmp_path / 'test.array_record', [b'text'])
  with pytest.raises(UserError, match=r'record 1 of train\.array_record has label 7'):
    sources.load(data, str(tmp_path))
  train, _ = sources.load_as_found(data, str(tmp_path))
  assert train.encoded(np.array([0])) == [b'']
  with pytest.raises(UserError, match=r'record 0 .* a record without data\.image_key'):
    decode(train.encoded(np.array([0]))[0], 3, train.where(0))
  assert train.labels(np.array([0])).max() == -1


def test_a_set_prepared_anew_is_another_set(folder, data, png):
  """The files have the same names and sizes: they are padded to whole blocks."""
  before, _ = sources.load(data, str(folder))
  path = folder / 'train-0.array_record'
  size = path.stat().st_size
  read = Records([Shard(str(path), 0, 4, 4)])
  records = read(np.arange(4))
  for changed in (records[::-1], [records[0], *records[2:], records[1]]):
    write(path, changed)
    assert path.stat().st_size == size
    sources._load.cache_clear()
    assert sources.load(data, str(folder))[0].fingerprint != before.fingerprint
  write(path, records)
  sources._load.cache_clear()
  assert sources.load(data, str(folder))[0].fingerprint == before.fingerprint
  write(path, [*records, records[0]])
  assert path.stat().st_size == size
  sources._load.cache_clear()
  with pytest.raises(
    UserError, match=r'train-0.* has 5 records, and its index says 4;'
  ):
    sources.load(data, str(folder))


@pytest.mark.parametrize('count', ['"4"', '-3', '4.5', 'null'])
def test_an_index_with_odd_counts(folder, data, count):
  sources.load(data, str(folder))
  sources._load.cache_clear()
  path = folder / 'train.index.json'
  known = json.loads(path.read_text())
  known['train-0.array_record'][1] = json.loads(count)
  path.write_text(json.dumps(known))
  with pytest.raises(UserError, match=r'train\.index\.json is no index .*; remove it'):
    sources.load(data, str(folder))


def test_images_that_cannot_be_read(folder, data, png, tmp_path):
  from scaling.data.skipped import Skipped

  good = [example(png(np.full((9, 9, 3), i, np.uint8)), i % 3) for i in range(40)]
  bad = [example(b'', 0), b'no Example', example(b'\xff\xd8\xff', 2)]
  write(folder / 'some-train.array_record', [*good[:20], *bad, *good[20:]])
  write(folder / 'some-test.array_record', [*good[:5], *bad, *good[5:8]])
  data.update(train_split='some-train', test_split='some-test')
  train, test = sources.load(data, str(folder))
  subset = pipeline.make_subset(train, data)
  wanted = {'split': train, 'data': data, 'subset': subset, 'batch_size': 16, 'seed': 1}

  with pytest.raises(
    UserError, match=r'no readable image .* or set data\.corrupt=skip'
  ):
    [pipeline.train_batch(step, **wanted) for step in range(5)]

  skipped = Skipped(tmp_path / 'skipped.txt')
  seen = [pipeline.train_batch(step, skipped=skipped, **wanted) for step in range(6)]
  again = [
    pipeline.train_batch(step, skipped=Skipped(tmp_path / 'other.txt'), **wanted)
    for step in reversed(range(6))
  ]
  for one, other in zip(seen, reversed(again), strict=True):
    assert all((one[key] == other[key]).all() for key in one)
  for batch in seen:
    # What came in their place is an image with its own label and number.
    grey = batch['image'][:, 0, 0, 0]
    assert (batch['labels'][:, 0] == grey % 3).all()
    assert not set(batch['id'][:, 0]) & {20, 21, 22}
  assert len(skipped) == 3
  lines = (tmp_path / 'skipped.txt').read_text().splitlines()
  assert len(lines) == 3
  assert all('some-train' in line for line in lines)
  assert len(Skipped(tmp_path / 'skipped.txt')) == 3

  (batch,) = pipeline.test_batches(test, data, 16, skipped=skipped)
  assert batch['mask'].tolist() == [1] * 5 + [0] * 3 + [1] * 3 + [0] * 5
  assert (batch['labels'][5:8] == -1).all()


def test_a_set_without_any_readable_image(folder, data, tmp_path):
  from scaling.data.skipped import Skipped

  write(folder / 'none-train.array_record', [example(b'', 0)] * 9)
  data.update(train_split='none-train')
  train, _ = sources.load(data, str(folder))
  subset = pipeline.make_subset(train, data)
  with pytest.raises(UserError, match=r'32 images in a row cannot be read'):
    pipeline.train_batch(
      0,
      split=train,
      data=data,
      subset=subset,
      batch_size=4,
      seed=0,
      skipped=Skipped(tmp_path / 'skipped.txt'),
    )
