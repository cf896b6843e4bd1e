"""Files that are replaced at once."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


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
