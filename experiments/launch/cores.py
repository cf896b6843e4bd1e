"""Cores of a machine, shared out among workers that do not know of each other."""

import contextlib
import os
import socket
from collections.abc import Iterator

_CLAIM = 'scaling core'


def here() -> list[int]:
  """Returns the cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))


@contextlib.contextmanager
def held(number: int) -> Iterator[list[int]]:
  """Holds so many cores while the block runs, or until the process dies.

  A worker's threads should not depend on what else runs on its machine: sums over
  another number of them can differ in the last bit.

  Args:
    number: of cores.

  Yields:
    The cores, or none where there are not so many left, or no way to choose them.
  """
  with contextlib.ExitStack() as stack:
    found = []
    for core in here():
      if len(found) == number:
        break
      # A name that one process can have at a time, and that no kill leaves behind.
      claim = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
      with contextlib.suppress(OSError):
        claim.bind(f'\0{_CLAIM} {core}')
        found.append(core)
    yield found if len(found) == number else []
