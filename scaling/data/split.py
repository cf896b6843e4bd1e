"""One part (training or test) of an image set, as functions of image ids.

Sources differ in where their pixels and labels are; behind these functions they look
the same, and none has to hold what it can compute or read on demand.
"""

import dataclasses
import hashlib
import os
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling.data.subsets import Ids, rank_in_class
from scaling.errors import UserError

_SAMPLED = 32  # images whose content is in the fingerprint, spread over the part
_HASHED_BYTES = 2**28  # of the images of a set in memory: a tenth of a second


def _by_id(image_id: int) -> str:
  return f'image {image_id}'


@dataclasses.dataclass(frozen=True)
class Split:
  """The images `0..num_images-1` of one part of a set.

  Exactly one of `images` and `encoded` is set.

  Attributes:
    num_images: how many.
    num_classes: of the whole set.
    labels: maps ids `[B]` to int32 `[B, K]`: distinct classes, then -1.
    images: maps ids `[B]` to uint8 `[B, H, W, C]`, where all share one shape.
    encoded: maps ids `[B]` to the bytes of the image files, to be decoded.
    label_names: of the classes.
    fingerprint: changes with the content, as far as that is cheap to know.
    where: maps one id to words that find its image, for errors.
    shape: of all images `[H, W, C]`, set beside `images`.
    class_weights: float32 `[num_classes]` of the weighted metrics, where there are any.
    generate: maps ids, uint32 `[B, 2]` (low and high half), to the images on the device
      that has the ids; set beside `images` where images are computed.
  """

  num_images: int
  num_classes: int
  labels: Callable[[Ids], NDArray[np.int32]]
  images: Callable[[Ids], NDArray[np.uint8]] | None
  encoded: Callable[[Ids], list[bytes]] | None
  label_names: tuple[str, ...]
  fingerprint: str
  where: Callable[[int], str] = _by_id
  shape: tuple[int, int, int] | None = None
  class_weights: NDArray[np.float32] | None = None
  generate: Callable[[Any], Any] | None = None


def fingerprint(*parts: object) -> str:
  """Returns 16 hex digits that identify the parts: arrays, or anything with a repr."""
  digest = hashlib.sha256()
  for part in parts:
    if isinstance(part, np.ndarray):
      digest.update(repr((part.shape, str(part.dtype))).encode())
      digest.update(np.ascontiguousarray(part).tobytes())
    else:
      digest.update(repr(part).encode())
  return digest.hexdigest()[:16]


