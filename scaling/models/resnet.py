"""ResNets in two forms, one class.

`small` is the network for 32-pixel images of He et al. (2016, section 4.2): a 3x3 stem,
three stages of basic blocks, identity shortcuts that subsample and pad with zero
channels. `imagenet` is v1.5: a 7x7 stem with max-pooling, four stages, projections as
shortcuts, and in bottlenecks the stride on the 3x3 convolution, which the wide networks
of Zagoruyko & Komodakis (2016) make twice as wide.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling.models.layers import batch_norm, conv

IMAGENET_STAGES = {
  18: (2, 2, 2, 2),
  34: (3, 4, 6, 3),
  50: (3, 4, 6, 3),
  101: (3, 4, 23, 3),
  152: (3, 8, 36, 3),
}


def stages(form: str, depth: int) -> tuple[int, ...]:
  """Returns the number of blocks of each stage."""
  if form == 'small':
    return ((depth - 2) // 6,) * 3
  return IMAGENET_STAGES[depth]


class Block(nn.Module):
  """A residual block: two 3x3 convolutions, or 1x1, 3x3 and 1x1 with a bottleneck."""

  features: int
  stride: int
  bottleneck: bool
  project: bool
  dtype: Any
  bottleneck_factor: int = 1

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    norm = functools.partial(
      batch_norm, use_running_average=not train, dtype=self.dtype
    )
    layer = functools.partial(conv, dtype=self.dtype)
    out_features = self.features * (4 if self.bottleneck else 1)
    y = x
    if self.bottleneck:
      inner = self.features * self.bottleneck_factor
      y = nn.relu(norm()(layer(inner, 1)(y)))
      y = nn.relu(norm()(layer(inner, 3, self.stride)(y)))
      y = layer(out_features, 1)(y)
    else:
      y = nn.relu(norm()(layer(self.features, 3, self.stride)(y)))
      y = layer(out_features, 3)(y)
    # Each block starts as its shortcut (Goyal et al. 2017, section 5.1).
    y = norm(scale_init=nn.initializers.zeros)(y)
    if self.stride > 1 or x.shape[-1] != out_features:
      if self.project:
        x = norm(name='shortcut_norm')(
          layer(out_features, 1, self.stride, name='shortcut')(x)
        )
      else:
        x = x[:, :: self.stride, :: self.stride]
        missing = out_features - x.shape[-1]
        channels = (missing // 2, missing - missing // 2)
        x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), channels))
    return nn.relu(x + y)


class ResNet(nn.Module):
  """Maps images `[B, H, W, C]` to float32 logits `[B, num_classes]`."""

  form: str
  depth: int
  width: int
  num_classes: int
  head_bias: float = 0.0
  dtype: Any = jnp.float32
  bottleneck_factor: int = 1

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    small = self.form == 'small'
    layer = functools.partial(conv, dtype=self.dtype, name='stem')
    x = layer(self.width, 3)(x) if small else layer(self.width, 7, 2)(x)
    x = batch_norm(use_running_average=not train, dtype=self.dtype, name='stem_norm')(x)
    x = nn.relu(x)
    if not small:
      pad: Any = ((1, 1), (1, 1))
      x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=pad)
    for i, num_blocks in enumerate(stages(self.form, self.depth)):
      for j in range(num_blocks):
        x = Block(
          features=self.width * 2**i,
          stride=2 if i and not j else 1,
          bottleneck=not small and self.depth >= 50,
          project=not small,
          dtype=self.dtype,
          bottleneck_factor=self.bottleneck_factor,
          name=f'stage{i + 1}_block{j + 1}',
        )(x, train)
    x = x.mean((1, 2), dtype=jnp.float32)
    return nn.Dense(
      self.num_classes,
      kernel_init=nn.initializers.zeros,
      bias_init=nn.initializers.constant(self.head_bias),
      dtype=jnp.float32,
      name='head',
    )(x)
