"""Sets that fit memory: an image of a file is decoded once, when it is first asked for."""

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from scaling import cores
from scaling.data.decode import decode
from scaling.data.split import Split, sampled
from scaling.data.subsets import Ids
from scaling.errors import UserError

_MOST_BYTES = 4 * 2**30  # of pixels: larger sets are decoded batch by batch
_AT_ONCE = 1024


def fits(split: Split, shape: tuple[int, int, int]) -> bool:
  """Returns whether memory has room for a part's images `[H, W, C]`."""
  return 0 < split.num_images * int(np.prod(shape)) <= _MOST_BYTES


def decoded(split: Split, shape: tuple[int, int, int]) -> Split:
  """Returns the part with its images as pixels.

  They are decoded on all cores when they are first asked for, and kept, as are labels:
  training starts at once, and a subset costs what it has. An image that cannot be decoded
  raises its CorruptError then. Some images' content is in the fingerprint.

  Args:
    split: of encoded images.
    shape: of each of them `[H, W, C]`.
  """
  split = sampled(split)
  encoded = split.encoded
  assert encoded is not None

  def images(ids: Ids) -> NDArray[np.uint8]:
    found, contents = np.empty((len(ids), *shape), np.uint8), encoded(ids)

    def work(row: int) -> None:
      where = split.where(int(ids[row]))
      pixels = decode(contents[row], shape[-1], where)
      if pixels.shape != shape:
        raise UserError(
          f'{where} has the shape {pixels.shape}, and its set says {shape}; prepare the '
          'set anew'
        )
      found[row] = pixels

    cores.on_all(work, len(ids))
    return found

  return dataclasses.replace(
    split,
    labels=_kept(split.labels, split.num_images, split.labels(np.arange(1))),
    images=_kept(images, split.num_images, np.empty((0, *shape), np.uint8)),
    encoded=None,
    shape=shape,
  )


def decode_all(split: Split) -> None:
  """Decodes every image of a part that `decoded` returned.

  Raises:
    CorruptError: for one that cannot be decoded.
  """
  assert split.images is not None
  for start in range(0, split.num_images, _AT_ONCE):
    split.images(np.arange(start, min(start + _AT_ONCE, split.num_images)))


def _kept(
  make: Callable[[Ids], NDArray], num: int, like: NDArray
) -> Callable[[Ids], NDArray]:
  """Returns `make`, which is asked for what belongs to an id only once.

  Args:
    make: maps ids `[B]` to `[B, ...]`.
    num: of ids, from 0 on.
    like: some of what it makes, or an empty array of that kind.
  """
  # It takes no memory until written to.
  values = np.empty((num, *like.shape[1:]), like.dtype)
  known = np.zeros(num, bool)

  def answer(ids: Ids) -> NDArray:
    # Two threads may make the same ones, which are equal.
    missing = np.unique(ids[~known[ids]])
    if missing.size:
      values[missing] = make(missing)
      known[missing] = True  # not before: another thread may look
    # Unlike an index, `take` copies whole images: half the time for small ones.
    return values.take(ids, axis=0)

  return answer
