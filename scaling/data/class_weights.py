"""What each class counts in the weighted metrics, from a file."""

import dataclasses
import math
import pathlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scaling import config as config_lib
from scaling.data import pairs
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
      line that is no class and its weight.
  """
  ids = {name: i for i, name in enumerate(names)}
  weights: dict[int, float] = {}
  for where, (name, text) in pairs.read(path, 'data.class_weights', 'class,weight'):
    if name not in ids:
      raise UserError(
        f'{where}: {name!r} is no class of the set.' + config_lib.suggest(name, ids)
      )
    if ids[name] in weights:
      raise UserError(f'{where}: {name!r} has a weight already')
    if (weight := _number(text)) is None:
      raise UserError(f'{where}: {text!r} is no weight of 0 or more')
    weights[ids[name]] = weight
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
