"""Sets prepared for TFDS: read alike whatever their shapes, and refused in words."""

import os

import numpy as np
import pytest

from scaling.data import examples, memory, sources
from scaling.data.decode import CorruptError
from scaling.data.records import Records, Shard
from scaling.errors import UserError

CIFAR_DIR = os.environ.get('SCALING_TFDS_DIR')


def everything(split):
  return np.arange(split.num_images)


@pytest.fixture(scope='session')
def tfds_dir(tmp_path_factory, png):
  """A folder with tiny sets: one label, several labels, and images of many shapes."""
  import tensorflow_datasets as tfds

  folder = tmp_path_factory.mktemp('tfds')
  image = tfds.features.Image(shape=(8, 8, 3))
  label = tfds.features.ClassLabel(names=['ant', 'bee', 'cow', 'doe', 'elk'])

  def prepare(set_name, features, example):
    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
      name = set_name
      VERSION = tfds.core.Version('1.0.0')

      def _info(self):
        features_dict = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features_dict)

      def _split_generators(self, dl_manager):
        return {
          'train': self._generate_examples(20),
          'test': self._generate_examples(6),
        }

      def _generate_examples(self, count):
        for number in range(count):
          yield number, example(number)

    Builder(data_dir=folder, file_format='array_record').download_and_prepare()

  def flat(number, height=8):
    return png(np.full((height, 8, 3), number, np.uint8))

  prepare(
    'tiny_single',
    {'image': image, 'label': label, 'word': tfds.features.Text()},
    lambda i: {'image': flat(i), 'label': i % 5, 'word': 'x'},
  )
  prepare(
    'tiny_multi',
    {'image': image, 'labels': tfds.features.Sequence(label)},
    lambda i: {'image': flat(i), 'labels': [i % 5, (i + 1) % 5, i % 5][: i % 4]},
  )
  prepare(
    'tiny_shapes',
    {'image': tfds.features.Image(shape=(None, None, 3)), 'label': label},
    lambda i: {'image': flat(i, 8 + i), 'label': i % 5},
  )
  return folder


@pytest.fixture
def on_tfds(data):
  data.update(source='tfds', name='tiny_single', num_classes=5, image_size=8)
  return data


def test_tfds_in_memory(on_tfds, tfds_dir):
  assert sources.at_hand(on_tfds, str(tfds_dir))
  train, test = sources.load(on_tfds, str(tfds_dir))
  assert (train.num_images, test.num_images) == (20, 6)
  assert train.label_names == ('ant', 'bee', 'cow', 'doe', 'elk')
  values = train.images(np.arange(20))[:, 0, 0, 0]
  assert sorted(values) == list(range(20))
  assert (train.labels(np.arange(20))[:, 0] == values % 5).all()


def test_tfds_sub_splits(on_tfds, tfds_dir):
  whole, _ = sources.load(on_tfds, str(tfds_dir))
  on_tfds.update(train_split='train[:80%]', test_split='train[80%:]')
  train, test = sources.load(on_tfds, str(tfds_dir))
  parts = [train.images(np.arange(16)), test.images(np.arange(4))]
  assert (np.concatenate(parts) == whole.images(np.arange(20))).all()


def test_tfds_several_labels(on_tfds, tfds_dir):
  on_tfds.update(name='tiny_multi', label_key='labels', max_labels=3)
  train, _ = sources.load(on_tfds, str(tfds_dir))
  values = train.images(np.arange(20))[:, 0, 0, 0]
  for value, labels in zip(values, train.labels(np.arange(20)), strict=True):
    expected = [value % 5, (value + 1) % 5][: value % 4]
    assert labels.tolist() == expected + [-1] * (3 - len(expected))
  on_tfds.max_labels = 1
  with pytest.raises(
    UserError, match=r'data\.max_labels=1 .*has 2; set it to 2 or more'
  ):
    sources.load(on_tfds, str(tfds_dir))


def test_labels_beyond_the_head_are_refused():
  def pad(labels):
    return examples.pad_labels(labels, 5, 2, lambda row: f'image {row} of birds')

  assert pad([[4, 0], [], [2, 2]]).tolist() == [[4, 0], [-1, -1], [2, -1]]
  for wrong in (5, 99, -1):
    with pytest.raises(UserError) as error:
      pad([[0], [4, wrong]])
    assert str(error.value) == (
      f'image 1 of birds has label {wrong}, outside 0..4; use a split with labels, or '
      'prepare the set anew'
    )


def test_an_image_without_a_label_is_refused_where_each_has_one():
  with pytest.raises(UserError, match=r'image 1 of birds has no label; .*label_key'):
    examples.pad_labels([[0], []], 5, 1, lambda row: f'image {row} of birds')


