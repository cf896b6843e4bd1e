"""Convolution, batch norm and max-pooling as XLA runs them fast on CPUs.

The functions of `native_ops`, with the same values and gradients. XLA:CPU convolves
forward well; what it derives from that for the backward pass is slow: it writes the
gradient of a kernel as a convolution whose channels are the images, the gradient of a
strided convolution as one over an image full of zeros, and it walks all windows of a
max-pooling once more. docs/performance.md has the measurements.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from scaling.fusion import once
from scaling.models import native_ops

# Activations that a kernel's gradient handles at a time. With their shifted copies and
# the sums they are to fit a core's second-level cache.
_BLOCK_BYTES = 2**18


def _wide(dtype: jnp.dtype) -> jnp.dtype:
  """Returns the type to sum in."""
  return jnp.promote_types(dtype, jnp.float32)


def _dot(a: jax.Array, b: jax.Array, contract: tuple[int, int] = (1, 0)) -> jax.Array:
  """Multiplies matrices, with a float32 result: only so does bfloat16 reach AMX."""
  axes = (((contract[0],), (contract[1],)), ((), ()))
  return lax.dot_general(a, b, axes, preferred_element_type=_wide(a.dtype))


def _outer(a: jax.Array, b: jax.Array) -> jax.Array:
  """Multiplies `[N, C]` and `[N, F]` along N.

  XLA's faster products, YNNPACK's, take the left side row by row only. The barrier keeps
  the turn from being undone.
  """
  return _dot(lax.optimization_barrier(a.T), b)


def _rows(x: jax.Array) -> jax.Array:
  """Returns `[..., C]` as `[N, C]`."""
  return x.reshape(-1, x.shape[-1])


def _pad(x: jax.Array, height: tuple[int, int], width: tuple[int, int]) -> jax.Array:
  """Pads images with zeros; negative widths crop."""
  edges = ((0, 0, 0), (*height, 0), (*width, 0), (0, 0, 0))
  return lax.pad(x, jnp.zeros((), x.dtype), edges)


def _windows(x, size: tuple[int, int], stride: int, rows: int, columns: int):
  """Yields what each tap of a kernel sees of padded images, row by row."""
  for i in range(size[0]):
    for j in range(size[1]):
      end = (i + (rows - 1) * stride + 1, j + (columns - 1) * stride + 1)
      yield lax.slice(
        x,
        (0, i, j, 0),
        (x.shape[0], *end, x.shape[3]),
        (1, stride, stride, 1),
      )


@functools.cache
def cpu_flags() -> frozenset[str]:
  """Returns what the kernel says that this CPU can do; nothing where it does not."""
  try:
    with open('/proc/cpuinfo', encoding='utf-8') as file:
      lines = [line.partition(':') for line in file]
  except OSError:
    return frozenset()
  # So are they called on x86 and on Arm; the rest, such as the clock rate, may change.
  return frozenset(
    flag
    for name, _, value in lines
    if name.strip() in ('flags', 'Features')
    for flag in value.split()
  )


def _has_amx() -> bool:
  """Returns whether this CPU multiplies bfloat16 matrices in hardware."""
  return 'amx_bf16' in cpu_flags()


def _convolve(x: jax.Array, kernel: jax.Array, stride: int, pads) -> jax.Array:
  """Convolves images `[B, H, W, C]`, padded or, with negative `pads`, cropped."""
  if x.dtype == jnp.bfloat16:
    if _has_amx() and min(kernel.shape[2:]) > 64:
      return _convolve_by_taps(x, kernel, stride, pads)
    if not _has_amx():
      wide = _convolve(x.astype(jnp.float32), kernel.astype(jnp.float32), stride, pads)
      return wide.astype(x.dtype)
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    pads,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def _convolve_by_taps(x, kernel, stride, pads):
  """The same as a sum of matrix products, which use AMX where convolutions do not."""
  x, size = _pad(x, *pads), kernel.shape[:2]
  rows, columns = (
    (n - m) // stride + 1 for n, m in zip(x.shape[1:3], size, strict=True)
  )
  taps = kernel.reshape(-1, *kernel.shape[2:])
  windows = _windows(x, size, stride, rows, columns)
  y = sum(_dot(_rows(seen), tap) for seen, tap in zip(windows, taps, strict=True))
  return jnp.asarray(y, x.dtype).reshape(x.shape[0], rows, columns, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
  """See `native_ops.conv`."""
  size, kernel = kernel.shape[0], kernel.astype(x.dtype)
  if size > 1:
    return _convolve(x, kernel, stride, ((size // 2, size // 2),) * 2)
  x = x[:, ::stride, ::stride]
  y = _dot(_rows(x), kernel[0, 0]).astype(x.dtype)
  return y.reshape(*x.shape[:3], -1)


def _conv_forward(x, kernel, stride):
  return conv(x, kernel, stride), (x, kernel)


def _conv_backward(stride, saved, grad):
  x, kernel = saved
  dtype, kernel = kernel.dtype, kernel.astype(x.dtype)
  if kernel.shape[0] > 1:
    # The compiler drops the first one where nobody asks for it: at the images.
    return (
      _image_gradient(kernel, grad, stride, x.shape),
      _kernel_gradient(x, grad, stride, kernel.shape[0]).astype(dtype),
    )
  seen = x[:, ::stride, ::stride]
  by_image = _dot(_rows(grad), kernel[0, 0], (1, 1)).astype(x.dtype).reshape(seen.shape)
  if stride > 1:
    edges = [
      (0, n - (m - 1) * stride - 1, stride - 1)
      for n, m in zip(x.shape[1:3], seen.shape[1:3], strict=True)
    ]
    zero = jnp.zeros((), x.dtype)
    by_image = lax.pad(by_image, zero, ((0, 0, 0), *edges, (0, 0, 0)))
  by_kernel = _outer(_rows(seen), _rows(grad)).astype(dtype)
  return by_image, by_kernel[None, None]


conv.defvjp(_conv_forward, _conv_backward)


def _image_gradient(kernel, grad, stride, shape):
  """Returns the gradient by the images: convolutions with the turned kernel.

  At stride s the pixels have s*s phases that see different taps. Each phase is a
  convolution at stride 1 of the gradients with its own taps.
  """
  size = kernel.shape[0]
  turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
  if stride == 1:
    return _convolve(grad, turned, 1, ((size // 2, size // 2),) * 2)
  # With as many taps as there are phases none is left without one.
  more = (0, max(0, stride - size))
  turned = jnp.pad(turned, (more, more, (0, 0), (0, 0)))

  def seen(phase):
    """Returns the turned taps of an axis that a phase sees, and the padding for them."""
    first = (size - 1 - phase - size // 2) % stride
    low = (size - 1 - first - phase - size // 2) // stride
    taps = range(first, turned.shape[0], stride)
    return slice(first, None, stride), (low, len(taps) - 1 - low)

  axes = [seen(phase) for phase in range(stride)]
  phases = [
    _convolve(grad, turned[rows, columns], 1, (height, width))
    for rows, height in axes
    for columns, width in axes
  ]
  return _interleave(jnp.concatenate(phases, 3), stride, shape, 0)


def _interleave(phases, stride, shape, pad):
  """Puts phases `[B, h, w, s * s * C]` in place as padded images, and cuts the padding."""
  count, rows, columns = phases.shape[:3]
  phases = phases.reshape(count, rows, columns, stride, stride, shape[3])
  images = phases.transpose(0, 1, 3, 2, 4, 5)
  images = images.reshape(count, rows * stride, columns * stride, shape[3])
  height, width = (
    (-pad, pad + n - m * stride)
    for n, m in zip(shape[1:3], (rows, columns), strict=True)
  )
  return _pad(images, height, width)


def _kernel_gradient(x, grad, stride, size):
  """Returns the gradient by the kernel, summed over blocks that fit the cache."""
  count, devices = x.shape[0], jax.device_count()
  each = max(1, _BLOCK_BYTES * count // (x.size * x.dtype.itemsize))
  most = min(each * devices, count)
  in_block = max(n for n in range(1, most + 1) if count % n == 0)
  blocks = count // in_block
  by_block = _same_taps if stride == 1 and x.shape[3] >= 8 else _any_taps
  if blocks == 1:
    return by_block(x, grad, stride, size)

  # A block takes every so-manieth image, so that on several devices each has its share.
  def split(images):
    return images.reshape(in_block, blocks, *images.shape[1:])

  xs, grads = split(x), split(grad)

  def add(total, i):
    seen, by = (lax.dynamic_index_in_dim(v, i, 1, keepdims=False) for v in (xs, grads))
    return total + by_block(seen, by, stride, size), None

  zero = jnp.zeros((size, size, x.shape[3], grad.shape[3]), _wide(x.dtype))
  return lax.scan(add, zero, jnp.arange(blocks))[0]


def _same_taps(x, grad, stride, size):
  """One product for each row of the kernel, its columns side by side.

  Instead of the images the gradients are shifted, so that the images are read in place.
  """
  del stride
  pad, columns = size // 2, x.shape[2]
  x = _pad(x, (pad, pad), (0, 0))
  grad = _pad(grad, (0, 0), (pad, pad))
  shifted = [grad[:, :, size - 1 - j : size - 1 - j + columns] for j in range(size)]
  side_by_side = jnp.concatenate(shifted, 3)
  rows = side_by_side.shape[1]
  seen = [x[:, i : i + rows] for i in range(size)]
  if x.shape[3] < 64:
    taps = [_dot(_rows(images), _rows(side_by_side), (0, 0)) for images in seen]
    taps = jnp.stack(taps)
  else:
    taps = _outer(_rows(jnp.concatenate(seen, 3)), _rows(side_by_side))
  taps = taps.reshape(size, x.shape[3], size, -1)
  return taps.transpose(0, 2, 1, 3)


def _any_taps(x, grad, stride, size):
  """One product for all taps, side by side; for any stride and few channels."""
  pad = size // 2
  x = _pad(x, (pad, pad + stride), (pad, pad + stride))
  windows = _windows(x, (size, size), stride, *grad.shape[1:3])
  taps = _dot(_rows(jnp.concatenate(list(windows), 3)), _rows(grad), (0, 0))
  return taps.reshape(size, size, x.shape[3], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def batch_norm(
  x: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  shortcut: jax.Array | None,
  relu: bool,
  epsilon: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """See `native_ops.batch_norm`."""
  return _norm_forward(x, scale, bias, shortcut, relu, epsilon)[0]


def _norm_forward(x, scale, bias, shortcut, relu, epsilon):
  y, mean, var = native_ops.batch_norm(x, scale, bias, shortcut, relu, epsilon)
  y = once(y)
  # Without a shortcut, what was clipped is quicker computed again than read.
  return (y, mean, var), (x, scale, bias, mean, var, None if shortcut is None else y)


def _norm_backward(relu, epsilon, saved, grads):
  x, scale, bias, mean, var, y = saved
  grad, by_mean, by_var = grads
  centred, inverse = x.astype(mean.dtype) - mean, lax.rsqrt(var + epsilon)
  if relu:
    passed = centred * (scale * inverse) + bias if y is None else y
    grad = jnp.where(passed > 0, grad, 0)
  wide, count = grad.astype(mean.dtype), math.prod(x.shape[:3])
  by_bias = wide.sum((0, 1, 2))
  by_scale = (wide * centred).sum((0, 1, 2)) * inverse
  # All that does not depend on the pixel is taken together: one pass over the images.
  slope = (2 * by_var - scale * inverse**2 * by_scale) / count
  offset = (by_mean - scale * inverse * by_bias) / count
  by_image = (scale * inverse * wide + slope * centred + offset).astype(x.dtype)
  return by_image, by_scale, by_bias, None if y is None else grad


batch_norm.defvjp(_norm_forward, _norm_backward)


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
  """See `native_ops.max_pool`."""
  return _pool_forward(x)[0]


def _pool_forward(x):
  rows, columns = (-(-n // 2) for n in x.shape[1:3])
  edges = ((0, 0, 0), (1, 2, 0), (1, 2, 0), (0, 0, 0))
  padded = lax.pad(x, jnp.array(-jnp.inf, x.dtype), edges)
  best, *others = _windows(padded, (3, 3), 2, rows, columns)
  tap = jnp.zeros(best.shape, jnp.uint8)
  for i, seen in enumerate(others, 1):
    tap = jnp.where(seen > best, jnp.uint8(i), tap)
    best = jnp.maximum(best, seen)
  best = once(best)
  # The empty array carries the shape of x.
  return best, (tap, x[:, :, :, :0])


def _pool_backward(saved, grad):
  tap, empty = saved
  edges = (1, 1), (1, 1)
  rows, columns = (n + 1 for n in grad.shape[1:3])
  tap, grad = _pad(tap, *edges), _pad(grad, *edges)

  def phase(row, column):
    """Sums over the windows that see pixel (row, column) of each 2x2 square."""
    total = 0
    for i in range(row, 3, 2):
      for j in range(column, 3, 2):
        top, left = 1 - i // 2, 1 - j // 2
        at = (slice(None), slice(top, top + rows), slice(left, left + columns))
        total += jnp.where(tap[at] == 3 * i + j, grad[at], 0)
    return total

  phases = [phase(row, column) for row in range(2) for column in range(2)]
  shape = (*empty.shape[:3], grad.shape[3])
  return (_interleave(jnp.concatenate(phases, 3), 2, shape, 1),)


max_pool.defvjp(_pool_forward, _pool_backward)
