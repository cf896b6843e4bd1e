"""How far a study is, read from its cells' files alone."""

import contextlib
import dataclasses
import functools
import json
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from experiments import ledger
from scaling import config as config_lib
from scaling import metrics

_TOLD_WAIT = 0.05  # of the time: less is not worth a word


@dataclasses.dataclass(frozen=True)
class Progress:
  """How far one cell is.

  Attributes:
    name: of the cell.
    status: what its status.json says; `stale` if its worker is gone.
    stale: whether a running cell's worker is gone.
    images: training images seen so far.
    total_images: of the whole run; an estimate until the cell has started.
    work: what one image costs, relative to other cells of the study.
    row: the last row of its metrics.
  """

  name: str
  status: ledger.Status
  stale: bool
  images: int
  total_images: int
  work: float
  row: dict[str, Any]

  @property
  def state(self) -> str:
    """The state in one word."""
    return 'stale' if self.stale else self.status.state

  @property
  def ended(self) -> bool:
    """Whether nothing more will happen to it."""
    return self.status.state in ('done', 'failed')


def read_progress(cell: pathlib.Path, before: Progress | None = None) -> Progress:
  """Returns how far a cell is.

  Args:
    cell: its folder.
    before: an earlier answer, which is kept when the cell had ended.
  """
  status = ledger.read_status(cell)
  if before is not None and before.ended and status == before.status:
    return before
  batch_size, steps, work = _expected(cell)
  row = {}
  if status.attempts:
    row = metrics.last_row(cell / 'metrics.jsonl')
    with contextlib.suppress(FileNotFoundError):
      steps = json.loads((cell / 'manifest.json').read_text())['steps']
  return Progress(
    name=cell.name,
    status=status,
    stale=ledger.is_stale(cell, status),
    images=row.get('step', 0) * batch_size,
    total_images=steps * batch_size,
    work=work,
    row=row,
  )


@functools.cache
def _expected(cell: pathlib.Path) -> tuple[int, int, float]:
  """Returns batch size, steps and the work of an image, by a config that never changes.

  The steps are of a first batch alone where the config takes a whole set of unknown
  size: the manifest will tell.
  """
  config = ConfigDict(json.loads((cell / 'config.json').read_text()))
  batch_size = config.train.batch_size
  steps = config_lib.num_steps(config, config.data.num_images or batch_size)
  return batch_size, steps, config.model.depth * config.model.width**2


def counts(cells: Sequence[Progress]) -> str:
  """Returns '12 done, 2 running, 58 pending'."""
  found = Counter(cell.state for cell in cells)
  order = ('done', 'running', 'stale', 'stopped', 'failed', 'pending')
  return ', '.join(f'{found[state]} {state}' for state in order if found[state])


def failures(cells: Sequence[Progress]) -> list[str]:
  """Returns a line for each reason that cells failed for, the commonest first."""
  names: dict[str, list[str]] = {}
  for cell in cells:
    if cell.state == 'failed':
      names.setdefault(cell.status.reason or 'unknown', []).append(cell.name)
  lines = []
  for reason, failed in sorted(names.items(), key=lambda item: -len(item[1])):
    more = f' and {len(failed) - 1} more' if len(failed) > 1 else ''
    lines.append(f'{failed[0]}{more}: {reason}')
  return lines


def table(cells: Sequence[Progress]) -> str:
  """Returns a line for each cell: state, progress, speed, score or reason."""
  width = max(len(cell.name) for cell in cells)
  lines = []
  for cell in cells:
    part = min(1.0, cell.images / max(cell.total_images, 1))
    line = f'{cell.name:<{width}}  {cell.state:<8} {part:>4.0%}'
    if cell.state == 'failed' or (cell.state == 'stopped' and cell.status.reason):
      line += f'  {cell.status.reason}'
    else:
      if 'time/images_per_second' in cell.row:
        line += f'  {cell.row["time/images_per_second"]:>8,.0f} images/s'
      if (waited := cell.row.get('time/input_wait_share', 0)) >= _TOLD_WAIT:
        line += f'  {waited:.0%} waiting for input'
      if 'test/top1' in cell.row:
        line += f'  top-1 {cell.row["test/top1"]:.2%}'
    lines.append(line)
  return '\n'.join(lines)
