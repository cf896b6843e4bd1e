"""What Ctrl-C and SIGTERM mean to a launcher: let the workers save, then leave."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def asked() -> Iterator[threading.Event]:
  """Turns both signals into an event while the block runs.

  Yields:
    What is set by the first of them.
  """
  stop = threading.Event()
  handlers = {
    number: signal.signal(number, lambda *_: stop.set())
    for number in (signal.SIGINT, signal.SIGTERM)
  }
  try:
    yield stop
  finally:
    for number, handler in handlers.items():
      signal.signal(number, handler)
