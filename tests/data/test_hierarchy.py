"""Labels closed over a hierarchy of classes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.data import hierarchy, sources
from scaling.errors import UserError

# 0 thing <- 1 fruit <- 2 apple; 0 <- 3 red <- 2 as well; 4 alone
LINKS = [(1, 0), (2, 1), (2, 3), (3, 0)]


def test_every_class_with_all_above_it():
  table = hierarchy.ancestors(LINKS, 5)
  rows = [[one for one in row if one >= 0] for row in table.tolist()]
  assert rows == [[0], [0, 1], [0, 1, 2, 3], [0, 3], [4]]


def test_labels_are_closed_once_each():
  table = hierarchy.ancestors(LINKS, 5)
  labels = [[2, -1], [1, 3], [4, -1], [-1, -1]]
  assert hierarchy.close(labels, table, 5).tolist() == [
    [0, 1, 2, 3, -1],
    [0, 1, 3, -1, -1],
    [4, -1, -1, -1, -1],
    [-1, -1, -1, -1, -1],
  ]


@st.composite
def hierarchies(draw):
  """Links that cannot go round, from higher ids to lower, and labels."""
  size = draw(st.integers(1, 12))
  order = draw(st.permutations(range(size)))
  pair = st.tuples(st.integers(0, size - 1), st.integers(0, size - 1))
  pairs = [(a, b) for a, b in draw(st.lists(pair, max_size=20)) if a > b]
  labels = st.lists(st.integers(-1, size - 1), min_size=3, max_size=3)
  rows = draw(st.lists(labels, min_size=1, max_size=4))
  return size, [(order[a], order[b]) for a, b in pairs], rows


@given(hierarchies())
def test_closing_is_the_least_set_that_holds_its_parents(drawn):
  size, links, rows = drawn
  table = hierarchy.ancestors(links, size)
  closed = hierarchy.close(rows, table, size)
  for row, out in zip(rows, closed.tolist(), strict=True):
    wanted = {one for one in row if one >= 0}
    while more := {b for a, b in links if a in wanted} - wanted:
      wanted |= more
    assert out == sorted(wanted) + [-1] * (size - len(wanted))
  assert (hierarchy.close(closed, table, size) == closed).all()


def test_a_hierarchy_without_links_changes_nothing():
  table = hierarchy.ancestors(np.zeros((0, 2)), 3)
  assert table.tolist() == [[0], [1], [2]]
  assert hierarchy.close([[2, 0]], table, 2).tolist() == [[0, 2]]
  assert hierarchy.close(np.zeros((0, 2), int), table, 2).shape == (0, 2)


def test_a_long_chain():
  size = 5000
  table = hierarchy.ancestors([(i + 1, i) for i in range(size - 1)][::-1], size)
  assert (table[-1] == np.arange(size)).all()


@pytest.mark.parametrize(
  ('links', 'cycle'),
  [
    ([(1, 2), (2, 3), (3, 1), (0, 1)], 'b -> c -> d -> b'),
    ([(0, 0)], 'a -> a'),
  ],
)
def test_a_cycle_is_named(links, cycle):
  with pytest.raises(UserError, match=f'goes round: {cycle};'):
    hierarchy.ancestors(links, 4, names='abcd')


def test_a_cycle_without_names():
  with pytest.raises(UserError, match='0 -> 1 -> 0'):
    hierarchy.ancestors([(0, 1), (1, 0)], 2)


def test_too_little_room_names_what_is_needed():
  table = hierarchy.ancestors(LINKS, 5)
  with pytest.raises(UserError, match=r'max_labels=3 .* set data.max_labels=4'):
    hierarchy.close([[4], [2]], table, 3)


def test_ids_that_are_no_class():
  with pytest.raises(UserError, match='names 5, of 5 classes'):
    hierarchy.ancestors([(5, 0)], 5)
  with pytest.raises(UserError, match='label 5 is none of 5 classes'):
    hierarchy.close([[5]], hierarchy.ancestors(LINKS, 5), 4)


@pytest.fixture
def of_set(data, tmp_path):
  """Returns the parts of a made-up set of five classes under a hierarchy."""
  data.update(dict(num_classes=5, max_labels=5, made_up_train=40, made_up_test=9))

  def load(text, **fields):
    (tmp_path / 'tree.csv').write_text(text)
    sources._load.cache_clear()  # the file's content is no part of what is asked for
    data.update({'hierarchy': 'tree.csv', **fields})
    return sources.load(data, str(tmp_path))

  return load


NAMED = ''.join(f'class {child},class {parent}\n' for child, parent in LINKS)


@pytest.mark.parametrize('head', ['', 'child,parent\n'])
def test_a_set_is_closed_over_its_file(of_set, data, head):
  parts = of_set(head + NAMED + '\n')
  data.hierarchy = ''
  plain = sources.load(data)
  table = hierarchy.ancestors(LINKS, 5)
  for closed, split in zip(parts, plain, strict=True):
    ids = np.arange(split.num_images)
    expected = hierarchy.close(split.labels(ids), table, 5)
    assert (expected != split.labels(ids)).any()
    np.testing.assert_array_equal(closed.labels(ids), expected)
    np.testing.assert_array_equal(closed.images(ids[:3]), split.images(ids[:3]))
    assert closed.fingerprint != split.fingerprint
  assert of_set(NAMED)[0].fingerprint == parts[0].fingerprint
  assert of_set(NAMED + 'class 4,class 0\n')[0].fingerprint != parts[0].fingerprint


def test_a_whole_path_needs_no_folder(of_set, data, tmp_path):
  of_set(NAMED)
  data.hierarchy = str(tmp_path / 'tree.csv')
  assert sources.load(data)[0].labels(np.arange(40)).max() == 4


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('class 1,clas 0\n', "tree.csv, line 1: 'clas 0' is no class of .*mean .class 0"),
    ('child,parent\nclass 1\n', r"tree.csv, line 2: \['class 1'\] is no pair"),
    (
      'class 1,class 0\nclass 0,class 1\n',
      'goes round: class 0 -> class 1 -> class 0',
    ),
    (
      NAMED,
      "max_labels=3 is too small for 'class 2' with .* set data.max_labels=4 or more",
    ),
  ],
)
def test_files_that_are_no_hierarchy_are_refused(of_set, text, message):
  with pytest.raises(UserError, match=message):
    of_set(text, max_labels=3)


def test_a_file_that_is_not_there_is_named(of_set):
  with pytest.raises(UserError, match=r'data\.hierarchy: .*none\.csv cannot be read'):
    of_set(NAMED, hierarchy='none.csv')
