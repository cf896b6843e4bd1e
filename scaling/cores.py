"""The cores and the memory of this machine, and work spread over the cores by threads."""

import concurrent.futures
import contextlib
import functools
import os
import pathlib
from collections.abc import Callable


def num_cores() -> int:
  """Returns the cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def memory_bytes(root: pathlib.Path = pathlib.Path('/')) -> int | None:
  """Returns how much memory this process may have: the machine's, or of its cgroup.

  None where neither is told.
  """
  found = []
  with contextlib.suppress(AttributeError, OSError, ValueError):
    found.append(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))
  groups = root / 'sys' / 'fs' / 'cgroup'
  with contextlib.suppress(OSError):
    for line in (root / 'proc' / 'self' / 'cgroup').read_text().splitlines():
      _, kind, path = line.split(':', 2)
      if kind == 'memory':
        group, name = groups / 'memory', 'memory.limit_in_bytes'
      elif not kind:  # version 2
        group, name = groups, 'memory.max'
      else:
        continue
      for part in (*pathlib.PurePath(path.lstrip('/')).parts, ''):
        # A container sees its own limit at the top, whatever the path says.
        with contextlib.suppress(OSError, ValueError):
          found.append(int((group / name).read_text()))  # or 'max'
        group /= part
  return min(found, default=None)


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
