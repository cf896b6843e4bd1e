"""The images that a run could not read and went on without."""

import logging
import pathlib
import threading

LOG = logging.getLogger('scaling')
_LOGGED = 10  # the file has them all


class Skipped:
  """A file with a line for each such image, once over all starts of a run.

  Args:
    path: of the file; made with the first line.
  """

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._lock = threading.Lock()
    try:
      self._seen = set(path.read_text(encoding='utf-8').splitlines())
    except FileNotFoundError:
      self._seen = set()

  def __len__(self) -> int:
    return len(self._seen)

  def add(self, reason: str) -> None:
    """Notes an image, named by the words of its error."""
    line = ' '.join(reason.split())
    with self._lock:
      if line in self._seen:
        return
      self._seen.add(line)
      with self._path.open('a', encoding='utf-8') as file:
        file.write(line + '\n')
      if len(self._seen) <= _LOGGED:
        LOG.warning('skipped: %s', line)
      if len(self._seen) == _LOGGED:
        LOG.warning('further images that are skipped go to %s alone', self._path)
