"""From a config and its sweep to the cells of a study, on disk.

A study folder holds study.json, the list of its cells, and one folder per cell. A cell
is its resolved config: two sweeps that share a cell share its folder's name.
"""

import copy
import dataclasses
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from experiments import store
from scaling import architectures, files
from scaling import config as config_lib
from scaling.data import sources
from scaling.errors import UserError


@dataclasses.dataclass(frozen=True)
class Cell:
  """One run of a study.

  Attributes:
    name: readable, ending in the identity.
    overrides: the fields in which the cell differs from the study's config.
    config: resolved.
  """

  name: str
  overrides: Mapping[str, Any]
  config: ConfigDict


def make_cells(
  config: ConfigDict,
  sweep: Iterable[Mapping[str, Any]],
  pinned: Mapping[str, Any] | None = None,
) -> list[Cell]:
  """Returns the cells of a sweep, each once, in its order.

  Args:
    config: of the study.
    sweep: the overrides of each cell, by dotted field name. In place of the name of
      the cell to start from, `init.cell` may have the overrides of that cell.
    pinned: fields set on the command line; they win over the sweep's values, so that
      `--config.model.depth=14` runs that depth alone.

  Raises:
    UserError: for a field that the config does not have, or a value it cannot take.
  """
  cells: dict[str, Cell] = {}
  fields = config_lib.flat(config)
  pinned = pinned or {}

  def make(wanted: Mapping[str, Any]) -> Cell:
    overrides = {k: v for k, v in wanted.items() if k not in pinned}
    if isinstance(overrides.get('init.cell'), Mapping):
      overrides['init.cell'] = make(overrides['init.cell']).name
    # A deep copy keeps the references among its own fields: the subset follows the seed.
    cell_config = copy.deepcopy(config)
    for name, value in overrides.items():
      if name not in fields:
        raise UserError(
          f'get_sweep() sets {name}, which is no field of the config.'
          + config_lib.suggest(name, fields)
        )
      if value is None:
        raise UserError(f'get_sweep() sets {name}=None; leave it out to keep its value')
      try:
        cell_config.update_from_flattened_dict({name: value})
      except TypeError as error:
        raise UserError(f'get_sweep() sets {name}={value!r}: {error}') from error
    config_lib.check(cell_config)
    cell = Cell(config_lib.cell_name(cell_config), overrides, cell_config)
    return cells.setdefault(cell.name, cell)

  for wanted in sweep:
    make(wanted)
  if not cells:
    raise UserError('get_sweep() lists no cell')
  return list(cells.values())


def shrink(
  config: ConfigDict, data_dir: str | None
) -> tuple[ConfigDict, list[dict[str, Any]]]:
  """Returns a study of four tiny cells that goes through the same machinery.

  The set is made up where it is not at hand. The form of the network, the loss, the
  optimiser, the protocol and the label space stay as they are.
  """
  config = copy.deepcopy(config)
  data, network = config.data, architectures.smallest(config.model)
  size = network.pop('data.image_size')
  if not sources.at_hand(data, data_dir):
    data.source = 'made_up'
    data.made_up_train, data.made_up_test = 256, 32
    data.image_size = min(data.image_size, size)
    data.resize_short, data.hierarchy, data.class_weights = 0, '', ''
    config.log.eval_batch_size = 16
  elif data.source == 'tfds' and '[' not in data.train_split + data.test_split:
    data.train_split += '[:256]'
    data.test_split += '[:64]'
    config.log.eval_batch_size = 16
  # Weights of the full network do not fit, and another set may not be at hand.
  starts = {'init.cell': '', 'init.file': '', 'init.step': 0, 'init.part': 'weights'}
  config.update_from_flattened_dict(network | starts | {'transfer.source': ''})
  config.train.batch_size = 16
  if config.model.ghost_batch:
    config.model.ghost_batch = math.gcd(config.model.ghost_batch, 16)
  if config.train.steps:
    config.train.steps = 4
  else:
    config.train.epochs = 1.0
  config.log.every_steps = 2
  config.log.eval_every_steps = 0
  return config, [{'data.num_images': size} for size in (16, 32, 64, 128)]


