"""The programs that a worker has compiled, and a cell that is better left to others.

To compile a program, or only to trace it and read it from the cache, takes longer than a
small cell does. So the last cell of a program is left for as long to the workers that
have it; who is still busy then has larger cells, which are worth the trouble.
"""

import pathlib
import time
from collections.abc import Callable, Sequence

from experiments import ledger
from scaling import metrics


class Programs:
  """Those of one worker.

  Args:
    groups: names of cells; those of a group share a program.
    now: seconds of a clock.
  """

  def __init__(
    self, groups: Sequence[Sequence[str]], now: Callable[[], float] = time.monotonic
  ):
    self._groups = groups
    self._group = {name: i for i, names in enumerate(groups) for name in names}
    self._now = now
    self._compiled: set[int] = set()
    self._seconds = 0.0  # that compiling took, at most
    self._seen: dict[int, float] = {}  # when the last cell of each group was first left

  def ran(self, cell: pathlib.Path) -> None:
    """Notes that this worker has compiled the program of a cell."""
    group = self._group[cell.name]
    self._compiled.add(group)
    if ledger.read_status(cell).attempts == 1:  # else others have compiled it too
      row = metrics.last_row(cell / 'metrics.jsonl')
      self._seconds = max(self._seconds, row.get('time/compile_seconds', 0.0))

  def leaves(self, cell: pathlib.Path) -> bool:
    """Returns whether to leave a cell that waits to others, for the time being."""
    group = self._group[cell.name]
    if group in self._compiled or self._is_over(group):
      return False
    names = self._groups[group]
    states = [ledger.read_status(cell.parent / name).state for name in names]
    if 'running' not in states or sum(state in ledger.WAITING for state in states) > 1:
      return False
    self._seen.setdefault(group, self._now())
    return True

  def _is_over(self, group: int) -> bool:
    """Returns whether the last cell of a group was left for long enough."""
    now = self._now()
    return now - self._seen.get(group, now) >= self._seconds
