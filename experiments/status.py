"""How far a study is, read from its cells' files alone."""

import contextlib
import dataclasses
import functools
import json
import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments import ledger, sweep
from experiments.duration import duration
from scaling import config as config_lib
from scaling import metrics

_TOLD_WAIT = 0.05  # of the time: less is not worth a word
_CLOCKS = ('train', 'compile', 'eval')  # seconds for which a cell holds its devices


@dataclasses.dataclass(frozen=True)
class Expected:
  """What is known of a cell before it has begun.

  Attributes:
    folder: of the cell.
    batch_size: images a step.
    steps: of the whole run; of a first batch alone where it takes a whole set of unknown
      size: the manifest will tell.
    work: what one image costs, relative to other cells of the study.
  """

  folder: pathlib.Path
  batch_size: int
  steps: int
  work: float


@dataclasses.dataclass(frozen=True)
class Progress:
  """How far one cell is.

  Attributes:
    name: of the cell.
    status: what its status.json says.
    stale: whether a running cell's worker is gone.
    images: training images seen so far.
    total_images: of the whole run; an estimate until the cell has started.
    work: what one image costs, relative to other cells of the study.
    row: the last row of its metrics.
    num_devices: that it runs on.
  """

  name: str
  status: ledger.Status
  stale: bool
  images: int
  total_images: int
  work: float
  row: dict[str, Any]
  num_devices: int = 1

  @property
  def state(self) -> str:
    """The state in one word."""
    return 'stale' if self.stale else self.status.state

  @property
  def ended(self) -> bool:
    """Whether nothing more will happen to it."""
    return self.status.state in ledger.ENDED

  @property
  def part(self) -> float:
    """How much of it is done, from 0 to 1."""
    return min(1.0, self.images / max(self.total_images, 1))

  @property
  def images_per_second(self) -> float:
    """Images a second while it runs, else 0."""
    running = self.state == 'running'
    return self.row.get('time/images_per_second', 0.0) if running else 0.0

  @property
  def device_hours(self) -> float:
    """Hours of devices that it has cost until its last row."""
    seconds = sum(self.row.get(f'time/{name}_seconds', 0.0) for name in _CLOCKS)
    return seconds * self.num_devices / 3600


def expect(workdir: pathlib.Path, study: Mapping[str, Any]) -> list[Expected]:
  """Returns what is expected of each cell that a study.json lists, in its order."""
  base = config_lib.flat(study['config'])
  found = []
  for cell in study['cells']:
    fields = {name: cell['overrides'].get(name, base[name]) for name in _FIELDS}
    batch_size, steps, work = _expected(tuple(fields.values()))
    folder = sweep.cell_folder(workdir, cell['name'])
    found.append(Expected(folder, batch_size, steps, work))
  return found


_FIELDS = (
  'data.num_images',
  'train.batch_size',
  'train.epochs',
  'train.steps',
  'model.depth',
  'model.width',
)


@functools.cache
def _expected(values: tuple) -> tuple[int, int, float]:
  config = config_lib.nested(dict(zip(_FIELDS, values, strict=True)))
  batch_size = config.train.batch_size
  steps = config_lib.num_steps(config, config.data.num_images or batch_size)
  return batch_size, steps, config.model.depth * config.model.width**2


def read_progress(cell: Expected, before: Progress | None = None) -> Progress:
  """Returns how far a cell is.

  Args:
    cell: what is expected of it.
    before: an earlier answer, which is kept when the cell had ended.
  """
  status = ledger.read_status(cell.folder)
  if before is not None and before.ended and status == before.status:
    return before
  row, steps, num_devices = {}, cell.steps, 1
  if status.attempts:
    row = metrics.last_row(cell.folder / 'metrics.jsonl')
    with contextlib.suppress(FileNotFoundError, KeyError, ValueError, TypeError):
      manifest = json.loads((cell.folder / 'manifest.json').read_bytes())
      steps, num_devices = manifest['steps'], manifest['num_devices']
  return Progress(
    name=cell.folder.name,
    status=status,
    stale=ledger.is_stale(cell.folder, status),
    images=row.get('step', 0) * cell.batch_size,
    total_images=steps * cell.batch_size,
    work=cell.work,
    row=row,
    num_devices=num_devices,
  )


_ORDER = ('done', 'running', 'stale', *ledger.WAITING[1:], 'failed', 'cancelled')


def counts(cells: Sequence[Progress]) -> str:
  """Returns '12 done, 2 running, 58 pending'."""
  found = Counter(cell.state for cell in cells)
  return ', '.join(f'{found[s]} {s}' for s in (*_ORDER, 'pending') if found[s])


def seconds_left(cells: Iterable[Progress]) -> float | None:
  """Returns how long the rest takes at the speed of what runs now, or None."""
  cells = list(cells)
  left = sum(
    cell.work * (cell.total_images - cell.images) for cell in cells if not cell.ended
  )
  speed = sum(cell.work * cell.images_per_second for cell in cells)
  return left / speed if speed else None


def summary(cells: Sequence[Progress], price_per_hour: float | None = None) -> str:
  """Returns counts, speed, time left and cost so far, in a line."""
  parts = [counts(cells)]
  if speed := sum(cell.images_per_second for cell in cells):
    parts.append(f'{speed:,.0f} images/s')
  if left := seconds_left(cells):
    parts.append(f'about {duration(left)} left')
  if hours := sum(cell.device_hours for cell in cells):
    cost = f'{hours:.3g} device hours'
    if price_per_hour is not None:
      cost += f', {hours * price_per_hour:,.2f} USD'
    parts.append(cost)
  return ' · '.join(parts)


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
    line = f'{cell.name:<{width}}  {cell.state:<9} {cell.part:>4.0%}'
    told = cell.state in ('failed', 'retryable', 'preempted')
    if told and cell.status.reason:
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


def as_json(
  cells: Sequence[Progress], price_per_hour: float | None = None
) -> dict[str, Any]:
  """Returns the same for programs: `cells`, `counts` and totals."""
  hours = sum(cell.device_hours for cell in cells)
  return {
    'cells': [
      {
        'name': cell.name,
        'state': cell.state,
        'reason': cell.status.reason,
        'attempts': cell.status.attempts,
        'failures': cell.status.failures,
        'preemptions': cell.status.preemptions,
        'part': cell.part,
        'images': cell.images,
        'images_per_second': cell.images_per_second,
        'device_hours': cell.device_hours,
        'row': cell.row,
      }
      for cell in cells
    ],
    'counts': dict(Counter(cell.state for cell in cells)),
    'images_per_second': sum(cell.images_per_second for cell in cells),
    'seconds_left': seconds_left(cells),
    'device_hours': hours,
    'cost': None if price_per_hour is None else hours * price_per_hour,
  }
