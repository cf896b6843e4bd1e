"""Weights of classes from a file."""

import numpy as np
import pytest

from scaling.data import class_weights, sources
from scaling.errors import UserError

NAMES = ('apple', 'pear, ripe', 'fig')


@pytest.mark.parametrize('head', ['', 'class,weight\n'])
def test_classes_without_a_line_weigh_nothing(tmp_path, head):
  path = tmp_path / 'weights.csv'
  path.write_text(head + '"pear, ripe",2.5\n\napple,1e-1\n')
  found = class_weights.read(path, NAMES)
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, np.float32([0.1, 2.5, 0]))


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('apple,1\naple,1\n', "w.csv, line 2: 'aple' is no class .*mean .apple"),
    ('apple\n', r"w.csv, line 1: \['apple'\] is no pair class,weight"),
    ('apple,many\n', "w.csv, line 1: 'many' is no weight of 0 or more"),
    ('apple,-1\n', "w.csv, line 1: '-1' is no weight of 0 or more"),
    ('apple,inf\n', "w.csv, line 1: 'inf' is no weight of 0 or more"),
    ('apple,1\napple,2\n', "line 2: 'apple' has a weight already"),
    ('apple,0\n', 'no class with a weight above 0'),
    ('', 'no class with a weight above 0'),
  ],
)
def test_files_that_are_no_weights_are_refused(tmp_path, text, message):
  path = tmp_path / 'w.csv'
  path.write_text(text)
  with pytest.raises(UserError, match=message):
    class_weights.read(path, NAMES)


def test_a_set_is_weighed_and_another_file_is_noticed(data, tmp_path):
  data.update({'num_classes': 3, 'class_weights': 'weights.csv'})
  prints = set()
  for weight in (1, 2):
    (tmp_path / 'weights.csv').write_text(f'class 1,{weight}\n')
    sources._load.cache_clear()  # the file's content is no part of what is asked for
    train, test = sources.load(data, str(tmp_path))
    for split in (train, test):
      np.testing.assert_array_equal(split.class_weights, np.float32([0, weight, 0]))
    prints.add(test.fingerprint)
  assert len(prints) == 2
  data.class_weights = 'none.csv'
  with pytest.raises(
    UserError, match=r'data\.class_weights: .*none\.csv cannot be read'
  ):
    sources.load(data, str(tmp_path))
