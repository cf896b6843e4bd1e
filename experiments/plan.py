"""What a sweep would take, without running it."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence

from ml_collections import ConfigDict

from experiments import status, sweep
from experiments.duration import duration
from experiments.sweep import Cell
from scaling import config as config_lib
from scaling import cost
from scaling.errors import UserError

CPU_FLOPS = 10e9  # sustained by one core; a guess until cells have been run


@dataclasses.dataclass(frozen=True)
class Planned:
  """What one cell would take."""

  name: str
  steps: int
  forward_flops: float
  train_flops: float
  seconds: float


def sustained_flops(
  device: str,
  num_devices: int,
  mfu: float,
  workdir: pathlib.Path | None,
  workers: int = 1,
) -> tuple[float, str]:
  """Returns the FLOP/s of a worker to plan with, and where that number comes from.

  Raises:
    UserError: for a device whose peak is not known.
  """
  if device == 'cpu':
    measured = _measured(workdir) if workdir is not None else None
    if measured:
      return measured, f'{measured / 1e9:.3g} GFLOP/s, measured on the cells done here'
    total = CPU_FLOPS * num_devices / workers  # which share the cores
    return total, (
      f'{total / 1e9:.3g} GFLOP/s, a guess of {CPU_FLOPS / 1e9:g} a core; give the '
      '--workdir of finished cells to have it measured'
    )
  if device not in cost.PEAK_FLOPS:
    known = ', '.join(['cpu', *cost.PEAK_FLOPS])
    raise UserError(
      f'--device={device!r} is unknown; use {known}.'
      + config_lib.suggest(device, cost.PEAK_FLOPS)
    )
  if mfu <= 0:
    raise UserError(f'--mfu={mfu:g} must be above 0; leave it out to have it modelled')
  total = cost.PEAK_FLOPS[device] * num_devices * mfu
  peak = cost.PEAK_FLOPS[device] / 1e12
  return total, f'{num_devices} x {device}, {peak:g} TFLOP/s peak at {mfu:.0%} use'


def _measured(workdir: pathlib.Path) -> float | None:
  """Returns the median FLOP/s of the cells that are done there, over all workers."""
  rates = []
  if not (workdir / 'study.json').exists():
    return None
  for cell in status.expect(workdir, sweep.read_study(workdir)):
    progress = status.read_progress(cell)
    if progress.state == 'done':
      flops = json.loads((cell.folder / 'manifest.json').read_text())['train_flops']
      rates.append(flops / progress.row['time/train_seconds'])
  return sorted(rates)[len(rates) // 2] if rates else None


def plan(
  cells: Sequence[Cell], flops_per_second: float, num_full: int | None
) -> list[Planned]:
  """Returns what each cell would take.

  Args:
    cells: of the sweep.
    flops_per_second: sustained.
    num_full: images in the whole set, for cells that take all of it.

  Raises:
    UserError: if a cell takes the whole set and its size is not known.
  """
  out = []
  for cell in cells:
    steps = num_steps(cell.name, cell.config, num_full)
    init = cell.config.init
    begin = init.step if init.part == 'state' else 0
    flops = cost.train_flops(cell.config, steps - begin)
    out.append(
      Planned(
        cell.name,
        steps,
        cost.forward_flops(cell.config),
        flops,
        flops / flops_per_second,
      )
    )
  return out


def num_steps(name: str, config: ConfigDict, num_full: int | None) -> int:
  """Returns the updates of a cell.

  Raises:
    UserError: if the cell takes the whole set and its size is not known.
  """
  num_images = config.data.num_images or num_full
  if not num_images and not config.train.steps:
    raise UserError(
      f'{name} takes the whole set, whose size is not known without reading it; '
      'set data.num_images or give --num_full to plan it'
    )
  return config_lib.num_steps(config, num_images or 0)


def table(planned: Sequence[Planned], workers: int = 1) -> str:
  """Returns a line for each cell and the total."""
  width = max(len(cell.name) for cell in planned)
  header = f'{"cell":<{width}}  {"steps":>12}  {"FLOPs/image":>11}  {"FLOPs":>9}  hours'
  lines = [header]
  for cell in planned:
    lines.append(
      f'{cell.name:<{width}}  {cell.steps:>12,}  {cell.forward_flops:>11.3g}  '
      f'{cell.train_flops:>9.3g}  {cell.seconds / 3600:.3g}'
    )
  flops = sum(cell.train_flops for cell in planned)
  seconds = sum(cell.seconds for cell in planned) / workers
  at_once = f' with {workers} workers' if workers > 1 else ''
  lines.append(
    f'{len(planned)} cells, {flops:.3g} FLOPs, {seconds / 3600:.3g} hours'
    f' ({duration(seconds)}){at_once}, less imports, compilation and evaluation'
  )
  return '\n'.join(lines)
