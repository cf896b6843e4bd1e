"""What all workers of one launch are told, in WORKDIR/launches/NAME.json.

Named by its content: a worker on any engine needs the folder of the study and this name,
and nothing else.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence

from experiments.sweep import Cell
from scaling import config as config_lib
from scaling import files
from scaling.errors import UserError


@dataclasses.dataclass(frozen=True)
class Orders:
  """What to train, and how.

  Attributes:
    groups: names of cells; those of a group share a compiled program.
    data_dir: where the image set lies, when not in its usual place.
    tensorboard: also write event files.
    mirror: a Python file that is told of all rows, see `scaling.mirrors`.
    model_devices: devices that the classifier is split over.
    fsdp: whether the state is split over the devices.
    pack: cells that a worker trains side by side; 0: as many as is measured to be best.
    stall_seconds: without a step, after which a cell is given up.
    after: {name of a cell: that which it starts from}.
  """

  groups: list[list[str]]
  data_dir: str | None = None
  tensorboard: bool = False
  mirror: str | None = None
  model_devices: int = 1
  fsdp: bool = False
  pack: int = 0
  stall_seconds: float = 1800.0
  after: dict[str, str] = dataclasses.field(default_factory=dict)

  def cells(self, slot: int) -> list[str]:
    """Returns all cells in the order in which a worker looks at them.

    Each worker starts with another program, so that few compile the same one at once.
    """
    start = slot % len(self.groups)
    turned = self.groups[start:] + self.groups[:start]
    return [name for group in turned for name in group]


def group(cells: Sequence[Cell]) -> list[list[str]]:
  """Returns the cells by compiled program, the program with the most work first.

  The longest cells of a program come first, so that the last to end are short.
  """
  found: dict[str, list[Cell]] = {}
  for cell in cells:
    found.setdefault(config_lib.program_key(cell.config), []).append(cell)
  groups = [sorted(group, key=_work, reverse=True) for group in found.values()]
  groups.sort(key=lambda group: sum(map(_work, group)), reverse=True)
  return [[cell.name for cell in group] for group in groups]


def _work(cell: Cell) -> float:
  """Returns the work of a cell, up to a factor: enough to sort by."""
  config = cell.config
  images = float(config.train.steps * config.train.batch_size)
  if not images:
    whole = 2.0**63  # the whole set is the largest
    images = config.train.epochs * (config.data.num_images or whole)
  return images * config.model.depth * config.model.width**2


def write(workdir: pathlib.Path, orders: Orders) -> str:
  """Writes orders, and returns their name."""
  name = name_of(orders)
  path = _path(workdir, name)
  path.parent.mkdir(exist_ok=True)
  # Also where it is there: `last` goes by the time.
  files.write_atomically(path, json.dumps(dataclasses.asdict(orders), indent=2))
  return name


def name_of(orders: Orders) -> str:
  """Returns the name that these orders have."""
  text = json.dumps(dataclasses.asdict(orders), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:10]


def last(workdir: pathlib.Path) -> Orders:
  """Returns the orders that were written last.

  Raises:
    UserError: if there are none.
  """
  # Beside them lie records of jobs, such as slurm-1234.json.
  there = list(_path(workdir, '').parent.glob(f'{"[0-9a-f]" * 10}.json'))
  if not there:
    raise UserError(
      f'no sweep was started in {workdir}; start one with `scaling sweep --config=CONFIG '
      f'--workdir={workdir}`'
    )
  return read(workdir, max(there, key=lambda path: path.stat().st_mtime).stem)


def read(workdir: pathlib.Path, name: str) -> Orders:
  """Returns the orders of that name.

  Raises:
    UserError: if there are none.
  """
  try:
    return Orders(**json.loads(_path(workdir, name).read_text()))
  except FileNotFoundError:
    raise UserError(
      f'{_path(workdir, name)} does not exist; `scaling sweep` writes it, before it '
      'starts workers'
    ) from None


def _path(workdir: pathlib.Path, name: str) -> pathlib.Path:
  return workdir / 'launches' / f'{name}.json'
