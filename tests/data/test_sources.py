"""Every source, whole and broken. The sets are tiny and made on the spot."""

import gzip
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from scaling.data import folder as folder_lib
from scaling.data import sources, split
from scaling.errors import UserError

FASHION = pathlib.Path('/usr/share/datasets/fashion-mnist')
CIFAR_DIR = os.environ.get('SCALING_TFDS_DIR')


def everything(split):
  return np.arange(split.num_images)


def test_importing_is_light():
  code = (
    'import sys, scaling.data.pipeline, scaling.data.sources, scaling.data.augment;'
    "heavy = {'tensorflow', 'tensorflow_datasets', 'sklearn', 'PIL', 'array_record'};"
    'print(sorted(heavy & set(sys.modules)));'
    'import jax._src.xla_bridge as bridge; print(bridge.backends_are_initialized())'
  )
  output = subprocess.check_output([sys.executable, '-c', code], text=True)
  assert output.split() == ['[]', 'False']


def test_sets_are_loaded_once_for_all_cells(data):
  first = sources.load(data)
  data.num_images = 12
  data.subset_seed = 5
  assert sources.load(data) is first
  data.made_up_train = 99
  assert sources.load(data)[0].num_images == 99


# digits


@pytest.fixture
def digits(data):
  data.update(source='digits', image_size=8, channels=1)
  return data


def test_digits(digits):
  assert sources.at_hand(digits)
  train, test = sources.load(digits)
  assert train.num_images + test.num_images == 1797
  images = train.images(everything(train))
  assert images.shape[1:] == (8, 8, 1)
  assert images.dtype == np.uint8
  assert images.max() == 255
  labels = [np.bincount(s.labels(everything(s))[:, 0]) for s in (train, test)]
  # A fifth of each class, to the nearest image.
  assert (np.rint(0.2 * (labels[0] + labels[1])) == labels[1]).all()
  assert train.fingerprint != test.fingerprint
  assert train.label_names == tuple('0123456789')


def test_digits_are_those_of_scikit_learn_s_own_reader(digits, monkeypatch):
  own = sources.load(digits)[0].fingerprint
  sources._load.cache_clear()
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  assert sources.load(digits)[0].fingerprint == own


def test_digits_test_part_does_not_depend_on_seeds(digits):
  first = sources.load(digits)[1].images(np.arange(5))
  digits.order_seed = digits.subset_seed = 9
  sources._load.cache_clear()
  assert (sources.load(digits)[1].images(np.arange(5)) == first).all()


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('num_classes', 7, r'data\.num_classes=7 .* set data\.num_classes=10'),
    ('image_size', 32, r'data\.image_size=32 .*8x8 pixels; set data\.image_size=8'),
    ('channels', 3, r'data\.channels=3 .* set data\.channels=1'),
    ('test_fraction', 1.5, r'data\.test_fraction=1\.5'),
  ],
)
def test_digits_and_config_disagree(digits, field, value, message):
  digits[field] = value
  with pytest.raises(UserError, match=message):
    sources.load(digits)


# made_up


def test_made_up_is_a_function_of_the_index(data):
  data.update(num_classes=20_000, max_labels=4)
  train, test = sources.load(data)
  ids = np.array([7, 4000, 7, 12])
  assert (train.images(ids)[0] == train.images(ids[2:])[0]).all()
  assert (train.images(ids)[0] != test.images(ids)[0]).any()
  labels = train.labels(everything(train))
  assert labels.shape == (4096, 4)
  counts = (labels >= 0).sum(1)
  assert set(counts) == {1, 2, 3, 4}
  assert labels.max() < 20_000
  for row, count in zip(labels, counts, strict=True):
    assert len(set(row[:count])) == count
    assert (row[count:] == -1).all()


def test_made_up_labels_of_few_classes_stay_distinct(data):
  data.update(num_classes=4, max_labels=4)
  labels = sources.load(data)[0].labels(np.arange(4000))
  full = labels[(labels >= 0).all(1)]
  assert (np.sort(full, 1) == np.arange(4)).all()
  single = labels[(labels >= 0).sum(1) == 1, 0]
  assert np.bincount(single).min() > 150  # of about 250 each


