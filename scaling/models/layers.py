"""The layers that the networks share."""

import functools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp


def he_normal(key: jax.Array, shape: Sequence[int], dtype: jnp.dtype) -> jax.Array:
  """Draws weights of variance 2 / fan_out (He et al. 2015, section 2.2).

  Drawn flat: XLA takes seconds to compile a draw in four dimensions on a CPU.

  Args:
    key: a PRNG key.
    shape: of a convolution kernel, `[height, width, in, out]`.
    dtype: of the weights.
  """
  fan_out = math.prod(shape) // shape[-2]
  flat = jax.random.normal(key, (math.prod(shape),), dtype)
  return (flat * math.sqrt(2 / fan_out)).reshape(shape)


def conv(features: int, size: int, stride: int = 1, **kwargs) -> nn.Conv:
  """Returns a convolution without bias, padded by `size // 2` on all sides.

  Symmetric padding, also at stride 2, is what the published weights were trained with.
  """
  return nn.Conv(
    features,
    (size, size),
    (stride, stride),
    padding=size // 2,
    use_bias=False,
    kernel_init=he_normal,
    **kwargs,
  )


# Statistics are over the global batch: under `jit` a mean over a sharded axis is global.
batch_norm = functools.partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)
