"""The cores and the memory of this machine, and work spread over the cores by threads."""

import concurrent.futures
import functools
import os
from collections.abc import Callable


def num_cores() -> int:
  """Returns the cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def memory_bytes() -> int | None:
  """Returns how much memory the machine has; None where it does not say."""
  try:
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  except (AttributeError, OSError, ValueError):
    return None


@functools.cache
def _threads() -> concurrent.futures.ThreadPoolExecutor:
  return concurrent.futures.ThreadPoolExecutor(num_cores(), 'core')


def on_all(work: Callable[[int], None], num: int) -> None:
  """Calls `work` for each of `0..num-1`, on a thread for each core.

  It is for work that lets other threads run, such as decoding.

  Raises:
    Exception: what a call raised.
  """
  numbers = iter(range(num))

  def some() -> None:
    for number in numbers:  # the threads share it: each number is handed out once
      work(number)

  for thread in [_threads().submit(some) for _ in range(num_cores())]:
    thread.result()
