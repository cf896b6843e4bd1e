"""Batches for the loop: pure functions of the step, and a thread that runs ahead.

A training batch depends on its arguments alone, so there is no iterator to save: a run
resumes by asking for the next step. Pixels stay bytes until they reach the device.
"""

import collections
import concurrent.futures
import functools
import os
import time
from collections.abc import Callable, Iterator
from typing import Generic, Self, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from numpy.typing import NDArray

from scaling import sharding
from scaling.data.decode import decode, random_resized_crop, resize_center_crop
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

  Returns:
    `image` uint8 `[b, S, S, C]`, `labels` int32 `[b, K]` padded with -1, `id` uint32
    `[b, 2]` (low and high half) and `epoch` uint32 `[b]`. Images that are computed on
    the device are left to `place`.
  """
  ids, epochs = batch_ids(step, batch_size, subset, data.order_seed)
  ids, epochs = ids[rows], epochs[rows]
  if data.min_crop_area > 0:
    numbers = uniform_numbers(4, seed=seed, epochs=epochs, ids=ids, purpose='crop')
  else:
    numbers = None
  batch = {
    'labels': split.labels(ids),
    'id': halves(ids),
    'epoch': epochs.astype(np.uint32),
  }
  if split.generate is None:
    batch['image'] = _images(ids, split, data, numbers)
  return batch


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
  step: int, *, config: ConfigDict, split: Split, subset: Subset, mesh: Mesh
) -> dict[str, jax.Array]:
  """Returns `train_batch` of a config on the devices of a mesh, this process's rows.

  Args:
    step: updates finished before it.
    config: of the cell.
    split: the training part.
    subset: the training images.
    mesh: to split the batch over.
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
  )
  return place(batch, split, mesh)


def test_batches(
  split: Split,
  data: ConfigDict,
  batch_size: int,
  rows: slice = slice(None),  # noqa: PT028 - not a test
) -> Iterator[Batch]:
  """Yields all images in order, in batches of one size.

  Args:
    split: the test part.
    data: the `data` part of the config.
    batch_size: images, over all processes.
    rows: of each global batch, for this process.

  Yields:
    `image` uint8 `[B, S, S, C]`, `labels` int32 `[B, K]` and `mask` float32 `[B]`: 1,
    or 0 in the rows that fill up the last batch, whose labels are -1. In place of images
    that are computed on the device, their `id` for `place`.
  """
  for start in range(0, split.num_images, batch_size):
    wanted = np.arange(start, start + batch_size)[rows]
    ids = wanted[wanted < split.num_images]
    fill = (0, len(wanted) - len(ids))
    batch = {
      'labels': np.pad(split.labels(ids), (fill, (0, 0)), constant_values=-1),
      'mask': np.pad(np.ones(len(ids), np.float32), fill),
    }
    if split.generate is None:
      images = _images(ids, split, data, None)
      batch['image'] = np.pad(images, (fill, (0, 0), (0, 0), (0, 0)))
    else:
      batch['id'] = np.pad(halves(ids), (fill, (0, 0)))
    yield batch


test_batches.__test__ = False  # pytest takes the name for a test


@functools.cache
def _decoders() -> concurrent.futures.ThreadPoolExecutor:
  return concurrent.futures.ThreadPoolExecutor(os.cpu_count(), 'decode')


def _images(
  ids: Ids, split: Split, data: ConfigDict, numbers: NDArray[np.float64] | None
) -> NDArray[np.uint8]:
  """Returns the images, cropped to size at random (with `numbers`) or in the centre."""
  if split.images is not None:
    return split.images(ids)
  assert split.encoded is not None

  def prepare(row: int, encoded: bytes) -> NDArray[np.uint8]:
    image = decode(encoded, data.channels, split.where(int(ids[row])))
    if numbers is None:
      return resize_center_crop(image, data.image_size, data.resize_short)
    return random_resized_crop(image, data.image_size, data.min_crop_area, numbers[row])

  return np.stack(list(_decoders().map(prepare, range(len(ids)), split.encoded(ids))))


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
