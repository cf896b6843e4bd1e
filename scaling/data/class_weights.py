"""What each class counts in the weighted metrics, from a file."""

import csv
import dataclasses
import math
import pathlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scaling import config as config_lib
from scaling.data.split import Split, fingerprint
from scaling.errors import UserError


def read(path: pathlib.Path, names: Sequence[str]) -> NDArray[np.float32]:
  """Returns the weight of each class, `[num_classes]`, as a CSV file has them.

  A first line 'class,weight' is passed over. Classes without a line weigh nothing.

  Args:
    path: of the file, UTF-8.
    names: of the classes, in the order of their ids.

  Raises:
    UserError: for a file that cannot be read or has no weight above 0, and naming the
      line that is no class and weight.
  """
  ids = {name: i for i, name in enumerate(names)}
  try:
    with path.open(encoding='utf-8', newline='') as file:
      rows = list(csv.reader(file))
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise UserError(f'data.class_weights: {path} cannot be read ({error})') from error
  weights: dict[int, float] = {}
  for number, row in enumerate(rows, start=1):
    if not row or (number == 1 and row == ['class', 'weight']):
      continue
    if len(row) != 2 or (weight := _number(row[1])) is None:
      raise UserError(
        f'{path}, line {number}: {row} is no class and weight of 0 or more'
      )
    if row[0] not in ids:
      raise UserError(
        f'{path}, line {number}: {row[0]!r} is no class of the set.'
        + config_lib.suggest(row[0], ids)
      )
    if ids[row[0]] in weights:
      raise UserError(f'{path}, line {number}: {row[0]!r} has a weight already')
    weights[ids[row[0]]] = weight
  if not any(weights.values()):
    raise UserError(f'{path} has no class with a weight above 0')
  found = np.zeros(len(names), np.float32)
  found[list(weights)] = list(weights.values())
  return found


def _number(text: str) -> float | None:
  try:
    number = float(text)
  except ValueError:
    return None
  return number if number >= 0 and math.isfinite(number) else None


def weigh(split: Split, path: pathlib.Path) -> Split:
  """Returns the part with the weights of a file; see `read`."""
  weights = read(path, split.label_names)
  return dataclasses.replace(
    split,
    class_weights=weights,
    fingerprint=fingerprint(split.fingerprint, weights),
  )
