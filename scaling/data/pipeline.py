"""Batches for the loop: pure functions of the step.

A training batch depends on its arguments alone, so there is no iterator to save: a run
resumes by asking for the next step. Pixels stay bytes until they reach the device.
"""

import functools
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from numpy.typing import NDArray

from scaling import sharding
from scaling.data import images
from scaling.data.decode import CorruptError
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

_REPLACEMENTS = 32  # tried in the place of an image that cannot be read
_LABELS_COUNTED = 1_000_000  # at most
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


def class_counts(split: Split, subset: Subset) -> NDArray[np.int64] | None:
  """Returns how many images of a subset each class has, `[num_classes]`.

  None where that would cost reading the images themselves, or too many labels.

  Args:
    split: the training part.
    subset: of it.
  """
  if split.encoded is not None or subset.num_images > _LABELS_COUNTED:
    return None
  counts = np.zeros(split.num_classes, np.int64)
  for start in range(0, subset.num_images, _LABELS_READ):
    ranks = np.arange(start, min(start + _LABELS_READ, subset.num_images))
    labels = split.labels(subset.ids(ranks))
    counts += np.bincount(labels[labels >= 0], minlength=split.num_classes)
  return counts


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
    batch['image'], ids = _train_images(
      ids, epochs, split=split, data=data, subset=subset, seed=seed, skipped=skipped
    )
  return batch | {
    'labels': split.labels(ids),
    'id': halves(ids),
    'epoch': epochs.astype(np.uint32),
  }


def _train_images(
  ids: Ids,
  epochs: Ids,
  *,
  split: Split,
  data: ConfigDict,
  subset: Subset,
  seed: int,
  skipped: Skipped | None,
) -> tuple[NDArray[np.uint8], Ids]:
  """Returns images, and the ids that they have: others for those that cannot be read.

  The given ids are changed.
  """

  def read(rows: slice | NDArray[np.integer]) -> tuple[NDArray, NDArray]:
    numbers = images.crop_numbers(ids[rows], epochs[rows], data, seed)
    return images.read(ids[rows], split, data, numbers, skipped)

  pixels, found = read(slice(None))
  for attempt in range(_REPLACEMENTS):
    bad = np.flatnonzero(~found)
    if not bad.size:
      break
    purpose = f'replacement {attempt}'
    draws = uniform_numbers(
      1, seed=seed, epochs=epochs[bad], ids=ids[bad], purpose=purpose
    )
    ids[bad] = subset.ids((draws[:, 0] * subset.num_images).astype(np.int64))
    pixels[bad], found[bad] = read(bad)
  if not found.all():
    raise CorruptError(
      f'{_REPLACEMENTS} images in a row cannot be read; is --data_dir the right one?'
    )
  return pixels, ids


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
      pixels, read = images.read(ids, split, data, None, skipped)
      batch['image'] = np.pad(pixels, (fill, (0, 0), (0, 0), (0, 0)))
      labels = np.where(read[:, None], labels, -1)
    else:
      batch['id'] = np.pad(halves(ids), (fill, (0, 0)))
    yield batch | {
      'labels': np.pad(labels, (fill, (0, 0)), constant_values=-1),
      'mask': np.pad(read.astype(np.float32), fill),
    }


test_batches.__test__ = False  # pytest takes the name for a test