def file_sizes(
  where: Callable[[int], str], num_files: int, most: int
) -> NDArray[np.int64]:
  """Returns the bytes of up to `most` files, spread over all of them.

  That of a file that is not there is -1: it is missed when it is read.

  Args:
    where: maps `0..num_files-1` to the paths.
    num_files: how many there are.
    most: sizes to look at.
  """

  def size(number: int) -> int:
    try:
      return os.stat(where(number)).st_size
    except OSError:
      return -1

  return np.array([size(i) for i in range(0, num_files, max(1, -(-num_files // most)))])


def in_memory(
  images: NDArray[np.uint8], labels: NDArray[np.int32], label_names: Sequence[str]
) -> Split:
  """Returns the part that these arrays hold.

  Args:
    images: `[N, H, W, C]`.
    labels: `[N, K]`, distinct classes padded with -1.
    label_names: `[num_classes]`.
  """
  content = images
  if images.nbytes > _HASHED_BYTES:
    content = images[:: images.nbytes // _HASHED_BYTES + 1]
  return Split(
    num_images=len(images),
    num_classes=len(label_names),
    # Unlike an index, `take` copies whole images: half the time for small ones.
    labels=lambda ids: labels.take(ids, axis=0),
    images=lambda ids: images.take(ids, axis=0),
    encoded=None,
    label_names=tuple(label_names),
    fingerprint=fingerprint(
      images.shape,
      zlib.crc32(np.ascontiguousarray(content).data),
      labels,
      tuple(label_names),
    ),
    shape=images.shape[1:],
  )


def sampled(split: Split) -> Split:
  """Returns the part with the content of some images in its fingerprint.

  Names and sizes of files stay the same where a set is prepared anew in another order.

  Args:
    split: of encoded images.
  """
  assert split.encoded is not None
  if split.num_images == 0:
    return split
  places = np.unique(np.linspace(0, split.num_images - 1, _SAMPLED).astype(np.int64))
  content = [zlib.crc32(encoded) for encoded in split.encoded(places)]
  return dataclasses.replace(
    split, fingerprint=fingerprint(split.fingerprint, content, split.labels(places))
  )


def take(split: Split, ids: Callable[[Ids], Ids], num_images: int) -> Split:
  """Returns a part of `num_images` of the images, such as a subset.

  Args:
    split: to take them from.
    ids: maps places in the new part to ids in the old one.
    num_images: of the new part.
  """
  images, encoded = split.images, split.encoded
  return dataclasses.replace(
    split,
    num_images=num_images,
    labels=lambda places: split.labels(ids(places)),
    images=None if images is None else lambda places: images(ids(places)),
    encoded=None if encoded is None else lambda places: encoded(ids(places)),
    where=lambda place: split.where(int(ids(np.array([place]))[0])),
    generate=None,  # it would have to know the ids on the device
    fingerprint=fingerprint(split.fingerprint, ids(np.arange(min(num_images, 1000)))),
  )


def merge_classes(split: Split, number: int) -> Split:
  """Returns the part with each `number` classes in a row as one.

  An image whose labels become the same has that label once.
  """

  def labels(ids: Ids) -> NDArray[np.int32]:
    found = split.labels(ids)
    merged = np.where(found < 0, -1, found // number)
    for i in range(1, merged.shape[1]):
      again = (merged[:, :i] == merged[:, i : i + 1]).any(1)
      merged[again, i] = -1
    # Those that are left stand first.
    order = np.argsort(merged < 0, axis=1, kind='stable')
    return np.take_along_axis(merged, order, axis=1)

  names = split.label_names
  return dataclasses.replace(
    split,
    num_classes=-(-split.num_classes // number),
    labels=labels,
    label_names=tuple(names[i] for i in range(0, len(names), number)),
    fingerprint=fingerprint(split.fingerprint, 'merge', number),
  )


def read_classes(text: str, path: str) -> tuple[str, ...]:
  """Returns the names of classes that a file lists, one a line.

  Raises:
    UserError: for an empty name and the same one twice.
  """
  names = tuple(text.splitlines())
  if len(set(names)) < len(names) or not all(names):
    raise UserError(f'{path} must name each class once, one a line')
  return names


def one_label(labels: NDArray[np.integer], max_labels: int) -> NDArray[np.int32]:
  """Returns the labels `[N]` of single-label images, padded with -1 to `[N, K]`."""
  table = np.full((len(labels), max_labels), -1, np.int32)
  table[:, 0] = labels
  return table


def hold_out(labels: NDArray[np.integer], fraction: float) -> tuple[Ids, Ids]:
  """Returns the ids of a training and a test part with the same share of each class.

  The choice is fixed, whatever the seeds of a run, for test errors are compared between
  runs. A class gives at least one image to the test part, unless it has only one.

  Args:
    labels: `[N]`, the class of each image.
    fraction: of each class for the test part.

  Raises:
    UserError: when the fraction leaves either part empty.
  """
  if not 0 < fraction < 1:
    raise UserError(f'data.test_fraction={fraction} must lie between 0 and 1')
  counts = np.bincount(labels)
  num_test = np.clip(np.rint(fraction * counts), 1, counts - 1)
  test = rank_in_class(labels, 'hold out') < num_test[labels]
  if not test.any():
    raise UserError(
      f'data.test_fraction={fraction} leaves no test image, for no class has two'
      ' images; add images or a test folder'
    )
  return np.flatnonzero(~test), np.flatnonzero(test)


def split_off(
  whole: Split, labels: NDArray[np.integer], fraction: float
) -> tuple[Split, Split]:
  """Returns a part without the images that are held back, and a part of these.

  Args:
    whole: to split up.
    labels: `[N]`, the class of each image.
    fraction: see `hold_out`.
  """
  train, test = hold_out(labels, fraction)
  return (
    take(whole, train.__getitem__, len(train)),
    take(whole, test.__getitem__, len(test)),
  )
