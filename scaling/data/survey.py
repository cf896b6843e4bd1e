"""What is in a part of an image set: how its labels spread, what its images are like.

Where reading all would take too long a keyed random sample stands for the part, and
every number says of how many images it is.
"""

import collections
import concurrent.futures
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling import cores
from scaling.data.decode import decode
from scaling.data.prepare.encode import Header, examine, thumbnail
from scaling.data.split import Split
from scaling.data.subsets import Ids, Permutation
from scaling.errors import UserError

RARE = (100, 20)  # images; a class with fewer is reported
_CHUNK = 4096  # labels at a time
_READ = 64  # images at a time
Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Labels:
  """How the labels of a part spread.

  Attributes:
    num_images: that were read.
    num_full: images of the part.
    per_image: `[K + 1]`, images with 0, 1, ..., K labels.
    counts: `[C]`, images of each class.
  """

  num_images: int
  num_full: int
  per_image: NDArray[np.int64]
  counts: NDArray[np.int64]

  @property
  def mean(self) -> float:
    """Labels an image."""
    return float(np.arange(len(self.per_image)) @ self.per_image) / self.num_images

  def rarer_than(self, images: int) -> int:
    """Returns how many classes have fewer images."""
    return int((self.counts < images).sum())


@dataclass(frozen=True)
class Images:
  """What the images of a part are like.

  Attributes:
    num_images: that were decoded, or tried.
    num_full: images of the part.
    heights: `[M]` pixels, of those that could be decoded; `[1]` where all are alike.
    widths: `[M]`.
    num_bytes: `[M]` of the files; of images without files, of their pixels.
    kinds: images of each format and mode, such as 'JPEG RGB', most first.
    turned: images that their camera asks to turn, which nothing here does.
    corrupt: where and why, of those that could not be decoded.
  """

  num_images: int
  num_full: int
  heights: NDArray[np.int64]
  widths: NDArray[np.int64]
  num_bytes: NDArray[np.int64]
  kinds: Mapping[str, int]
  turned: int
  corrupt: Sequence[tuple[str, str]]


def sample(split: Split, num_images: int, seed: int = 0) -> Ids:
  """Returns the ids of a random sample, or all where that is not fewer, ascending.

  Args:
    split: the part.
    num_images: of the sample.
    seed: of the choice; samples of one seed nest.
  """
  if num_images >= split.num_images:
    return np.arange(split.num_images)
  # Ascending ids are read from the front of a file to its back.
  return np.sort(Permutation(split.num_images, 'survey', seed)(np.arange(num_images)))


def read_labels(
  split: Split, ids: Ids, tell: Tell = lambda done, total: None
) -> Labels:
  """Returns how the labels of these images spread.

  Args:
    split: the part.
    ids: of images.
    tell: called with the images done and those in all.
  """
  counts = np.zeros(split.num_classes, np.int64)
  per_image = np.zeros(1, np.int64)
  for start in range(0, len(ids), _CHUNK):
    labels = split.labels(ids[start : start + _CHUNK])
    counts += np.bincount(labels[labels >= 0], minlength=split.num_classes)
    more = np.bincount((labels >= 0).sum(1))
    size = max(len(more), len(per_image))
    per_image = np.pad(per_image, (0, size - len(per_image)))
    per_image += np.pad(more, (0, size - len(more)))
    tell(min(start + _CHUNK, len(ids)), len(ids))
  return Labels(len(ids), split.num_images, per_image, counts)


def read_images(
  split: Split, ids: Ids, tell: Tell = lambda done, total: None
) -> Images:
  """Returns what these images are like, having decoded each of them.

  Args:
    split: the part.
    ids: of images. Where there are no files all share one shape, and one speaks for
      all.
    tell: called with the images done and those in all.
  """
  if split.shape is not None:
    height, width, channels = split.shape
    return Images(
      num_images=split.num_images,
      num_full=split.num_images,
      heights=np.array([height]),
      widths=np.array([width]),
      num_bytes=np.array([height * width * channels]),
      kinds={f'arrays of {channels} x 8 bits': split.num_images},
      turned=0,
      corrupt=[],
    )
  found, corrupt = [], []
  chunks = [ids[start : start + _READ] for start in range(0, len(ids), _READ)]
  with concurrent.futures.ThreadPoolExecutor(cores.num_cores()) as threads:
    for looked in threads.map(
      lambda some: [_look(split, int(i)) for i in some], chunks
    ):
      for one in looked:
        (found if isinstance(one, _Look) else corrupt).append(one)
      tell(len(found) + len(corrupt), len(ids))
  headers = [one.header for one in found]
  kinds = collections.Counter(f'{one.format} {one.mode}' for one in headers)
  return Images(
    num_images=len(ids),
    num_full=split.num_images,
    heights=np.array([one.height for one in headers], np.int64),
    widths=np.array([one.width for one in headers], np.int64),
    num_bytes=np.array([one.num_bytes for one in found], np.int64),
    kinds=dict(kinds.most_common()),
    turned=sum(one.turned for one in headers),
    corrupt=corrupt,
  )


class _Look(NamedTuple):
  header: Header
  num_bytes: int


def _look(split: Split, image: int) -> _Look | tuple[str, str]:
  """Returns what an image is like, or where it is and what is wrong with it."""
  assert split.encoded is not None
  where = split.where(image)
  try:
    (encoded,) = split.encoded(np.array([image]))
    return _Look(examine(encoded, where), len(encoded))
  except UserError as error:
    return where, str(error).removeprefix(where).strip()


def thumbnails(split: Split, ids: Ids, longest: int) -> list[NDArray[np.uint8] | None]:
  """Returns small copies `[h, w, C]` of images, None for those that are corrupt.

  Args:
    split: the part.
    ids: of images.
    longest: pixels of the longer side, at most.
  """
  if split.images is not None:
    return [thumbnail(pixels, longest) for pixels in split.images(ids)]
  assert split.encoded is not None
  found: list[NDArray[np.uint8] | None] = []
  for image in ids:
    try:
      (encoded,) = split.encoded(image[None])
      found.append(thumbnail(decode(encoded, 3, split.where(int(image))), longest))
    except UserError:
      found.append(None)
  return found
