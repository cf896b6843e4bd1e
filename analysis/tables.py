"""From any CSV of learning curves to a checked table, and what is odd about it.

A CSV comes from a spreadsheet, another project or a paper, so whatever could be
misread is refused in one line that says where and what to do, in the words of the
command line (`--value`). What can only be odd, such as a curve that gets worse with
data, is returned as notes. Cells are read as text here rather than by pandas, which
knows no line numbers, renames repeated columns and takes the method 'None' for a gap.
"""

# pandas types most results as "frame or series or scalar", which no code can satisfy.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportReturnType=false

import csv
import dataclasses
import difflib
import gzip
import io
import math
import os
import pathlib
import re
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd

from analysis import noise, words
from analysis.laws import KINDS, Kind

# Names with a meaning of their own in a table, so that no group may bear them.
_MEANINGS = ('num_images', 'seed', 'value', 'se', 'num_test', 'num_params', 'metric')
_SEPARATORS = ',;\t'
_POWERS = {'k': 'e3', 'K': 'e3', 'M': 'e6', 'G': 'e9', 'B': 'e9'}
_MANY_COLUMNS, _MANY_LETTERS = 12, 40  # more are cut off in a message

_NUMBER = re.compile(r'[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?')
_INTEGER = re.compile(r'[+-]?(0|[1-9][0-9]{0,17})(\.0*)?')
_PADDED_OR_LONG = re.compile(r'[+-]?(0[0-9].*|[0-9]{19,})')
_THOUSANDS = re.compile(r'[+-]?[0-9]{1,3}([,_])[0-9]{3}(\1[0-9]{3})*(\.[0-9]*)?')
_BLANK = ('', 'nan', '<na>')  # what programs write for a missing number

_FEW_SIZES = 4  # fewer leave nothing to check a curve with a floor against
_STANDARD_ERRORS = 3  # that a rise must exceed to count
_SHARE_OF_RANGE = 1 / 20  # that it must exceed where the noise is unknown
_MIN_DOF = 3  # of a seed variance; one pair of repeats may agree by chance


class TableError(ValueError):
  """The table cannot be used as it is; the message says where and what to do."""


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
  sheet = _read(path, roles, num_test)
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
  roles = [('--size', size), *(('--group', name) for name in group)]
  sheet = _read(pathlib.Path(path), [*roles, ('--model_size', model_size)], None)
  table = _labels(sheet, group)
  table['num_images'] = _counts(sheet.column(size), 'images')
  if model_size is not None:
    table['num_params'] = _counts(sheet.column(model_size), 'parameters')
  return table


def notes(table: pd.DataFrame, kind: Kind) -> list[str]:
  """What is odd about the curves of a table, but no reason to refuse it.

  Args:
    table: of `read_csv`; each combination of its group columns is a curve, or a family
      of curves where there is num_params.
    kind: what the values are.

  Returns:
    Sentences that begin with the curve, in the order of the curves: too few sizes, sizes
    below one image, and the flags of `shape_flags` (of each model size by itself), with
    the noise of the size means from the repeats or the standard errors, the larger where
    there are both.
  """
  group = [name for name in table if name not in _MEANINGS]
  found = []
  for name, family in _curves(table, group):
    found += [f'{name or "the curve"}: {note}' for note in _size_notes(family)]
    models = ['num_params'] if 'num_params' in family else []
    for model, curve in _curves(family, models):
      named = ', '.join(part for part in (name, model) if part) or 'the curve'
      found += [f'{named}: {note}' for note in _shape_notes(curve, kind)]
  return found


def shape_flags(
  sizes: Sequence[float] | np.ndarray,
  means: Sequence[float] | np.ndarray,
  standard_errors: Sequence[float] | np.ndarray | None,
  kind: Kind,
) -> tuple[str, ...]:
  """Flags of a curve that does not simply get better with data.

  Args:
    sizes: [J] distinct, in any order.
    means: [J] values at the sizes, in the unit of `kind`.
    standard_errors: [J] of the means; None if unknown.
    kind: tells which direction is better.

  Returns:
    'not monotone' if the error at some size exceeds that at a smaller one by more than
    three standard errors of their difference, or by more than a twentieth of the range
    where these are unknown; and 'double descent' if after such a rise it falls below
    all that came before.
  """
  order = np.argsort(sizes)
  errors = _as_error(np.asarray(means, float)[order], kind)
  spread = None if standard_errors is None else np.asarray(standard_errors)[order]
  peaks = np.flatnonzero(_rises(errors, spread).any(0))
  if not len(peaks):
    return ()
  if any(errors[peak:].min() < errors[:peak].min() for peak in peaks):
    return 'not monotone', 'double descent'
  return ('not monotone',)


