"""A thread that prepares what the loop will ask for."""

import collections
import concurrent.futures
import time
from collections.abc import Callable
from typing import Generic, Self, TypeVar

T = TypeVar('T')


class Prefetch(Generic[T]):
  """Yields `make(start), ..., make(stop - 1)`, prepared ahead by a thread of its own.

  An error in `make` is raised where its item would have come. Leaving the `with` block,
  `close()` or dropping the last reference ends the thread, after at most the item it is
  working on.

  Args:
    make: prepares the item of one step; called in order, in the thread.
    start: first step.
    stop: step after the last.
    ahead: items that may wait to be taken.

  Attributes:
    wait_seconds: time that the consumer has spent waiting for items.
  """

  def __init__(
    self, make: Callable[[int], T], start: int, stop: int, ahead: int = 2
  ) -> None:
    self.wait_seconds = 0.0
    self._make = make
    self._steps = iter(range(start, stop))
    self._thread = concurrent.futures.ThreadPoolExecutor(1, 'prefetch')
    self._pending: collections.deque[concurrent.futures.Future[T]] = collections.deque()
    for _ in range(max(ahead, 1)):
      self._submit()

  def _submit(self) -> None:
    for step in self._steps:
      self._pending.append(self._thread.submit(self._make, step))
      return

  def __iter__(self) -> Self:
    return self

  def __next__(self) -> T:
    if not self._pending:
      self.close()
      raise StopIteration
    began = time.perf_counter()
    try:
      item = self._pending.popleft().result()
    except BaseException:
      self.close()
      raise
    self.wait_seconds += time.perf_counter() - began
    self._submit()
    return item

  def close(self) -> None:
    """Ends the thread; the items not yet taken are dropped."""
    self._pending.clear()
    self._steps = iter(())
    self._thread.shutdown(cancel_futures=True)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def __del__(self) -> None:
    self._thread.shutdown(wait=False, cancel_futures=True)
