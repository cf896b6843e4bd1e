"""Copies of images made to be found again, changed as copies in the wild are."""

import math

import numpy as np
from numpy.typing import NDArray

from scaling.data.decode import crop, decode
from scaling.data.prepare.encode import jpeg
from scaling.data.subsets import uniform_numbers

_AREA = (0.80, 0.95)  # of a crop
_QUALITY = (30, 75)  # of a JPEG
_CONTRAST = (0.6, 1.4)
_BRIGHTNESS = 30  # grey levels, either way
_TINT = (0.85, 1.15)  # of each channel
# Each kind, and the changes it consists of, in their order.
KINDS: dict[str, tuple[str, ...]] = {
  'mirrored': ('mirror',),
  'cropped': ('crop',),
  'recoloured': ('recolour',),
  'half the size': ('shrink',),
  'JPEG': ('jpeg',),
  'all at once': ('mirror', 'crop', 'recolour', 'jpeg'),
}


def plant(image: NDArray[np.uint8], image_id: int, kind: str) -> NDArray[np.uint8]:
  """Returns a changed copy `[h, w, 3]` of an image.

  Args:
    image: `[H, W, C]`.
    image_id: the changes are a function of it and the kind.
    kind: one of KINDS. Of 'all at once' half the copies are mirrored.
  """
  (numbers,) = uniform_numbers(
    9, seed=0, epochs=0, ids=[image_id], purpose=f'plant {kind}'
  )
  image = np.repeat(image, 3, 2) if image.shape[2] == 1 else image[..., :3]
  changes = KINDS[kind]
  height, width, _ = image.shape
  if 'mirror' in changes and (len(changes) == 1 or numbers[0] < 0.5):
    image = image[:, ::-1]
  if 'crop' in changes:
    share = math.sqrt(_between(_AREA, numbers[1]))
    top, left = (1 - share) * height * numbers[2], (1 - share) * width * numbers[3]
    box = (left, top, left + share * width, top + share * height)
    image = crop(np.ascontiguousarray(image), box, min(height, width))
  if 'recolour' in changes:
    image = _recolour(image, numbers[4:])
  if 'shrink' in changes:
    whole = (0, 0, image.shape[1], image.shape[0])
    image = crop(image, whole, max(min(image.shape[:2]) // 2, 4))
  if 'jpeg' in changes:
    quality = round(_between(_QUALITY, numbers[8]))
    image = decode(jpeg(np.ascontiguousarray(image), quality), 3, 'a planted copy')
  return np.ascontiguousarray(image)


def _recolour(
  image: NDArray[np.uint8], numbers: NDArray[np.float64]
) -> NDArray[np.uint8]:
  # Of four numbers: contrast, brightness, and the tints of red and blue.
  pixels = image.astype(np.float32)
  mean = pixels.mean()
  pixels = (pixels - mean) * _between(_CONTRAST, numbers[0]) + mean
  pixels += _BRIGHTNESS * (2 * numbers[1] - 1)
  pixels[..., 0] *= _between(_TINT, numbers[2])
  pixels[..., 2] *= _between(_TINT, numbers[3])
  return np.clip(pixels, 0, 255).astype(np.uint8)


def _between(limits: tuple[float, float], number: float) -> float:
  return limits[0] + (limits[1] - limits[0]) * number
