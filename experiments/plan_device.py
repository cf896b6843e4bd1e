"""What a sweep would take on accelerators: a roofline for each cell, never a measurement."""

import copy
import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

from experiments.duration import duration
from experiments.plan import num_steps
from experiments.sweep import Cell
from scaling import config as config_lib
from scaling import cost, roofline
from scaling.chips import CHIPS, Chip
from scaling.errors import UserError

# Pillow decodes 360 to 726 ImageNet files a second on one core of five server processors
# (arXiv 2605.08731, single thread); cropping and resizing come on top.
IMAGES_PER_CORE = 400.0
# Where a config's batch cannot be split: the workers' batch of the 2017 study, which is
# the group of its batch norms.
IMAGES_PER_DEVICE = 32


@dataclasses.dataclass(frozen=True)
class Device:
  """The machine to plan for.

  Attributes:
    name: key of `CHIPS`.
    num_devices: that train one cell.
    share: of the modelled speed that a program reaches.
    fsdp: parameters and optimiser state are split over the devices.
    model_devices: over how many the classifier is split.
    images_per_core: decoded in a second.
    cores_per_host: None takes the chip's, where known.
    price_per_hour: USD a chip; None takes the chip's, where known.
  """

  name: str
  num_devices: int
  share: float = roofline.SHARE
  fsdp: bool = False
  model_devices: int = 1
  images_per_core: float = IMAGES_PER_CORE
  cores_per_host: int | None = None
  price_per_hour: float | None = None

  @property
  def chip(self) -> Chip:
    """Its data sheet."""
    return CHIPS[self.name]

  @property
  def price(self) -> float | None:
    """USD an hour for one chip."""
    given = self.price_per_hour
    return self.chip.price_per_hour if given is None else given

  @property
  def cores(self) -> int | None:
    """Of a host."""
    return self.cores_per_host or self.chip.host_cores


@dataclasses.dataclass(frozen=True)
class Planned:
  """What one cell would take.

  Attributes:
    name: of the cell.
    batch_size: images a step.
    steps: updates.
    images_per_second: of all devices.
    mfu: FLOPs of the network over those of the devices in the time.
    limit: what most of the time goes to.
    hours: of all devices together.
    cost: USD, or None without a price.
    memory_bytes: held by one chip at least.
    sent_bytes: by one chip in a step.
    input: what one host must deliver.
  """

  name: str
  batch_size: int
  steps: int
  images_per_second: float
  mfu: float
  limit: str
  hours: float
  cost: float | None
  memory_bytes: float
  sent_bytes: float
  input: roofline.Input


def check(device: Device) -> None:
  """Checks a device.

  Raises:
    UserError: for an unknown chip, and a split that does not come out even.
  """
  if device.name not in CHIPS:
    raise UserError(
      f'--device={device.name!r} is unknown; use {", ".join(["cpu", *CHIPS])}.'
      + config_lib.suggest(device.name, CHIPS)
    )
  if not 0 < device.share <= 1.5:
    raise UserError(
      f'--roofline_share={device.share:g} must be above 0 and at most 1.5; '
      f'{roofline.SHARE:g} is usual'
    )
  if device.num_devices % device.model_devices:
    raise UserError(
      f'--model_devices={device.model_devices} does not divide '
      f'--num_devices={device.num_devices}'
    )


def plan(cells: Sequence[Cell], device: Device, num_full: int | None) -> list[Planned]:
  """Returns what each cell would take, one after another on all devices.

  Args:
    cells: of the sweep.
    device: to run on.
    num_full: images in the whole set, for cells that take all of it.

  Raises:
    UserError: for a device that `check` refuses, and a cell of unknown size.
  """
  check(device)
  return [_plan(cell, device, num_full) for cell in cells]


def _plan(cell: Cell, device: Device, num_full: int | None) -> Planned:
  config = copy.deepcopy(cell.config)
  if config.train.batch_size % device.num_devices:
    config.train.batch_size = IMAGES_PER_DEVICE * device.num_devices
  steps = num_steps(cell.name, config, num_full)
  data, batch = config.data, config.train.batch_size
  numbers = data.image_size**2 * data.channels
  step = roofline.step(
    cost.network(config),
    device.chip,
    batch_size=batch,
    num_devices=device.num_devices,
    itemsize=2 if config.model.dtype == 'bfloat16' else 4,
    image_numbers=numbers,
    share=device.share,
    fsdp=device.fsdp,
    model_devices=device.model_devices,
  )
  rate, limit = step.images_per_second, step.limit
  if device.cores:
    hosts = math.ceil(device.num_devices / device.chip.host_chips)
    decoded = hosts * device.cores * device.images_per_core
    if decoded < rate:
      rate, limit = decoded, 'input'
  begin = config.init.step if config.init.part == 'state' else 0
  hours = (steps - begin) * batch / rate / 3600
  return Planned(
    name=cell.name,
    batch_size=batch,
    steps=steps,
    images_per_second=rate,
    mfu=step.mfu * rate / step.images_per_second,
    limit=limit,
    hours=hours,
    cost=None if device.price is None else device.price * hours * device.num_devices,
    memory_bytes=step.memory_bytes,
    sent_bytes=step.sent_bytes,
    input=roofline.input_per_host(
      rate, device.num_devices, device.chip, numbers, device.images_per_core
    ),
  )