def test_both_parts_are_in_memory_or_neither(on_tfds, tfds_dir, monkeypatch):
  # Room for the six images of 8x8 pixels for tests, and not for the twenty others.
  monkeypatch.setattr(memory, '_MOST_BYTES', 6 * 8 * 8 * 3)
  sources._load.cache_clear()
  train, test = sources.load(on_tfds, str(tfds_dir))
  assert train.images is None
  assert test.images is None
  sources._load.cache_clear()


def test_tfds_of_many_shapes(on_tfds, tfds_dir):
  from scaling.data.decode import decode

  on_tfds.update(name='tiny_shapes', train_split='train[5:]')
  train, test = sources.load(on_tfds, str(tfds_dir))
  assert train.images is None
  assert train.num_images == 15
  ids = np.array([14, 2, 2, 9])
  images = [decode(encoded, 3, 'x') for encoded in train.encoded(ids)]
  for image, label in zip(images, train.labels(ids)[:, 0], strict=True):
    assert len(image) == 8 + image[0, 0, 0]
    assert label == image[0, 0, 0] % 5
  assert train.fingerprint != test.fingerprint
  assert train.where(2).startswith('image 2 of tiny_shapes, split train[5:]')


def test_tfds_bad_config(on_tfds, tfds_dir):
  def refuses(message, **changes):
    config = on_tfds.copy_and_resolve_references()
    config.update(changes)
    with pytest.raises(UserError, match=message):
      sources.load(config, str(tfds_dir))

  refuses(
    r"data\.image_key='picture' is no feature .*image, label, word", image_key='picture'
  )
  refuses(r"data\.label_key='word' is neither a class", label_key='word')
  refuses(r"data\.image_key='word' is no 8-bit image", image_key='word')
  refuses(r"'val' is no split of tiny_single; .* train, test", test_split='val')
  refuses(r'tiny_single, train\[:0\]: there are no images', train_split='train[:0]')
  refuses(r'set data\.num_classes=5', num_classes=10)
  refuses(r'set data\.image_size=8', image_size=32)


@pytest.mark.parametrize(
  'name', ['mnist', 'no_such_set', 'cifar10:1.0.0', 'not a name']
)
def test_tfds_not_prepared(on_tfds, tmp_path, name, monkeypatch):
  on_tfds.name = name
  command = r'`tfds build .* --file_format=array_record --data_dir=.*`'
  assert not sources.at_hand(on_tfds, str(tmp_path))
  with pytest.raises(UserError, match=command) as caught:
    sources.load(on_tfds, str(tmp_path))
  assert '\n' not in str(caught.value)
  assert "pip install 'tensorflow-datasets[tensorflow]'" in str(caught.value)
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'elsewhere'))
  with pytest.raises(UserError, match='elsewhere'):
    sources.load(on_tfds)


def test_tfds_in_another_format(on_tfds, tfds_dir, tmp_path):
  import shutil

  shutil.copytree(tfds_dir / 'tiny_single', tmp_path / 'tiny_single')
  info = tmp_path / 'tiny_single' / '1.0.0' / 'dataset_info.json'
  info.write_text(info.read_text().replace('array_record', 'tfrecord'))
  with pytest.raises(
    UserError, match=r'prepared as tfrecord .*--file_format=array_record'
  ):
    sources.load(on_tfds, str(tmp_path))


def test_tfds_truncated_file(on_tfds, tfds_dir, tmp_path):
  import shutil

  shutil.copytree(tfds_dir / 'tiny_single', tmp_path / 'tiny_single')
  (path,) = (tmp_path / 'tiny_single' / '1.0.0').glob('*-train.array_record*')
  path.write_bytes(path.read_bytes()[:3000])
  with pytest.raises(UserError, match=r'no whole ArrayRecord file .*prepare it anew'):
    sources.load(on_tfds, str(tmp_path))


