"""Batches for the loop: pure functions of the step, and a thread that runs ahead.

A training batch depends on its arguments alone, so there is no iterator to save: a run
resumes by asking for the next step. Pixels stay bytes until they reach the device.
"""

import collections
import concurrent.futures
import functools
import time
from collections.abc import Callable, Iterator
from typing import Generic, Self, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from numpy.typing import NDArray

from scaling import processes, sharding
from scaling.data.decode import (
  Box,
  CorruptError,
  center_box,
  decode_crop,
  random_box,
)
from scaling.data.skipped import Skipped
from scaling.data.split import Split
from scaling.data.subsets import (
  Ids,
  Subset,
  balanced_subset,
  batch_ids,
  halves,
  uniform_numbers,
  uniform_subset,
)
from scaling.errors import UserError

Batch = dict[str, np.ndarray]
T = TypeVar('T')

_REPLACEMENTS = 32  # tried in the place of an image that cannot be read
_LABELS_READ = 4096  # at a time: an encoded set reads whole records for them


def make_subset(split: Split, data: ConfigDict) -> Subset:
  """Returns the training images that the config asks for.

  Raises:
    UserError: when there are too few images, or classes cannot be balanced.
  """
  num_images = data.num_images or split.num_images
  if data.subset == 'uniform':
    return uniform_subset(num_images, split.num_images, data.subset_seed, data.name)
  if data.max_labels != 1:
    raise UserError(
      f"data.subset='balanced' needs one label an image, and data.max_labels="
      f"{data.max_labels}; use data.subset='uniform'"
    )
  starts = range(0, split.num_images, _LABELS_READ)
  ids = (np.arange(i, min(i + _LABELS_READ, split.num_images)) for i in starts)
  labels = np.concatenate([split.labels(some)[:, 0] for some in ids])
  if labels.min() < 0:
    raise UserError(
      f"data.subset='balanced' but image {labels.argmin()} of {data.name} has no label;"
      " use data.subset='uniform'"
    )
  missing = np.flatnonzero(np.bincount(labels, minlength=split.num_classes) == 0)
  if missing.size:
    raise UserError(
      f"data.subset='balanced' but class {split.label_names[missing[0]]!r} of"
      f" {data.name} has no training image; use data.subset='uniform'"
    )
  return balanced_subset(num_images, labels, data.subset_seed, data.name)


def train_batch(
  step: int,
  *,
  split: Split,
  data: ConfigDict,
  subset: Subset,
  batch_size: int,
  seed: int,
  rows: slice = slice(None),
  skipped: Skipped | None = None,
) -> Batch:
  """Returns the batch that the update after `step` finished ones trains on.

  Encoded images come cropped at random when `data.min_crop_area` is set; all other
  augmentation is the device's.

  Args:
    step: updates finished before it.
    split: the training part.
    data: the `data` part of the config.
    subset: the training images.
    batch_size: images, over all processes.
    seed: of the augmentation.
    rows: of the global batch, for this process.
    skipped: is told of images that cannot be read, in whose place others of the subset
      then come, drawn by id and epoch; None raises.

  Returns:
    `image` uint8 `[b, S, S, C]`, `labels` int32 `[b, K]` padded with -1, `id` uint32
    `[b, 2]` (low and high half) and `epoch` uint32 `[b]`. Images that are computed on
    the device are left to `place`.

  Raises:
    CorruptError: for an image that cannot be read, or too many of them.
  """
  ids, epochs = batch_ids(step, batch_size, subset, data.order_seed)
  ids, epochs = ids[rows], epochs[rows]
  batch = {}
  if split.generate is None:
    batch['image'], read = _train_images(ids, epochs, split, data, seed, skipped)
    for attempt in range(_REPLACEMENTS):
      if not (bad := np.flatnonzero(~read)).size:
        break
      purpose = f'replacement {attempt}'
      draws = uniform_numbers(
        1, seed=seed, epochs=epochs[bad], ids=ids[bad], purpose=purpose
      )
      ids[bad] = subset.ids((draws[:, 0] * subset.num_images).astype(np.int64))
      batch['image'][bad], read[bad] = _train_images(
        ids[bad], epochs[bad], split, data, seed, skipped
      )
    if not read.all():
      raise CorruptError(
        f'{_REPLACEMENTS} images in a row cannot be read; is --data_dir the right one?'
      )
  return batch | {
    'labels': split.labels(ids),
    'id': halves(ids),
    'epoch': epochs.astype(np.uint32),
  }