@dataclasses.dataclass(frozen=True)
class _Column:
  """One column of a file: its cells as text, and the line of each."""

  file: str
  name: str
  lines: list[int]
  cells: list[str]

  def error(self, bad: np.ndarray, why: str | Callable[[str], str]) -> TableError:
    """What to raise for the rows where `bad` [N] holds; names the first of them."""
    rows = np.flatnonzero(bad)
    cell = self.cells[rows[0]]
    more = f' (and {len(rows) - 1} more)' if len(rows) > 1 else ''
    shown = repr(_short(cell)) if cell else 'an empty cell'
    return TableError(
      f'{self.file}: column {self.name!r}, row {self.lines[rows[0]]}{more}: '
      f'{shown} {why if isinstance(why, str) else why(cell)}'
    )


@dataclasses.dataclass(frozen=True)
class _Sheet:
  """A file as text: names of the columns, and of each row its line and its cells."""

  file: str
  names: list[str]
  lines: list[int]
  rows: list[list[str]]

  def column(self, name: str) -> _Column:
    at = self.names.index(name)
    cells = [row[at] if at < len(row) else '' for row in self.rows]
    return _Column(self.file, name, self.lines, cells)


def _read(
  path: pathlib.Path,
  roles: Sequence[tuple[str, str | None]],
  num_test: str | float | None,
) -> _Sheet:
  """Reads a file that has each column which a role (flag, column) asks for, once."""
  file = path.name
  used = [(flag, column) for flag, column in roles if column is not None]
  for flag, column in used:
    if flag == '--group' and column in _MEANINGS:
      raise TableError(
        f'{file}: cannot group by {column!r}, which has its own meaning; rename the column'
      )
  text = _text(path)
  headers = {separator: _header(file, text, separator) for separator in _SEPARATORS}
  asked = {column for _, column in used}
  # The first of equals: the comma. A name may hold a comma where semicolons separate.
  separator = max(
    headers, key=lambda s: (len(asked & set(headers[s])), len(headers[s]))
  )
  records = _records(file, text, separator)
  _, names = next(records, (1, []))
  if not names:
    raise TableError(f'{file} is empty; it needs column names and one row per run')
  if isinstance(num_test, str) and num_test in names:
    used.append(('--num_test', num_test))
  _refuse_shared(file, used)
  _check_header(file, names, used)
  lines, rows = [], []
  for line, cells in records:
    if any(cells[len(names) :]):
      raise TableError(
        f'{file}: row {line} has {len(cells)} cells, but the header names {len(names)} '
        'columns; put a cell that holds the separator in quotes'
      )
    lines.append(line)
    rows.append(cells)
  if not rows:
    raise TableError(f'{file} has no rows below its header; add one row per run')
  return _Sheet(file, names, lines, rows)


def _refuse_shared(file: str, used: Sequence[tuple[str, str]]) -> None:
  first: dict[str, str] = {}
  for flag, column in used:
    if column in first:
      raise TableError(
        f'{file}: column {column!r} is named twice, for {first[column]} and for {flag}; '
        'each needs a column of its own'
      )
    first[column] = flag


def _text(path: pathlib.Path) -> str:
  try:
    content = path.read_bytes()
    if content.startswith(b'\x1f\x8b'):
      content = gzip.decompress(content)
  except FileNotFoundError:
    raise TableError(f'{path} does not exist; check the path') from None
  except IsADirectoryError:
    raise TableError(f'{path} is a folder; name the CSV file in it') from None
  except (OSError, EOFError, zlib.error) as error:
    reason = getattr(error, 'strerror', None) or error
    raise TableError(f'{path} cannot be read: {reason}') from None
  if content.startswith(b'PK\x03\x04') or b'\0' in content:
    raise TableError(
      f'{path.name} is not CSV but a binary file (a spreadsheet, an archive?); save it '
      'as CSV UTF-8'
    )
  try:
    return content.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    line = content[: error.start].count(b'\n') + 1
    raise TableError(
      f'{path.name} is not CSV in UTF-8: row {line} has the byte '
      f'{content[error.start]:#04x}; save it as CSV UTF-8'
    ) from None


