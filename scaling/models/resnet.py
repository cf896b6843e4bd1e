"""ResNets in two forms, one class.

`small` is the network for 32-pixel images of He et al. (2016, section 4.2): a 3x3 stem,
three stages of basic blocks, identity shortcuts that subsample and pad with zero
channels. `imagenet` is v1.5: a 7x7 stem with max-pooling, four stages, projections as
shortcuts, and in bottlenecks the stride on the 3x3 convolution, which the wide networks
of Zagoruyko & Komodakis (2016) make twice as wide.

All blocks of a stage but its first are alike, so they can be compiled once and scanned
over: a ResNet-152 then compiles in the time of a ResNet-50. Their variables are stacked
for it; `stack` and `unstack` lead from one layout to the other.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling.models.layers import OPS, BatchNorm, Conv, head

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
  bottleneck_factor: int
  ops: str
  ghost_batch: int
  train: bool

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    conv = functools.partial(Conv, dtype=self.dtype, ops=self.ops)
    norm = functools.partial(
      BatchNorm, train=self.train, ops=self.ops, ghost_batch=self.ghost_batch
    )
    out_features = self.features * (4 if self.bottleneck else 1)
    y = x
    if self.bottleneck:
      inner = self.features * self.bottleneck_factor
      y = norm()(conv(inner, 1)(y))
      y = norm()(conv(inner, 3, self.stride)(y))
      y = conv(out_features, 1)(y)
    else:
      y = norm()(conv(self.features, 3, self.stride)(y))
      y = conv(out_features, 3)(y)
    # Each block starts as its shortcut (Goyal et al. 2017, section 5.1).
    last_norm = norm(scale_init=nn.initializers.zeros)
    if self.stride > 1 or x.shape[-1] != out_features:
      if self.project:
        x = conv(out_features, 1, self.stride, name='shortcut')(x)
        x = norm(relu=False, name='shortcut_norm')(x)
      else:
        x = x[:, :: self.stride, :: self.stride]
        missing = out_features - x.shape[-1]
        channels = (missing // 2, missing - missing // 2)
        x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), channels))
    return last_norm(y, x)


class ResNet(nn.Module):
  """Maps images `[B, H, W, C]` to logits `[B, num_classes]`, float32 or wider."""

  form: str
  depth: int
  width: int
  num_classes: int
  head_bias: float = 0.0
  dtype: Any = jnp.float32
  bottleneck_factor: int = 1
  ops: str = 'native'
  scan: bool = False
  ghost_batch: int = 0

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    small = self.form == 'small'
    conv = functools.partial(Conv, dtype=self.dtype, ops=self.ops, name='stem')
    x = conv(self.width, 3)(x) if small else conv(self.width, 7, 2)(x)
    x = BatchNorm(
      train=train, ops=self.ops, ghost_batch=self.ghost_batch, name='stem_norm'
    )(x)
    if not small:
      x = OPS[self.ops].max_pool(x)
    for i, num_blocks in enumerate(stages(self.form, self.depth)):
      block = functools.partial(
        Block,
        features=self.width * 2**i,
        bottleneck=not small and self.depth >= 50,
        project=not small,
        dtype=self.dtype,
        bottleneck_factor=self.bottleneck_factor,
        ops=self.ops,
        ghost_batch=self.ghost_batch,
        train=train,
      )
      x = block(stride=2 if i else 1, name=f'stage{i + 1}_block1')(x)
      if self.scan and num_blocks > 1:
        repeat = nn.scan(
          lambda same, x, _: (same(x), None),
          variable_axes={'params': 0, 'batch_stats': 0},
          split_rngs={'params': True},
          length=num_blocks - 1,
        )
        x, _ = repeat(block(stride=1, name=f'stage{i + 1}_rest'), x, None)
      else:
        for j in range(2, num_blocks + 1):
          x = block(stride=1, name=f'stage{i + 1}_block{j}')(x)
    wide = jnp.promote_types(self.dtype, jnp.float32)
    x = x.mean((1, 2), dtype=wide)
    return head(x, self.num_classes, self.head_bias, self.dtype)


def stack(tree: Any) -> Any:
  """Turns each dictionary of blocks within a tree into the layout that is scanned.

  Args:
    tree: variables, a state or any other tree that holds the like of `params`.
  """

  def blocks_stacked(layers: dict[str, Any]) -> dict[str, Any]:
    out, rest = {}, {}
    for name, block in layers.items():
      found = re.fullmatch(r'(stage\d+)_block(\d+)', name)
      if found is None or found[2] == '1':
        out[name] = block
      else:
        rest.setdefault(f'{found[1]}_rest', []).append((int(found[2]), block))
    for name, numbered in rest.items():
      blocks = [block for _, block in sorted(numbered, key=lambda pair: pair[0])]
      out[name] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)
    return out

  return _in_layers(tree, blocks_stacked)


def unstack(tree: Any) -> Any:
  """The inverse of `stack`; leaves a tree without stacked blocks as it is."""

  def blocks_apart(layers: dict[str, Any]) -> dict[str, Any]:
    out = {}
    for name, block in layers.items():
      if not name.endswith('_rest'):
        out[name] = block
        continue
      for i in range(len(jax.tree.leaves(block)[0])):
        part = jax.tree.map(lambda leaf, i=i: leaf[i], block)
        out[f'{name.removesuffix("_rest")}_block{i + 2}'] = part
    return out

  return _in_layers(tree, blocks_apart)


def _in_layers(tree: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
  """Changes the dictionaries whose keys are the layers of a network."""

  def is_layers(node: Any) -> bool:
    return isinstance(node, dict) and 'stage1_block1' in node

  return jax.tree.map(
    lambda node: change(node) if is_layers(node) else node, tree, is_leaf=is_layers
  )
