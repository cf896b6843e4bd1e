"""Draws the objects of `procedural` images: sums of coloured waves under noise.

Each mode of a class is a handful of Gabor patches (waves under a bell) in fixed places
and colours, turned, scaled and shifted a little in each image. A bell and a wave are
sums of products of a function of the row and one of the column, so an image is a small
matrix product, with sines for its edges instead of its pixels.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from scaling.data.words import mix, words
from scaling.fusion import once

# Random words of an image from here on are the drawing's.
_POSE, _LOW, _WHITE = 8 << 16, 9 << 16, 10 << 16
_TRAITS = 9  # of a patch
_COARSE = 4  # pixels a side of the coarse noise


def _uniform(bits: jax.Array) -> jax.Array:
  """Returns numbers in [-1, 1) from words."""
  return bits.astype(jnp.float32) * jnp.float32(2.0**-31) - 1


def render(
  classes: jax.Array,
  modes: jax.Array,
  present: jax.Array,
  state: tuple[jax.Array, jax.Array],
  key: ArrayLike,
  *,
  size: int,
  parts: int,
  pose: float,
  noise: float,
) -> jax.Array:
  """Returns images, uint8 `[B, S, S, 3]`.

  Args:
    classes: int32 `[B, O]` of each object.
    modes: int32 `[B, O]`: which look of its class it has.
    present: bool `[B, O]`.
    state: two words for each image, on which its pose and noise hang.
    key: uint32 `[2]`, on which all looks hang.
    size: S.
    parts: patches of a look.
    pose: how far looks are turned, scaled and shifted; 0 for not at all.
    noise: deviation of the noise; looks have about 1.
  """
  batch, num = classes.shape
  look = mix(classes.astype(jnp.uint32) + jnp.asarray(key)[0])
  look = (look.ravel(), mix(modes.astype(jnp.uint32) ^ jnp.asarray(key)[1]).ravel())
  traits = _uniform(words(look, 0, parts * _TRAITS, jnp))
  traits = traits.reshape(batch, num, parts, _TRAITS)
  across, down, turn, waves, width, phase = (traits[..., i] for i in range(6))
  colour = traits[..., 6:]

  posed = _uniform(words(state, _POSE, 5 * num, jnp)).reshape(batch, num, 5, 1)
  angle, scale = 0.35 * pose * posed[:, :, 0], jnp.exp(0.18 * pose * posed[:, :, 1])
  contrast = (1 + 0.3 * posed[:, :, 4]) * present[..., None]
  # Several objects lie in different places, one near the centre.
  spread = jnp.where(present.sum(1) > 1, 0.6, 0.2 * pose)[:, None, None]
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  x = scale * (cos * 0.6 * across - sin * 0.6 * down) + spread * posed[:, :, 2]
  y = scale * (sin * 0.6 * across + cos * 0.6 * down) + spread * posed[:, :, 3]
  bell = scale * (0.32 + 0.14 * width)
  direction, pulse = jnp.pi * turn + angle, jnp.pi * (2 + 1.6 * waves) / scale
  kx, ky = pulse * jnp.cos(direction), pulse * jnp.sin(direction)

  x, y, bell, kx, ky, phase = map(once, (x, y, bell, kx, ky, phase))

  def flat(value: jax.Array) -> jax.Array:
    return value.reshape(batch, num * parts, 1)

  axis = (jnp.arange(size, dtype=jnp.float32) + 0.5) * (2 / size) - 1
  dx, dy = axis - flat(x), axis - flat(y)
  bell = -0.5 / flat(bell) ** 2
  wave_x = flat(kx) * dx + jnp.pi * flat(phase)
  wave_y = flat(ky) * dy
  bell_x, bell_y = jnp.exp(bell * dx**2), jnp.exp(bell * dy**2)
  # cos(a + b) = cos a cos b - sin a sin b
  rows = jnp.concatenate([bell_y * jnp.cos(wave_y), -bell_y * jnp.sin(wave_y)], 1)
  columns = jnp.concatenate([bell_x * jnp.cos(wave_x), bell_x * jnp.sin(wave_x)], 1)
  rows, columns = once(rows), once(columns)
  tint = (contrast[..., None] * colour).reshape(batch, num * parts, 3)
  tint = once(jnp.concatenate([tint, tint], 1))

  coarse = _uniform(words(state, _LOW, _COARSE**2 * 3, jnp))
  coarse = coarse.reshape(batch, _COARSE, _COARSE, 3) * (2 * noise * 3**0.5)
  up = jnp.asarray(_upsampling(size))
  columns = jnp.concatenate(
    [
      columns[..., None] * tint[:, :, None],
      jnp.einsum('xv,buvc->buxc', up, coarse),
    ],
    1,
  )
  rows = jnp.concatenate([rows, jnp.broadcast_to(up.T, (batch, *up.T.shape))], 1)
  image = jnp.einsum('bqy,bqz->byz', rows, columns.reshape(*columns.shape[:2], -1))
  image = image.reshape(batch, size, size, 3)
  image = image + noise * _white(state, batch, size)
  return jnp.clip(jnp.round(127.5 + 72 * image), 0, 255).astype(jnp.uint8)


def _upsampling(size: int) -> np.ndarray:
  """Returns the matrix of linear interpolation from coarse pixels, `[S, _COARSE]`."""
  place = np.clip((np.arange(size) + 0.5) * _COARSE / size - 0.5, 0, _COARSE - 1)
  return np.maximum(0, 1 - abs(place[:, None] - np.arange(_COARSE))).astype(np.float32)


def _white(state: tuple[jax.Array, jax.Array], batch: int, size: int) -> jax.Array:
  """Returns noise of deviation 1, the sum of two bytes, two pixels to a word."""
  count = size * size * 3
  bits = words(state, _WHITE, -(-count // 2), jnp)
  pairs = [(bits >> shift & 255) + (bits >> shift + 8 & 255) for shift in (0, 16)]
  total = jnp.concatenate(pairs, 1)[:, :count].astype(jnp.float32)
  return ((total - 255) / 104.5).reshape(batch, size, size, 3)
