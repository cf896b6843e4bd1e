"""Augmentation and normalisation on the device, inside the compiled step.

Images travel as bytes, a quarter of what float32 takes, and each is changed by random
numbers that follow from (key, epoch, id) alone: the same image in the same epoch looks
the same in any batch, on any device, after any restart.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from scaling.data.decode import ASPECTS, CROP_NUMBERS


def draws(ids: jax.Array, epochs: jax.Array, key: jax.Array) -> jax.Array:
  """Returns the numbers in [0, 1) that change each image, `[B, 25]`.

  They are, in order: area, aspect, left and top of the resized crop; down and across of
  the padded crop; the flip; areas and aspects of further tries of the resized crop. Each
  use has its own, whatever else is switched on.

  Args:
    ids: uint32 `[B, 2]`, the low and the high half of each id.
    epochs: uint32 `[B]`.
    key: of the run.
  """

  def draw(image_id: jax.Array, epoch: jax.Array) -> jax.Array:
    own = jax.random.fold_in(key, epoch)
    own = jax.random.fold_in(jax.random.fold_in(own, image_id[0]), image_id[1])
    return jax.random.uniform(own, (CROP_NUMBERS + 3,))

  return jax.vmap(draw)(ids, epochs)


def augment(
  images: jax.Array,
  ids: jax.Array,
  epochs: jax.Array,
  key: jax.Array,
  *,
  pad_crop: int,
  flip: bool,
  min_crop_area: float,
) -> jax.Array:
  """Returns the images, each changed at random, of the same shape and dtype.

  Args:
    images: uint8 `[B, H, W, C]`.
    ids: uint32 `[B, 2]`, the low and the high half of each id.
    epochs: uint32 `[B]`.
    key: of the run.
    pad_crop: pixels of zeros on each side before a crop to the old size; 0 for none.
    flip: whether to mirror half of the images.
    min_crop_area: smallest share of the image in a random-resized crop; 0 for none.
  """
  if not (pad_crop or flip or min_crop_area):
    return images
  numbers = draws(ids, epochs, key)
  if min_crop_area:
    crop = jnp.concatenate([numbers[:, :4], numbers[:, 7:]], 1)
    images = jax.vmap(_resized_crop, (0, 0, None))(images, crop, min_crop_area)
  if pad_crop:
    offsets = jnp.floor(numbers[:, 4:6] * (2 * pad_crop + 1)).astype(jnp.int32)
    images = jax.vmap(_pad_crop, (0, 0, None))(images, offsets, pad_crop)
  if flip:
    mirrored = numbers[:, 6, None, None, None] < 0.5
    images = jnp.where(mirrored, images[:, :, ::-1], images)
  return images


def _pad_crop(image: jax.Array, offset: jax.Array, pad: int) -> jax.Array:
  padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
  return jax.lax.dynamic_slice(padded, (offset[0], offset[1], 0), image.shape)


def _resized_crop(image: jax.Array, numbers: jax.Array, min_area: float) -> jax.Array:
  """Returns the crop of `scaling.data.decode.random_box`, of a square image."""
  height, width = image.shape[:2]
  tries = jnp.concatenate([numbers[:2], numbers[4:]]).reshape(-1, 2)
  area = (min_area + (1 - min_area) * tries[:, 0]) * height * width
  low, high = map(math.log, ASPECTS)
  aspect = jnp.exp(low + (high - low) * tries[:, 1])
  crops = jnp.stack([jnp.sqrt(area / aspect), jnp.sqrt(area * aspect)], 1)
  size = jnp.array([height, width], jnp.float32)
  fits = (crops <= size).all(1)
  crop = jnp.where(fits.any(), crops[jnp.argmax(fits)], size)
  corner = (size - crop) * numbers[jnp.array([3, 2])]
  scale = size / crop
  # The crop is enlarged, never shrunk: antialiasing would only take time.
  resized = jax.image.scale_and_translate(
    image.astype(jnp.float32),
    image.shape,
    (0, 1),
    scale,
    -corner * scale,
    'linear',
    antialias=False,
  )
  return jnp.clip(jnp.round(resized), 0, 255).astype(image.dtype)


def normalize(
  images: jax.Array, mean: Sequence[float], std: Sequence[float], dtype: DTypeLike
) -> jax.Array:
  """Returns `(images / 255 - mean) / std`, computed in float32.

  Args:
    images: uint8 `[B, H, W, C]`.
    mean: of each channel, pixels being in [0, 1].
    std: of each channel.
    dtype: of the result.
  """
  pixels = images.astype(jnp.float32) / 255
  centred = pixels - jnp.asarray(mean, jnp.float32)
  return (centred / jnp.asarray(std, jnp.float32)).astype(dtype)


def mixup_share(alpha: float, key: jax.Array, step: jax.Array) -> jax.Array:
  """Returns the share of each image in its mix with its partner, float32 in [0, 1].

  One for the batch, from Beta(alpha, alpha) as in Zhang et al. (2018).

  Args:
    alpha: above 0; the larger, the nearer to one half.
    key: of the run.
    step: finished updates.
  """
  own = jax.random.fold_in(key, jnp.uint32(2**32 - 1))  # no epoch has this number
  return jax.random.beta(jax.random.fold_in(own, step), alpha, alpha)


def partner(rows: jax.Array) -> jax.Array:
  """Returns for each row of the global batch that which it is mixed with."""
  return jnp.roll(rows, 1, axis=0)


def mixup(images: jax.Array, share: jax.Array) -> jax.Array:
  """Returns each image mixed with its partner's, of the same shape and dtype.

  Args:
    images: float `[B, H, W, C]`.
    share: of the image itself, a scalar.
  """
  own, other = images.astype(jnp.float32), partner(images).astype(jnp.float32)
  return (share * own + (1 - share) * other).astype(images.dtype)