def test_made_up_can_be_learned(data, linear_error):
  assert linear_error(*sources.load(data), 1500) < 0.5  # chance is 0.9


def test_made_up_needs_as_many_classes_as_labels(data):
  data.update(num_classes=3, max_labels=4)
  with pytest.raises(UserError, match=r'data\.max_labels=4 .*data\.num_classes=3'):
    sources.load(data)


# folder


def fill(folder, counts, png):
  for name, count in counts.items():
    (folder / name).mkdir(parents=True)
    for number in range(count):
      pixels = np.full((6, 6, 3), number, np.uint8)
      (folder / name / f'{number}.PNG').write_bytes(png(pixels))


@pytest.fixture
def on_folder(data):
  data.update(source='folder', num_classes=2, image_size=6)
  return data


def test_folder_with_a_test_part(on_folder, tmp_path, png):
  fill(tmp_path / 'train', {'dog': 3, 'cat': 2}, png)
  fill(tmp_path / 'test', {'cat': 1, 'dog': 1}, png)
  (tmp_path / 'train' / 'cat' / '.hidden.png').write_bytes(b'')
  (tmp_path / 'train' / 'cat' / 'notes.txt').write_text('no image')
  (tmp_path / 'train' / '.cache').mkdir()
  assert sources.at_hand(on_folder, str(tmp_path))
  train, test = sources.load(on_folder, str(tmp_path))
  assert train.label_names == ('cat', 'dog')
  assert train.labels(np.arange(5))[:, 0].tolist() == [0, 0, 1, 1, 1]
  assert test.num_images == 2
  assert train.where(3) == str(tmp_path / 'train' / 'dog' / '1.PNG')
  assert train.encoded(np.array([3])) == [pathlib.Path(train.where(3)).read_bytes()]
  assert train.images is None


def test_folder_without_a_test_part(on_folder, tmp_path, png):
  fill(tmp_path, {'a': 10, 'b': 5}, png)
  train, test = sources.load(on_folder, str(tmp_path))
  assert np.bincount(train.labels(everything(train))[:, 0]).tolist() == [8, 4]
  assert np.bincount(test.labels(everything(test))[:, 0]).tolist() == [2, 1]
  paths = {s.where(i) for s in (train, test) for i in range(s.num_images)}
  assert len(paths) == 15


def test_folder_fingerprint_follows_the_files(on_folder, tmp_path, png):
  fill(tmp_path / 'one', {'a': 3, 'b': 3}, png)
  fill(tmp_path / 'two', {'a': 3, 'b': 3}, png)
  prints = [
    sources.load(on_folder, str(tmp_path / n))[0].fingerprint for n in ('one', 'two')
  ]
  assert prints[0] == prints[1]
  sources._load.cache_clear()
  with (tmp_path / 'two' / 'a' / '0.PNG').open('ab') as file:
    file.write(b'more')
  (tmp_path / 'two' / 'b' / '1.PNG').rename(tmp_path / 'two' / 'b' / '9.PNG')
  changed = sources.load(on_folder, str(tmp_path / 'two'))
  assert {s.fingerprint for s in changed}.isdisjoint(prints)


def test_a_folder_that_is_both_parts_is_seen(on_folder, tmp_path, png):
  fill(tmp_path / 'train', {'a': 3, 'b': 3}, png)
  (tmp_path / 'test').symlink_to(tmp_path / 'train')
  train, test = sources.load(on_folder, str(tmp_path))
  assert train.fingerprint == test.fingerprint  # by which training refuses it


def test_of_many_files_some_sizes_are_looked_at(on_folder, tmp_path, png, monkeypatch):
  monkeypatch.setattr('scaling.data.folder._SIZES', 2)
  fill(tmp_path / 'train', {'a': 3, 'b': 3}, png)
  fill(tmp_path / 'test', {'a': 1, 'b': 1}, png)
  before, _ = folder_lib.load(on_folder, str(tmp_path))
  with (tmp_path / 'train' / 'b' / '0.PNG').open('ab') as file:  # the fourth
    file.write(b'more')
  after, _ = folder_lib.load(on_folder, str(tmp_path))
  assert after.fingerprint != before.fingerprint


