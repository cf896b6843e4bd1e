"""BiT-ResNets (Kolesnikov et al. 2020): no batch statistics, so any batch size will do.

Pre-activation bottlenecks with the stride on the 3x3 convolution, group norm of 32
groups (Wu & He 2018) and standardised weights (Qiao et al. 2019). R50x3 is depth 50 with
width 3 x 64. Kernels are `[height, width, in, out]` and blocks and units are numbered as
in the published files; `scaling.weight_names` has their names.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling.models.layers import he_normal, head, param

# Blocks of 50, 101 and 152 as published; the smaller ones are the same cut short.
STAGES = {
  14: (1, 1, 1, 1),
  26: (2, 2, 2, 2),
  50: (3, 4, 6, 3),
  101: (3, 4, 23, 3),
  152: (3, 8, 36, 3),
}

# Statistics are of each image alone; epsilon as in the published code.
_group_norm = functools.partial(nn.GroupNorm, num_groups=32, epsilon=1e-5)


class Conv(nn.Module):
  """A convolution whose kernel has mean 0 and variance 1 for each output channel."""

  features: int
  size: int
  stride: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = param(self, 'kernel', he_normal, shape)
    kernel = jax.nn.standardize(kernel, axis=(0, 1, 2), epsilon=1e-10)
    return jax.lax.conv_general_dilated(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      (self.stride, self.stride),
      [(self.size // 2, self.size // 2)] * 2,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )


class Unit(nn.Module):
  """A pre-activation bottleneck."""

  features: int
  stride: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    conv = functools.partial(Conv, dtype=self.dtype)
    norm = functools.partial(_group_norm, dtype=self.dtype)
    out_features = 4 * self.features
    y = nn.relu(norm(name='a_norm')(x))
    if self.stride > 1 or x.shape[-1] != out_features:
      x = conv(out_features, 1, self.stride, name='proj_conv')(y)
    y = conv(self.features, 1, name='a_conv')(y)
    y = nn.relu(norm(name='b_norm')(y))
    y = conv(self.features, 3, self.stride, name='b_conv')(y)
    y = nn.relu(norm(name='c_norm')(y))
    return x + conv(out_features, 1, name='c_conv')(y)


class BiT(nn.Module):
  """Maps images `[B, H, W, C]` to float32 logits `[B, num_classes]`."""

  depth: int
  width: int
  num_classes: int
  head_bias: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    del train  # there is nothing to tell apart
    x = Conv(self.width, 7, 2, dtype=self.dtype, name='root_conv')(x)
    # Of zeros, not of minus infinity: no ReLU came before, and the published weights
    # were trained so.
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = nn.max_pool(x, (3, 3), strides=(2, 2))
    for i, num_units in enumerate(STAGES[self.depth]):
      for j in range(num_units):
        x = Unit(
          features=self.width * 2**i,
          stride=2 if i and not j else 1,
          dtype=self.dtype,
          name=f'block{i + 1}_unit{j + 1:02d}',
        )(x)
    x = nn.relu(_group_norm(dtype=self.dtype, name='norm')(x))
    x = x.mean((1, 2), dtype=jnp.float32)
    return head(x, self.num_classes, self.head_bias, self.dtype)
