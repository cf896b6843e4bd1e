"""Reads one cell's folder as training left it, whole or not.

A study in progress is the normal case: files may be absent, a run may have died while
writing its last line. Nothing here raises for that; what could not be read is said in
words, so that the report can show it.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any, TypeGuard

_METRICS = ('test/', 'transfer/')


@dataclasses.dataclass(frozen=True)
class Cell:
  """What a cell's folder holds.

  Attributes:
    name: of the folder.
    config: resolved, nested; {} if not written yet.
    manifest: {} if not written yet.
    state: of status.json; 'pending' without one.
    reason: why the state is what it is, or why the cell has no result.
    attempts: how often a worker began it.
    rows: metrics by step, rows of one step merged.
  """

  name: str
  config: dict[str, Any]
  manifest: dict[str, Any]
  state: str
  reason: str
  attempts: int
  rows: dict[int, dict[str, Any]]

  def last(self, key: str) -> float:
    """The last recorded number under `key`, or nan."""
    for step in sorted(self.rows, reverse=True):
      value = self.rows[step].get(key)
      if _is_number(value):
        return float(value)
    return math.nan

  def _tests(self, step: int) -> bool:
    return any(key.startswith('test/') for key in self.rows[step])

  def final_evaluation(self) -> tuple[dict[str, float], str]:
    """The test metrics after the last step, or {} and the reason there are none."""
    if self.state != 'done':
      return {}, self.reason
    if not self.manifest or not self.config:
      name = 'config.json' if not self.config else 'manifest.json'
      return {}, f'done, but {name} is missing or unreadable'
    last = next((s for s in sorted(self.rows, reverse=True) if self._tests(s)), None)
    if last is None:
      return {}, self.reason or 'done, but metrics.jsonl holds no evaluation'
    steps = self.manifest.get('steps')
    if steps is not None and last != steps:
      return {}, f'done, but last evaluated at step {last} of {steps}'
    metrics = {k: v for k, v in self.rows[last].items() if k.startswith(_METRICS)}
    bad = [k for k, v in metrics.items() if not _is_number(v) or not math.isfinite(v)]
    if bad:
      return {}, f'{bad[0]} is {metrics[bad[0]]} after the last step'
    return {k: float(v) for k, v in metrics.items()}, ''


def read_cell(folder: pathlib.Path) -> Cell:
  """Reads a cell's folder; never raises for missing or half-written files."""
  status, problem = _read_json(folder / 'status.json')
  rows, torn = _read_rows(folder / 'metrics.jsonl')
  state = str(status.get('state') or ('unknown' if problem else 'pending'))
  reason = str(status.get('reason') or problem or torn)
  attempts = status.get('attempts')
  return Cell(
    name=folder.name,
    config=_read_json(folder / 'config.json')[0],
    manifest=_read_json(folder / 'manifest.json')[0],
    state=state,
    reason=reason,
    attempts=int(attempts) if _is_number(attempts) else 0,
    rows=rows,
  )


def _is_number(value: Any) -> TypeGuard[float]:
  return isinstance(value, int | float) and not isinstance(value, bool)


def _read_json(path: pathlib.Path) -> tuple[dict[str, Any], str]:
  try:
    value = json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    return {}, ''
  except (OSError, ValueError):
    return {}, f'{path.name} is unreadable'
  return (value, '') if isinstance(value, dict) else ({}, f'{path.name} is no object')


def _read_rows(path: pathlib.Path) -> tuple[dict[int, dict[str, Any]], str]:
  """Rows by step, and what is wrong with the file (a torn last line is not)."""
  try:
    lines = path.read_text(encoding='utf-8', errors='replace').splitlines()
  except OSError:
    return {}, ''
  rows: dict[int, dict[str, Any]] = {}
  for number, row in enumerate(_parse(lines), start=1):
    try:
      rows.setdefault(int(row['step']), {}).update(row)
    except (TypeError, KeyError):
      if number < len(lines):
        return rows, f'metrics.jsonl line {number} is not a row with a step'
  return rows, ''


def _parse(lines: list[str]) -> Iterator[Any]:
  """Yields the value of each line, None where there is none; ends after the first such."""
  try:
    yield from json.loads(f'[{",".join(lines)}]')  # in one go: several times as fast
  except ValueError:
    for line in lines:
      try:
        yield json.loads(line)
      except ValueError:
        yield None
        return
