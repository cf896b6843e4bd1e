"""Scikit-learn's 1,797 handwritten digits of 8x8 pixels: a real set that needs no file.

They travel inside scikit-learn itself. The set has no test part, so one is held back.
"""

import importlib.util
import pathlib

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from scaling.data.split import Split, hold_out, in_memory, one_label


def at_hand(data: ConfigDict, data_dir: str | None) -> bool:
  """Returns True: the digits come with scikit-learn."""
  del data, data_dir
  return True


def load(data: ConfigDict, data_dir: str | None) -> tuple[Split, Split]:
  """Returns the training and the test digits, `[N, 8, 8, 1]`."""
  del data_dir
  pixels, labels = _read()
  pixels, labels = pixels.reshape(-1, 8, 8, 1), labels.astype(np.int64)
  images = np.rint(pixels * (255 / 16)).astype(np.uint8)  # the set counts to 16
  table = one_label(labels, data.max_labels)
  names = [str(digit) for digit in range(10)]
  train, test = hold_out(labels, data.test_fraction)
  return (
    in_memory(images[train], table[train], names),
    in_memory(images[test], table[test], names),
  )


def _read() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
  """Returns pixels from 0 to 16 `[N, 64]` and digits `[N]`."""
  # As load_digits does, whose import takes each worker two seconds.
  package = importlib.util.find_spec('sklearn')
  if package is not None and package.origin is not None:
    path = pathlib.Path(package.origin).with_name('datasets') / 'data' / 'digits.csv.gz'
    if path.exists():
      table = np.loadtxt(path, delimiter=',')
      return table[:, :-1], table[:, -1]
  from sklearn.datasets import load_digits

  pixels, labels = map(np.asarray, load_digits(return_X_y=True))
  return pixels, labels
