"""`scaling data prepare` and `scaling data inspect`, as people use them."""

import contextlib
import csv
import hashlib
import io
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest

from configs import base
from scaling.data import sources
from scaling.errors import UserError

# ml_collections loads config files in a way that Python 3.11 already warns about.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def call(call):
  """`call`, with 'data' for its first word; `error` then has it too."""
  return lambda *words: call('data', *words)


def picture(path, pixels):
  from PIL import Image

  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A folder of 60 + 12 noisy images of about 80 kB in 3 classes."""
  root = tmp_path_factory.mktemp('photos')
  noise = np.random.default_rng(0)
  for part, count in (('train', 20), ('test', 4)):
    for name in ('ant', 'bee', 'cow'):
      for number in range(count):
        pixels = noise.integers(0, 256, (150, 160 + number, 3), np.uint8)
        picture(root / part / name / f'{number}.png', pixels)
  return root


def data_of(source, **fields):
  data = base.get_config().data
  data.update(source=source, **fields)
  return data


def by_content(split):
  """Returns {image file: labels} of a part, however it is ordered."""
  ids = np.arange(split.num_images)
  rows = [tuple(row[row >= 0].tolist()) for row in split.labels(ids)]
  if split.images is not None:
    return dict(
      zip([image.tobytes() for image in split.images(ids)], rows, strict=True)
    )
  return dict(zip(split.encoded(ids), rows, strict=True))


def check_equal(ours, theirs):
  for one, other in zip(ours, theirs, strict=True):
    assert one.num_images == other.num_images
    assert one.label_names == other.label_names
    assert by_content(one) == by_content(other)


def test_help(call):
  for words in (['--help'], ['help']):
    status, out, err = call(*words)
    assert (status, err) == (0, '')
    assert out.startswith('usage: scaling data VERB')
    assert '  data prepare ' in out
    assert '  data inspect ' in out
    assert 'study' not in out
  status, out, _ = call('prepare', '--help')
  assert status == 0
  assert out.startswith('scaling data prepare: ')
  assert '(default: 256)' in out


def test_words_that_cannot_be(error):
  assert "scaling data: 'prepre' is no verb; use" in error('prepre', '--x')
  assert 'Did you mean "prepare"?' in error('prepre')
  assert 'use inspect, prepare' in error()
  assert '--out is missing' in error('prepare', 'folder', '--name=x')
  assert '--name is missing' in error('prepare', 'folder', '--out=x')
  assert 'SOURCE[:NAME]' in error('inspect')
  assert 'Did you mean "folder"?' in error('inspect', 'fodler')
  assert 'num_clases' in error('inspect', 'digits', '--config.data.num_clases=3')


def prepare(call, out, source, *words):
  status, printed, err = call('prepare', source, f'--out={out}', '--name=mine', *words)
  assert status == 0, err
  return printed


def load_prepared(out, **fields):
  data = data_of('tfds', name='mine', **fields)
  return sources.load_as_found(data, str(out))


def test_a_folder_comes_back(call, folder, tmp_path):
  printed = prepare(call, tmp_path, 'folder', f'--data_dir={folder}', '--shard_mb=1')
  assert '60 train, 12 test images, 6 shards' in printed
  assert f'--data_dir={tmp_path}' in printed
  ours = load_prepared(tmp_path)
  check_equal(ours, sources.load_as_found(data_of('folder'), str(folder)))
  # Any first part is a random subset: the files were sorted by class.
  assert len(set(ours[0].labels(np.arange(12))[:, 0])) == 3


def test_tfds_itself_reads_it(call, folder, tmp_path):
  import tensorflow_datasets as tfds

  prepare(call, tmp_path, 'folder', f'--data_dir={folder}', '--shard_mb=1')
  builder = tfds.builder('mine', data_dir=tmp_path)
  assert builder.is_prepared()
  assert builder.info.features['label'].names == ['ant', 'bee', 'cow']
  assert builder.info.splits['train'].num_examples == 60
  assert builder.info.splits['train'].num_shards == 5
  found = builder.as_data_source(split='train')
  assert len(found) == 60
  for example in (found[0], found[59]):
    path = folder / example['id'].decode()
    assert path.parent.name == ['ant', 'bee', 'cow'][example['label']]
    from PIL import Image

    with Image.open(path) as image:
      assert (example['image'] == np.asarray(image)).all()
  assert len(builder.as_data_source(split='train[:50%]')) == 30


def test_pixels_in_memory_come_back(call, tmp_path):
  fields = {'num_classes': 10, 'image_size': 8, 'channels': 1}
  prepare(call, tmp_path, 'digits')
  ours = load_prepared(tmp_path)
  assert ours[0].images is not None
  theirs = sources.load(data_of('digits', **fields))
  check_equal(ours, theirs)
  sources.load(data_of('tfds', name='mine', **fields), str(tmp_path))


def test_idx_comes_back(call, tmp_path):
  source = tmp_path / 'in'
  source.mkdir()
  images = np.random.default_rng(1).integers(0, 256, (12, 5, 5), np.uint8)
  for prefix, count in (('train', 12), ('t10k', 6)):
    for kind, array in (
      ('images-idx3', images[:count]),
      ('labels-idx1', np.arange(count, dtype=np.uint8) % 4),
    ):
      header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, '>u4').tobytes()
      (source / f'{prefix}-{kind}-ubyte').write_bytes(header + array.tobytes())
  prepare(call, tmp_path, 'idx', f'--data_dir={source}')
  theirs = data_of('idx', train_split='train', test_split='t10k')
  check_equal(load_prepared(tmp_path), sources.load_as_found(theirs, str(source)))


def test_several_labels_come_back(call, folder, tmp_path):
  lines = ['path,label']
  for number in range(10):
    label = ['ant;cow', 'bee', '', 'cow;bee;ant'][number % 4]
    lines.append(f'{folder}/train/ant/{number}.png,{label}')  # beyond --data_dir
  (tmp_path / 'train.csv').write_text('\n'.join(lines))
  printed = prepare(call, tmp_path, 'csv', f'--data_dir={tmp_path}')
  assert "data.label_key='labels'" in printed
  ours = load_prepared(tmp_path, label_key='labels')
  check_equal(ours, sources.load_as_found(data_of('csv'), str(tmp_path)))
  import tensorflow_datasets as tfds

  found = tfds.builder('mine', data_dir=tmp_path).as_data_source(split='train')
  labels = {example['id'].decode(): list(example['labels']) for example in found}
  wanted = {(0, 2), (1,), (), (2, 1, 0)}
  assert {tuple(map(int, some)) for some in labels.values()} <= wanted
  assert len(labels) == ours[0].num_images


def test_tar_files_come_back(call, error, folder, tmp_path):
  source = tmp_path / 'in'
  source.mkdir()
  names = ['ant', 'bee', 'cow']
  for part in ('train', 'test'):
    with tarfile.open(source / f'{part}-0.tar', 'w') as tar:
      for number, path in enumerate(sorted((folder / part).glob('*/*.png'))):
        label = str(names.index(path.parent.name)).encode()
        for suffix, content in (('png', path.read_bytes()), ('cls', label)):
          info = tarfile.TarInfo(f'{number:04d}.{suffix}')
          info.size = len(content)
          tar.addfile(info, io.BytesIO(content))
  words = (f'--data_dir={source}', '--shard_mb=1', '--workers=2')
  line = error('prepare', 'tar', f'--out={tmp_path}', '--name=mine', *words)
  assert '--config.data.num_classes=N' in line
  assert not (tmp_path / 'mine').exists()
  prepare(call, tmp_path, 'tar', *words, '--config.data.num_classes=3')
  theirs = data_of('tar', num_classes=3)
  check_equal(load_prepared(tmp_path), sources.load_as_found(theirs, str(source)))


def test_a_corrupt_image_among_pixels(call, tmp_path, monkeypatch):
  from scaling.data.prepare import plans

  whole, made = plans.png, []

  def png(pixels):
    made.append(whole(pixels))
    return made[-1][: 40 if len(made) == 600 else None]

  monkeypatch.setattr(plans, 'png', png)
  prepare(call, tmp_path, 'digits', '--workers=1')  # in this process
  fields = {'num_classes': 10, 'image_size': 8, 'channels': 1}
  parts = sources.load(data_of('tfds', name='mine', **fields), str(tmp_path))
  with pytest.raises(UserError, match=r'no readable image .*data\.corrupt=skip'):
    _ = [part.images(np.arange(part.num_images)) for part in parts]
  out, _ = inspected(call, 'tfds:mine', f'--data_dir={tmp_path}')
  assert '1 of the 1,797 looked at are corrupt' in out


def test_short_side(call, folder, tmp_path):
  from scaling.data.prepare.encode import examine

  words = (f'--data_dir={folder}', '--short_side=75')
  prepare(call, tmp_path, 'folder', *words)
  train, _ = load_prepared(tmp_path)
  for content in train.encoded(np.arange(60)):
    header = examine(content, '')
    assert header.format == 'JPEG'
    assert header.height == 75
    assert 80 <= header.width <= 90


def test_corrupt_images(call, error, folder, tmp_path):
  import shutil

  broken = tmp_path / 'broken'
  shutil.copytree(folder, broken)
  path = broken / 'train' / 'bee' / '7.png'
  path.write_bytes(path.read_bytes()[:1000])
  words = ('prepare', 'folder', f'--data_dir={broken}', f'--out={tmp_path}')
  line = error(*words, '--name=mine')
  assert str(path) in line
  assert '--corrupt=skip' in line
  status, printed, _ = call(*words, '--name=mine', '--corrupt=skip')
  assert status == 0
  assert '59 train' in printed
  assert 'left out: 1 corrupt images' in printed
  with (tmp_path / 'mine' / '1.0.0' / 'skipped.csv').open() as file:
    (row,) = csv.DictReader(file)
  assert row['where'] == str(path)
  assert load_prepared(tmp_path)[0].num_images == 59


@pytest.mark.parametrize('workers', [1, 2])
def test_corrupt_images_beyond_the_sample(
  error, folder, tmp_path, monkeypatch, workers
):
  import shutil

  from scaling.data.prepare import plans

  monkeypatch.setattr(plans, '_SAMPLED', 1)
  broken = tmp_path / 'broken'
  shutil.copytree(folder, broken)
  path = broken / 'train' / 'bee' / '7.png'
  path.write_bytes(path.read_bytes()[:1000])
  line = error(
    'prepare', 'folder', f'--data_dir={broken}', f'--out={tmp_path}', '--name=mine',
    '--shard_mb=1', f'--workers={workers}',
  )  # fmt: skip
  assert str(path) in line
  assert '--corrupt=skip' in line


def test_workers_give_the_same_bytes(call, folder, tmp_path):
  words = (f'--data_dir={folder}', '--shard_mb=1')
  prepare(call, tmp_path / 'one', 'folder', *words, '--workers=1')
  prepare(call, tmp_path / 'two', 'folder', *words, '--workers=2')
  assert contents(tmp_path / 'one') == contents(tmp_path / 'two')


def contents(out):
  made = out / 'mine' / '1.0.0'
  return {path.name: path.read_bytes() for path in made.iterdir()}


def test_sums_are_those_of_sha256sum(call, folder, tmp_path):
  prepare(call, tmp_path, 'folder', f'--data_dir={folder}', '--shard_mb=1')
  made = tmp_path / 'mine' / '1.0.0'
  lines = (made / 'SHA256SUMS').read_text().splitlines()
  assert len(lines) == 6
  for line in lines:
    found, name = line.split('  ')
    assert found == hashlib.sha256((made / name).read_bytes()).hexdigest()


@pytest.fixture(scope='module')
def many(folder, tmp_path_factory):
  """The same images five times over, so that there is time to be interrupted in."""
  root = tmp_path_factory.mktemp('many')
  for copy in range(5):
    for path in folder.rglob('*.png'):
      to = root / path.relative_to(folder).with_stem(f'{path.stem}-{copy}')
      to.parent.mkdir(parents=True, exist_ok=True)
      to.hardlink_to(path)
  return root


def sizes(work):
  """Bytes of each shard under way; one that a worker takes away meanwhile is left out."""
  found = {}
  for path in work.glob('*.array_record-*'):
    with contextlib.suppress(FileNotFoundError):
      found[path] = path.stat().st_size
  return found


@pytest.mark.parametrize(
  ('workers', 'number', 'status'),
  [
    (1, signal.SIGKILL, -signal.SIGKILL),
    (2, signal.SIGKILL, -signal.SIGKILL),
    (2, signal.SIGINT, 130),
  ],
)
def test_killed_and_resumed_the_files_are_equal(
  call, many, tmp_path, environment, workers, number, status
):
  words = [f'--data_dir={many}', '--shard_mb=1', f'--workers={workers}']
  prepare(call, tmp_path / 'whole', 'folder', *words)
  out = tmp_path / 'killed'
  command = [
    sys.executable, '-m', 'experiments.cli', 'data', 'prepare', 'folder',
    f'--out={out}', '--name=mine', *words,
  ]  # fmt: skip
  work = out / 'mine' / '1.0.0' / '.prepare'
  deadline = time.monotonic() + 120
  # On a busy machine it may come to its end between the look and the signal.
  while not work.exists() and time.monotonic() < deadline:
    shutil.rmtree(out, ignore_errors=True)
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    while not list(work.glob('train-*.json')) and process.poll() is None:
      time.sleep(0.001)
    process.send_signal(number)
    ended = process.wait()
  assert ended == status
  assert list(work.glob('train-*.json'))
  assert not (out / 'mine' / '1.0.0' / 'dataset_info.json').exists()
  # Workers end soon after their parent: from then on nobody else writes to the folder.
  while (before := sizes(work)) and time.monotonic() < deadline:
    time.sleep(0.5)
    if sizes(work) == before:
      break
  ended, _, err = call('prepare', 'folder', f'--out={out}', '--name=mine', *words)
  assert ended == 0, err
  assert 'of 27 shards are there' in err
  assert contents(out) == contents(tmp_path / 'whole')


def test_what_is_there_is_not_replaced(call, error, folder, tmp_path):
  words = ('prepare', 'folder', f'--data_dir={folder}', f'--out={tmp_path}')
  prepare(call, tmp_path, 'folder', f'--data_dir={folder}')
  line = error(*words, '--name=mine')
  assert 'is prepared already; use another --name or --out' in line
  assert 'cifar10 is a set that TFDS has its own code for' in error(
    *words, '--name=cifar10'
  )


def test_a_folder_that_cannot_be_written(error, folder):
  # Not even by root.
  line = error('prepare', 'folder', f'--data_dir={folder}', '--out=/proc', '--name=x')
  assert '--out: /proc/x/1.0.0 cannot be written (No such file or directory)' in line


def inspected(call, *words):
  status, out, err = call('inspect', *words)
  assert status == 0, err
  lines = out.splitlines()
  return out, {line[:24].strip(): line[24:].split() for line in lines}


def test_inspect_digits(call, tmp_path):
  out, rows = inspected(call, 'digits', f'--out={tmp_path}')
  assert '1,438 train, 359 test images in 10 classes' in out
  assert rows['images'] == ['1,438', '359']
  assert rows['classes without images'] == ['0', '0']
  assert rows['classes below 100 images'] == ['0', '10']
  assert 'data.num_classes = 10\ndata.max_labels = 1\ndata.channels = 1' in out
  assert {path.name for path in tmp_path.iterdir()} == {
    'inspect.md', 'labels.csv', 'labels.png', 'samples.png',
  }  # fmt: skip
  with (tmp_path / 'labels.csv').open() as file:
    table = list(csv.DictReader(file))
  assert [row['class'] for row in table] == list('0123456789')
  assert sum(int(row['train']) for row in table) == 1438
  assert '| images | 1,438 | 359 |' in (tmp_path / 'inspect.md').read_text()
  for name in ('labels.png', 'samples.png'):
    assert (tmp_path / name).read_bytes().startswith(b'\x89PNG')


def test_inspect_finds_what_is_wrong(call, tmp_path, monkeypatch):
  from experiments import inspect_set

  source, out = tmp_path / 'in', tmp_path / 'out'
  for number in range(12):
    picture(source / 'a $ b' / f'{number}.png', np.zeros((8, 9, 3), np.uint8))
  picture(source / 'rare' / 'one.jpg', np.zeros((30, 20), np.uint8))
  torn = source / 'rare' / 'two.png'
  torn.write_bytes(b'no image')
  words = ('folder', f'--data_dir={source}')
  printed, rows = inspected(call, *words, f'--out={out}')
  assert '1 of the 14 looked at are corrupt' in printed
  assert str(torn) in (out / 'corrupt.csv').read_text()
  assert rows['height, pixels'][0] == '8'
  assert 'PNG RGB' in rows
  assert 'JPEG L' in rows
  assert rows['classes below 20 images'] == ['2', '2']
  monkeypatch.setattr(inspect_set, 'IMAGES', 5)
  _, rows = inspected(call, *words)
  assert rows['images looked at'] == ['a', 'sample', 'of', '5', 'all']
  assert rows['corrupt'][0] in ('0', '1')


def test_inspect_several_labels(call, tmp_path):
  lines = ['path,label', 'a,x;y;z', 'b,x', 'c,x', 'd,', 'e,x', 'f,y;x']
  (tmp_path / 'train.csv').write_text('\n'.join(lines))
  (tmp_path / 'test.csv').write_text('path,label\na,x\n')
  out, rows = inspected(call, 'csv', f'--data_dir={tmp_path}')
  assert rows['images with 0 labels'] == ['1']
  assert rows['images with 1 label'] == ['3', '1']
  assert rows['images with 3 labels'] == ['1']
  assert rows['labels an image, mean'] == ['1.333', '1']
  assert "data.max_labels = 3\ntrain.loss = 'sigmoid'" in out
  assert 'cannot be read' in out  # there are no such images


def test_inspect_computed_sets_by_samples(call, monkeypatch):
  from experiments import inspect_set

  monkeypatch.setattr(inspect_set, 'LABELS', 500)
  words = shlex.split('--config.data.image_size=8 --config.data.num_classes=50')
  for source in ('made_up', 'procedural'):
    out, rows = inspected(call, source, *words)
    assert rows['labels read of'][:4] == ['a', 'sample', 'of', '500']
    assert rows['images looked at'] == ['all', 'all']
    assert rows['classes below 20 images'][0] == '?'
    assert 'numbers from a sample are those of the sample' in ' '.join(out.split())
    assert 'data.num_classes = 50' in out


def test_inspect_tfds(call, folder, tmp_path):
  prepare(call, tmp_path, 'folder', f'--data_dir={folder}')
  out, rows = inspected(call, 'tfds:mine', f'--data_dir={tmp_path}', '--all')
  assert rows['images'] == ['60', '12']
  assert rows['PNG RGB'] == ['100%', '100%']
  assert out.startswith('tfds mine\n')
  out, rows = inspected(
    call, 'tfds:mine', f'--data_dir={tmp_path}', '--train_split=train[:25%]'
  )
  assert rows['images'] == ['15', '12']
