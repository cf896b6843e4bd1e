"""Ends a process that gets no further, for a hang keeps its lease alive."""

import contextlib
import faulthandler
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator

HUNG = 70  # EX_SOFTWARE
_LAST_SECONDS = 60.0  # for a process that cannot even run this thread


@contextlib.contextmanager
def watchdog(
  seconds: float, log: pathlib.Path, hung: Callable[[], None]
) -> Iterator[Callable[[], None]]:
  """Ends the process if the block does not call what it is given for so long.

  Args:
    seconds: without a call.
    log: where the stacks of all threads are written to then.
    hung: called before the process ends with the status `HUNG`.

  Yields:
    What to call after every step.
  """
  last = time.monotonic()
  over = threading.Event()

  def beat() -> None:
    nonlocal last
    last = time.monotonic()

  def watch() -> None:
    with log.open('a') as file:
      while not over.wait(min(1.0, seconds / 4)):
        if time.monotonic() - last > seconds:
          faulthandler.dump_traceback_later(_LAST_SECONDS, exit=True, file=file)
          faulthandler.dump_traceback(file)
          file.flush()
          try:
            hung()
          finally:
            os._exit(HUNG)
        # By a thread of C, for code that never lets Python run again.
        faulthandler.dump_traceback_later(seconds + _LAST_SECONDS, exit=True, file=file)
      faulthandler.cancel_dump_traceback_later()

  thread = threading.Thread(target=watch, daemon=True)
  thread.start()
  try:
    yield beat
  finally:
    over.set()
    thread.join()
