"""From a study's folders to one tidy table of results (any CSV: `analysis.tables`).

One row per cell and metric with sizes in images and costs in natural units, so that
every later step works on a plain table and does not know where it came from. The
study's folders are read afresh each time: they are the only truth.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.cells import Cell, read_cell
from analysis.sheet import TableError

COLUMNS = [
  'cell',
  'depth',
  'width',
  'num_images',
  'seed',
  'protocol',
  'epochs',
  'steps',
  'examples_seen',
  'params',
  'flops',
  'metric',
  'value',
  'num_test',
  'train_seconds',
  'images_per_second',
  'input_wait_share',
  'path',
]
_CELL_COLUMNS = [
  'name',
  'state',
  'reason',
  'attempts',
  'depth',
  'width',
  'num_images',
  'seed',
  'steps',
  'seconds',
  'device_seconds',
  'flops',
  'path',
]
_KEY = ['depth', 'width', 'num_images', 'seed']
# Fields of a config that have a column of another name.
_NAMED = {'model.depth', 'model.width', 'data.num_images', 'seed'}


@dataclasses.dataclass(frozen=True)
class Study:
  """A study as its folders hold it now.

  Attributes:
    name: of the study.
    workdir: its folder.
    config: the resolved base config, nested.
    config_file: the file it came from, or ''.
    cells: one row per listed cell: name, state, reason, attempts, depth, width,
      num_images, seed, steps, seconds (training), device_seconds, flops, path. Unknown
      numbers are nan.
    table: one row per (cell, metric), the columns of `COLUMNS`, from the evaluation
      after the last step of each cell that is done; then a column for each other field
      of the config that the sweep varies, by its dotted name.
    manifests: by cell name, of the cells that have one.
  """

  name: str
  workdir: pathlib.Path
  config: dict[str, Any]
  config_file: str
  cells: pd.DataFrame
  table: pd.DataFrame
  manifests: dict[str, dict[str, Any]]

  @property
  def missing(self) -> pd.DataFrame:
    """The listed cells without a result, with state and reason."""
    return self.cells[~self.cells['name'].isin(self.table['cell'])].reset_index(
      drop=True
    )


def read_study(workdir: str | os.PathLike[str]) -> Study:
  """Reads WORKDIR/study.json and every cell it lists.

  Raises:
    FileNotFoundError: there is no study.json.
    TableError: study.json is no list of cells, or two cells are the same replicate.
  """
  workdir = pathlib.Path(workdir)
  path = workdir / 'study.json'
  if not path.exists():
    raise FileNotFoundError(f'{path} does not exist; is {workdir} a study folder?')
  try:
    listing = json.loads(path.read_text(encoding='utf-8'))
    listed = [(cell['name'], cell.get('overrides', {})) for cell in listing['cells']]
  except (ValueError, TypeError, KeyError) as error:
    raise TableError(f'{path} does not list cells: {error!r}') from None
  config = listing.get('config') or {}
  named = {name for _, overrides in listed for name in overrides}
  swept = sorted(named - _NAMED)
  cells, rows, manifests = [], [], {}
  for name, overrides in listed:
    cell = read_cell(workdir / 'cells' / name)
    if cell.manifest:
      manifests[name] = cell.manifest
    known = _known(cell, config, overrides, swept)
    metrics, reason = cell.final_evaluation()
    cells.append({**known, 'name': name, 'state': cell.state, 'reason': reason})
    num_test = {
      'test': metrics.pop('test/num_images', cell.manifest.get('num_test')),
      'transfer': metrics.pop('transfer/num_images', math.nan),
    }
    for metric, value in metrics.items():
      of = num_test[metric.split('/')[0]]
      row = {'cell': name, 'metric': metric, 'value': value, 'num_test': of}
      rows.append({**known, **row})
  table = pd.DataFrame(rows, columns=pd.Index([*COLUMNS, *swept]))
  table = table.sort_values(
    ['depth', 'num_images', 'seed', 'metric', 'width', 'cell'], ignore_index=True
  )
  refuse_duplicates(table, [*_KEY, *swept])
  return Study(
    name=str(listing.get('name') or workdir.name),
    workdir=workdir,
    config=config,
    config_file=str(listing.get('config_file') or ''),
    cells=pd.DataFrame(cells, columns=pd.Index(_CELL_COLUMNS)),
    table=table,
    manifests=manifests,
  )


def _known(
  cell: Cell,
  config: dict[str, Any],
  overrides: dict[str, Any],
  swept: Sequence[str],
) -> dict[str, Any]:
  """Columns that need no result; from the listing where the cell has not begun."""
  manifest = cell.manifest

  def field(path: str) -> Any:
    if cell.config:
      return _get(cell.config, path)
    return overrides.get(path, _get(config, path))

  num_images = field('data.num_images')
  if num_images == 0:
    num_images = manifest.get('num_full', math.nan)
  batch_size = manifest.get('batch_size', field('train.batch_size'))
  steps = manifest.get('steps', field('train.steps') or None)
  epochs = field('train.epochs') or None
  examples = manifest.get('examples')
  if examples is None and steps is not None and batch_size is not None:
    examples = steps * batch_size
  protocol = 'steps' if epochs is None else 'epochs'
  if epochs is None and examples is not None and num_images:
    epochs = examples / num_images
  seconds = cell.last('time/train_seconds')
  waited = cell.last('time/input_wait_seconds')
  return {
    'depth': field('model.depth'),
    'width': field('model.width'),
    'num_images': num_images,
    'seed': field('seed'),
    'protocol': protocol,
    'epochs': epochs,
    'steps': steps,
    'examples_seen': examples,
    'params': manifest.get('num_params'),
    'flops': manifest.get('train_flops'),
    'train_seconds': seconds,
    'images_per_second': cell.last('time/images_per_second'),
    'input_wait_share': waited / seconds if seconds else math.nan,
    'path': f'cells/{cell.name}',
    'attempts': cell.attempts,
    'seconds': seconds,
    'device_seconds': seconds * (manifest.get('num_devices') or 1),
    **{name: _plain(field(name)) for name in swept},
  }


def _get(config: dict[str, Any], path: str) -> Any:
  value: Any = config
  for part in path.split('.'):
    value = value.get(part) if isinstance(value, dict) else None
  return value


def _plain(value: Any) -> Any:
  return str(value) if isinstance(value, list | dict) else value


def with_rows(table: pd.DataFrame, rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
  """Returns the table and below it further rows, by column name."""
  return pd.concat([table, pd.DataFrame(rows)], ignore_index=True)


def refuse_duplicates(table: pd.DataFrame, key: Sequence[str] = _KEY) -> None:
  """Refuses a table where two cells are the same replicate.

  Args:
    table: of `read_study`.
    key: the columns that tell replicates apart.

  Raises:
    TableError: naming the two cells.
  """
  twice = table[table.duplicated([*key, 'metric'], keep=False)]
  if len(twice):
    first = twice.iloc[0]
    same = twice[(twice[[*key, 'metric']] == first[[*key, 'metric']]).all(axis=1)]
    at = ', '.join(f'{name}={first[name]}' for name in key)
    names = ' and '.join(same['cell'].iloc[:2])
    raise TableError(f'{names} are both the result of {at}; keep one of them')
