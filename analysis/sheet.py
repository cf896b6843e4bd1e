"""A CSV as text: the names of its columns, and of each row its line and its cells.

Read here rather than by pandas, which knows no line numbers, renames repeated columns
and takes the method 'None' for a gap. What cannot be read is refused in one line.
"""

import csv
import dataclasses
import difflib
import gzip
import io
import pathlib
import re
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

_SEPARATORS = ',;\t'
_MANY_COLUMNS, _MANY_LETTERS = 12, 40  # more are cut off in a message
NUMBER = re.compile(r'[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?')


class TableError(ValueError):
  """The table cannot be used as it is; the message says where and what to do."""


@dataclasses.dataclass(frozen=True)
class Column:
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
class Sheet:
  """A file as text: names of the columns, and of each row its line and its cells."""

  file: str
  names: list[str]
  lines: list[int]
  rows: list[list[str]]

  def column(self, name: str) -> Column:
    at = self.names.index(name)
    cells = [row[at] if at < len(row) else '' for row in self.rows]
    return Column(self.file, name, self.lines, cells)


def read_sheet(
  path: pathlib.Path,
  roles: Sequence[tuple[str, str | None]],
  optional: Sequence[tuple[str, str]] = (),
) -> Sheet:
  """Reads a file that has each column which a role (flag, column) asks for, once.

  Args:
    path: UTF-8 text, possibly gzipped; comma, semicolon or tab separate.
    roles: what each column is for; None is not asked for.
    optional: roles that the file may lack.

  Raises:
    TableError: what is wrong with the file, where, and what to do.
  """
  file = path.name
  used = [(flag, column) for flag, column in roles if column is not None]
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
  used += [(flag, column) for flag, column in optional if column in names]
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
  return Sheet(file, names, lines, rows)


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
    near = [name for _, column in absent for name in close_names(column, names)]
    hint = (
      f'did you mean {" or ".join(map(repr, dict.fromkeys(near)))}? ' if near else ''
    )
    if all(NUMBER.fullmatch(name) for name in names if name):
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


def close_names(column: str, names: list[str]) -> list[str]:
  """The names that may have been meant, whatever their case."""
  lower = {name.lower(): name for name in names}
  return [lower[n] for n in difflib.get_close_matches(column.lower(), lower, n=2)]


def _short(text: str) -> str:
  text = ' '.join(text.split())
  return text if len(text) <= _MANY_LETTERS else text[: _MANY_LETTERS - 1] + '…'
