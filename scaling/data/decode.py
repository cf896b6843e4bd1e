"""Encoded images to pixels on the host, and their crops.

Crops of JPEGs are decoded by libjpeg-turbo itself (simplejpeg), other images by OpenCV.
Pillow, at half the speed, reads what these do not (moving pictures, some greys) and
says what is wrong with a broken file. Crops take their random numbers from the caller
and are pure functions.
"""

import functools
import io
import math
import threading
from collections.abc import Callable
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from scaling.data import jpeg
from scaling.errors import UserError

_MODES = {1: 'L', 3: 'RGB', 4: 'RGBA'}
_FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF')
ASPECTS = (3 / 4, 4 / 3)  # of random crops, width to height
CROP_NUMBERS = 22  # that a random crop takes: ten tries and its place
_SCRATCH_BYTES = 2**25  # that a thread keeps

Box = tuple[float, float, float, float]  # left, top, right, bottom; pixels


class CorruptError(UserError):
  """An image that cannot be read."""


def decode(encoded: bytes, channels: int, where: str) -> NDArray[np.uint8]:
  """Returns the image as `[H, W, C]`, in grey for one channel and colour for three.

  Transparency is dropped, 16-bit greys keep their upper byte, and of a moving picture
  the first frame is taken.

  Args:
    encoded: the content of an image file.
    channels: 1, 3 or 4.
    where: words that find the image, for the error.

  Raises:
    UserError: for channels that no image has.
    CorruptError: when the bytes are no whole image.
  """
  if channels not in _MODES:
    raise UserError(f'data.channels={channels} cannot be decoded; use 1, 3 or 4')
  if not encoded:
    raise CorruptError(
      f'{where} is no readable image (empty, or a record without data.image_key); mend '
      'it, or set data.corrupt=skip'
    )
  try:
    pixels = _by_opencv(encoded) if channels == 3 else None
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


def _by_opencv(encoded: bytes) -> NDArray[np.uint8] | None:
  """Returns the pixels in colour, or None."""
  if encoded[:4] == b'GIF8' or not encoded:
    return None
  cv2 = _opencv()
  how = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
  try:
    return cv2.imdecode(np.frombuffer(encoded, np.uint8), how)
  except cv2.error:
    return None


class _Scratch(threading.local):
  """Where a thread decodes JPEGs, one after the other: new pages cost more than pixels."""

  def __init__(self) -> None:
    self.pixels = np.empty(0, np.uint8)

  def of(self, size: int) -> NDArray[np.uint8]:
    if size > _SCRATCH_BYTES:
      return np.empty(size, np.uint8)
    if self.pixels.size < size:
      self.pixels = np.empty(size, np.uint8)
    return self.pixels


_scratch = _Scratch()


def _by_simplejpeg(
  encoded: bytes, height: int, width: int, shrink: int, *, strict: bool
) -> NDArray[np.uint8] | None:
  """Returns the pixels of a JPEG in colour, so many times smaller, or None.

  They are the thread's own, until it decodes the next. OpenCV gives the same ones, and a
  copy. With `strict` anything odd about the file is a reason for None.
  """
  import simplejpeg

  try:
    return simplejpeg.decode_jpeg(
      encoded,
      min_height=-(-height // shrink),
      min_width=-(-width // shrink),
      min_factor=shrink,
      buffer=_scratch.of(3 * height * width),
      strict=strict,
    )
  except (ValueError, MemoryError):
    return None


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


def decode_crop(
  encoded: bytes,
  channels: int,
  where: str,
  make_box: Callable[[int, int], Box],
  size: int,
  out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
  """Returns a crop of an encoded image, resized to `[size, size, C]`.

  Of a colour JPEG no more is decoded than the rows down to the end of the crop, and at a
  half, a quarter or an eighth where the crop has the pixels for it: each is then the mean
  over its square, as a reduction after decoding would give.

  Args:
    encoded: the content of an image file.
    channels: 1, 3 or 4.
    where: words that find the image, for the error.
    make_box: from height and width to the crop.
    size: pixels of the result.
    out: where to write it; by itself it is a new array.

  Raises:
    CorruptError: when the bytes are no whole image.
  """
  header = jpeg.read_header(encoded) if channels == 3 else None
  if header is None:
    pixels = decode(encoded, channels, where)
    return crop(pixels, make_box(*pixels.shape[:2]), size, out)
  box = make_box(header.height, header.width)
  side = min(box[2] - box[0], box[3] - box[1])
  shrink = max(n for n in (1, 2, 4, 8) if n == 1 or side >= n * size)
  # One row more than the crop has, for the last one is not exact, and one for rounding.
  rows = shrink * (math.ceil(box[3] / shrink) + 2)
  upper = jpeg.first_rows(encoded, header, rows)
  whole = upper is encoded
  height = header.height if whole else rows
  pixels = _by_simplejpeg(upper, height, header.width, shrink, strict=whole)
  if pixels is None:  # of a kind that it cannot read, or no whole image
    pixels, shrink = decode(encoded, channels, where), 1
  left, top, right, bottom = (edge / shrink for edge in box)
  return crop(pixels, (left, top, right, bottom), size, out)


def crop(
  image: NDArray[np.uint8],
  box: Box,
  size: int,
  out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
  """Returns the box of an image `[H, W, C]`, resized to `[size, size, C]`, in `out`.

  The box is taken to whole pixels. Shrinking by two or more takes the mean of the area
  that a pixel covers, which linear interpolation would see parts of.
  """
  cv2 = _opencv()
  left, top, right, bottom = (round(edge) for edge in box)
  left, top = min(left, image.shape[1] - 1), min(top, image.shape[0] - 1)
  part = image[top : max(bottom, top + 1), left : max(right, left + 1)]
  by_area = min(part.shape[:2]) >= 2 * size
  how = cv2.INTER_AREA if by_area else cv2.INTER_LINEAR
  resized = cv2.resize(part, (size, size), dst=out, interpolation=how)
  resized = resized.reshape(size, size, image.shape[-1])
  if out is None or np.may_share_memory(resized, out):
    return resized
  out[:] = resized  # OpenCV takes an array of its own where another does not suit it
  return out


def random_box(
  height: int, width: int, min_area: float, numbers: NDArray[np.float64]
) -> Box:
  """Returns the Inception crop (Szegedy et al. 2015) of an image.

  A try draws an area, uniform in [min_area, 1], and an aspect, log-uniform in [3/4, 4/3];
  the first of ten that fits the image is taken, as torchvision's RandomResizedCrop does
  it. So large areas, which seldom fit, are rarer than small ones. Where none fits the
  crop is the largest one of the nearest aspect in the centre.

  Args:
    height: pixels.
    width: pixels.
    min_area: smallest share of the image.
    numbers: `[CROP_NUMBERS]` in [0, 1): area and aspect of the first try, left and top
      edge, then area and aspect of each further try.
  """
  low, high = map(math.log, ASPECTS)
  for at in (0, *range(4, CROP_NUMBERS, 2)):
    area = (min_area + (1 - min_area) * numbers[at]) * height * width
    aspect = math.exp(low + (high - low) * numbers[at + 1])
    crop_width, crop_height = math.sqrt(area * aspect), math.sqrt(area / aspect)
    if crop_width <= width and crop_height <= height:
      left, top = (width - crop_width) * numbers[2], (height - crop_height) * numbers[3]
      break
  else:
    crop_width = min(width, height * ASPECTS[1])
    crop_height = min(height, width / ASPECTS[0])
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
