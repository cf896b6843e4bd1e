"""The layers that the networks share."""

import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling.errors import UserError
from scaling.models import cpu_ops, native_ops, onednn_ops

OPS: dict[str, ModuleType] = {
  'native': native_ops,
  'cpu': cpu_ops,
  'onednn': onednn_ops,
}


def choose_ops(name: str, platform: str) -> str:
  """Returns which of `OPS` the field `model.ops` stands for on a platform.

  Raises:
    UserError: for oneDNN on other devices than CPUs.
  """
  if name == 'onednn' and platform != 'cpu':
    raise UserError(
      f'model.ops=onednn is for CPUs, and this is a {platform}; use model.ops=auto'
    )
  if name != 'auto':
    return name
  return 'cpu' if platform == 'cpu' else 'native'


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


def head(features: jax.Array, num_outputs: int, bias: float, dtype: Any) -> jax.Array:
  """Returns logits `[B, num_outputs]`, or without outputs the features `[B, F]`.

  The classifier has the name that the sharding rules know. It starts from zeros, so that
  all classes begin alike, and computes in float32 or wider.
  """
  wide = jnp.promote_types(dtype, jnp.float32)
  if not num_outputs:
    return features.astype(wide)
  return nn.Dense(
    num_outputs,
    kernel_init=nn.initializers.zeros,
    bias_init=nn.initializers.constant(bias),
    dtype=wide,
    name='head',
  )(features)


def param(module: nn.Module, name: str, init: Callable, shape: tuple[int, ...]) -> Any:
  """Returns the float32 parameter of a module, made by `init` where there is none.

  Where there is one Flax's own method traces `init` again, to compare its shape: a tenth
  of what it takes to trace a ResNet.
  """
  if module.has_variable('params', name):
    return module.get_variable('params', name)
  return module.param(name, init, shape, jnp.float32)


class Conv(nn.Module):
  """A convolution without bias; see `native_ops.conv`."""

  features: int
  size: int
  stride: int = 1
  dtype: Any = jnp.float32
  ops: str = 'native'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = param(self, 'kernel', he_normal, shape)
    return OPS[self.ops].conv(x.astype(self.dtype), kernel, self.stride)


class BatchNorm(nn.Module):
  """Batch norm, then the shortcut added, then ReLU: one pass over memory.

  The statistics are over the global batch or, with `ghost_batch` n, over each n images
  in a row (Hoffer et al. 2017, algorithm 1): which they are does not depend on the
  devices. The running ones, kept for evaluation, follow the batch's mean and variance,
  or the means over the groups of these two; how the groups' means differ among
  themselves is in neither.
  """

  train: bool
  relu: bool = True
  scale_init: Any = nn.initializers.ones
  ops: str = 'native'
  ghost_batch: int = 0
  momentum: float = 0.9
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: jax.Array, shortcut: jax.Array | None = None) -> jax.Array:
    shape = x.shape[-1:]
    scale = param(self, 'scale', self.scale_init, shape)
    bias = param(self, 'bias', nn.initializers.zeros, shape)
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
    running_var = self.variable('batch_stats', 'var', jnp.ones, shape)
    if not self.train:
      return native_ops.normalize(
        x,
        running_mean.value,
        running_var.value,
        scale,
        bias,
        shortcut,
        relu=self.relu,
        epsilon=self.epsilon,
      )
    y, mean, var = self._by_group(x, scale, bias, shortcut)
    for running, new in ((running_mean, mean), (running_var, var)):
      running.value = self.momentum * running.value + (1 - self.momentum) * new
    return y

  def _by_group(self, x, scale, bias, shortcut):
    def norm(x, shortcut):
      batch_norm = OPS[self.ops].batch_norm
      return batch_norm(x, scale, bias, shortcut, self.relu, self.epsilon)

    if self.ghost_batch in (0, len(x)):
      return norm(x, shortcut)
    # Groups of rows side by side: devices that hold whole groups need not meet.
    grouped = jax.tree.map(
      lambda rows: rows.reshape(-1, self.ghost_batch, *rows.shape[1:]), (x, shortcut)
    )
    y, mean, var = jax.vmap(norm)(*grouped)
    return y.reshape(x.shape), mean.mean(0), var.mean(0)
