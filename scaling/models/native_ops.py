"""Convolution, batch norm and max-pooling as XLA has them: for TPUs and GPUs.

The compiler fuses, lays out and differentiates them well there. `cpu_ops` has the same
functions for CPUs, where it does not.
"""

import jax
import jax.numpy as jnp
from jax import lax


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
  """Convolves, padded by `size // 2` on all sides.

  Symmetric padding, also at stride 2, is what the published weights were trained with.

  Args:
    x: `[B, H, W, C]`.
    kernel: `[size, size, C, F]`; the size is odd. Rounded to the dtype of x.
    stride: of both axes.

  Returns:
    `[B, ceil(H / stride), ceil(W / stride), F]`.
  """
  pad = kernel.shape[0] // 2
  return lax.conv_general_dilated(
    x,
    kernel.astype(x.dtype),
    (stride, stride),
    ((pad, pad), (pad, pad)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def statistics(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns mean and variance of each channel, in float32 or wider."""
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  mean = wide.mean((0, 1, 2))
  return mean, jnp.maximum((wide * wide).mean((0, 1, 2)) - mean * mean, 0)


def normalize(
  x: jax.Array,
  mean: jax.Array,
  var: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  shortcut: jax.Array | None,
  *,
  relu: bool,
  epsilon: float,
) -> jax.Array:
  """Normalises by given statistics, adds the shortcut and clips at 0."""
  y = (x.astype(mean.dtype) - mean) * (scale * lax.rsqrt(var + epsilon)) + bias
  if shortcut is not None:
    y += shortcut
  return (jax.nn.relu(y) if relu else y).astype(x.dtype)


def batch_norm(
  x: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  shortcut: jax.Array | None,
  relu: bool,
  epsilon: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Normalises by the batch's own statistics, adds the shortcut and clips at 0.

  The batch is the global one: under `jit` a mean over a sharded axis is global.

  Args:
    x: `[B, H, W, C]`.
    scale: `[C]`.
    bias: `[C]`.
    shortcut: what to add, of the shape of x, or None.
    relu: whether to clip.
    epsilon: added to the variance.

  Returns:
    The result, of the shape and dtype of x; mean and variance of each channel.
  """
  mean, var = statistics(x)
  y = normalize(x, mean, var, scale, bias, shortcut, relu=relu, epsilon=epsilon)
  return y, mean, var


def max_pool(x: jax.Array) -> jax.Array:
  """Returns the maxima of 3x3 windows at stride 2, padded by 1 on all sides.

  Of equal values in a window the first, row by row, takes the gradient.

  Args:
    x: `[B, H, W, C]`.
  """
  pad = ((0, 0), (1, 1), (1, 1), (0, 0))
  return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), pad)
