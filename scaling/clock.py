"""Seconds by what they went to. They travel in checkpoints and so survive restarts."""

import contextlib
import time
from collections.abc import Iterator, Mapping


class Clock:
  """Adds up seconds under names: 'train', 'device', 'input_wait', 'compile', 'eval'.

  Of the seconds of training, 'device' has the part in which the devices are this cell's.

  Args:
    cells: that are trained side by side, and share the devices.
  """

  def __init__(self, cells: int = 1):
    names = 'train', 'device', 'input_wait', 'compile', 'eval'
    self.seconds: dict[str, float] = dict.fromkeys(names, 0.0)
    self._cells = cells

  def go_on_from(self, seconds: Mapping[str, float]) -> None:
    """Adds what the runs before this one took."""
    # Some checkpoints are older than 'device'.
    for name, before in ({'device': seconds['train']} | dict(seconds)).items():
      self.seconds[name] += before

  @contextlib.contextmanager
  def measure(self, name: str) -> Iterator[None]:
    """Adds the time that the block takes."""
    start = time.monotonic()
    try:
      yield
    finally:
      took = time.monotonic() - start
      self.seconds[name] += took
      if name == 'train':
        self.seconds['device'] += took / self._cells
