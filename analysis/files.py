"""Replaces files whole, so that a reader never sees half of one."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import pandas as pd


def write_text(path: str | os.PathLike[str], text: str) -> pathlib.Path:
  """Writes `text` next to `path` and renames it over; returns the path."""
  path = pathlib.Path(path)
  with replacing(path) as temporary:
    temporary.write_text(text, encoding='utf-8', newline='\n')
  return path


def write_csv(path: str | os.PathLike[str], frame: pd.DataFrame) -> pathlib.Path:
  """Writes the columns of `frame`, numbers at full precision; returns the path."""
  return write_text(path, frame.to_csv(index=False, lineterminator='\n'))


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a name to write to, and renames it over `path` when all went well.

  Each process has its own, for two may write the same report at once.
  """
  temporary = path.with_name(f'.{os.getpid()}.{path.name}')
  try:
    yield temporary
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)