def _records(file: str, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
  """Yields the line and the cells of each row that is not empty."""
  reader = csv.reader(
    io.StringIO(text, newline=''),
    delimiter=separator,
    skipinitialspace=True,
    strict=True,
  )
  line = 1
  try:
    for record in reader:
      cells = [cell.strip() for cell in record]
      if any(cells):
        yield line, cells
      line = reader.line_num + 1  # a quoted cell may span lines; name the first
  except csv.Error as error:
    raise TableError(
      f'{file} is not CSV: row {line}: {error}; is a quote not closed?'
    ) from None


def _header(file: str, text: str, separator: str) -> list[str]:
  """Names of the columns; none if the file is not separated so."""
  try:
    return next(_records(file, text, separator), (1, []))[1]
  except TableError:
    return []


def _check_header(file: str, names: list[str], used: Sequence[tuple[str, str]]) -> None:
  absent = [(flag, column) for flag, column in used if column not in names]
  if absent:
    missing = ' nor '.join(f'{column!r} ({flag})' for flag, column in absent)
    near = [name for _, column in absent for name in _near(column, names)]
    hint = (
      f'did you mean {" or ".join(map(repr, dict.fromkeys(near)))}? ' if near else ''
    )
    if all(_NUMBER.fullmatch(name) for name in names if name):
      hint = 'its first line holds numbers, give it a line of column names; '
    elif names[0][:1] in ('<', '{', '['):
      hint = 'it looks like HTML or JSON rather than CSV; '
    elif len(names) == 1:
      hint += 'columns are separated by commas, semicolons or tabs; '
    shown = [_short(name) for name in names if name]
    more = len(shown) - _MANY_COLUMNS
    raise TableError(
      f'{file} has no column {missing}; {hint}it has {", ".join(shown[:_MANY_COLUMNS])}'
      + (f' and {more} more' if more > 0 else '')
    )
  for flag, column in used:
    if names.count(column) > 1:
      at = ' and '.join(str(i + 1) for i, name in enumerate(names) if name == column)
      raise TableError(
        f'{file}: columns {at} are all called {column!r} ({flag}); rename all but one'
      )


def _near(column: str, names: list[str]) -> list[str]:
  lower = {name.lower(): name for name in names}
  return [lower[n] for n in difflib.get_close_matches(column.lower(), lower, n=2)]


def _short(text: str) -> str:
  text = ' '.join(text.split())
  return text if len(text) <= _MANY_LETTERS else text[: _MANY_LETTERS - 1] + '…'


def _labels(sheet: _Sheet, columns: Sequence[str]) -> pd.DataFrame:
  index = pd.RangeIndex(len(sheet.rows))
  return pd.DataFrame({c: _label(sheet.column(c)) for c in columns}, index=index)


def _label(column: _Column) -> list[int] | list[float] | list[str]:
  """Cells that are names: whole numbers as int, numbers as float, or text."""
  cells = column.cells
  blank = np.array([cell.lower() in _BLANK for cell in cells])
  if blank.any():
    raise column.error(blank, 'names no group or repeat; fill it or leave the row out')
  if all(_INTEGER.fullmatch(cell) for cell in cells):
    return [int(cell.partition('.')[0]) for cell in cells]
  if any(
    _PADDED_OR_LONG.fullmatch(cell) or not _NUMBER.fullmatch(cell) for cell in cells
  ):
    return cells
  numbers = [float(cell) for cell in cells]
  if not all(math.isfinite(number) for number in numbers):
    return cells
  whole = all(number.is_integer() and abs(number) < 2**53 for number in numbers)
  return [int(number) for number in numbers] if whole else numbers


def _measured(column: _Column) -> np.ndarray:
  """Cells that are plain numbers, [N]."""
  numbers = np.array(
    [float(cell) if _NUMBER.fullmatch(cell) else math.nan for cell in column.cells]
  )
  bad = ~np.isfinite(numbers)
  if bad.any():
    raise column.error(bad, _why_no_number)
  return numbers


def _why_no_number(cell: str) -> str:
  if cell.endswith('%') and _NUMBER.fullmatch(cell[:-1].strip()):
    return 'is not a plain number; leave out the signs % and add --percent'
  if _NUMBER.fullmatch(cell.replace(',', '.', 1)):
    return 'is not a finite number; write the decimal point as "."'
  if not cell:
    return 'is not a finite number; fill it or leave the row out'
  return 'is not a finite number; correct it or leave the row out'


def _counts(column: _Column, unit: str) -> np.ndarray:
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
  if not _NUMBER.fullmatch(digits) or (power and 'e' in digits.lower()):
    return math.nan
  return float(digits + power)  # in one step, since 1.1 * 1e6 is not 1100000


def _check_values(
  column: _Column, values: np.ndarray, kind: Kind, percent: bool
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


def _standard_error(column: _Column, kind: Kind, percent: bool) -> np.ndarray:
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


def _num_test(sheet: _Sheet, num_test: str | float) -> np.ndarray | float:
  if isinstance(num_test, str) and num_test in sheet.names:
    return _counts(sheet.column(num_test), 'test images')
  number = _count(num_test) if isinstance(num_test, str) else float(num_test)
  if not 0 < number < math.inf:
    near = _near(str(num_test), sheet.names)
    hint = f'; did you mean {" or ".join(map(repr, near))}?' if near else ''
    raise TableError(
      f'{sheet.file}: --num_test={num_test} is neither a column of the file nor a '
      f'number of test images above 0{hint}'
    )
  return number


def _refuse_duplicates(
  sheet: _Sheet, table: pd.DataFrame, names: dict[str, str | None]
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


def _curves(table: pd.DataFrame, keys: list[str]) -> Iterator[tuple[str, pd.DataFrame]]:
  """Yields the name of each curve, such as 'depth=8, width=16', and its rows."""
  if not keys:
    yield '', table
    return
  for key, curve in table.groupby(keys, sort=True):
    yield (
      ', '.join(
        f'{k}={v:.10g}' if isinstance(v, float) else f'{k}={v}'
        for k, v in zip(keys, key, strict=True)
      ),
      curve,
    )


def _size_notes(family: pd.DataFrame) -> list[str]:
  sizes = np.unique(family['num_images'])
  found = []
  if len(sizes) < _FEW_SIZES:
    found.append(
      f'has results at {words.listed([words.images(size) for size in sizes])} images '
      f'only; to tell a floor from a slope takes {_FEW_SIZES} sizes'
    )
  if sizes[0] < 1:
    found.append(
      f'sizes begin at {sizes[0]:g}; they are numbers of images, not shares of a set or '
      'millions'
    )
  return found


def _shape_notes(curve: pd.DataFrame, kind: Kind) -> list[str]:
  sizes = curve['num_images'].to_numpy(float)
  points = noise.group(sizes, curve['value'].to_numpy(float))
  spread = _spread(curve, sizes, points)
  flags = shape_flags(points.sizes, points.means, spread, kind)
  if not flags:
    return []
  errors = _as_error(points.means, kind)
  steps = np.where(_rises(errors, spread), errors - errors[:, None], 0)
  before, after = np.unravel_index(steps.argmax(), steps.shape)
  shown = [words.score(points.means[at], kind) for at in (before, after)]
  return [
    f'{" and shaped like a ".join(flags)}: {kind} goes from {shown[0]} at '
    f'{words.images(points.sizes[before])} images to {shown[1]} at '
    f'{words.images(points.sizes[after])}'
  ]


def _spread(
  curve: pd.DataFrame, sizes: np.ndarray, points: noise.Points
) -> np.ndarray | None:
  """Standard errors of the size means [J], or None if nothing tells them."""
  known = []
  v0, v1, dof = noise.seed_variance(points)
  if dof >= _MIN_DOF and v0 + v1 > 0:
    known.append(np.sqrt((v0 + v1 / points.sizes) / points.counts))
  if 'se' in curve and curve['se'].any():
    squares = curve['se'].to_numpy(float) ** 2
    sums = np.bincount(np.searchsorted(points.sizes, sizes), squares)
    known.append(np.sqrt(sums) / points.counts)
  return np.max(known, axis=0) if known else None


def _rises(errors: np.ndarray, spread: np.ndarray | None) -> np.ndarray:
  """[J, J]: whether the error at size j is clearly above that at the smaller size i."""
  if not len(errors):
    return np.zeros((0, 0), bool)
  if spread is None:
    margin = _SHARE_OF_RANGE * np.ptp(errors)
  else:
    margin = _STANDARD_ERRORS * np.hypot(spread, spread[:, None])
  # Equal values may differ by rounding once they are turned into errors.
  rounding = 1e-12 * np.abs(errors).max()
  return np.triu(errors - errors[:, None] > margin + rounding, 1)


def _as_error(values: np.ndarray, kind: Kind) -> np.ndarray:
  return 1 - values if kind == 'accuracy' else values
