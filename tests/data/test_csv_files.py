"""Sets listed in CSV files: one label or several, with and without a test part."""

import numpy as np
import pytest

from scaling.data import sources
from scaling.errors import UserError


@pytest.fixture
def on_csv(data):
  data.update(source='csv', name='lists', num_classes=3, image_size=6)
  return data


@pytest.fixture
def write(tmp_path, png):
  """Returns a function that writes a list, and an image for each path in it."""

  def write_list(split, *rows, header='path,label'):
    (tmp_path / 'images').mkdir(exist_ok=True)
    for number, row in enumerate(rows):
      image = tmp_path / row.split(',')[0]
      if image.parent.is_dir() and not image.exists() and image != tmp_path:
        image.write_bytes(png(np.full((6, 6, 3), number, np.uint8)))
    text = '\n'.join([header, *rows]) + '\n'
    (tmp_path / f'{split}.csv').write_text(text, encoding='utf-8')
    return str(tmp_path)

  return write_list


def test_two_lists(on_csv, write):
  write('train', 'images/a.png,dog', 'images/b.png,cat', 'images/c.png,dog')
  folder = write('test', 'images/d.png,emu')
  assert sources.at_hand(on_csv, folder)
  train, test = sources.load(on_csv, folder)
  assert train.label_names == test.label_names == ('cat', 'dog', 'emu')
  assert train.labels(np.array([2, 1])).tolist() == [[1], [0]]
  assert test.labels(np.array([0])).tolist() == [[2]]
  assert train.where(1) == f'{folder}/images/b.png'
  (content,) = train.encoded(np.array([1]))
  assert content.startswith(b'\x89PNG')
  assert train.images is None
  assert train.fingerprint != test.fingerprint


def test_several_labels(on_csv, write):
  rows = ['images/a.png,dog;cat;dog', 'images/b.png,', 'images/c.png, emu ; cat']
  folder = write('train', *rows)
  write('test', *rows)
  on_csv.max_labels = 3
  train, _ = sources.load(on_csv, folder)
  assert train.labels(np.arange(3)).tolist() == [[1, 0, -1], [-1, -1, -1], [2, 0, -1]]
  assert train.labels(np.array([2])).dtype == np.int32
  on_csv.max_labels = 1
  message = r'data\.max_labels=1 is too few: .*train\.csv, line 2 has 2; set it to 2'
  with pytest.raises(UserError, match=message):
    sources.load(on_csv, folder)


def test_without_a_test_list_a_part_is_held_back(on_csv, write):
  rows = [f'images/{i}.png,{"dog" if i % 3 else "cat;emu"}' for i in range(15)]
  folder = write('train', *rows)
  on_csv.max_labels = 2
  train, test = sources.load(on_csv, folder)
  assert (train.num_images, test.num_images) == (12, 3)
  assert np.bincount(test.labels(np.arange(3))[:, 0], minlength=3).tolist() == [1, 2, 0]
  paths = {s.where(i) for s in (train, test) for i in range(s.num_images)}
  assert len(paths) == 15


def test_columns_stand_in_any_order_beside_others(on_csv, write, tmp_path):
  rows = ['2024,dog,images/a.png', '2025,"cat, big",images/b.png']
  write('images', 'images/a.png', 'images/b.png')
  folder = write('train', *rows, header='\ufeffyear,label,path')
  write('test', *rows, header='year,label,path')
  on_csv.num_classes = 2
  train, _ = sources.load(on_csv, folder)
  assert train.label_names == ('cat, big', 'dog')
  assert train.where(0) == str(tmp_path / 'images' / 'a.png')


def test_a_part_without_any_label(on_csv, write):
  write('train', 'a.png,dog', 'b.png,cat')
  folder = write('test', 'c.png,', 'd.png,')
  on_csv.update(num_classes=2, max_labels=4)
  _, test = sources.load(on_csv, folder)
  assert test.labels(np.arange(2)).tolist() == [[-1] * 4] * 2


