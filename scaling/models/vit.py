"""Vision transformers (Dosovitskiy et al. 2021), as improved by Beyer et al. (2022).

Depth is the number of blocks and width the channels of a token, so the named sizes are
plain numbers that a sweep can vary: S is 12 x 384, B 12 x 768 and L 24 x 1024, with a
head for each 64 channels and a hidden layer of 4 x width.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling.models.layers import head

_dense = functools.partial(nn.Dense, kernel_init=nn.initializers.xavier_uniform())
_norm = functools.partial(nn.LayerNorm, epsilon=1e-6)


def sincos_positions(height: int, width: int, features: int) -> jax.Array:
  """Returns fixed positions of a grid (Chen et al. 2021, MoCo v3), `[H * W, features]`.

  A quarter of the features each: sines and cosines across, sines and cosines down.
  """
  omega = 1e4 ** (-jnp.arange(features // 4) / (features // 4))
  down, across = jnp.mgrid[:height, :width].reshape(2, -1, 1) * omega
  waves = [jnp.sin(across), jnp.cos(across), jnp.sin(down), jnp.cos(down)]
  return jnp.concatenate(waves, axis=1)


class Block(nn.Module):
  """Self-attention, then two dense layers, each added to what came before."""

  heads: int
  mlp_dim: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    dense = functools.partial(_dense, dtype=self.dtype)
    norm = functools.partial(_norm, dtype=self.dtype)
    batch, tokens, width = x.shape
    y = norm(name='attention_norm')(x)
    query, key, value = (
      dense(width, name=name)(y).reshape(batch, tokens, self.heads, -1)
      for name in ('query', 'key', 'value')
    )
    y = jax.nn.dot_product_attention(query, key, value)  # softmax in float32
    x = x + dense(width, name='out')(y.reshape(x.shape))
    y = norm(name='mlp_norm')(x)
    bias_init = nn.initializers.normal(1e-6)
    y = nn.gelu(dense(self.mlp_dim, bias_init=bias_init, name='mlp_in')(y))
    return x + dense(width, bias_init=bias_init, name='mlp_out')(y)


class ViT(nn.Module):
  """Maps images `[B, H, W, C]` to float32 logits `[B, num_classes]`."""

  depth: int
  width: int
  patch_size: int
  heads: int
  mlp_dim: int
  positions: str
  pool: str
  num_classes: int
  head_bias: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    del train  # there is nothing to tell apart
    batch, height, width, channels = x.shape
    size = self.patch_size
    rows, columns = height // size, width // size
    # A convolution of stride `size` as one product; the kernel is that of the
    # convolution with its three input axes in one.
    x = x.reshape(batch, rows, size, columns, size, channels).swapaxes(2, 3)
    x = x.reshape(batch, rows * columns, size * size * channels)
    x = nn.Dense(self.width, dtype=self.dtype, name='embedding')(x)
    if self.positions == 'sincos':
      x = x + sincos_positions(rows, columns, self.width).astype(self.dtype)
    if self.pool == 'token':
      token = self.param('token', nn.initializers.zeros, (1, 1, self.width))
      token = jnp.broadcast_to(token.astype(self.dtype), (batch, 1, self.width))
      x = jnp.concatenate([token, x], axis=1)
    if self.positions == 'learnt':
      shape = (1, *x.shape[1:])
      positions = self.param('positions', nn.initializers.normal(0.02), shape)
      x = x + positions.astype(self.dtype)
    for i in range(self.depth):
      x = Block(self.heads, self.mlp_dim, self.dtype, name=f'block{i + 1:02d}')(x)
    x = _norm(dtype=self.dtype, name='norm')(x)
    x = x[:, 0] if self.pool == 'token' else x.mean(1, dtype=jnp.float32)
    return head(x, self.num_classes, self.head_bias, self.dtype)
