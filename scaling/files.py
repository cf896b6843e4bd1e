"""Files that are replaced at once."""

import os
import pathlib


def write_atomically(path: pathlib.Path, text: str) -> None:
  """Replaces a file at once: a reader sees the old text or the new, never a part."""
  temporary = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    with temporary.open('w', encoding='utf-8') as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    temporary.replace(path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise
