"""Images in the one small form in which any two can be compared, of any size or colour."""

import concurrent.futures

import numpy as np
from numpy.typing import NDArray

from scaling import processes
from scaling.data.decode import crop, decode
from scaling.data.split import Split
from scaling.data.subsets import Ids
from scaling.errors import UserError

SIDE = 32  # pixels
_ZOOM = 2  # pixels that a view leaves out, or adds, at two of its four edges
_VIEWS = [(0, 0, SIDE)] + [
  (top, left, SIDE + by)
  for by in (-_ZOOM, _ZOOM)
  for top in (0, -by)
  for left in (0, -by)
]
NUM_VIEWS = 2 * len(_VIEWS)


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
  """Returns an image `[H, W, C]` as `[SIDE, SIDE, 3]`; its aspect is not kept."""
  small = crop(pixels, (0, 0, pixels.shape[1], pixels.shape[0]), SIDE)
  return np.repeat(small, 3, 2) if small.shape[2] == 1 else small[..., :3]


def read(split: Split, ids: Ids) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
  """Returns thumbnails `[B, SIDE, SIDE, 3]`, and which images could be read, `[B]`."""
  found = [
    None if image is None else thumbnail(image) for image in originals(split, ids)
  ]
  black = np.zeros((SIDE, SIDE, 3), np.uint8)
  small = [black if image is None else image for image in found]
  return np.stack(small), np.array([image is not None for image in found])


def originals(split: Split, ids: Ids) -> list[NDArray[np.uint8] | None]:
  """Returns whole images `[H, W, C]` each, None for those that cannot be read."""
  if split.images is not None:
    return list(split.images(ids))

  def one(image: int) -> NDArray[np.uint8] | None:
    assert split.encoded is not None
    try:
      return decode(split.encoded(np.array([image]))[0], 3, split.where(image))
    except UserError:
      return None

  with concurrent.futures.ThreadPoolExecutor(processes.num_cores()) as threads:
    return list(threads.map(one, ids.tolist()))


def view(images: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
  """Returns one of NUM_VIEWS looks at thumbnails, `[B, SIDE, SIDE, 3]`.

  Of two copies either may be a crop of the other. So an image is looked at as it is,
  closer at each of its corners, and from further away, with its edges reflected; and
  all that in the mirror.

  Args:
    images: `[B, SIDE, SIDE, 3]`.
    number: 0 is the image as it is, and odd ones are mirrored.
  """
  top, left, side = _VIEWS[number // 2]
  if number % 2:
    images = images[:, :, ::-1]
  if side == SIDE:
    return np.ascontiguousarray(images)
  edges = ((0, 0), (_ZOOM, _ZOOM), (_ZOOM, _ZOOM), (0, 0))
  padded = np.pad(images, edges, 'symmetric')
  top, left = top + _ZOOM, left + _ZOOM
  box = (left, top, left + side, top + side)
  return np.stack([crop(image, box, SIDE) for image in padded])