def write_study(
  workdir: pathlib.Path,
  config: ConfigDict,
  config_file: str,
  cells: Sequence[Cell],
) -> None:
  """Writes study.json and the config of each cell, keeping what is there.

  Raises:
    UserError: if the folder holds a study of another config, naming the field.
  """
  own = {
    cell.name: {'name': cell.name, 'overrides': dict(cell.overrides)} for cell in cells
  }
  # Again when another sweep of this folder has added its cells meanwhile.
  while True:
    there, generation = store.read(workdir, 'study.json')
    fields, listed = config_lib.plain(config), own
    if there is not None:
      study = _parse(there, workdir)
      listed = {cell['name']: cell for cell in study['cells']} | own
      swept = {name for cell in listed.values() for name in cell['overrides']}
      difference = config_lib.first_difference(
        _without(study['config'], swept), _without(fields, swept)
      )
      if difference is not None:
        raise UserError(
          f'{workdir} was made by another config: {difference}; use another --workdir'
        )
      fields = study['config']
    for cell in cells:
      folder = cell_folder(workdir, cell.name)
      if not (folder / 'config.json').exists():
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(config_lib.plain(cell.config), indent=2)
        files.write_atomically(folder / 'config.json', text)
    study = {
      'version': 1,
      'name': config.name,
      'config_file': config_file,
      'config': fields,
      'cells': list(listed.values()),
    }
    text = json.dumps(study, indent=2).encode()
    if text == there or store.replace(workdir, 'study.json', text, generation):
      return


def _without(fields: Mapping[str, Any], swept: Iterable[str]) -> dict[str, Any]:
  """Drops swept fields, and the seeds that may follow a swept seed."""
  drop = {*swept, 'seed', 'data.subset_seed', 'data.order_seed'}
  return {k: v for k, v in config_lib.flat(fields).items() if k not in drop}


def cell_folder(workdir: pathlib.Path, name: str) -> pathlib.Path:
  """Returns where a cell lies."""
  return workdir / 'cells' / name


def find_cell(workdir: pathlib.Path, text: str) -> pathlib.Path:
  """Returns the folder of the one cell of a study whose name has the text in it.

  Raises:
    UserError: if there is no such cell, or several.
  """
  names = [cell['name'] for cell in read_study(workdir)['cells']]
  found = [name for name in names if text == name] or [n for n in names if text in n]
  if len(found) != 1:
    near = ', '.join(found[:5]) + (', ...' if len(found) > 5 else '')
    said = (
      f'may be any of {len(found)}: {near}' if found else 'is no cell of this study'
    )
    raise UserError(f'{text!r} {said}.' + config_lib.suggest(text, names))
  return cell_folder(workdir, found[0])


def _parse(content: bytes, workdir: pathlib.Path) -> dict[str, Any]:
  try:
    study = json.loads(content)
    if not (isinstance(study, dict) and {'cells', 'config'} <= study.keys()):
      raise ValueError('it has no cells')
  except ValueError as error:
    raise UserError(
      f'{workdir / "study.json"} cannot be read ({error}); delete it and run the same sweep '
      'command, which writes it anew'
    ) from error
  return study


def read_cells(workdir: pathlib.Path) -> list[Cell]:
  """Returns the cells that were written with a study, by whichever sweeps.

  Raises:
    UserError: if there is no study, or the config of a cell cannot be read.
  """
  found = []
  for cell in read_study(workdir)['cells']:
    path = cell_folder(workdir, cell['name']) / 'config.json'
    try:
      config = ConfigDict(json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
      raise UserError(
        f'{path} cannot be read ({error}); run the same sweep command, which writes it '
        'where it is missing'
      ) from error
    found.append(Cell(cell['name'], cell['overrides'], config))
  return found


def read_study(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns the content of study.json.

  Raises:
    UserError: if there is none.
  """
  try:
    return _parse((workdir / 'study.json').read_bytes(), workdir)
  except FileNotFoundError:
    raise UserError(
      f'{workdir} holds no study; start one with `scaling sweep --config=CONFIG '
      f'--workdir={workdir}`'
    ) from None