def _train_images(
  ids: Ids,
  epochs: Ids,
  split: Split,
  data: ConfigDict,
  seed: int,
  skipped: Skipped | None,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
  return _images(ids, split, data, crop_numbers(ids, epochs, data, seed), skipped)


def crop_numbers(
  ids: Ids, epochs: Ids, data: ConfigDict, seed: int
) -> NDArray[np.float64] | None:
  """Returns the numbers of each image's random crop, `[B, 4]`; None for the centre."""
  if data.min_crop_area == 0:
    return None
  return uniform_numbers(4, seed=seed, epochs=epochs, ids=ids, purpose='crop')


def place(batch: Batch, split: Split, mesh: Mesh) -> dict[str, jax.Array]:
  """Returns a batch on the devices of a mesh, with its images.

  Args:
    batch: of `train_batch` or `test_batches`, this process's rows.
    split: that it comes from.
    mesh: to split the batch over.
  """
  placed = sharding.put_batch(batch, mesh)
  if split.generate is None:
    return placed
  image = _generator(split.generate, mesh)(placed['id'])
  if 'epoch' not in placed:  # only training augments, by id and epoch
    del placed['id']
  return placed | {'image': image}


@functools.lru_cache(maxsize=4)
def _generator(generate: Callable[[jax.Array], jax.Array], mesh: Mesh) -> Callable:
  return jax.jit(generate, out_shardings=sharding.split_batch(mesh))


def placed_batch(
  step: int,
  *,
  config: ConfigDict,
  split: Split,
  subset: Subset,
  mesh: Mesh,
  skipped: Skipped | None = None,
) -> dict[str, jax.Array]:
  """Returns `train_batch` of a config on the devices of a mesh, this process's rows.

  Args:
    step: updates finished before it.
    config: of the cell.
    split: the training part.
    subset: the training images.
    mesh: to split the batch over.
    skipped: see `train_batch`.
  """
  size = config.train.batch_size
  batch = train_batch(
    step,
    split=split,
    data=config.data,
    subset=subset,
    batch_size=size,
    seed=config.seed,
    rows=sharding.process_rows(size),
    skipped=skipped,
  )
  return place(batch, split, mesh)


def test_batches(
  split: Split,
  data: ConfigDict,
  batch_size: int,
  rows: slice = slice(None),  # noqa: PT028 - not a test
  skipped: Skipped | None = None,  # noqa: PT028
) -> Iterator[Batch]:
  """Yields all images in order, in batches of one size.

  Args:
    split: the test part.
    data: the `data` part of the config.
    batch_size: images, over all processes.
    rows: of each global batch, for this process.
    skipped: is told of images that cannot be read, which then do not count; None
      raises.

  Yields:
    `image` uint8 `[B, S, S, C]`, `labels` int32 `[B, K]` and `mask` float32 `[B]`: 1,
    or 0 in the rows that fill up the last batch and those of images that cannot be
    read, whose labels are -1. In place of images
    that are computed on the device, their `id` for `place`.
  """
  for start in range(0, split.num_images, batch_size):
    wanted = np.arange(start, start + batch_size)[rows]
    ids = wanted[wanted < split.num_images]
    fill = (0, len(wanted) - len(ids))
    labels, read = split.labels(ids), np.ones(len(ids), bool)
    batch = {}
    if split.generate is None:
      images, read = _images(ids, split, data, None, skipped)
      batch['image'] = np.pad(images, (fill, (0, 0), (0, 0), (0, 0)))
      labels = np.where(read[:, None], labels, -1)
    else:
      batch['id'] = np.pad(halves(ids), (fill, (0, 0)))
    yield batch | {
      'labels': np.pad(labels, (fill, (0, 0)), constant_values=-1),
      'mask': np.pad(read.astype(np.float32), fill),
    }


test_batches.__test__ = False  # pytest takes the name for a test


def cropped(
  encoded: bytes, data: ConfigDict, where: str, numbers: NDArray[np.float64] | None
) -> NDArray[np.uint8]:
  """Returns an image cropped to size, `[S, S, C]`: at random or in the centre.

  Args:
    encoded: the content of an image file.
    data: the `data` part of the config.
    where: words that find the image.
    numbers: four in [0, 1) of the random crop, or None.

  Raises:
    CorruptError: when the bytes are no whole image.
  """

  def box(height: int, width: int) -> Box:
    if numbers is None:
      return center_box(height, width, data.image_size, data.resize_short)
    return random_box(height, width, data.min_crop_area, numbers)

  return decode_crop(encoded, data.channels, where, box, data.image_size)


@functools.cache
def _decoders() -> concurrent.futures.ThreadPoolExecutor:
  return concurrent.futures.ThreadPoolExecutor(processes.num_cores(), 'decode')


def _images(
  ids: Ids,
  split: Split,
  data: ConfigDict,
  numbers: NDArray[np.float64] | None,
  skipped: Skipped | None,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
  """Returns images, cropped at random (with `numbers`) or in the centre, and which are.

  An image that cannot be read is black and False, and noted in `skipped`; without that
  its error is raised.
  """
  if split.images is not None:
    return split.images(ids), np.ones(len(ids), bool)
  assert split.encoded is not None

  def prepare(row: int, encoded: bytes) -> NDArray[np.uint8] | None:
    own = None if numbers is None else numbers[row]
    try:
      return cropped(encoded, data, split.where(int(ids[row])), own)
    except CorruptError as error:
      if skipped is None:
        raise
      skipped.add(str(error))
      return None

  found = list(_decoders().map(prepare, range(len(ids)), split.encoded(ids)))
  read = np.array([image is not None for image in found], bool)
  black = np.zeros((data.image_size, data.image_size, data.channels), np.uint8)
  return np.stack([black if image is None else image for image in found]), read


class Prefetch(Generic[T]):
  """Yields `make(start), ..., make(stop - 1)`, prepared ahead by a thread of its own.

  An error in `make` is raised where its item would have come. Leaving the `with` block,
  `close()` or dropping the last reference ends the thread, after at most the item it is
  working on.

  Args:
    make: prepares the item of one step; called in order, in the thread.
    start: first step.
    stop: step after the last.
    ahead: items that may wait to be taken.

  Attributes:
    wait_seconds: time that the consumer has spent waiting for items.
  """

  def __init__(
    self, make: Callable[[int], T], start: int, stop: int, ahead: int = 2
  ) -> None:
    self.wait_seconds = 0.0
    self._make = make
    self._steps = iter(range(start, stop))
    self._thread = concurrent.futures.ThreadPoolExecutor(1, 'prefetch')
    self._pending: collections.deque[concurrent.futures.Future[T]] = collections.deque()
    for _ in range(max(ahead, 1)):
      self._submit()

  def _submit(self) -> None:
    for step in self._steps:
      self._pending.append(self._thread.submit(self._make, step))
      return

  def __iter__(self) -> Self:
    return self

  def __next__(self) -> T:
    if not self._pending:
      self.close()
      raise StopIteration
    began = time.perf_counter()
    try:
      item = self._pending.popleft().result()
    except BaseException:
      self.close()
      raise
    self.wait_seconds += time.perf_counter() - began
    self._submit()
    return item

  def close(self) -> None:
    """Ends the thread; the items not yet taken are dropped."""
    self._pending.clear()
    self._steps = iter(())
    self._thread.shutdown(cancel_futures=True)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def __del__(self) -> None:
    self._thread.shutdown(wait=False, cancel_futures=True)


prefetch = Prefetch  # a verb, where it is called
