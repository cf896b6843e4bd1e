"""CSV files of two columns, as hierarchies and weights of classes are written."""

import csv
import pathlib

from scaling.errors import UserError


def read(path: pathlib.Path, field: str, columns: str) -> list[tuple[str, list[str]]]:
  """Returns the two words of each line, and words that find the line, for errors.

  Empty lines and a first line that names the columns are passed over.

  Args:
    path: of the file, UTF-8.
    field: of the config, that names it.
    columns: their names with a comma between.

  Raises:
    UserError: for a file that cannot be read, and naming the line that has not two.
  """
  try:
    with path.open(encoding='utf-8', newline='') as file:
      rows = list(csv.reader(file))
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise UserError(f'{field}: {path} cannot be read ({error})') from error
  pairs = []
  for number, row in enumerate(rows, start=1):
    if not row or (number == 1 and row == columns.split(',')):
      continue
    where = f'{path}, line {number}'
    if len(row) != 2:
      raise UserError(f'{where}: {row} is no pair {columns}')
    pairs.append((where, row))
  return pairs
