"""From any CSV of learning curves to a checked table.

A CSV comes from a spreadsheet, another project or a paper, so whatever could be
misread is refused in one line that says where and what to do, in the words of the
command line (`--value`). What can only be odd, such as a curve that gets worse with
data, is left to `analysis.table_notes`.
"""

import math
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.laws import KINDS, Kind
from analysis.sheet import NUMBER, Column, Sheet, TableError, close_names, read_sheet

# Names with a meaning of their own in a table, so that no group may bear them.
MEANINGS = ('num_images', 'seed', 'value', 'se', 'num_test', 'num_params', 'metric')
_POWERS = {'k': 'e3', 'K': 'e3', 'M': 'e6', 'G': 'e9', 'B': 'e9'}
_INTEGER = re.compile(r'[+-]?(0|[1-9][0-9]{0,17})(\.0*)?')
_PADDED_OR_LONG = re.compile(r'[+-]?(0[0-9].*|[0-9]{19,})')
_THOUSANDS = re.compile(r'[+-]?[0-9]{1,3}([,_])[0-9]{3}(\1[0-9]{3})*(\.[0-9]*)?')
_BLANK = ('', 'nan', '<na>')  # what programs write for a missing number


def read_csv(
  path: str | os.PathLike[str],
  *,
  size: str = 'num_images',
  value: str = 'value',
  group: Sequence[str] = (),
  seed: str | None = None,
  se: str | None = None,
  num_test: str | float | None = None,
  model_size: str | None = None,
  kind: Kind = 'accuracy',
  percent: bool = False,
) -> pd.DataFrame:
  """Reads and checks a CSV with one run per row.

  The file is UTF-8 text, possibly gzipped, with or without a byte order mark, with one
  line of column names; comma, semicolon and tab separate. Other columns and empty rows
  are passed over, spaces around a cell are dropped. Sizes, `num_test` and `model_size`
  may be written 10000, 1e4, 10_000, "10,000" (quoted), 10k, 10K, 1M, 1G or 1B.

  Args:
    path: of the CSV.
    size: column with the number of training images.
    value: column with the result; an accuracy or error is a fraction, a loss above 0.
    group: columns that tell curves apart (depth, width, method, ...).
    seed: column that tells repeats apart; None numbers the repeats in file order, also
      rows that are equal in everything.
    se: column with the standard error of the value, in the unit of the value.
    num_test: column with the number of test images, or that number for all rows. A
      column of that name goes before the number.
    model_size: column with the number of parameters.
    kind: what the values are.
    percent: the values and their standard errors are percentages; divides by 100.

  Returns:
    The group columns under their own names, `num_images` (float), `seed`, `value`, and
    where given `se`, `num_test`, `num_params`, sorted by group, model size, size and
    seed. A group or seed column is int if all its cells are whole numbers, also written
    8.0, float if all are numbers, else text; so are 007 and numbers of more than 18
    digits, which are names.

  Raises:
    TableError: one line that names the file, the column, the row (the line in the file;
      the header is line 1), what was found, and the way out.
    ValueError: `kind` is unknown.
  """
  if kind not in KINDS:
    raise ValueError(f'kind={kind!r} is not one of {", ".join(KINDS)}')
  path = pathlib.Path(path)
  roles = [('--size', size), ('--value', value), *(('--group', g) for g in group)]
  roles += [('--seed', seed), ('--se', se), ('--model_size', model_size)]
  optional = [('--num_test', num_test)] if isinstance(num_test, str) else []
  _refuse_meanings(path, group)
  sheet = read_sheet(path, roles, optional)
  if percent and kind == 'loss':
    raise TableError(f'{sheet.file}: a loss is not in percent; leave out --percent')
  table = _labels(sheet, group)
  table['num_images'] = _counts(sheet.column(size), 'images')
  values = _measured(sheet.column(value))
  _check_values(sheet.column(value), values, kind, percent)
  if model_size is not None:
    table['num_params'] = _counts(sheet.column(model_size), 'parameters')
  keys = list(table.columns)
  if seed is not None:
    table['seed'] = _label(sheet.column(seed))
    names = {'num_images': size, 'num_params': model_size, 'seed': seed}
    _refuse_duplicates(sheet, table, names)
  else:
    table['seed'] = table.groupby(keys).cumcount()
  table['value'] = values / 100 if percent else values
  if se is not None:
    table['se'] = _standard_error(sheet.column(se), kind, percent)
  if num_test is not None:
    table['num_test'] = _num_test(sheet, num_test)
  extra = [name for name in ('se', 'num_test', 'num_params') if name in table]
  table = table.sort_values(
    [*group, *(['num_params'] if model_size is not None else []), 'num_images', 'seed'],
    ignore_index=True,
  )
  return table[[*group, 'num_images', 'seed', 'value', *extra]]


