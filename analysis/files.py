"""Replaces files whole, so that a reader never sees half of one."""

import os
import pathlib


def write_text(path: str | os.PathLike[str], text: str) -> pathlib.Path:
  """Writes `text` next to `path` and renames it over; returns the path."""
  path = pathlib.Path(path)
  temporary = path.with_name(f'.{path.name}.tmp')
  temporary.write_text(text, encoding='utf-8', newline='\n')
  os.replace(temporary, path)
  return path
