"""Encoded images to pixels on the host, with Pillow: the one codec in every wheel index.

Crops are taken while resizing, so each pixel of the result is computed once. The random
crop takes its numbers from the caller and is a pure function.
"""

import io
import math

import numpy as np
from numpy.typing import NDArray

from scaling.errors import UserError

_MODES = {1: 'L', 3: 'RGB', 4: 'RGBA'}
_FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF')
_ASPECTS = (3 / 4, 4 / 3)


def decode(encoded: bytes, channels: int, where: str) -> NDArray[np.uint8]:
  """Returns the image as `[H, W, C]`, in grey for one channel and colour for three.

  Transparency is dropped, 16-bit greys keep their upper byte, and of a moving picture
  the first frame is taken.

  Args:
    encoded: the content of an image file.
    channels: 1, 3 or 4.
    where: words that find the image, for the error.

  Raises:
    UserError: when the bytes are no whole image.
  """
  from PIL import Image

  if channels not in _MODES:
    raise UserError(f'data.channels={channels} cannot be decoded; use 1, 3 or 4')
  try:
    with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
      image.load()
      if image.mode.startswith('I'):
        # Pillow would clip these to 255 rather than scale them.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
      if image.mode == 'P' and 'transparency' in image.info:
        image = image.convert('RGBA')
      if image.mode != _MODES[channels]:
        image = image.convert(_MODES[channels])
      pixels = np.asarray(image)
  except Exception as error:  # broken files raise all kinds of errors in the decoders
    reason = str(error) or type(error).__name__
    raise UserError(f'{where} is no readable image ({reason}); mend it') from error
  return pixels.reshape(*pixels.shape[:2], channels)


def _resize(
  image: NDArray[np.uint8], box: tuple[float, float, float, float], size: int
) -> NDArray[np.uint8]:
  """Returns the box (left, top, right, bottom) of the image, `[size, size, C]`."""
  from PIL import Image

  channels = image.shape[-1]
  picture = Image.fromarray(image[..., 0] if channels == 1 else image)
  resized = picture.resize((size, size), Image.Resampling.BILINEAR, box=box)
  return np.asarray(resized).reshape(size, size, channels)


def random_resized_crop(
  image: NDArray[np.uint8], size: int, min_area: float, numbers: NDArray[np.float64]
) -> NDArray[np.uint8]:
  """Returns the Inception crop (Szegedy et al. 2015), `[size, size, C]`.

  The area is uniform in [min_area, 1] and the aspect log-uniform in [3/4, 4/3], as far
  as a crop of that area fits the image; drawing again until it fits, as others do,
  would need any number of random numbers. Where no aspect fits, in a very long image,
  the crop is the largest one of the nearest aspect in the centre.

  Args:
    image: `[H, W, C]`.
    size: pixels of the result.
    min_area: smallest share of the image.
    numbers: four in [0, 1): of the area, the aspect, the left and the top edge.
  """
  height, width = image.shape[:2]
  area = (min_area + (1 - min_area) * numbers[0]) * height * width
  low = max(math.log(_ASPECTS[0]), math.log(area / height**2))
  high = min(math.log(_ASPECTS[1]), math.log(width**2 / area))
  if low <= high:
    aspect = math.exp(low + (high - low) * numbers[1])
    crop_width = min(width, math.sqrt(area * aspect))
    crop_height = min(height, math.sqrt(area / aspect))
    left = (width - crop_width) * numbers[2]
    top = (height - crop_height) * numbers[3]
  else:
    crop_width = min(width, height * _ASPECTS[1])
    crop_height = min(height, width / _ASPECTS[0])
    left, top = (width - crop_width) / 2, (height - crop_height) / 2
  return _resize(image, (left, top, left + crop_width, top + crop_height), size)


def resize_center_crop(
  image: NDArray[np.uint8], size: int, resize_short: int
) -> NDArray[np.uint8]:
  """Returns the centre of the image after a resize of its short side, for tests.

  Args:
    image: `[H, W, C]`.
    size: pixels of the result, `[size, size, C]`.
    resize_short: pixels of the short side before the crop; 0 takes 8/7 of `size`, the
      usual 256 for 224.

  Raises:
    UserError: when `resize_short` is smaller than `size`.
  """
  if 0 < resize_short < size:
    raise UserError(
      f'data.resize_short={resize_short} is smaller than data.image_size={size};'
      f' use {size} or more, or 0 for {round(size * 8 / 7)}'
    )
  height, width = image.shape[:2]
  side = min(height, width) * size / (resize_short or round(size * 8 / 7))
  left, top = (width - side) / 2, (height - side) / 2
  return _resize(image, (left, top, left + side, top + side), size)
