"""Encoded images to pixels on the host, with OpenCV, and their crops.

Pillow, at half the speed, reads what OpenCV does not (moving pictures, some greys) and
says what is wrong with a broken file. Crops take their random numbers from the caller
and are pure functions.
"""

import functools
import io
import math
from collections.abc import Callable
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from scaling.errors import UserError

_MODES = {1: 'L', 3: 'RGB', 4: 'RGBA'}
_FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF')
_ASPECTS = (3 / 4, 4 / 3)

Box = tuple[float, float, float, float]  # left, top, right, bottom; pixels


class CorruptError(UserError):
  """An image that cannot be read."""


def decode(
  encoded: bytes, channels: int, where: str, shrink: int = 1
) -> NDArray[np.uint8]:
  """Returns the image as `[H, W, C]`, in grey for one channel and colour for three.

  Transparency is dropped, 16-bit greys keep their upper byte, and of a moving picture
  the first frame is taken.

  Args:
    encoded: the content of an image file.
    channels: 1, 3 or 4.
    where: words that find the image, for the error.
    shrink: 1, 2, 4 or 8: a colour JPEG comes as many times smaller, for less work.

  Raises:
    UserError: for channels that no image has.
    CorruptError: when the bytes are no whole image.
  """
  if channels not in _MODES:
    raise UserError(f'data.channels={channels} cannot be decoded; use 1, 3 or 4')
  try:
    pixels = _by_opencv(encoded, shrink) if channels == 3 else None
    if pixels is None:
      pixels = _by_pillow(encoded, channels)
  except Exception as error:  # broken files raise all kinds of errors in the decoders
    reason = str(error).split(' <_io')[0] or type(error).__name__
    raise CorruptError(
      f'{where} is no readable image ({reason}); mend it, or set data.corrupt=skip'
    ) from error
  return pixels.reshape(*pixels.shape[:2], channels)


@functools.cache
def _opencv() -> ModuleType:
  import cv2

  cv2.setNumThreads(1)  # images are spread over threads, not the work on one
  return cv2


def _by_opencv(encoded: bytes, shrink: int) -> NDArray[np.uint8] | None:
  """Returns the pixels in colour, or None."""
  if encoded[:4] == b'GIF8' or not encoded:
    return None
  cv2 = _opencv()
  how = (
    cv2.IMREAD_COLOR_RGB
    if shrink == 1
    else getattr(cv2, f'IMREAD_REDUCED_COLOR_{shrink}')
  )
  pixels = cv2.imdecode(
    np.frombuffer(encoded, np.uint8), how | cv2.IMREAD_IGNORE_ORIENTATION
  )
  if pixels is None or shrink == 1:
    return pixels
  return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _by_pillow(encoded: bytes, channels: int) -> NDArray[np.uint8]:
  from PIL import Image

  with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
    image.load()
    if image.mode.startswith('I'):
      # Pillow would clip these to 255 rather than scale them.
      image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == 'P' and 'transparency' in image.info:
      image = image.convert('RGBA')
    if image.mode != _MODES[channels]:
      image = image.convert(_MODES[channels])
    return np.asarray(image)


def jpeg_size(encoded: bytes) -> tuple[int, int] | None:
  """Returns height and width of a JPEG from its header, or None for anything else."""
  if encoded[:2] != b'\xff\xd8':
    return None
  at = 2
  while at + 9 <= len(encoded) and encoded[at] == 0xFF:
    marker = encoded[at + 1]
    # The frame header, of whatever coding; the three others in its range are tables.
    if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
      height = int.from_bytes(encoded[at + 5 : at + 7], 'big')
      width = int.from_bytes(encoded[at + 7 : at + 9], 'big')
      return (height, width) if height and width else None
    at += 2 + int.from_bytes(encoded[at + 2 : at + 4], 'big')
  return None


def decode_crop(
  encoded: bytes,
  channels: int,
  where: str,
  make_box: Callable[[int, int], Box],
  size: int,
) -> NDArray[np.uint8]:
  """Returns a crop of an encoded image, resized to `[size, size, C]`.

  A JPEG is decoded at a half, a quarter or an eighth where the crop has the pixels for
  it: each is then the mean over its square, as a reduction after decoding would give.

  Args:
    encoded: the content of an image file.
    channels: 1, 3 or 4.
    where: words that find the image, for the error.
    make_box: from height and width to the crop.
    size: pixels of the result.

  Raises:
    CorruptError: when the bytes are no whole image.
  """
  full = jpeg_size(encoded)
  box, shrink = None, 1
  if full is not None:
    box = make_box(*full)
    side = min(box[2] - box[0], box[3] - box[1])
    shrink = max(n for n in (1, 2, 4, 8) if n == 1 or side >= n * size)
  pixels = decode(encoded, channels, where, shrink)
  if full is None or box is None:
    return crop(pixels, make_box(*pixels.shape[:2]), size)
  left, top, right, bottom = (edge / shrink for edge in box)
  return crop(pixels, (left, top, right, bottom), size)


def crop(image: NDArray[np.uint8], box: Box, size: int) -> NDArray[np.uint8]:
  """Returns the box of an image `[H, W, C]`, resized to `[size, size, C]`.

  The box is taken to whole pixels. Shrinking by two or more takes the mean of the area
  that a pixel covers, which linear interpolation would see parts of.
  """
  cv2 = _opencv()
  left, top, right, bottom = (round(edge) for edge in box)
  left, top = min(left, image.shape[1] - 1), min(top, image.shape[0] - 1)
  part = image[top : max(bottom, top + 1), left : max(right, left + 1)]
  by_area = min(part.shape[:2]) >= 2 * size
  how = cv2.INTER_AREA if by_area else cv2.INTER_LINEAR
  resized = cv2.resize(part, (size, size), interpolation=how)
  return resized.reshape(size, size, image.shape[-1])


def random_box(
  height: int, width: int, min_area: float, numbers: NDArray[np.float64]
) -> Box:
  """Returns the Inception crop (Szegedy et al. 2015) of an image.

  The area is uniform in [min_area, 1] and the aspect log-uniform in [3/4, 4/3], as far
  as a crop of that area fits the image; drawing again until it fits, as others do,
  would need any number of random numbers. Where no aspect fits, in a very long image,
  the crop is the largest one of the nearest aspect in the centre.

  Args:
    height: pixels.
    width: pixels.
    min_area: smallest share of the image.
    numbers: four in [0, 1): of the area, the aspect, the left and the top edge.
  """
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
  return (left, top, left + crop_width, top + crop_height)


def center_box(height: int, width: int, size: int, resize_short: int) -> Box:
  """Returns the centre of an image that a resize of its short side leaves, for tests.

  Args:
    height: pixels.
    width: pixels.
    size: pixels of the result.
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
  side = min(height, width) * size / (resize_short or round(size * 8 / 7))
  left, top = (width - side) / 2, (height - side) / 2
  return (left, top, left + side, top + side)
