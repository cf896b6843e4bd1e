"""From a study's folders, or any CSV, to one tidy table of results.

One row per cell and metric with sizes in images and costs in natural units, so that
every later step works on a plain table and does not know where it came from. The
study's folders are read afresh each time: they are the only truth.
"""

# pandas types most results as "frame or series or scalar", which no code can satisfy.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportReturnType=false, reportOperatorIssue=false, reportIndexIssue=false

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.cells import Cell, read_cell
from analysis.fit import Kind

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


class TableError(ValueError):
  """The table cannot be used as it is; the message says where and what to do."""


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
      after the last step of each cell that is done.
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
  cells, rows, manifests = [], [], {}
  for name, overrides in listed:
    cell = read_cell(workdir / 'cells' / name)
    if cell.manifest:
      manifests[name] = cell.manifest
    known = _known(cell, config, overrides)
    metrics, reason = cell.final_evaluation()
    cells.append({**known, 'name': name, 'state': cell.state, 'reason': reason})
    num_test = metrics.pop('test/num_images', cell.manifest.get('num_test'))
    for metric, value in metrics.items():
      rows.append(
        {**known, 'cell': name, 'metric': metric, 'value': value, 'num_test': num_test}
      )
  table = pd.DataFrame(rows, columns=pd.Index(COLUMNS))
  table = table.sort_values(['depth', 'width', 'num_images', 'seed', 'metric', 'cell'])
  table = table.sort_values(
    ['depth', 'num_images', 'seed', 'metric'], kind='stable', ignore_index=True
  )
  _refuse_duplicates(table)
  return Study(
    name=str(listing.get('name') or workdir.name),
    workdir=workdir,
    config=config,
    config_file=str(listing.get('config_file') or ''),
    cells=pd.DataFrame(cells, columns=pd.Index(_CELL_COLUMNS)),
    table=table,
    manifests=manifests,
  )


def read_csv(
  path: str | os.PathLike[str],
  *,
  size: str = 'num_images',
  value: str = 'value',
  group: Sequence[str] = (),
  seed: str | None = None,
  kind: Kind = 'accuracy',
  percent: bool = False,
) -> pd.DataFrame:
  """Reads and checks a CSV with one run per row.

  Args:
    path: of the CSV.
    size: column with the number of training images.
    value: column with the result.
    group: columns that tell curves apart (depth, width, method, ...).
    seed: column that tells repeats apart; None numbers the repeats in file order.
    kind: what the values are: 'accuracy' and 'error' are fractions.
    percent: the values are percentages; divides them by 100.

  Returns:
    A table with the group columns under their own names, and `num_images`, `seed`,
    `value`, sorted.

  Raises:
    TableError: one line that names the column, the row and the way out.
  """
  path = pathlib.Path(path)
  try:
    raw = pd.read_csv(path)
  except (OSError, ValueError) as error:
    raise TableError(f'{path} cannot be read as CSV: {error}') from None
  group = list(group)
  wanted = [size, value, *group, *([seed] if seed else [])]
  absent = [column for column in wanted if column not in raw.columns]
  if absent:
    raise TableError(
      f'{path.name} has no column {absent[0]!r}; it has {", ".join(map(str, raw.columns))}'
    )
  if not len(raw):
    raise TableError(f'{path.name} has no rows')
  taken = {'num_images', 'value', 'seed'} & set(group)
  if taken:
    raise TableError(f'cannot group by {sorted(taken)[0]!r}, which has its own meaning')
  sizes = _numbers(raw[size], size)
  values = _numbers(raw[value], value)
  if (sizes <= 0).any():
    row = int(np.flatnonzero(sizes <= 0)[0])
    raise TableError(
      f'column {size!r}, row {row + 2}: {sizes[row]:g} is not a number of images; '
      'sizes must be above 0'
    )
  if kind != 'loss':
    values = values / 100 if percent else values
    _refuse_percent(values, value, kind, percent)
  blank = [column for column in group if raw[column].isna().any()]
  if blank:
    raise TableError(f'column {blank[0]!r} has empty cells; give every row a group')
  table = raw[group].copy()
  table['num_images'] = sizes
  table['value'] = values
  keys = [*group, 'num_images']
  if seed:
    table['seed'] = raw[seed]
    twice = table.duplicated([*keys, 'seed'])
    if twice.any():
      row = int(np.flatnonzero(twice)[0])
      at = ', '.join(f'{key}={table[key].iloc[row]}' for key in [*keys, 'seed'])
      raise TableError(f'row {row + 2} repeats {at}; keep one, or name its seed apart')
  else:
    table['seed'] = table.groupby(keys).cumcount()
  return table.sort_values([*keys, 'seed'], ignore_index=True)[
    [*group, 'num_images', 'seed', 'value']
  ]


def _known(
  cell: Cell, config: dict[str, Any], overrides: dict[str, Any]
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
    'path': f'cells/{cell.name}',
    'attempts': cell.attempts,
    'seconds': seconds,
    'device_seconds': seconds * (manifest.get('num_devices') or 1),
  }


def _get(config: dict[str, Any], path: str) -> Any:
  value: Any = config
  for part in path.split('.'):
    value = value.get(part) if isinstance(value, dict) else None
  return value


def _refuse_duplicates(table: pd.DataFrame) -> None:
  twice = table[table.duplicated([*_KEY, 'metric'], keep=False)]
  if len(twice):
    first = twice.iloc[0]
    same = twice[(twice[[*_KEY, 'metric']] == first[[*_KEY, 'metric']]).all(axis=1)]
    at = ', '.join(f'{key}={first[key]}' for key in _KEY)
    names = ' and '.join(same['cell'].iloc[:2])
    raise TableError(f'{names} are both the result of {at}; keep one of them')


def _numbers(column: pd.Series, name: str) -> np.ndarray:
  numbers = pd.to_numeric(column, errors='coerce').to_numpy(float)
  bad = np.flatnonzero(~np.isfinite(numbers))
  if len(bad):
    row = int(bad[0])
    found = column.iloc[row]
    shown = 'an empty cell' if pd.isna(found) else repr(str(found))
    raise TableError(
      f'column {name!r}, row {row + 2}: {shown} is not a finite number; '
      'correct it or leave the row out'
    )
  return numbers


def _refuse_percent(values: np.ndarray, name: str, kind: str, percent: bool) -> None:
  low, high = values.min(), values.max()
  if low >= 0 and high <= 1:
    return
  if not percent and low >= 0 and 1 < high <= 100:
    raise TableError(
      f'column {name!r} reaches {high:g}, but {kind} is a fraction up to 1; '
      'if it is in percent, say so (percent)'
    )
  raise TableError(
    f'column {name!r} goes from {low:g} to {high:g}, but {kind} lies in [0, 1]; '
    'is it a loss?'
  )