def table(planned: Sequence[Planned], device: Device, configured_batch: int) -> str:
  """Returns a line for each cell, the totals, and what they rest on.

  Args:
    planned: cells.
    device: planned for.
    configured_batch: the config's own batch size.
  """
  width = max(len(cell.name) for cell in planned)
  lines = [
    f'{"cell":<{width}}  {"steps":>10}  {"images/s":>9}  {"MFU":>5}  {"hours":>8}  '
    f'{"USD":>9}  {"GB/chip":>7}  limit'
  ]
  for cell in planned:
    usd = '-' if cell.cost is None else f'{cell.cost:,.0f}'
    lines.append(
      f'{cell.name:<{width}}  {cell.steps:>10,}  {cell.images_per_second:>9,.0f}  '
      f'{cell.mfu:>5.0%}  {cell.hours:>8.3g}  {usd:>9}  '
      f'{cell.memory_bytes / 1e9:>7.1f}  {cell.limit}'
    )
  totals = _totals(planned, device)
  usd = totals['cost']
  lines.append(
    f'{len(planned)} cells one after another on {device.num_devices} x {device.name}: '
    f'{totals["hours"]:.3g} hours ({duration(totals["hours"] * 3600)}), '
    f'{totals["chip_hours"]:,.0f} chip-hours'
    + (f', {usd:,.0f} USD' if usd is not None else '')
    + '; less compilation, evaluation and restarts'
  )
  return '\n'.join([*lines, *notes(planned, device, configured_batch)])


def notes(
  planned: Sequence[Planned], device: Device, configured_batch: int
) -> list[str]:
  """Returns what a plan rests on and what it needs, a sentence or two a line."""
  chip, lines = device.chip, []
  batch = planned[0].batch_size
  if batch != configured_batch:
    lines.append(
      f'train.batch_size={configured_batch} cannot be split over {device.num_devices} '
      f'devices: planned with {batch:,}, {IMAGES_PER_DEVICE} a device. Set '
      '--config.train.batch_size, and optim.lr with it.'
    )
  full = [cell.name for cell in planned if cell.memory_bytes > chip.memory_bytes]
  if full:
    lines.append(
      f'Does not fit in {chip.memory_bytes / 1e9:.0f} GB a chip: {", ".join(full)}. '
      'Use a smaller batch or more devices.'
    )
  most = max((cell.input for cell in planned), key=lambda one: one.images_per_second)
  lines.append(
    f'Input, at most: {most.images_per_second:,.0f} images/s a host, '
    f'{most.bytes_per_second / 1e9:.2g} GB/s of pixels, {most.cores:.0f} cores that '
    f'decode {device.images_per_core:g} JPEGs/s each'
    + (
      f' of its {device.cores}.' if device.cores else '; its cores are not known here.'
    )
  )
  if device.price is None:
    lines.append('No price is known here: give --price_per_hour in USD a chip.')
  else:
    listed = device.price_per_hour is None
    source = chip.price_source if listed else '--price_per_hour'
    lines.append(f'Price: {device.price:.2f} USD a chip-hour; {source}.')
  lines.append(
    f'Nothing of this was measured by us. It is {device.share:g} of a roofline '
    f'({chip.flops / 1e12:g} TFLOP/s, {chip.memory_bandwidth / 1e9:,.0f} GB/s of memory, '
    f'{chip.link_bandwidth / 1e9:g} GB/s sent to other chips), channels padded to '
    f'{chip.tile}, communication not overlapped; docs/roofline.md says what else it '
    'assumes and how far published runs are from it.'
  )
  return lines


def _totals(planned: Sequence[Planned], device: Device) -> dict[str, Any]:
  hours = sum(cell.hours for cell in planned)
  costs = [cell.cost for cell in planned if cell.cost is not None]
  return {
    'hours': hours,
    'chip_hours': hours * device.num_devices,
    'cost': sum(costs) if costs else None,
  }


def as_json(planned: Sequence[Planned], device: Device, configured_batch: int) -> str:
  """Returns the same as one JSON object."""
  return json.dumps(
    {
      'device': dataclasses.asdict(device),
      'cells': [dataclasses.asdict(cell) for cell in planned],
      'total': _totals(planned, device),
      'notes': notes(planned, device, configured_batch),
    },
    indent=2,
  )
