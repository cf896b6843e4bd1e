"""Files that are replaced at once, and the folder of what can be made again."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


def cache_folder() -> pathlib.Path:
  """Returns where this user keeps what can be made again: programs and indices."""
  home = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(home) / 'scaling'


def write_atomically(path: pathlib.Path, text: str) -> None:
  """Replaces a file at once: a reader sees the old text or the new, never a part."""
  with replacing(path) as temporary:
    temporary.write_text(text, encoding='utf-8')


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields the path of a file to write, which then replaces another at once."""
  temporary = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    yield temporary
    with temporary.open('rb') as file:
      os.fsync(file.fileno())
    temporary.replace(path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise
