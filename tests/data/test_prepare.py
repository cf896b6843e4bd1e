"""Plans and shards of a prepared set, and the folder that they come together in."""

import dataclasses
import json
import resource
import signal

import numpy as np
import pytest

from scaling.data import records
from scaling.data.prepare import plans, prepared
from scaling.data.prepare.plans import Options
from scaling.data.prepare.shards import write_shard
from scaling.data.split import Split, in_memory
from scaling.errors import UserError

NOISE = np.random.default_rng(0)


@pytest.fixture(scope='module')
def files(png):
  """60 image files of some 100 kB, each its own class modulo 3."""
  return [png(NOISE.integers(0, 256, (180, 190, 3), np.uint8)) for _ in range(60)]


def from_files(files, labels=None, fingerprint='files'):
  labels = labels or [[i % 3] for i in range(len(files))]
  table = np.full((len(files), 4), -1, np.int32)
  for row, some in zip(table, labels, strict=True):
    row[: len(some)] = some

  def encoded(ids):
    found = [files[i] for i in ids]
    if None in found:
      raise UserError('image is gone')
    return found

  return Split(
    num_images=len(files),
    num_classes=3,
    labels=table.__getitem__,
    images=None,
    encoded=encoded,
    label_names=('ant', 'bee', 'cow'),
    fingerprint=fingerprint,
    where=lambda i: f'/data/{i}.png',
  )


def make_all(folder, splits, options=None, skip=False):
  """Prepares a set as the command line does; returns its plan and shards."""
  options = options or Options(shard_mb=1)
  with prepared.opened(folder):
    plan = prepared.open_plan(
      folder,
      prepared.asked('folder', splits, options),
      lambda: plans.make_plan('tiny', splits, options, skip=skip),
    )
    shards = prepared.whole(folder, plan)
    for part, shard in plan.shards():
      if (part, shard) not in shards:
        write(folder, splits, plan, part, shard, skip)
    shards = prepared.whole(folder, plan)
    prepared.finish(folder, plan, shards, splits['train'].label_names)
  return plan, shards


def write(folder, splits, plan, part, shard, skip=False):
  written = write_shard(
    splits[part], plan, part, shard, folder=folder,
    work=prepared.work_folder(folder), skip=skip, root='/data',
  )  # fmt: skip
  prepared.keep(folder, part, shard, written)
  return written


def contents(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_every_image_is_in_one_shard(files):
  splits = {'train': from_files(files), 'test': from_files(files[:7])}
  plan = plans.make_plan('tiny', splits, Options(shard_mb=1, seed=3), skip=False)
  assert plan.num_images == {'train': 60, 'test': 7}
  assert plan.num_shards == {'train': 6, 'test': 1}  # of 6.2 and 0.7 megabytes
  ids = [plan.ids('train', shard) for shard in range(6)]
  assert {len(some) for some in ids} == {10}
  assert sorted(np.concatenate(ids)) == list(range(60))
  assert (np.sort(ids[0]) != np.arange(10)).any()
  other = dataclasses.replace(plan, seed=4)
  assert (other.ids('train', 0) != ids[0]).any()
  assert plan.file_name('train', 2) == 'tiny-train.array_record-00002-of-00006'


def test_what_a_plan_finds_out(files, png):
  grey = [png(np.full((5, 6), i, np.uint8)) for i in range(4)]

  def plan(train, test=None, **options):
    splits = {'train': train, 'test': test or train}
    return plans.make_plan('tiny', splits, Options(**options), skip=False)

  assert plan(from_files(grey)).channels == 1
  assert plan(from_files(grey), channels=3).channels == 3
  assert plan(from_files(grey), from_files([*grey, files[0]])).channels == 3
  assert not plan(from_files(grey)).several
  for labels in ([[0], [1], [], [2]], [[0], [1], [1, 2], [2]]):
    assert plan(from_files(grey), from_files(grey, labels)).several
  pixels = in_memory(np.zeros((3, 9, 8, 1), np.uint8), np.zeros((3, 1), np.int32), 'ab')
  found = plan(pixels)
  assert (found.height, found.width, found.channels) == (9, 8, 1)
  with pytest.raises(UserError, match=r'--short_side=4 is for image files'):
    plan(pixels, short_side=4)
  with pytest.raises(UserError, match=r'--channels=3, but the images have 1'):
    plan(pixels, channels=3)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'quality': 0}, r'--quality=0 must be from 1 to 95'),
    ({'quality': 100}, r'--quality=100'),
    ({'short_side': -1}, r'--short_side=-1'),
    ({'shard_mb': 0}, r'--shard_mb=0'),
    ({'channels': 2}, r'--channels=2 must be 1 \(grey\) or 3'),
  ],
)
def test_options_that_cannot_be(options, message):
  with pytest.raises(UserError, match=message):
    Options(**options).check()


