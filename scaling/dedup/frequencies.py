"""What thumbnails look like by their lowest frequencies: embedding, hash and alignment.

All three come from a discrete cosine transform of the grey image. Contrast is divided
out and the mean dropped, so lighting does not matter, and colour is not looked at. The
transform is integrated over any square of the image, which costs no more than over the
whole: two images are compared at some hundred crops of either against the other.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling.dedup.thumbnails import SIDE

BITS = 63  # of the hash
_BLURRED = 8  # frequencies each way that make the embedding and the hash
_DETAILED = 12  # those that are compared in aligned images
_SHARE = ((0.975, 3), (0.95, 3), (0.925, 5), (0.9, 5), (0.875, 5))  # side, places
_GREY = np.array([0.299, 0.587, 0.114], np.float32)
# Two grey levels of contrast count as none: what is left there is noise.
_FLOOR = 2.0
# Images have less of a frequency the higher it is (power as 1/f^2); with that undone a
# blurred likeness, which many pairs have, no longer hides what differs.
_WHITEN = np.hypot(*np.indices((_DETAILED, _DETAILED))).astype(np.float32)


@dataclass(frozen=True)
class Alignment:
  """How much the images of pairs are alike where they match best.

  Attributes:
    cosine: `[N]`, of the whitened frequencies; 1 for equal up to contrast.
    distance: `[N]`, bits of their hashes that differ.
    mirrored: `[N]`, whether one is the mirror image.
    cropped: `[N]`, whether one is better matched by a crop of the other.
  """

  cosine: NDArray[np.float32]
  distance: NDArray[np.int64]
  mirrored: NDArray[np.bool_]
  cropped: NDArray[np.bool_]

  def at(self, rows: Any) -> 'Alignment':
    """Returns those pairs that an index of NumPy picks."""
    return Alignment(
      self.cosine[rows], self.distance[rows], self.mirrored[rows], self.cropped[rows]
    )

  def put(self, rows: Any, other: 'Alignment') -> None:
    """Replaces those pairs."""
    self.cosine[rows], self.distance[rows] = other.cosine, other.distance
    self.mirrored[rows], self.cropped[rows] = other.mirrored, other.cropped


def unalike(*shape: int) -> Alignment:
  """Returns pairs of this shape that have nothing in common."""
  return Alignment(
    np.full(shape, -1, np.float32),
    np.full(shape, BITS),
    np.zeros(shape, bool),
    np.zeros(shape, bool),
  )


def _basis(num: int, side: float, start: float) -> NDArray[np.float32]:
  """Returns `[num, SIDE]`: means of cosines over the pixels from `start` on, `side` long.

  Row k sums to the mean over the crop of sqrt(2) cos(pi k t), for t from 0 to 1.
  """
  k = np.arange(num)[:, None]
  edges = np.clip((np.arange(SIDE + 1) - start) / side, 0, 1)
  waves = np.sqrt(2) * np.diff(np.sin(np.pi * k * edges)) / (np.pi * np.maximum(k, 1))
  waves[0] = np.diff(edges)
  return waves.astype(np.float32)


_WHOLE = _basis(_DETAILED, SIDE, 0)


def _grey(images: NDArray[np.uint8]) -> NDArray[np.float32]:
  return np.matmul(images.astype(np.float32), _GREY)


def _transform(grey: NDArray[np.float32], num: int) -> NDArray[np.float32]:
  return np.matmul(_WHOLE[:num] @ grey, _WHOLE[:num].T)


def embed(images: NDArray[np.uint8]) -> NDArray[np.float32]:
  """Returns unit vectors of blurred images `[B, 63]`, for the search of neighbours.

  Args:
    images: `[B, SIDE, SIDE, 3]`.
  """
  waves = _transform(_grey(images), _BLURRED).reshape(len(images), -1)[:, 1:]
  return _shortened(waves)


def _shortened(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
  """Returns the vectors `[B, D]` at length 1, or less where there is little contrast."""
  squares = (vectors**2).sum(1, keepdims=True) + _FLOOR**2
  return (vectors / np.sqrt(squares)).astype(np.float32)


def hashes(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
  """Returns the perceptual hash of each image `[B, BITS]`: signs of its frequencies.

  Args:
    images: `[B, SIDE, SIDE, 3]`.
  """
  return _signs(_transform(_grey(images), _DETAILED))


def _signs(waves: NDArray[np.float32]) -> NDArray[np.bool_]:
  return (waves[:, :_BLURRED, :_BLURRED] > 0).reshape(-1, BITS + 1)[:, 1:]


def align(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Alignment:
  """Returns how much pairs are alike at the best of all crops of either, mirrored or not.

  Args:
    first: `[N, SIDE, SIDE, 3]`.
    second: `[N, SIDE, SIDE, 3]`.
  """
  best = unalike(len(first))
  here, there = _grey(first), _grey(second)
  for mirrored in (False, True):
    here = here[:, :, ::-1] if mirrored else here
    for cut, whole, crops in (
      (here, there, ((1.0, 1), *_SHARE)),
      (there, here, _SHARE),
    ):
      target = _transform(whole, _DETAILED)
      for share, places in crops:
        cosine, waves = _best_crop(cut, target, share * SIDE, places)
        better = cosine > best.cosine
        best.cosine[better] = cosine[better]
        differ = _signs(waves[better]) != _signs(target[better])
        best.distance[better] = differ.sum(1)
        best.mirrored[better] = mirrored
        best.cropped[better] = share < 1
  return best


def _best_crop(
  grey: NDArray[np.float32], target: NDArray[np.float32], side: float, places: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
  """Returns the best cosine of a crop with the target, `[N]`, and that crop's waves.

  Args:
    grey: `[N, SIDE, SIDE]`.
    target: `[N, K, K]`.
    side: of the crop, pixels.
    places: of the crop, each way.
  """
  starts = np.linspace(0, SIDE - side, places)
  bases = np.concatenate([_basis(_DETAILED, side, start) for start in starts])
  num, size = len(grey), _DETAILED
  waves = np.matmul(bases @ grey, bases.T).reshape(num, places, size, places, size)
  waves = waves.transpose(0, 1, 3, 2, 4).reshape(num, places**2, size**2)
  weights = _WHITEN.reshape(-1)
  unit = target.reshape(num, -1) * weights
  unit = _shortened(unit)
  dots = (waves @ (unit * weights)[..., None])[..., 0]
  cosines = (dots / np.sqrt(waves**2 @ weights**2 + _FLOOR**2)).astype(np.float32)
  top = cosines.argmax(1)
  rows = np.arange(num)
  return cosines[rows, top], waves[rows, top].reshape(num, size, size)