def read_sizes(
  path: str | os.PathLike[str],
  *,
  size: str = 'num_images',
  group: Sequence[str] = (),
  model_size: str | None = None,
) -> pd.DataFrame:
  """Reads the sizes at which to predict; files and cells as for `read_csv`.

  Args:
    path: of the CSV.
    size: column with the number of training images.
    group: columns that say which curve.
    model_size: column with the number of parameters.

  Returns:
    The group columns, `num_images`, and `num_params` where given: one row per row of the
    file, in its order, repeats included.

  Raises:
    TableError: see `read_csv`.
  """
  path = pathlib.Path(path)
  roles = [('--size', size), *(('--group', g) for g in group)]
  _refuse_meanings(path, group)
  sheet = read_sheet(path, [*roles, ('--model_size', model_size)])
  table = _labels(sheet, group)
  table['num_images'] = _counts(sheet.column(size), 'images')
  if model_size is not None:
    table['num_params'] = _counts(sheet.column(model_size), 'parameters')
  return table


def _refuse_meanings(path: pathlib.Path, group: Sequence[str]) -> None:
  for column in group:
    if column in MEANINGS:
      raise TableError(
        f'{path.name}: cannot group by {column!r}, which has its own meaning; rename the '
        'column'
      )


def _labels(sheet: Sheet, columns: Sequence[str]) -> pd.DataFrame:
  index = pd.RangeIndex(len(sheet.rows))
  return pd.DataFrame({c: _label(sheet.column(c)) for c in columns}, index=index)


def _label(column: Column) -> list[int] | list[float] | list[str]:
  """Cells that are names: whole numbers as int, numbers as float, or text."""
  cells = column.cells
  blank = np.array([cell.lower() in _BLANK for cell in cells])
  if blank.any():
    raise column.error(blank, 'names no group or repeat; fill it or leave the row out')
  if all(_INTEGER.fullmatch(cell) for cell in cells):
    return [int(cell.partition('.')[0]) for cell in cells]
  if any(
    _PADDED_OR_LONG.fullmatch(cell) or not NUMBER.fullmatch(cell) for cell in cells
  ):
    return cells
  numbers = [float(cell) for cell in cells]
  if not all(math.isfinite(number) for number in numbers):
    return cells
  whole = all(number.is_integer() and abs(number) < 2**53 for number in numbers)
  return [int(number) for number in numbers] if whole else numbers


def _measured(column: Column) -> np.ndarray:
  """Cells that are plain numbers, [N]."""
  numbers = np.array(
    [float(cell) if NUMBER.fullmatch(cell) else math.nan for cell in column.cells]
  )
  bad = ~np.isfinite(numbers)
  if bad.any():
    raise column.error(bad, _why_no_number)
  return numbers


def _why_no_number(cell: str) -> str:
  if cell.endswith('%') and NUMBER.fullmatch(cell[:-1].strip()):
    return 'is not a plain number; leave out the signs % and add --percent'
  if NUMBER.fullmatch(cell.replace(',', '.', 1)):
    return 'is not a finite number; write the decimal point as "."'
  if not cell:
    return 'is not a finite number; fill it or leave the row out'
  return 'is not a finite number; correct it or leave the row out'


def _counts(column: Column, unit: str) -> np.ndarray:
  """Cells that count something, such as images, [N]: see `read_csv` for the spellings."""
  numbers = np.array([_count(cell) for cell in column.cells])
  bad = ~np.isfinite(numbers)
  if bad.any():
    raise column.error(
      bad,
      f'is not a finite number of {unit}; write it like 10000, 1e4, 10k or 1M, or leave '
      'the row out',
    )
  if (numbers <= 0).any():
    raise column.error(
      numbers <= 0,
      f'is not a number of {unit}; it must be above 0: correct it or leave the row out',
    )
  return numbers