def test_records_are_examples(files, tmp_path):
  from tensorflow_datasets.proto import tf_example_pb2

  splits = {'train': from_files(files[:5]), 'test': from_files(files[5:8])}
  folder = tmp_path / 'tiny' / '1.0.0'
  plan, shards = make_all(folder, splits)
  written = shards['train', 0]
  path = folder / plan.file_name('train', 0)
  assert written.num_images == records.count(str(path)) == 5
  read = records.Records([records.Shard(str(path), 0, 5, 5)])(np.arange(5))
  assert written.num_bytes == sum(map(len, read))
  for record, image in zip(read, plan.ids('train', 0), strict=True):
    feature = tf_example_pb2.Example.FromString(record).features.feature
    assert feature['image'].bytes_list.value[0] == files[image]
    assert feature['label'].int64_list.value == [image % 3]
    assert feature['id'].bytes_list.value[0] == f'{image}.png'.encode()
  names = {
    'dataset_info.json', 'features.json', 'label.labels.txt', 'SHA256SUMS',
    'prepare.json', *(plan.file_name(*shard) for shard in shards),
  }  # fmt: skip
  assert set(contents(folder)) == names
  assert {path.name for path in folder.iterdir()} == names


def test_interrupted_or_not_the_files_are_equal(files, tmp_path):
  splits = {'train': from_files(files[:25]), 'test': from_files(files[:12])}
  whole, broken = tmp_path / 'a' / '1.0.0', tmp_path / 'b' / '1.0.0'
  plan, _ = make_all(whole, splits)
  assert plan.num_shards == {'train': 3, 'test': 1}

  def dying(ids):
    if 7 in ids:
      raise KeyboardInterrupt
    return splits['train'].encoded(ids)

  dying_splits = splits | {'train': dataclasses.replace(splits['train'], encoded=dying)}
  with prepared.opened(broken):
    prepared.open_plan(
      broken, prepared.asked('folder', splits, Options(shard_mb=1)), lambda: plan
    )
    for part, shard in reversed(plan.shards()):
      if 7 in plan.ids(part, shard) and part == 'train':
        with pytest.raises(KeyboardInterrupt):
          write(broken, dying_splits, plan, part, shard)
        break
      write(broken, dying_splits, plan, part, shard)
  assert 0 < len(prepared.whole(broken, plan)) < 4
  assert not list(prepared.work_folder(broken).glob('*.array_record*'))
  make_all(broken, splits)
  assert contents(broken) == contents(whole)


def test_a_shard_that_changed_is_written_anew(files, tmp_path):
  splits = {'train': from_files(files[:12]), 'test': from_files(files[:3])}
  folder = tmp_path / 'tiny' / '1.0.0'
  request = prepared.asked('folder', splits, Options(shard_mb=1))
  with prepared.opened(folder):
    plan = prepared.open_plan(
      folder, request, lambda: plans.make_plan('t', splits, Options(), skip=False)
    )
    for part, shard in plan.shards():
      write(folder, splits, plan, part, shard)
    path = folder / plan.file_name('test', 0)
    before = path.read_bytes()
    path.write_bytes(before[:-100])
    assert set(prepared.whole(folder, plan)) == {('train', 0)}
    shards = {shard: write(folder, splits, plan, *shard) for shard in plan.shards()}
    assert path.read_bytes() == before
    # Of the same size, but no file of records.
    path.write_bytes(b'x' * len(before))
    with pytest.raises(UserError, match=r'is no whole ArrayRecord file'):
      prepared.finish(folder, plan, shards, ['a'])
    assert not (folder / 'dataset_info.json').exists()


def test_another_request_is_refused(files, tmp_path):
  splits = {'train': from_files(files[:5]), 'test': from_files(files[:3])}
  folder = tmp_path / 'tiny' / '1.0.0'

  def begin(options, splits=splits, source='folder'):
    with prepared.opened(folder):
      return prepared.open_plan(
        folder,
        prepared.asked(source, splits, options),
        lambda: plans.make_plan('tiny', splits, options, skip=False),
      )

  plan = begin(Options())
  assert begin(Options()) == plan
  changed = splits | {'test': from_files(files[:3], fingerprint='new')}
  for message, *request in (
    (r'flags\.short_side is 0 there and 64 here', Options(short_side=64)),
    (r'flags\.seed is 0 there and 1 here', Options(seed=1)),
    (r'input\.test\.fingerprint is files there and new here', Options(), changed),
    (r'input\.source is folder there and csv here', Options(), splits, 'csv'),
  ):
    with pytest.raises(UserError, match=message) as error:
      begin(*request)
    assert 'use another --name or --out, or remove the folder' in str(error.value)


def test_finished_and_busy_folders_are_refused(files, tmp_path):
  splits = {'train': from_files(files[:5]), 'test': from_files(files[:3])}
  folder = tmp_path / 'tiny' / '1.0.0'
  with (
    prepared.opened(folder),
    pytest.raises(UserError, match=r'is being prepared by another process'),
    prepared.opened(folder),
  ):
    pass
  make_all(folder, splits)
  with (
    pytest.raises(UserError, match=r'prepared already; use another --name or --out'),
    prepared.opened(folder),
  ):
    pass


