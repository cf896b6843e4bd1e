"""Tar files of images and labels, from a disk and from a store."""

import io
import json
import shutil
import tarfile

import numpy as np
import pytest

from scaling.data import sources
from scaling.data.decode import decode
from scaling.errors import UserError


def write(path, members):
  with tarfile.open(path, 'w') as tar:
    for name, content in members:
      info = tarfile.TarInfo(name)
      info.size = len(content)
      tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def folder(tmp_path, png, data):
  """Flat images whose grey is their number, in two training files and one of tests."""
  data.update(source='tar', num_classes=3, image_size=8, max_labels=2)
  folder = tmp_path / 'set'
  folder.mkdir()

  def image(number):
    return png(np.full((10, 12, 3), number, np.uint8))

  def cls(numbers):
    for i in numbers:
      yield f'{i:04}.png', image(i)
      yield f'{i:04}.cls', f'{i % 3}\n'.encode()

  write(folder / 'train-0.tar', cls(range(4)))
  labels = [
    json.dumps({'label': [i % 3, (i + 1) % 3], 'by': 'me'}) for i in range(4, 7)
  ]
  members = []
  for i, text in enumerate(labels, 4):
    # The label first, and a name with a folder; other members are passed over.
    members += [
      (f'deep/{i}.json', text.encode()),
      (f'deep/{i}.txt', b'a caption'),
      (f'deep/{i}.PNG', image(i)),
    ]
  write(folder / 'train-1.tar', members)
  write(folder / 'test-0.tar', cls(range(2)))
  return folder


def check(split):
  assert split.num_images == 7
  ids = np.array([6, 0, 3, 3])
  assert [decode(e, 3, 'x')[0, 0, 0] for e in split.encoded(ids)] == [6, 0, 3, 3]
  assert split.labels(ids).tolist() == [[0, 1], [0, -1], [0, -1], [0, -1]]


def test_tar_files(folder, data):
  assert sources.at_hand(data, str(folder))
  train, test = sources.load(data, str(folder))
  check(train)
  assert test.num_images == 2
  assert train.where(5).endswith('set/train-1.tar')
  assert (folder / '.train.label.index').is_dir()
  sources._load.cache_clear()
  again, _ = sources.load(data, str(folder))
  check(again)
  assert again.fingerprint == train.fingerprint


def test_a_folder_that_cannot_be_written_has_its_index_elsewhere(
  folder, data, tmp_path, monkeypatch
):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.setattr('os.access', lambda *_: False)
  check(sources.load(data, str(folder))[0])
  assert not (folder / '.train.label.index').exists()
  assert list((tmp_path / 'cache').rglob('start.npy'))


def test_a_store(folder, data, tmp_path, monkeypatch):
  import fsspec

  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  store = fsspec.filesystem('memory')
  for path in folder.glob('*.tar'):
    store.pipe_file(f'/bucket/{path.name}', path.read_bytes())
  store.pipe_file('/bucket/classes.txt', b'ant\nbee\ncow\n')
  train, _ = sources.load(data, 'memory://bucket')
  check(train)
  assert train.label_names == ('ant', 'bee', 'cow')
  store.rm('/bucket/train-0.tar')
  with pytest.raises(UserError, match=r'cannot be read'):
    train.encoded(np.array([0]))
  sources._load.cache_clear()
  with pytest.raises(UserError, match=r'train-0\.tar is missing, where the index'):
    sources.load(data, 'memory://bucket')


@pytest.mark.parametrize(
  ('url', 'message'),
  [
    ('nothing://bucket', 'nothing'),
    ('memory://empty', r'has no train\*\.tar'),
    (None, 'needs --data_dir'),
  ],
)
def test_places_that_are_not_there(data, url, message):
  data.update(source='tar')
  assert not sources.at_hand(data, url)
  with pytest.raises(UserError, match=message):
    sources.load(data, url)


def image_end(whole):
  """Returns where the second member of a tar file begins."""
  with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
    return tar.getmembers()[2].offset