def _count(cell: str) -> float:
  """A number with an optional suffix and separators of thousands, or nan."""
  power = _POWERS.get(cell[-1:], '')
  digits = cell[:-1].rstrip() if power else cell
  if _THOUSANDS.fullmatch(digits):
    digits = digits.replace(',', '').replace('_', '')
  if not NUMBER.fullmatch(digits) or (power and 'e' in digits.lower()):
    return math.nan
  return float(digits + power)  # in one step, since 1.1 * 1e6 is not 1100000


def _check_values(
  column: Column, values: np.ndarray, kind: Kind, percent: bool
) -> None:
  """Refuses values [N], as the file has them, that cannot be of this kind and unit."""
  if kind == 'loss':
    if (values <= 0).any():
      raise column.error(
        values <= 0, 'is no loss; a loss must be above 0; shift or leave out the row'
      )
    return
  top = '100 with --percent' if percent else '1'
  if (values < 0).any():
    raise column.error(
      values < 0,
      f'is no {kind}, which goes from 0 to {top}; correct it, or is it a --kind=loss?',
    )
  if (values > 100).any():
    raise column.error(
      values > 100,
      f'is no {kind}, not even in percent; correct it, or is it a --kind=loss?',
    )
  place = f'{column.file}: column {column.name!r}'
  highest = int(values.argmax())
  reaches = f'reaches {column.cells[highest]} in row {column.lines[highest]}'
  if percent and values.max() <= 1:
    raise TableError(
      f'{place} {reaches} with --percent; are they fractions already? Then leave out '
      '--percent; if they are percentages, divide them by 100 and leave it out too'
    )
  if percent or values.max() <= 1:
    return
  if values.min() > 1:
    raise TableError(
      f'{place} {reaches}, but an {kind} is a fraction up to 1; it is in percent: '
      'add --percent'
    )
  above = np.flatnonzero(values > 1)
  rows = ', '.join(str(column.lines[row]) for row in above[:5])
  more = f' and {len(above) - 5} more' if len(above) > 5 else ''
  raise TableError(
    f'{place} {reaches}, but an {kind} is a fraction up to 1; {len(above)} of '
    f'{len(values)} rows look like percent (row {rows}{more}): divide by 100 there, or '
    'add --percent if the whole column is in percent'
  )


def _standard_error(column: Column, kind: Kind, percent: bool) -> np.ndarray:
  """Standard errors [N] in the unit of the table."""
  numbers = _measured(column)
  if (numbers < 0).any():
    raise column.error(
      numbers < 0, 'is no standard error, which cannot be below 0; correct it'
    )
  if not numbers.any():
    raise TableError(
      f'{column.file}: column {column.name!r} is 0 in every row; leave out --se'
    )
  numbers = numbers / 100 if percent else numbers
  if kind != 'loss' and (numbers > 1).any():
    raise column.error(
      numbers > 1,
      f'is more than an {kind} can vary; give it in the unit of the value',
    )
  return numbers


def _num_test(sheet: Sheet, num_test: str | float) -> np.ndarray | float:
  if isinstance(num_test, str) and num_test in sheet.names:
    return _counts(sheet.column(num_test), 'test images')
  number = _count(num_test) if isinstance(num_test, str) else float(num_test)
  if not 0 < number < math.inf:
    close = close_names(str(num_test), sheet.names)
    hint = f'; did you mean {" or ".join(map(repr, close))}?' if close else ''
    raise TableError(
      f'{sheet.file}: --num_test={num_test} is neither a column of the file nor a '
      f'number of test images above 0{hint}'
    )
  return number


def _refuse_duplicates(
  sheet: Sheet, table: pd.DataFrame, names: dict[str, str | None]
) -> None:
  """Refuses rows alike in all columns of the table, given as their `names` in the file."""
  twice = np.flatnonzero(table.duplicated())
  if not len(twice):
    return
  row = twice[0]
  first = np.flatnonzero((table == table.iloc[row]).all(axis=1))[0]
  at = ', '.join(
    f'{names.get(key) or key}={sheet.column(names.get(key) or key).cells[row]}'
    for key in table
  )
  raise TableError(
    f'{sheet.file}: rows {sheet.lines[first]} and {sheet.lines[row]} both hold {at}; '
    'keep one, give each repeat a seed of its own, or name what tells them apart with '
    '--group'
  )
