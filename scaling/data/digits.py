"""Scikit-learn's 1,797 handwritten digits of 8x8 pixels: a real set that needs no file.

They travel inside scikit-learn itself. The set has no test part, so one is held back.
"""

import numpy as np
from ml_collections import ConfigDict

from scaling.data.split import Split, hold_out, in_memory, one_label


def at_hand(data: ConfigDict, data_dir: str | None) -> bool:
  """Returns True: the digits come with scikit-learn."""
  del data, data_dir
  return True


def load(data: ConfigDict, data_dir: str | None) -> tuple[Split, Split]:
  """Returns the training and the test digits, `[N, 8, 8, 1]`."""
  del data_dir
  from sklearn.datasets import load_digits

  pixels, labels = map(np.asarray, load_digits(return_X_y=True))
  pixels, labels = pixels.reshape(-1, 8, 8, 1), labels.astype(np.int64)
  images = np.rint(pixels * (255 / 16)).astype(np.uint8)  # the set counts to 16
  table = one_label(labels, data.max_labels)
  names = [str(digit) for digit in range(10)]
  train, test = hold_out(labels, data.test_fraction)
  return (
    in_memory(images[train], table[train], names),
    in_memory(images[test], table[test], names),
  )