def test_pixels_that_changed_are_other_images(on_folder, tmp_path, png):
  fill(tmp_path, {'a': 3, 'b': 3}, png)
  before, _ = sources.load(on_folder, str(tmp_path))
  sources._load.cache_clear()
  path = next((tmp_path / 'a').iterdir())
  content = bytearray(path.read_bytes())
  content[-20] ^= 1  # of the same size
  path.write_bytes(content)
  assert sources.load(on_folder, str(tmp_path))[0].fingerprint != before.fingerprint
  images, labels = np.zeros((900, 4, 4, 1), np.uint8), np.zeros((900, 1), np.int32)
  prints = {split.in_memory(images, labels, ['a']).fingerprint}
  images[701, 2, 2] = 1
  prints.add(split.in_memory(images, labels, ['a']).fingerprint)
  assert len(prints) == 2


@pytest.mark.parametrize('source', ['array_record', 'csv', 'folder', 'idx', 'tfds'])
def test_sources_that_need_a_disk_say_so(data, source):
  data.update(source=source, num_classes=2)
  for load in (sources.load, sources.load_as_found):
    with pytest.raises(UserError, match=r'gs://b/x: .* mount the bucket, or use .*tar'):
      load(data, 'gs://b/x')


def test_folder_bad_input(on_folder, tmp_path, png):
  def refuses(message, folder=tmp_path):
    sources._load.cache_clear()
    with pytest.raises(UserError, match=message):
      sources.load(on_folder, folder and str(folder))

  assert not sources.at_hand(on_folder)
  refuses(r'needs --data_dir=FOLDER', None)
  refuses(r'--data_dir=.*nowhere is no folder', tmp_path / 'nowhere')
  refuses(r'has no class folders')
  fill(tmp_path, {'a': 1, 'b': 1}, png)
  refuses(r'data\.test_fraction=0\.2 leaves no test image')
  (tmp_path / 'empty').mkdir()
  refuses(r'/empty is a class without images')
  fill(tmp_path / 'train', {'a': 1, 'b': 1}, png)
  refuses(r'/test is missing; add it')
  fill(tmp_path / 'test', {'a': 1, 'c': 1}, png)
  refuses(r"must hold the same classes; 'b' is in one only")


def test_folder_file_that_went_away(on_folder, tmp_path, png):
  fill(tmp_path, {'a': 4, 'b': 4}, png)
  train, _ = sources.load(on_folder, str(tmp_path))
  pathlib.Path(train.where(0)).unlink()
  with pytest.raises(UserError, match=r'\.PNG cannot be read any more'):
    train.encoded(np.array([0]))


# idx


def idx_bytes(array: np.ndarray) -> bytes:
  header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, '>u4').tobytes()
  return header + array.tobytes()


@pytest.fixture
def on_idx(data, tmp_path):
  data.update(
    source='idx',
    name='tiny-mnist',
    train_split='train',
    test_split='t10k',
    num_classes=4,
    image_size=5,
    channels=1,
  )
  images = np.arange(8 * 25, dtype=np.uint8).reshape(8, 5, 5)
  labels = np.arange(8, dtype=np.uint8) % 4
  for prefix, count in (('train', 8), ('t10k', 4)):
    stem = tmp_path / prefix
    content = gzip.compress(idx_bytes(images[:count]))
    stem.with_name(f'{prefix}-images-idx3-ubyte.gz').write_bytes(content)
    stem.with_name(f'{prefix}-labels-idx1-ubyte').write_bytes(idx_bytes(labels[:count]))
  return data


