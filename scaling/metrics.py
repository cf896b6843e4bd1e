"""A cell's metrics.jsonl: one row a step, appended, and cut when a run goes back.

Keys that start with 'time/' differ between runs; all others are a function of the
config.
"""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from scaling import files
from scaling.mirrors import Mirrors

_TAIL_BYTES = 8192


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the whole rows of a file; a last line torn by a kill is left out."""
  if not path.exists():
    return []
  rows = []
  for line in path.read_text(encoding='utf-8').splitlines():
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      break
  return rows


def last_row(path: pathlib.Path) -> dict[str, Any]:
  """Returns the last whole row, or {}; reads no more than the end of the file."""
  try:
    with path.open('rb') as file:
      file.seek(0, os.SEEK_END)
      file.seek(max(0, file.tell() - _TAIL_BYTES))
      lines = file.read().splitlines()
  except FileNotFoundError:
    return {}
  for line in reversed(lines):
    try:
      return json.loads(line)
    except ValueError:  # torn, or cut off by the seek
      continue
  return {}


def cut_rows(path: pathlib.Path, last_step: int) -> list[dict[str, Any]]:
  """Drops what was written beyond a step, and returns what is left."""
  rows = [row for row in read_rows(path) if row['step'] <= last_step]
  files.write_atomically(path, ''.join(json.dumps(row) + '\n' for row in rows))
  return rows


def score(row: Mapping[str, float], metric: str) -> float:
  """Returns how good a row is by a metric, more being better; -inf without one."""
  value = row.get(metric, math.nan)
  return -math.inf if math.isnan(value) else -value if 'loss' in metric else value


class Writer:
  """Appends rows to metrics.jsonl, and then tells the mirrors."""

  def __init__(self, folder: pathlib.Path, mirrors: Mirrors | None = None):
    self._file = (folder / 'metrics.jsonl').open('a', encoding='utf-8')
    self._mirrors = mirrors

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Writes one row; it is on disk when this returns."""
    self._file.write(json.dumps({'step': step, **values}) + '\n')
    self._file.flush()
    os.fsync(self._file.fileno())
    if self._mirrors:
      self._mirrors.write(step, values)

  def close(self) -> None:
    """Closes the file and the mirrors."""
    self._file.close()
    if self._mirrors:
      self._mirrors.close()