def test_fingerprint_follows_the_list(on_csv, write):
  prints = set()
  for rows in (['a.png,dog', 'b.png,cat'], ['a.png,cat', 'b.png,dog'], ['a.png,dog']):
    folder = write('train', *rows)
    write('test', 'a.png,cat', 'a.png,dog')
    prints.add(sources.load_as_found(on_csv, folder)[0].fingerprint)
  assert len(prints) == 3


def test_fingerprint_follows_the_files(on_csv, write, tmp_path):
  write('train', 'images/a.png,dog', 'images/b.png,cat')
  folder = write('test', 'images/c.png,emu')
  before = sources.load(on_csv, folder)[0].fingerprint
  sources._load.cache_clear()
  assert sources.load(on_csv, folder)[0].fingerprint == before
  sources._load.cache_clear()
  with (tmp_path / 'images' / 'a.png').open('ab') as file:
    file.write(b'more')
  assert sources.load(on_csv, folder)[0].fingerprint != before


@pytest.mark.parametrize('load', [sources.load, sources.load_as_found])
def test_a_missing_file_is_named_with_its_line(on_csv, write, load):
  folder = write('train', 'images/a.png,dog', 'nowhere/b.png,cat')
  write('test', 'images/a.png,emu')
  with pytest.raises(UserError) as error:
    load(on_csv, folder)[0].encoded(np.array([0, 1]))
  assert str(error.value) == (
    f'{folder}/nowhere/b.png cannot be read (No such file or directory); '
    f'{folder}/train.csv, line 3 names it'
  )


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', r"line 1: no column 'path'"),
    ('path;label\na;b\n', r"line 1: no column 'path' in 'path;label'"),
    ('path,class\na.png,dog\n', r"line 1: no column 'label' in 'path,class'"),
    ('path,label\n', r'lists no images'),
    ('path,label\na.png,dog\n\nb.png,dog,old\n', r'line 4: 3 values where .* has 2'),
    ('path,label\na.png\n', r'line 2: 1 values where .* has 2'),
    ('path,label\na.png,dog\n,dog\n', r'line 3: no path'),
    ('path,label\na.png,dog\nb.png,\n', r'line 3: no label; .*data\.max_labels'),
    ('path,label\na.png,dog;;cat\n', r"line 2: label 'dog;;cat' has an empty name"),
    ('path,label\na.png,dog\nb.png,"dog\n', r'line \d: unexpected end of data'),
    (b'path,label\na.png,d\xe9j\xe0\n', r'cannot be read .*write it as UTF-8'),
  ],
)
def test_malformed_lists(on_csv, tmp_path, text, message):
  (tmp_path / 'train.csv').write_bytes(text.encode() if isinstance(text, str) else text)
  with pytest.raises(UserError, match=message) as error:
    sources.load(on_csv, str(tmp_path))
  assert str(tmp_path / 'train.csv') in str(error.value)


def test_lists_that_are_not_there(on_csv, tmp_path):
  assert not sources.at_hand(on_csv, str(tmp_path))
  assert not sources.at_hand(on_csv)
  with pytest.raises(UserError, match=r'needs --data_dir=FOLDER with train\.csv'):
    sources.load(on_csv)
  with pytest.raises(UserError, match=r'train\.csv is missing; .*data\.train_split'):
    sources.load(on_csv, str(tmp_path))


def test_no_label_at_all(on_csv, write):
  folder = write('train', 'a.png,', 'b.png,')
  on_csv.max_labels = 2
  with pytest.raises(UserError, match=r'has no label in any line'):
    sources.load(on_csv, folder)


def test_a_set_is_loaded_as_it_is_found(on_csv, write, data, tmp_path):
  folder = write('train', 'a.png,x;y;z', 'b.png,', 'c.png,x', 'd.png,x')
  on_csv.num_classes = 99
  train, test = sources.load_as_found(on_csv, folder)
  assert train.num_classes == 3
  assert train.num_images + test.num_images == 4
  data.source = 'fodler'
  with pytest.raises(
    UserError, match=r"'fodler' is no source; .*Did you mean \"folder\""
  ):
    sources.load_as_found(data)
