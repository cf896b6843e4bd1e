"""Images in the one small form in which any two can be compared, of any size or colour."""

import concurrent.futures
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from scaling import cores
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
_AT_ONCE = 64  # images in full


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
  """Returns an image `[H, W, C]` as `[SIDE, SIDE, 3]`; its aspect is not kept."""
  small = crop(pixels, (0, 0, pixels.shape[1], pixels.shape[0]), SIDE)
  return np.repeat(small, 3, 2) if small.shape[2] == 1 else small[..., :3]


def read(split: Split, ids: Ids) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
  """Returns thumbnails `[B, SIDE, SIDE, 3]`, and which images could be read, `[B]`."""
  small = np.zeros((len(ids), SIDE, SIDE, 3), np.uint8)
  readable = np.zeros(len(ids), bool)
  for row, image in enumerate(_each(split, ids, thumbnail)):
    if image is not None:
      small[row], readable[row] = image, True
  return small, readable


def originals(split: Split, ids: Ids) -> list[NDArray[np.uint8] | None]:
  """Returns whole images `[H, W, C]`, None for each that cannot be read."""
  return list(_each(split, ids, lambda image: image))


def _each(
  split: Split, ids: Ids, change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
) -> Iterator[NDArray[np.uint8] | None]:
  """Yields changed images, and never holds many that are not changed yet."""

  def decoded(image: int) -> NDArray[np.uint8] | None:
    assert split.encoded is not None
    try:
      (encoded,) = split.encoded(np.array([image]))
      return change(decode(encoded, 3, split.where(image)))
    except UserError:
      return None

  if split.images is None:
    with concurrent.futures.ThreadPoolExecutor(cores.num_cores()) as threads:
      yield from threads.map(decoded, ids.tolist())
    return
  for start in range(0, len(ids), _AT_ONCE):
    yield from map(change, split.images(ids[start : start + _AT_ONCE]))


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
