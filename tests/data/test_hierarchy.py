"""Labels closed over a hierarchy of classes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.data import hierarchy
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
