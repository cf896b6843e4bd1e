"""Random 32-bit words by number, alike in NumPy and on any device."""

from types import ModuleType

import numpy as np


def mix(words):
  """Returns well-mixed 32-bit words, a bijection (found by Wellons' hash prospector)."""
  words = (words ^ (words >> 16)) * np.uint32(0x21F0AAAD)
  words = (words ^ (words >> 15)) * np.uint32(0xD35A2D97)
  return words ^ (words >> 15)


def words(state, first: int, num: int, xp: ModuleType):
  """Returns random words number `first` to `first + num` of each image, `[B, num]`."""
  low, high = state
  counter = xp.arange(first, first + num, dtype=np.uint32) * np.uint32(0x9E3779B9)
  return mix(mix(low[:, None] + counter) ^ high[:, None])