@pytest.mark.parametrize(('part', 'odd'), [('train', 0), ('train', 7), ('test', 0)])
def test_tfds_corrupt_images_stop_or_are_skipped(
  on_tfds, tfds_dir, tmp_path, part, odd
):
  import shutil

  from array_record.python.array_record_module import ArrayRecordWriter

  shutil.copytree(tfds_dir / 'tiny_single', tmp_path / 'tiny_single')
  (path,) = (tmp_path / 'tiny_single' / '1.0.0').glob(f'*-{part}.array_record*')
  num = {'train': 20, 'test': 6}[part]
  records = Records([Shard(str(path), 0, num, num)])(np.arange(num))
  records[odd] = records[odd].replace(b'IDAT', b'IDAX')
  writer = ArrayRecordWriter(str(path), 'group_size:1')
  for record in records:
    writer.write(record)
  writer.close()
  message = f'image {odd} of tiny_single, split {part}, is no readable image'
  if part == 'train':  # where it is met
    train, _ = sources.load(on_tfds, str(tmp_path))
    rest = np.delete(np.arange(20), odd)
    assert len(train.images(rest)) == 19
    with pytest.raises(CorruptError, match=message):
      train.images(np.arange(20))
  else:  # before anything is trained
    with pytest.raises(CorruptError, match=message):
      sources.load(on_tfds, str(tmp_path))
  on_tfds.corrupt = 'skip'
  train, test = sources.load(on_tfds, str(tmp_path))
  assert train.images is test.images is None
  assert len(train.encoded(np.arange(20))) == 20
  # One image changed, and small sets are known by every byte.
  whole = sources.load(on_tfds, str(tfds_dir))
  assert whole[0].images is not None
  changed = [
    one.fingerprint != other.fingerprint
    for one, other in zip(whole, (train, test), strict=True)
  ]
  assert changed == [part == 'train', part == 'test']


@pytest.fixture
def several(on_tfds, tfds_dir, tmp_path):
  """A copy of the set in three shards of 7, 7 and 6 images."""
  import json
  import shutil

  from array_record.python.array_record_module import ArrayRecordWriter

  shutil.copytree(tfds_dir / 'tiny_single', tmp_path / 'tiny_single')
  home = tmp_path / 'tiny_single' / '1.0.0'
  (path,) = home.glob('*-train.array_record*')
  records = Records([Shard(str(path), 0, 20, 20)])(np.arange(20))
  path.unlink()
  for i in range(3):
    name = path.name.replace('00000-of-00001', f'{i:05}-of-00003')
    writer = ArrayRecordWriter(str(home / name), 'group_size:1')
    for record in records[7 * i : 7 * i + 7]:
      writer.write(record)
    writer.close()
  info = json.loads((home / 'dataset_info.json').read_text())
  for split in info['splits']:
    if split['name'] == 'train':
      split['shardLengths'] = ['7', '7', '6']
  (home / 'dataset_info.json').write_text(json.dumps(info))
  return tmp_path


@pytest.mark.parametrize('part', ['30%:80%', '5:20', '-3:', '0:', '6:8'])
def test_parts_over_several_shards(on_tfds, several, tfds_dir, part):
  whole, _ = sources.load(on_tfds, str(tfds_dir))
  numbers = [int(n[:-1]) / 5 if '%' in n else int(n or 0) for n in part.split(':')]
  start, end = int(numbers[0]), int(numbers[1]) or None
  on_tfds.train_split = f'train[{part}]'
  train, _ = sources.load(on_tfds, str(several))
  expected = whole.images(np.arange(20))[slice(start, end)]
  assert (train.images(np.arange(train.num_images)) == expected).all()


def test_shards_that_are_not_those_described(on_tfds, several):
  home = several / 'tiny_single' / '1.0.0'
  _, second, _ = sorted(home.glob('*-train.array_record*'))
  info = (home / 'dataset_info.json').read_text()
  (home / 'dataset_info.json').write_text(info.replace('"7", "7"', '"8", "6"'))
  with pytest.raises(UserError, match=r'00000-of-00003 has 7 records of 8; prepare'):
    sources.load(on_tfds, str(several))
  (home / 'dataset_info.json').write_text(info)
  second.unlink()
  with pytest.raises(UserError, match=r'00001-of-00003 is no whole ArrayRecord file'):
    sources.load(on_tfds, str(several))
  on_tfds.train_split = 'train[5:3]'
  for load in (sources.load, sources.load_as_found):
    with pytest.raises(UserError, match=r'train\[5:3\]'):
      load(on_tfds, str(several))
  (home / 'dataset_info.json').write_text('{')
  with pytest.raises(UserError, match=r'tiny_single in .* cannot be read .*prepare'):
    sources.load(on_tfds, str(several))


@pytest.mark.skipif(not CIFAR_DIR, reason='needs SCALING_TFDS_DIR with cifar10 in it')
def test_cifar10(on_tfds):
  on_tfds.update(name='cifar10', num_classes=10, image_size=32)
  train, test = sources.load(on_tfds, CIFAR_DIR)
  assert (train.num_images, test.num_images) == (50_000, 10_000)
  assert np.bincount(train.labels(everything(train))[:, 0]).tolist() == [5000] * 10
  # The means of the channels as everybody uses them.
  mean = train.images(everything(train)).mean((0, 1, 2)) / 255
  np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=1e-4)