def test_without_a_plan_nothing_is_left(tmp_path):
  folder = tmp_path / 'tiny' / '1.0.0'
  with pytest.raises(UserError, match=r'no such set'), prepared.opened(folder):
    raise UserError('no such set')
  assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path):
  (tmp_path / 'file').write_text('')
  with (
    pytest.raises(UserError, match=r'--out: .*file/tiny cannot be written \(Not a dir'),
    prepared.opened(tmp_path / 'file' / 'tiny'),
  ):
    pass


def test_corrupt_images_stop_or_are_skipped(files, tmp_path):
  broken: list = list(files[:9])
  broken[4], broken[6] = broken[4][:500], None
  splits = {'train': from_files(broken), 'test': from_files(files[:3])}
  folder = tmp_path / 'tiny' / '1.0.0'
  with pytest.raises(UserError, match=r'mend it, or leave .* by --corrupt=skip'):
    make_all(folder, splits)
  _, shards = make_all(folder, splits, skip=True)
  assert sum(w.num_images for (part, _), w in shards.items() if part == 'train') == 7
  header, *lines = (folder / 'skipped.csv').read_text().splitlines()
  assert header == 'part,image,where,reason'
  assert sorted(line.split(',')[:3] for line in lines) == [
    ['train', '4', '/data/4.png'],
    ['train', '6', '/data/6.png'],
  ]
  assert any('is no readable image' in line for line in lines)
  assert any('image is gone' in line for line in lines)
  info = json.loads((folder / 'dataset_info.json').read_text())
  (train,) = [split for split in info['splits'] if split['name'] == 'train']
  assert train['shardLengths'] == ['7']
  prepared.check_skipped(shards, skip=True)
  with pytest.raises(UserError, match=r'/data/\d.png .* left out by --corrupt=skip'):
    prepared.check_skipped(shards, skip=False)


def test_no_image_left(tmp_path):
  splits = {'train': from_files([b'x'] * 3), 'test': from_files([b'x'])}
  with pytest.raises(UserError, match=r'none of 3 images of the train part'):
    make_all(tmp_path / 'tiny' / '1.0.0', splits, skip=True)


def test_colour_beyond_the_sample_is_named(files, tmp_path, png, monkeypatch):
  monkeypatch.setattr(plans, '_SAMPLED', 3)
  grey = [png(np.full((5, 6), i, np.uint8)) for i in range(30)]
  splits = {'train': from_files(grey), 'test': from_files(grey[:3])}
  plan = plans.make_plan('tiny', splits, Options(), skip=True)
  splits['train'] = from_files([*grey[:-1], files[0]])
  late = plan.num_images['train'] - 1
  assert late in plan.ids('train', 0)[3:]
  folder = tmp_path / 'tiny' / '1.0.0'
  with prepared.opened(folder), pytest.raises(UserError, match=r'--channels=3'):
    write(folder, splits, plan, 'train', 0, skip=True)


@pytest.fixture
def full_disk():
  """Returns a function that limits the size of files, as a full disk would."""
  before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead
  free = resource.getrlimit(resource.RLIMIT_FSIZE)
  yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, free[1]))
  resource.setrlimit(resource.RLIMIT_FSIZE, free)
  signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize('size', [100_000, 900_000])
def test_a_full_disk_keeps_whole_shards(files, tmp_path, full_disk, size):
  splits = {'train': from_files(files[:22]), 'test': from_files(files[:3])}
  folder = tmp_path / 'tiny' / '1.0.0'
  with prepared.opened(folder):
    plan = prepared.open_plan(
      folder,
      prepared.asked('folder', splits, Options(shard_mb=1)),
      lambda: plans.make_plan('tiny', splits, Options(shard_mb=1), skip=False),
    )
    write(folder, splits, plan, 'train', 0)
    full_disk(size)
    with pytest.raises(
      UserError, match=r'1\.0\.0 (cannot be written|is full)'
    ) as error:
      write(folder, splits, plan, 'train', 1)
    assert 'run the same command again' in str(error.value)
    full_disk(resource.RLIM_INFINITY)
    assert set(prepared.whole(folder, plan)) == {('train', 0)}
    assert {path.name for path in prepared.work_folder(folder).iterdir()} == {
      'plan.json', 'lock', 'train-00000.json',
    }  # fmt: skip
  make_all(folder, splits)


@pytest.mark.parametrize('name', ['Photos', '1st', 'my-set', '', 'a/b', 'cifar10'])
def test_names_that_tfds_could_not_find(name):
  with pytest.raises(UserError, match=f'--name={name} '):
    prepared.check_name(name)
  prepared.check_name('my_photos_2')
