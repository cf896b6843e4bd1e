"""Seconds by what they went to. They travel in checkpoints and so survive restarts."""

import contextlib
import time
from collections.abc import Iterator


class Clock:
  """Adds up seconds under names: 'train', 'input_wait', 'compile', 'eval'."""

  def __init__(self, seconds: dict[str, float] | None = None):
    self.seconds = {'train': 0.0, 'input_wait': 0.0, 'compile': 0.0, 'eval': 0.0}
    self.seconds.update(seconds or {})

  @contextlib.contextmanager
  def measure(self, name: str) -> Iterator[None]:
    """Adds the time that the block takes."""
    start = time.monotonic()
    try:
      yield
    finally:
      self.seconds[name] += time.monotonic() - start
