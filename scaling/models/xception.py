"""Xception (Chollet 2017, figure 5), the network that was first tried on JFT at scale.

Depth is the number of its convolutional layers, a separable one counting once: 36 as
published, of which the middle flow has three for each of its eight blocks. Width is the
channels of the first, 32 as published; all others are in proportion to it. There is no
dropout, as on JFT.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling.models.layers import BatchNorm, he_normal, head


def _depthwise_he_normal(key: jax.Array, shape: Any, dtype: Any) -> jax.Array:
  # Each input channel feeds one output channel.
  return he_normal(key, (*shape[:2], shape[3], 1), dtype).reshape(shape)


class SeparableConv(nn.Module):
  """A 3x3 convolution of each channel, then a 1x1 over the channels, then batch norm."""

  features: int
  dtype: Any
  ghost_batch: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
    channels = x.shape[-1]
    x = conv(
      channels,
      (3, 3),
      feature_group_count=channels,
      kernel_init=_depthwise_he_normal,
      name='depthwise',
    )(x)
    x = conv(self.features, (1, 1), kernel_init=he_normal, name='pointwise')(x)
    return BatchNorm(train, relu=False, ghost_batch=self.ghost_batch, name='norm')(x)


class Xception(nn.Module):
  """Maps images `[B, H, W, C]` to float32 logits `[B, num_classes]`."""

  depth: int
  width: int
  num_classes: int
  head_bias: float = 0.0
  dtype: Any = jnp.float32
  ghost_batch: int = 0

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    conv = functools.partial(
      nn.Conv, use_bias=False, kernel_init=he_normal, dtype=self.dtype
    )
    norm = functools.partial(BatchNorm, train, relu=False, ghost_batch=self.ghost_batch)

    def separable(features, name):
      return SeparableConv(features, self.dtype, self.ghost_batch, name=name)

    def shrink(x, features, name, relu=True):
      """A block with the features of its two layers, at half the resolution."""
      shortcut = conv(features[1], (1, 1), (2, 2), name=f'{name}_shortcut')(x)
      shortcut = norm(name=f'{name}_shortcut_norm')(shortcut)
      if relu:
        x = nn.relu(x)
      x = nn.relu(separable(features[0], f'{name}_1')(x, train))
      x = separable(features[1], f'{name}_2')(x, train)
      return nn.max_pool(x, (3, 3), (2, 2), 'SAME') + shortcut

    w, middle = self.width, 91 * self.width // 4  # 728 as published
    x = conv(w, (3, 3), (2, 2), padding='VALID', name='stem1')(x)
    x = nn.relu(norm(name='stem1_norm')(x))
    x = conv(2 * w, (3, 3), padding='VALID', name='stem2')(x)
    x = nn.relu(norm(name='stem2_norm')(x))
    x = shrink(x, (4 * w, 4 * w), 'entry1', relu=False)
    x = shrink(x, (8 * w, 8 * w), 'entry2')
    x = shrink(x, (middle, middle), 'entry3')
    for i in range((self.depth - 12) // 3):
      y = x
      for j in range(3):
        y = separable(middle, f'middle{i + 1}_{j + 1}')(nn.relu(y), train)
      x = x + y
    x = shrink(x, (middle, 32 * w), 'exit1')
    x = nn.relu(separable(48 * w, 'exit2_1')(x, train))
    x = nn.relu(separable(64 * w, 'exit2_2')(x, train))
    x = x.mean((1, 2), dtype=jnp.float32)
    return head(x, self.num_classes, self.head_bias, self.dtype)
