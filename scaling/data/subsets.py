"""Which images a run sees, and when: keyed permutations instead of stored index lists.

The subset of n images is the first n of one permutation of the whole set, so subsets
nest; the order of an epoch is a second permutation, of the n. Both are computed for the
asked positions only, in memory that does not grow with the set, so `batch_ids(step)` is
a pure function and the position in the data *is* the step. Nothing here depends on
workers, hosts or files.
"""

import functools
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling.errors import UserError

Ids = NDArray[np.int64]

_MAX_SIZE = 2**40
_ROUNDS = 8
_CHUNK = 2**16  # ids at a time: bounds the memory, and stays in the processor's cache
_STRETCH = 2**14  # positions planned at once: 2 ms, less than a batch takes to train


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
  """Returns well-mixed words (the finaliser of splitmix64, Steele et al. 2014)."""
  words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return words ^ (words >> np.uint64(31))


def key_words(num: int, *key: int | str) -> NDArray[np.uint64]:
  """Returns `num` (at most 8) words that depend on all of the key, on any machine."""
  text = json.dumps([part if isinstance(part, str) else int(part) for part in key])
  digest = hashlib.blake2b(text.encode(), digest_size=8 * num).digest()
  return np.frombuffer(digest, '<u8').astype(np.uint64)


