"""What is odd about a table is said, of which curve and where, and nothing else is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.table_notes import notes, shape_flags
from analysis.tables import read_csv


@pytest.fixture
def read(tmp_path):
  """Reads a CSV given as text, with columns n and y."""

  def table(text, **options):
    (tmp_path / 'curve.csv').write_text(text)
    return read_csv(tmp_path / 'curve.csv', size='n', value='y', **options)

  return table


@pytest.mark.parametrize(
  ('errors', 'spread', 'flags'),
  [
    ([0.5, 0.4, 0.3, 0.2], None, ()),
    ([0.5, 0.3, 0.31, 0.2], None, ()),
    ([0.5, 0.3, 0.35, 0.3], None, ('not monotone',)),
    ([0.2, 0.3, 0.4, 0.5], None, ('not monotone',)),
    ([0.5, 0.3, 0.45, 0.2], None, ('not monotone', 'double descent')),
    ([0.5, 0.3, 0.35, 0.3], 0.01, ('not monotone',)),
    ([0.5, 0.3, 0.35, 0.3], 0.02, ()),  # 0.05 is less than 3 * 0.02 * sqrt(2)
    ([0.5, 0.3, 0.45, 0.2], 0.1, ()),
    ([0.3, 0.3, 0.3], None, ()),
    ([0.3, 0.3, 0.3], 0.0, ()),
    ([0.3], None, ()),
    ([], None, ()),
  ],
)
@pytest.mark.parametrize('kind', ['accuracy', 'error', 'loss'])
def test_shapes(errors, spread, flags, kind):
  means = np.array([1 - error if kind == 'accuracy' else error for error in errors])
  sizes = 10.0 * 2 ** np.arange(len(means))
  spreads = None if spread is None else np.full(len(means), spread)
  assert shape_flags(sizes, means, spreads, kind) == flags
  assert shape_flags(sizes[::-1], means[::-1], spreads, kind) == flags


@given(st.lists(st.floats(0, 1), max_size=8), st.sampled_from(['accuracy', 'error']))
def test_a_curve_that_gets_better_has_no_flag(values, kind):
  means = sorted(values, reverse=kind == 'error')
  assert shape_flags(range(len(means)), means, None, kind) == ()
  assert shape_flags(range(len(means)), means, np.zeros(len(means)), kind) == ()


def test_each_standard_error_counts_at_its_size():
  sizes, errors = [10, 20, 40, 80], [0.5, 0.3, 0.4, 0.3]
  assert shape_flags(sizes, errors, [0.1, 0.01, 0.01, 0.1], 'error')
  assert not shape_flags(sizes, errors, [0.0, 0.0, 0.04, 0.0], 'error')


def test_notes_name_the_curve(read):
  text = 'n,y,depth,net\n'
  for n, y in ((50, 0.5), (100, 0.6), (200, 0.55), (1500, 0.7)):
    text += f'{n},{y},8,a\n{n},{y / 2 + n / 1e4},14,a\n'
  text += '0.5,0.1,8,b\n1,0.2,8,b\n'
  assert notes(read(text, group=['depth', 'net']), 'accuracy') == [
    'depth=8, net=a: not monotone and shaped like a double descent: accuracy goes from '
    '60.0% at 100 images to 55.0% at 200',
    'depth=8, net=b: has results at 0.5 and 1 images only; to tell a floor from a slope '
    'takes 4 sizes',
    'depth=8, net=b: sizes begin at 0.5; they are numbers of images, not shares of a '
    'set or millions',
    'depth=14, net=a: not monotone and shaped like a double descent: accuracy goes from '
    '31.0% at 100 images to 29.5% at 200',
  ]


def test_notes_of_one_curve(read):
  found = notes(read('n,y\n50,2.5\n', kind='loss'), 'loss')
  assert found == [
    'the curve: has results at 50 images only; to tell a floor from a slope takes 4 sizes'
  ]
  text = 'n,y\n10,2\n20,1\n40,1.5\n80,1.25\n'
  assert notes(read(text, kind='loss'), 'loss') == [
    'the curve: not monotone: loss goes from 1 at 20 images to 1.5 at 40'
  ]


def test_notes_of_a_family_of_model_sizes(read):
  text = 'n,y,p\n10,0.5,1k\n20,0.4,1k\n40,0.3,3k\n80,0.4,3k\n'
  table = read(text, kind='error', model_size='p')
  assert notes(table, 'error') == [
    'num_params=3000: not monotone: error goes from 30.0% at 40 images to 40.0% at 80'
  ]


def test_notes_know_the_noise(read):
  means = {10: 0.5, 20: 0.3, 40: 0.35, 80: 0.3}

  def text(spread, column=''):
    rows = [
      f'{n},{mean + side * spread},{column}'
      for n, mean in means.items()
      for side in (-1, 1)
    ]
    return f'n,y,e\n{chr(10).join(rows)}\n'

  assert notes(read(text(0.01), kind='error'), 'error')
  assert not notes(read(text(0.05), kind='error'), 'error')
  # The larger of what the repeats and the standard errors say.
  assert notes(read(text(0.01, 0.001), kind='error', se='e'), 'error')
  assert not notes(read(text(0.01, 0.1), kind='error', se='e'), 'error')
  assert not notes(read(text(0.05, 0.001), kind='error', se='e'), 'error')
  # Repeats that agree to the last digit say nothing about the noise.
  assert notes(read(text(0.0), kind='error'), 'error')


def test_nothing_odd_is_no_note(read):
  text = 'n,y\n' + ''.join(f'{n},{1 - n**-0.5}\n' for n in (10, 20, 40, 80))
  assert notes(read(text), 'accuracy') == []
