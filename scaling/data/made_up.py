"""Made-up images of any number and number of classes, to try the machinery without data.

Pixels and labels are hashes of the image's index, so nothing is stored. Each class is a
sum of coloured waves, shifted a little from image to image and covered with noise: a
small network learns it within some hundred steps, but not at once.
"""

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from scaling.data.split import Split, fingerprint
from scaling.data.subsets import Ids, uniform_numbers
from scaling.errors import UserError

_WAVES = 3
_FIRST_TEST = 2**40  # beyond any training index


def at_hand(data: ConfigDict, data_dir: str | None) -> bool:
  """Returns True: there is nothing to find."""
  del data, data_dir
  return True


def load(data: ConfigDict, data_dir: str | None) -> tuple[Split, Split]:
  """Returns the training and the test part, `[N, S, S, C]`.

  Raises:
    UserError: when an image could not have `data.max_labels` distinct labels.
  """
  del data_dir
  if data.max_labels > data.num_classes:
    raise UserError(
      f'data.max_labels={data.max_labels} is more than data.num_classes='
      f'{data.num_classes}; lower it'
    )
  return _split(data, data.made_up_train, 0), _split(
    data, data.made_up_test, _FIRST_TEST
  )


def _split(data: ConfigDict, num_images: int, first: int) -> Split:
  num_classes, max_labels = data.num_classes, data.max_labels
  shape = (data.image_size, data.image_size, data.channels)

  def labels(ids: Ids) -> NDArray[np.int32]:
    return make_labels(np.asarray(ids) + first, num_classes, max_labels)

  def images(ids: Ids) -> NDArray[np.uint8]:
    return make_images(np.asarray(ids) + first, labels(ids), shape)

  return Split(
    num_images=num_images,
    num_classes=num_classes,
    labels=labels,
    images=images,
    encoded=None,
    label_names=tuple(f'class {label}' for label in range(num_classes)),
    fingerprint=fingerprint(
      'made_up', num_images, first, num_classes, max_labels, shape
    ),
    shape=shape,
  )


def _numbers(num: int, ids: Ids, purpose: str) -> NDArray[np.float32]:
  numbers = uniform_numbers(num, seed=0, epochs=0, ids=ids, purpose=purpose)
  return numbers.astype(np.float32)


def make_labels(indices: Ids, num_classes: int, max_labels: int) -> NDArray[np.int32]:
  """Returns 1 to `max_labels` distinct labels for each image, `[B, K]`, then -1."""
  draws = uniform_numbers(
    max_labels + 1, seed=0, epochs=0, ids=indices, purpose='made-up labels'
  )
  counts = 1 + (draws[:, -1] * max_labels).astype(np.int32)
  labels = np.full((len(indices), max_labels), -1, np.int32)
  for column in range(max_labels):
    # Floyd's sampling without replacement: a label drawn before gives way to `last`.
    last = num_classes - counts + column
    drawn = (draws[:, column] * (last + 1)).astype(np.int32)
    taken = (labels[:, :column] == drawn[:, None]).any(1)
    labels[:, column] = np.where(
      column < counts, np.where(taken, last, drawn), labels[:, column]
    )
  return labels


def make_images(
  indices: Ids, labels: NDArray[np.int32], shape: tuple[int, int, int]
) -> NDArray[np.uint8]:
  """Returns the mean of the patterns of an image's labels under noise, `[B, H, W, C]`."""
  height, width, channels = shape
  batch = len(indices)
  shifts = _numbers(2, indices, 'made-up shifts') * 0.25  # of the image's size
  rows = np.arange(height, dtype=np.float32) / height
  columns = np.arange(width, dtype=np.float32) / width
  pattern = np.zeros((batch, height, width, channels), np.float32)
  for label in labels.T:
    traits = _numbers(_WAVES * (3 + channels), np.maximum(label, 0), 'made-up classes')
    traits = traits.reshape(batch, _WAVES, 3 + channels)
    down, across, phase = np.moveaxis(traits[..., :3], -1, 0)
    colour = (traits[..., 3:] - 0.5) * (label >= 0)[:, None, None]
    angle = (
      (1 + 2 * down)[..., None, None] * (rows[:, None] + shifts[:, None, :1, None])
      + (6 * across - 3)[..., None, None] * (columns + shifts[:, None, 1:, None])
      + phase[..., None, None]
    )
    pattern += np.einsum('bwyx,bwc->byxc', np.cos(2 * np.pi * angle), colour)
  pattern /= np.sqrt((labels >= 0).sum(1))[:, None, None, None]
  noise = _numbers(height * width * channels, indices, 'made-up noise') - 0.5
  pixels = 128 + 80 * pattern + 80 * noise.reshape(pattern.shape)
  return np.clip(pixels, 0, 255).astype(np.uint8)
