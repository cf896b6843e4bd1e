"""`scaling dedup`, as people use it."""

import csv
import sys

import numpy as np
import pytest

from scaling.dedup import find

# ml_collections loads config files in a way that Python 3.11 already warns about.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')


@pytest.fixture(autouse=True)
def few(monkeypatch):
  """Few planted copies and decoys, to be quick."""
  monkeypatch.setattr(find, 'PLANTED', 30)
  monkeypatch.setattr(find, 'DECOYS', 100)


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  """Two sets of files in folders: the test images 0 to 4 are copies of training ones."""
  from PIL import Image

  rng = np.random.default_rng(0)
  root = tmp_path_factory.mktemp('sets')

  def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)

  def picture():
    small = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8))
    return np.asarray(small.resize((60, 50), Image.Resampling.BICUBIC))

  copied = [picture() for _ in range(5)]
  for number in range(60):
    pixels = copied[number] if number < 5 else picture()
    save(root / 'ours' / 'train' / 'x' / f'{number:02}.png', pixels)
  for number in range(20):
    pixels = picture()
    if number < 5:
      pixels = [
        copied[0],
        copied[1][:, ::-1],
        copied[2][2:48, 3:58],
        (copied[3] * 0.8 + 10).astype(np.uint8),
        copied[4][:48],
      ][number]
    save(root / 'theirs' / 'test' / 'y' / f'{number:02}.png', pixels)
  for part in (root / 'ours' / 'test' / 'x', root / 'theirs' / 'train' / 'y'):
    save(part / '0.png', picture())
  return root


def words(folders, *more):
  return (
    'dedup',
    'folder:ours',
    'folder:theirs',
    f'--train_dir={folders / "ours"}',
    f'--test_dir={folders / "theirs"}',
    *more,
  )


def read(path):
  with path.open(newline='') as file:
    return list(csv.DictReader(file))


@pytest.fixture
def written(call, folders, tmp_path):
  status, out, err = call(*words(folders, f'--out={tmp_path}'))
  assert status == 0, err
  return out, tmp_path


def test_report(call, folders, written, tmp_path_factory):
  out, folder = written
  assert '5 of 20 test images (25%' in out
  assert '1 of them are exact copies' in ' '.join(out.split())
  assert 'planted copies' in out
  duplicates = read(folder / 'duplicates.csv')
  assert sorted(int(row['test_id']) for row in duplicates) == [0, 1, 2, 3, 4]
  assert all(int(row['train_id']) == int(row['test_id']) for row in duplicates)
  kinds = {int(row['test_id']): row['kind'] for row in duplicates}
  assert kinds[0] == 'exact'
  assert kinds[1] == 'mirrored'
  assert 'cropped' in kinds[2]
  assert duplicates[0]['test'].endswith('00.png')
  assert len(read(folder / 'pairs.csv')) >= 5
  assert 'pairs.svg' in (folder / 'dedup.md').read_text()
  assert '<svg' in (folder / 'dedup.html').read_text()
  again = tmp_path_factory.mktemp('again')
  assert call(*words(folders, f'--out={again}'))[0] == 0
  for path in folder.iterdir():
    assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_parts_of_one_set(call):
  status, out, err = call('dedup', 'digits', 'digits', '--train_part=test')
  assert status == 0, err
  assert '359 of 359 test images (100%' in out or '360 of 360' in out
  assert 'labels agree' in out


def test_classes_need_not_be_known(call, folders, tmp_path):
  sets = tmp_path / 'sets'
  assert (
    call(
      'data',
      'prepare',
      'folder',
      f'--data_dir={folders / "ours"}',
      f'--out={sets}',
      '--name=mine',
    )[0]
    == 0
  )
  (made,) = sets.glob('mine/*')
  status, out, err = call(
    'dedup',
    'array_record',
    'array_record',
    f'--train_dir={made}',
    f'--test_dir={made}',
    '--test_part=train',
    '--config.data.train_split=mine-train',
    '--config.data.test_split=mine-test',
  )
  assert status == 0, err
  assert '60 of 60 test images (100%' in out
  assert 'labels agree' not in out  # labels beyond those of the base config would fail


def test_accuracy(call, folders, tmp_path):
  path = tmp_path / 'correct.csv'
  path.write_text(
    'id,correct\n' + ''.join(f'{i},{int(i % 3 > 0)}\n' for i in range(20))
  )
  status, out, err = call(*words(folders, f'--correct={path}', f'--out={tmp_path}'))
  assert status == 0, err
  assert 'cannot say: 5 duplicated images are too few' in out
  assert 'without a duplicate' in out
  assert '435 of 10,000' in (tmp_path / 'dedup.md').read_text()


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ('id,right\n0,1\n', "no column 'correct'"),
    ('id,correct\n0,1\n', '1 of the 20 test images'),
    ('id,correct\n0,1\n0,1\n', "id '0' is none of 0..19, or again"),
    ('id,correct\n20,1\n', "id '20'"),
    ('id,correct\nx,1\n', "id 'x'"),
    ('id,correct\n0,yes\n', "correct='yes'"),
    ('id,correct\n0\n', 'correct=None'),
  ],
)
def test_bad_accuracy(error, folders, tmp_path, content, message):
  path = tmp_path / 'correct.csv'
  path.write_text(content)
  assert message in error(*words(folders, f'--correct={path}'))


def test_words_that_cannot_be(error, folders, monkeypatch):
  assert 'Did you mean "folder"?' in error('dedup', 'fodler', 'digits')
  assert 'takes SOURCE[:NAME]' in error('dedup', 'digits')
  assert 'k=101' in error('dedup', 'digits', 'digits', '--k=101')
  assert '--k' in error('dedup', 'digits', 'digits', '--k=0')
  assert 'fpr=0.7' in error('dedup', 'digits', 'digits', '--fpr=0.7')
  assert 'fpr=0 ' in error('dedup', 'digits', 'digits', '--fpr=0')
  assert 'train_part' in error('dedup', 'digits', 'digits', '--train_part=all')
  assert 'made_up, test part: there are no images' in error(
    'dedup', 'made_up', 'made_up', '--config.data.made_up_test=0'
  )
  missing = folders / 'nothing'
  assert str(missing) in error('dedup', 'folder', 'digits', f'--train_dir={missing}')
  assert 'none.csv' in error(*words(folders, '--correct=none.csv'))
  monkeypatch.setitem(sys.modules, 'faiss', None)
  assert "pip install 'scaling[dedup]'" in error('dedup', 'digits', 'digits')
