"""The pixels of a batch's images: from memory, or decoded and cropped on all cores."""

import concurrent.futures
import functools

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from scaling import processes
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


@functools.cache
def _decoders() -> concurrent.futures.ThreadPoolExecutor:
  return concurrent.futures.ThreadPoolExecutor(processes.num_cores(), 'decode')


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

  def prepare(row: int, encoded: bytes) -> bool:
    own = None if numbers is None else numbers[row]
    try:
      cropped(encoded, data, split.where(int(ids[row])), own, pixels[row])
    except CorruptError as error:
      if skipped is None:
        raise
      skipped.add(str(error))
      pixels[row] = 0
      return False
    return True

  found, encoded = np.zeros(len(ids), bool), split.encoded(ids)
  rows = iter(range(len(ids)))

  def work() -> None:
    for row in rows:  # the threads share it: each row is handed out once
      found[row] = prepare(row, encoded[row])

  workers = [_decoders().submit(work) for _ in range(processes.num_cores())]
  for worker in workers:
    worker.result()
  return pixels, found
