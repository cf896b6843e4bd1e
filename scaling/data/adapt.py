"""Brings the images of a set to another size and number of channels.

So that a network that was trained on one set sees another one, whose arrays of pixels
are of their own size. Files and computed images need none of it: they come in any size.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from scaling.data.decode import crop
from scaling.data.split import Split, fingerprint
from scaling.data.subsets import Ids

_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def adapt(split: Split, size: int, channels: int) -> Split:
  """Returns the part with images `[size, size, channels]`.

  Args:
    split: whose images may be arrays of another shape.
    size: pixels of a side; images that are not square are stretched.
    channels: 1 or 3; grey is repeated, colour is weighed to grey.
  """
  shape = (size, size, channels)
  if split.images is None or split.generate is not None or split.shape == shape:
    return split
  read = split.images

  def images(ids: Ids) -> NDArray[np.uint8]:
    pixels = with_channels(read(ids), channels)
    height, width = pixels.shape[1:3]
    resized = np.empty((len(pixels), *shape), np.uint8)
    for row, one in enumerate(pixels):
      resized[row] = crop(one, (0, 0, width, height), size)
    return resized

  return dataclasses.replace(
    split,
    images=images,
    shape=shape,
    fingerprint=fingerprint(split.fingerprint, 'adapt', shape),
  )


def with_channels(images: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
  """Returns images `[B, H, W, C]` as grey (one channel) or colour (three)."""
  if images.shape[-1] == channels:
    return images
  if channels == 1:
    return np.rint(images[..., :3] @ _GREY).astype(np.uint8)[..., None]
  return np.repeat(images[..., :1], channels, axis=-1)