class Permutation:
  """A keyed permutation of 0..size-1 with random access, and its inverse.

  A Feistel cipher over pairs (row, column) of the smallest near-square grid that holds
  `size` cells: the rounds add a hash of one coordinate to the other, in turns (the
  generalised cipher of Black and Rogaway 2002). The few cells beyond `size` are walked
  past by enciphering again. With a power of two in place of the grid, up to three
  quarters of the cells would have to be walked past.
  """

  def __init__(self, size: int, *key: int | str):
    if not 1 <= size <= _MAX_SIZE:
      raise ValueError(f'size={size} is outside 1..2^40')
    self.size = size
    self._rows = np.uint64(math.isqrt(size - 1) + 1)
    self._columns = np.uint64(-(-size // int(self._rows)))
    self._keys = key_words(_ROUNDS, size, *key)

  def __call__(self, positions: ArrayLike) -> Ids:
    """Returns the images at these positions, int64 of the same shape."""
    return self._apply(self._forward, positions)

  def inverse(self, images: ArrayLike) -> Ids:
    """Returns the positions of these images, int64 of the same shape."""
    return self._apply(self._backward, images)

  def _apply(self, once: Callable, values: ArrayLike) -> Ids:
    values = np.asarray(values)
    if values.size and not 0 <= values.min() <= values.max() < self.size:
      raise ValueError(f'{values.min()}..{values.max()} leaves 0..{self.size - 1}')
    flat = values.ravel().astype(np.uint64)
    for start in range(0, flat.size, _CHUNK):
      chunk = once(flat[start : start + _CHUNK])
      while (outside := np.flatnonzero(chunk >= self.size)).size:
        chunk[outside] = once(chunk[outside])
      flat[start : start + _CHUNK] = chunk
    return flat.astype(np.int64).reshape(values.shape)

  def _shift(
    self, words: NDArray[np.uint64], turn: int, limit: np.uint64
  ) -> NDArray[np.uint64]:
    # 40 bits of hash times a limit of at most 2^20 fit the word: no slow remainder.
    hashed = _mix(words + self._keys[turn]) >> np.uint64(24)
    return (hashed * limit) >> np.uint64(40)

  def _forward(self, cells: NDArray[np.uint64]) -> NDArray[np.uint64]:
    row = cells // self._columns
    column = cells - row * self._columns
    for turn in range(0, _ROUNDS, 2):
      row += self._shift(column, turn, self._rows)
      row -= self._rows * (row >= self._rows)
      column += self._shift(row, turn + 1, self._columns)
      column -= self._columns * (column >= self._columns)
    return row * self._columns + column

  def _backward(self, cells: NDArray[np.uint64]) -> NDArray[np.uint64]:
    row = cells // self._columns
    column = cells - row * self._columns
    for turn in range(_ROUNDS - 2, -1, -2):
      column += self._columns - self._shift(row, turn + 1, self._columns)
      column -= self._columns * (column >= self._columns)
      row += self._rows - self._shift(column, turn, self._rows)
      row -= self._rows * (row >= self._rows)
    return row * self._columns + column


@dataclass(frozen=True)
class Subset:
  """The images a run trains on.

  Attributes:
    num_images: how many.
    ids: maps ranks in 0..num_images-1 to the ids of images in the whole set, int64.
    contains: maps ids to whether the subset has them, bool.
  """

  num_images: int
  ids: Callable[[ArrayLike], Ids]
  contains: Callable[[ArrayLike], NDArray[np.bool_]]


def _check_size(num_images: int, num_full: int, name: str) -> None:
  if not 1 <= num_images <= num_full:
    fault = 'more than' if num_images > num_full else 'not among'
    raise UserError(
      f'data.num_images={num_images} is {fault} the {num_full} training images of'
      f' {name}; use 1 to {num_full}, or 0 for all of them'
    )


def uniform_subset(
  num_images: int, num_full: int, seed: int, name: str = 'the set'
) -> Subset:
  """Returns the first `num_images` of a keyed permutation, in O(1) memory.

  Args:
    num_images: size of the subset.
    num_full: size of the whole set.
    seed: of the membership; subsets of one seed nest.
    name: of the set, for the error.

  Raises:
    UserError: when the set has fewer images.
  """
  _check_size(num_images, num_full, name)
  members = Permutation(num_full, 'subset', seed)
  return Subset(
    num_images, members, lambda ids: np.less(members.inverse(ids), num_images)
  )


def rank_in_class(labels: NDArray[np.integer], *key: int | str) -> Ids:
  """Returns the rank of each image among those of its class, in a keyed order, `[N]`.

  Args:
    labels: `[N]`, the class of each image.
    *key: of the permutation behind the order.
  """
  num = len(labels)
  order = np.lexsort((Permutation(num, *key)(np.arange(num)), labels))
  _, first, count = np.unique(labels[order], return_index=True, return_counts=True)
  ranks = np.empty(num, np.int64)
  ranks[order] = np.arange(num) - np.repeat(first, count)
  return ranks


def balanced_subset(
  num_images: int, labels: NDArray[np.integer], seed: int, name: str = 'the set'
) -> Subset:
  """Returns a subset with the same number of images from each class, in O(N) memory.

  The classes take turns in a keyed order, each giving its next image, so the subsets of
  one seed nest and the counts of two classes differ by one at most until a class has no
  images left.

  Args:
    num_images: size of the subset.
    labels: `[N]`, the class of each image of the whole set.
    seed: of the membership.
    name: of the set, for the error.

  Raises:
    UserError: when the set has fewer images.
  """
  _check_size(num_images, len(labels), name)
  classes, label = np.unique(labels, return_inverse=True)
  turn = Permutation(len(classes), 'turns', seed)(label)
  order = np.lexsort((turn, rank_in_class(labels, 'balanced', seed)))[:num_images]
  member = np.zeros(len(labels), bool)
  member[order] = True
  return Subset(
    num_images,
    lambda ranks: order[np.asarray(ranks)],
    lambda ids: member[np.asarray(ids)],
  )


@functools.lru_cache(maxsize=4)
def _planned(number: int, subset: Subset, order_seed: int) -> Ids:
  """Returns the images at one stretch of positions, to be cut into batches.

  A batch of 128 computed by itself would take twenty times as long.
  """
  size = _stretch(subset)
  ranks = np.empty(size, np.int64)
  at, position = 0, number * size
  while at < size:
    epoch, place = divmod(position + at, subset.num_images)
    num = min(subset.num_images - place, size - at)
    order = Permutation(subset.num_images, 'order', order_seed, epoch)
    ranks[at : at + num] = order(np.arange(place, place + num))
    at += num
  return subset.ids(ranks)


def _stretch(subset: Subset) -> int:
  # Each epoch of it costs a call, and the first batch should not wait for many.
  return min(_STRETCH, 16 * subset.num_images)


def batch_ids(
  step: int, batch_size: int, subset: Subset, order_seed: int
) -> tuple[Ids, Ids]:
  """Returns the images of one batch and the epoch each belongs to, both `[B]`.

  Batches run across the ends of epochs, so none is short; a subset smaller than the
  batch appears in it several times.

  Args:
    step: updates finished before this batch.
    batch_size: images a batch, over all processes.
    subset: the training images.
    order_seed: of their order, independent of the subset's own seed.
  """
  start, stop = step * batch_size, (step + 1) * batch_size
  size = _stretch(subset)
  parts = [
    _planned(number, subset, order_seed)[max(0, start - number * size) :][
      : stop - max(start, number * size)
    ]
    for number in range(start // size, -(-stop // size))
  ]
  epochs = np.arange(start, stop, dtype=np.int64) // subset.num_images
  return np.concatenate(parts), epochs


def halves(ids: ArrayLike) -> NDArray[np.uint32]:
  """Returns the low and the high half of each id, uint32 `[B, 2]`, for devices."""
  ids = np.array(ids, '<i8')
  return ids.view('<u4').reshape(-1, 2).astype(np.uint32, copy=False)


def uniform_numbers(
  num: int, *, seed: int, epochs: ArrayLike, ids: ArrayLike, purpose: str
) -> NDArray[np.float64]:
  """Returns uniform numbers in [0, 1) for each image, `[B, num]`.

  They are a hash of their arguments, so the augmentation of an image does not depend on
  its batch, its worker or the images before it.

  Args:
    num: how many for each image.
    seed: of the run.
    epochs: `[B]`, or one for all.
    ids: `[B]`.
    purpose: keeps the numbers of different uses apart.
  """
  seed_key, epoch_key, step = key_words(3, purpose, seed)
  words = _mix(np.asarray(ids).astype(np.uint64) + seed_key)
  words = _mix(words ^ (np.asarray(epochs).astype(np.uint64) + epoch_key))
  # An odd step visits every word once before it repeats, as in splitmix64.
  draws = np.arange(1, num + 1, dtype=np.uint64) * (step | np.uint64(1))
  return np.ldexp((_mix(words[:, None] + draws) >> np.uint64(11)).astype(float), -53)