def test_broken_files(folder, data, png):
  path = folder / 'train-0.tar'
  whole = path.read_bytes()

  def refuses(message, content=None, members=None):
    shutil.rmtree(folder / '.train.label.index', ignore_errors=True)
    if members is None:
      path.write_bytes(content)
    else:
      write(path, members)
    sources._load.cache_clear()
    with pytest.raises(UserError, match=message):
      sources.load(data, str(folder))
    assert not (folder / '.train.label.index').exists()

  refuses(r'train-0\.tar is no whole tar file', b'')
  refuses(r'train-0\.tar is no whole tar file', b'text' * 500)
  refuses(r'train-0\.tar is no whole tar file', whole[:600])
  image = png(np.zeros((9, 9, 3), np.uint8))
  refuses(r'/a is without a \.cls or a \.json', members=[('a.png', image)])
  refuses(r'/a is without an image', members=[('a.cls', b'1'), ('b.png', image)])
  refuses(
    r'labels of /a are no class numbers', members=[('a.png', image), ('a.cls', b'cat')]
  )
  refuses(
    r'labels of /a are no class numbers', members=[('a.png', image), ('a.json', b'{')]
  )
  refuses(
    r'labels of /a are no class numbers \(-1 is none\)',
    members=[('a.png', image), ('a.cls', b'-1')],
  )
  refuses(r'it has no mark of its end', whole[: len(whole) // 2 // 512 * 512])
  refuses(r'it has no mark of its end', whole[: image_end(whole)])
  refuses(r'it has no mark of its end', whole[: image_end(whole) + 100])
  refuses(r"/a is without a .*'label'", members=[('a.png', image), ('a.json', b'{}')])


def test_a_set_that_changed_since_it_was_indexed(folder, data):
  sources.load(data, str(folder))
  sources._load.cache_clear()
  path = folder / 'train-1.tar'
  path.write_bytes(path.read_bytes() + bytes(512))
  with pytest.raises(UserError, match=r'train-1\.tar has \d+ bytes, where the index'):
    sources.load(data, str(folder))
  (folder / '.train.label.index' / 'files.json').write_text('torn')
  with pytest.raises(UserError, match=r'is no whole index .*; remove it'):
    sources.load(data, str(folder))


def test_a_set_of_the_same_size_with_other_labels(folder, data):
  before, _ = sources.load(data, str(folder))
  path = folder / 'train-0.tar'
  content, index = path.read_bytes(), folder / '.train.label.index'
  path.write_bytes(content.replace(b'0\n' + bytes(510), b'2\n' + bytes(510)))
  assert path.stat().st_size == len(content)
  sources._load.cache_clear()
  with pytest.raises(UserError, match=r'others than it was made of, of the same size'):
    sources.load(data, str(folder))
  shutil.rmtree(index)
  after, _ = sources.load(data, str(folder))
  assert after.fingerprint != before.fingerprint
  assert after.labels(np.arange(2)).tolist() == [[2, -1], [1, -1]]


@pytest.mark.parametrize('label', ['999999999999', '[1, {}]', '{"x": 1}', '1.7', '"a"'])
def test_labels_of_another_type(folder, data, png, label):
  image = png(np.zeros((9, 9, 3), np.uint8))
  text = f'{{"label": {label}}}'.encode()
  write(folder / 'train-0.tar', [('a.png', image), ('a.json', text)])
  with pytest.raises(
    UserError, match=r'train-0\.tar: the labels of /a are no class num'
  ):
    sources.load(data, str(folder))
  write(folder / 'train-0.tar', [('a.png', image), ('a.json', b'[1]')])
  with pytest.raises(UserError, match=r"/a is without .*'label'"):
    sources.load(data, str(folder))


@pytest.mark.parametrize(
  ('name', 'content'),
  [('start.npy', b'torn'), ('length.npy', None), ('files.json', b'[]')],
)
def test_a_damaged_index(folder, data, name, content):
  sources.load(data, str(folder))
  sources._load.cache_clear()
  path = folder / '.train.label.index' / name
  path.unlink() if content is None else path.write_bytes(content)
  with pytest.raises(UserError, match=r'index is no whole index .*; remove it'):
    sources.load(data, str(folder))


def test_an_s3_store(folder, data, tmp_path, monkeypatch):
  pytest.importorskip('s3fs', reason='needs pip install s3fs moto[server]')
  moto = pytest.importorskip('moto.server', reason='needs pip install moto[server]')
  import fsspec

  server = moto.ThreadedMotoServer('127.0.0.1', 0)
  server.start()
  host, port = server.get_host_and_port()
  for name, value in {
    'AWS_ENDPOINT_URL': f'http://{host}:{port}',
    'AWS_ACCESS_KEY_ID': 'nobody',
    'AWS_SECRET_ACCESS_KEY': 'nothing',
    'AWS_DEFAULT_REGION': 'us-east-1',
    'XDG_CACHE_HOME': str(tmp_path / 'cache'),
  }.items():
    monkeypatch.setenv(name, value)
  fsspec.filesystem('s3').clear_instance_cache()
  try:
    store = fsspec.filesystem('s3')
    store.mkdir('bucket')
    for path in folder.glob('*.tar'):
      store.put(str(path), f'bucket/set/{path.name}')
    check(sources.load(data, 's3://bucket/set')[0])
  finally:
    server.stop()
  sources._load.cache_clear()
  with pytest.raises(UserError, match=r'bucket/set cannot be read .*; check the name'):
    sources.load(data, 's3://bucket/set')
