"""The thread that prepares what the loop will ask for."""

import gc
import threading
import time

import pytest

from scaling.data.prefetch import Prefetch
from scaling.errors import UserError


def threads() -> list[str]:
  return [t.name for t in threading.enumerate() if t.name.startswith('prefetch')]


def assert_threads_end() -> None:
  deadline = time.monotonic() + 5
  while threads() and time.monotonic() < deadline:
    time.sleep(0.01)
  assert not threads()


def test_it_keeps_the_order():
  with Prefetch(lambda step: step * step, 3, 40) as items:
    assert list(items) == [step * step for step in range(3, 40)]
  assert list(Prefetch(str, 5, 5)) == []
  assert_threads_end()


def test_it_works_ahead_but_not_further():
  made = []
  with Prefetch(made.append, 0, 100, ahead=3) as items:
    next(items)
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
      time.sleep(0.01)
    time.sleep(0.05)
    assert made == [0, 1, 2, 3]


def test_it_raises_where_the_item_would_have_come():
  def make(step):
    if step == 2:
      raise UserError('image 2 is broken')
    return step

  items = Prefetch(make, 0, 10)
  assert next(items) == 0
  assert next(items) == 1
  with pytest.raises(UserError, match='image 2 is broken'):
    next(items)
  assert_threads_end()
  assert list(items) == []


def test_it_ends_when_left_early():
  for item in Prefetch(lambda step: step, 0, 10**9):
    if item == 5:
      break
  gc.collect()
  assert_threads_end()
  items = Prefetch(lambda step: step, 0, 10**9)
  next(items)
  items.close()
  items.close()
  assert not threads()
  assert list(items) == []


def test_it_measures_the_wait():
  with Prefetch(lambda step: time.sleep(0.1), 0, 3) as items:
    assert items.wait_seconds == 0
    list(items)
    assert 0.05 < items.wait_seconds < 10
  last = threading.Event()
  with Prefetch(lambda step: step == 2 and last.set(), 0, 3, ahead=3) as items:
    last.wait()
    list(items)
    assert items.wait_seconds < 0.05