def test_idx(on_idx, tmp_path):
  assert sources.at_hand(on_idx, str(tmp_path))
  train, test = sources.load(on_idx, str(tmp_path))
  assert (train.num_images, test.num_images) == (8, 4)
  assert train.images(np.array([1]))[0, :, :, 0].ravel().tolist() == list(range(25, 50))
  assert train.labels(np.arange(5)).tolist() == [[0], [1], [2], [3], [0]]


def test_idx_bad_input(on_idx, tmp_path):
  images = tmp_path / 'train-images-idx3-ubyte.gz'
  labels = tmp_path / 'train-labels-idx1-ubyte'

  def refuses(message, path, content):
    before = path.read_bytes()
    path.write_bytes(content)
    sources._load.cache_clear()
    with pytest.raises(UserError, match=message):
      sources.load(on_idx, str(tmp_path))
    path.write_bytes(before)

  whole, plain = images.read_bytes(), labels.read_bytes()
  refuses(r'images-idx3-ubyte\.gz cannot be read', images, whole[:-20])
  refuses(r'images-idx3-ubyte\.gz cannot be read', images, b'no gzip')
  refuses(r'images-idx3-ubyte\.gz cannot be read', images, whole[:20] + b'x' * 40)
  refuses(r"starts with '00000801', not '00000803'", images, gzip.compress(plain))
  refuses(r"labels-idx1-ubyte starts with ''", labels, b'')
  refuses(r'has 7 bytes of data where its header promises 8', labels, plain[:-1])
  short = idx_bytes(np.zeros(7, np.uint8))
  beyond = idx_bytes(np.array([0, 1, 2, 3, 0, 1, 2, 9], np.uint8))
  refuses(r'data\.num_classes=4 but .* has 10 classes', labels, beyond)
  refuses(r'8 images but train-labels-idx1-ubyte 7 labels', labels, short)
  labels.unlink()
  assert not sources.at_hand(on_idx, str(tmp_path))
  with pytest.raises(UserError, match=r'`apt-get install dataset-tiny-mnist` or pass'):
    sources.load(on_idx, str(tmp_path))
  with pytest.raises(UserError, match=r'/usr/share/datasets/tiny-mnist/train-images'):
    sources.load(on_idx)


@pytest.mark.skipif(
  not FASHION.is_dir(), reason='needs apt install dataset-fashion-mnist'
)
def test_fashion_mnist(data):
  data.update(
    source='idx',
    name='fashion-mnist',
    train_split='train',
    test_split='t10k',
    image_size=28,
    channels=1,
  )
  assert sources.at_hand(data)
  train, test = sources.load(data)
  assert (train.num_images, test.num_images) == (60_000, 10_000)
  counts = np.bincount(train.labels(everything(train))[:, 0])
  assert counts.tolist() == [6000] * 10
  # The published mean of the training pixels.
  assert abs(train.images(everything(train)).mean() / 255 - 0.2860) < 1e-4


def test_folders_for_processes_elsewhere(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  here = str(tmp_path)
  assert sources.absolute(None) is None
  assert sources.absolute('sets') == f'{here}/sets'
  assert sources.absolute('a,b') == f'{here}/a,b'  # one folder
  for same in ('/sets', '~/sets', 's3://bucket/sets', 'mine=/a,other=gs://b/c,~'):
    assert sources.absolute(same) == same
  assert sources.absolute('mine=a,b') == f'mine={here}/a,{here}/b'


@pytest.mark.parametrize(
  ('data_dir', 'folder'),
  [
    (None, None),
    ('/sets', '/sets'),
    ('/sets/a=b', '/sets/a=b'),
    ('/sets,all', '/sets,all'),
    ('mine=/one,other=/two', '/one'),
    ('other=/two,/rest', '/rest'),
    ('other=/two', None),
    ('mine=gs://bucket/a=b', 'gs://bucket/a=b'),
  ],
)
def test_folder_of_one_of_several_sets(data_dir, folder):
  assert sources.folder_of('mine', data_dir) == folder


def test_two_folders_for_the_rest():
  with pytest.raises(UserError, match='2 folders without a name'):
    sources.folder_of('mine', 'other=/two,/three,/four')
