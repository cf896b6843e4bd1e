"""The pixels of a batch's images: from memory, or decoded and cropped on all cores."""

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from scaling import cores
from scaling.data.decode import (
  CROP_NUMBERS,
  Box,
  CorruptError,
  center_box,
  decode_crop,
  random_box,
)
from scaling.data.skipped import Skipped
from scaling.data.split import Split
from scaling.data.subsets import Ids, uniform_numbers


def crop_numbers(
  ids: Ids, epochs: Ids, data: ConfigDict, seed: int
) -> NDArray[np.float64] | None:
  """Returns the numbers of each image's random crop, `[B, 22]`; None for the centre."""
  if data.min_crop_area == 0:
    return None
  return uniform_numbers(
    CROP_NUMBERS, seed=seed, epochs=epochs, ids=ids, purpose='crop'
  )


def cropped(
  encoded: bytes,
  data: ConfigDict,
  where: str,
  numbers: NDArray[np.float64] | None,
  out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
  """Returns an image cropped to size, `[S, S, C]`: at random or in the centre.

  Args:
    encoded: the content of an image file.
    data: the `data` part of the config.
    where: words that find the image.
    numbers: `[CROP_NUMBERS]` in [0, 1), of the random crop, or None.
    out: where to write it; by itself it is a new array.

  Raises:
    CorruptError: when the bytes are no whole image.
  """

  def box(height: int, width: int) -> Box:
    if numbers is None:
      return center_box(height, width, data.image_size, data.resize_short)
    return random_box(height, width, data.min_crop_area, numbers)

  return decode_crop(encoded, data.channels, where, box, data.image_size, out)


def read(
  ids: Ids,
  split: Split,
  data: ConfigDict,
  numbers: NDArray[np.float64] | None,
  skipped: Skipped | None,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
  """Returns images, cropped at random (with `numbers`) or in the centre, and which are.

  An image that cannot be read is black and False, and noted in `skipped`; without that
  its error is raised.
  """
  if split.images is not None:
    return split.images(ids), np.ones(len(ids), bool)
  assert split.encoded is not None

  size = data.image_size
  pixels = np.empty((len(ids), size, size, data.channels), np.uint8)

  found, encoded = np.ones(len(ids), bool), split.encoded(ids)

  def work(row: int) -> None:
    own = None if numbers is None else numbers[row]
    try:
      cropped(encoded[row], data, split.where(int(ids[row])), own, pixels[row])
    except CorruptError as error:
      if skipped is None:
        raise
      skipped.add(str(error))
      pixels[row], found[row] = 0, False

  cores.on_all(work, len(ids))
  return pixels, found
