"""Convolutions by oneDNN, as PyTorch's on CPUs; batch norm and max-pooling in C++.

The functions of `native_ops`, with the same values and gradients, for CPUs with AVX-512:
there XLA's own convolutions reach half of the machine in float32 and a quarter in
bfloat16, and its norms a fraction of the memory's speed (docs/performance.md). Optional:
`pip install 'scaling[onednn]'` brings the library, and the custom calls, in the folder
cc, are compiled when they are first used, see `onednn`.
"""

import ctypes
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

from scaling import cores
from scaling.models import cpu_ops, onednn

_PREFIX = 'scaling_onednn_'
_CALLS = (
  'Convolve',
  'Statistics',
  'Normalize',
  'GradientSums',
  'GradientByImages',
  'MaxPool',
  'MaxPoolGradient',
)
_FORWARD, _BY_IMAGES, _BY_KERNEL = range(3)


@functools.cache
def register() -> None:
  """Makes the custom calls known to XLA; what is traced or read from a file needs it."""
  library = ctypes.CDLL(str(onednn.build()))
  for name in _CALLS:
    handler = jax.ffi.pycapsule(getattr(library, f'Scaling{name}'))
    jax.ffi.register_ffi_target(_PREFIX + name, handler, platform='cpu')


def _has_bfloat16() -> bool:
  """Returns whether this CPU multiplies bfloat16 in hardware, as oneDNN would."""
  return not cpu_ops.cpu_flags().isdisjoint(('avx512_bf16', 'amx_bf16'))


def _call(name: str, results, *arrays: jax.Array, **attributes: int | bool):
  """Calls the library; `results` are shapes and dtypes."""
  # Each device has its share of the cores.
  threads = max(1, cores.num_cores() // jax.local_device_count())
  numbers = {
    key: value if isinstance(value, bool) else np.int64(value)
    for key, value in (attributes | {'threads': threads}).items()
  }
  call = jax.ffi.ffi_call(_PREFIX + name, results, vmap_method='sequential')
  return call(*arrays, **numbers)


def _by_device(call: Callable, split: str, results: str, *arrays: jax.Array):
  """Runs a call on the images of each device.

  XLA cannot see how a call of a library may be split; under a mesh we say so.

  Args:
    call: from arrays to a tuple of arrays.
    split: for each array `s` where its rows are split over the devices, else `w`: whole.
    results: for each result `s` or, where that of each device is to be added up, `w`.
    *arrays: what to call it with.
  """
  mesh = jax.sharding.get_abstract_mesh()
  devices = dict(mesh.shape).get('data', 1)
  if devices == 1 or len(arrays[split.index('s')]) % devices:
    return call(*arrays)
  places = {'s': PartitionSpec('data'), 'w': PartitionSpec()}

  def own(*arrays):
    return tuple(
      lax.psum(array, 'data') if place == 'w' else array
      for place, array in zip(results, call(*arrays), strict=True)
    )

  return jax.shard_map(
    own,
    mesh=mesh,
    in_specs=tuple(places[place] for place in split),
    out_specs=tuple(places[place] for place in results),
    check_vma=False,
  )(*arrays)


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
  """See `native_ops.conv`. Other types than float32 and bfloat16 are left to `cpu_ops`.

  So are images smaller than the kernel, of which oneDNN 3.2 reads more than there is.

  Raises:
    UserError: see `onednn.build`.
  """
  small = min(x.shape[1:3]) < kernel.shape[0]
  if small or x.dtype not in (jnp.float32, jnp.bfloat16):
    return cpu_ops.conv(x, kernel, stride)
  register()
  return _conv(x, kernel, stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x, kernel, stride):
  rows, columns = (-(-n // stride) for n in x.shape[1:3])

  def call(x, kernel):
    shape = (len(x), rows, columns, kernel.shape[3])
    return (_convolve(_FORWARD, x, kernel, stride, len(kernel), shape, x.dtype),)

  return _by_device(call, 'sw', 's', x, kernel)[0]


def _convolve(direction, first, second, stride, size, shape, dtype):
  """Returns from two of images, kernel and outputs the third, of this shape."""
  narrow = jnp.bfloat16 in (first.dtype, second.dtype) and not _has_bfloat16()
  if narrow:  # no such products in hardware: computed in float32, of the same numbers
    first, second = (
      array.astype(jnp.bfloat16).astype(jnp.float32) for array in (first, second)
    )
  result = _call(
    'Convolve',
    jax.ShapeDtypeStruct(shape, jnp.float32 if narrow else dtype),
    first,
    second,
    direction=direction,
    stride=stride,
    pad=size // 2,
  )
  return result.astype(dtype)


def _conv_forward(x, kernel, stride):
  return _conv(x, kernel, stride), (x, kernel)


def _conv_backward(stride, saved, grad):
  x, kernel = saved
  size = len(kernel)

  def by_images(kernel, grad):
    shape = (len(grad), *x.shape[1:])
    return (_convolve(_BY_IMAGES, kernel, grad, stride, size, shape, x.dtype),)

  def by_kernel(x, grad):
    # Summed in float32, whatever the images are.
    wide = jnp.float32
    return (_convolve(_BY_KERNEL, x, grad, stride, size, kernel.shape, wide),)

  (image_gradient,) = _by_device(by_images, 'ws', 's', kernel, grad)
  (kernel_gradient,) = _by_device(by_kernel, 'ss', 'w', x, grad)
  return image_gradient, kernel_gradient.astype(kernel.dtype)


_conv.defvjp(_conv_forward, _conv_backward)


def batch_norm(
  x: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  shortcut: jax.Array | None,
  relu: bool,
  epsilon: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """See `native_ops.batch_norm`. Other types are left to `cpu_ops`, see `conv`.

  So is a shortcut of another type than x: the calls read both alike.
  """
  mixed = shortcut is not None and shortcut.dtype != x.dtype
  if mixed or x.dtype not in (jnp.float32, jnp.bfloat16):
    return cpu_ops.batch_norm(x, scale, bias, shortcut, relu, epsilon)
  register()
  return _batch_norm(x, scale, bias, shortcut, relu, epsilon)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _batch_norm(x, scale, bias, shortcut, relu, epsilon):
  return _norm_forward(x, scale, bias, shortcut, relu, epsilon)[0]


def _like(x: jax.Array) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _norm_forward(x, scale, bias, shortcut, relu, epsilon):
  pair = jax.ShapeDtypeStruct((2, x.shape[3]), jnp.float32)

  def sums(x):
    return (_call('Statistics', pair, x),)

  def normalize(x, factors, shortcut):
    return (_call('Normalize', _like(x), x, factors, shortcut, relu=relu),)

  (total,) = _by_device(sums, 's', 'w', x)
  mean, square = total / math.prod(x.shape[:3])
  var = jnp.maximum(square - mean * mean, 0)
  factors = jnp.stack([mean, scale * lax.rsqrt(var + epsilon), bias])
  # An empty array stands for no shortcut.
  other = x[:, :0] if shortcut is None else shortcut
  (y,) = _by_device(normalize, 'sws', 's', x, factors, other)
  return (y, mean, var), (x, scale, var, factors, None if shortcut is None else y)


def _norm_backward(relu, epsilon, saved, grads):
  x, scale, var, factors, y = saved
  grad, by_mean, by_var = grads
  pair = jax.ShapeDtypeStruct((2, x.shape[3]), jnp.float32)
  # With a shortcut, what was clipped is read; without one it is worked out again.
  read = y if relu and y is not None else x[:, :0]

  def sums(x, grad, read, factors):
    results = (pair, _like(read))
    return _call('GradientSums', results, x, grad, factors, read, relu=relu)

  (by_bias, by_centred), left = _by_device(sums, 'sssw', 'ws', x, grad, read, factors)
  left, again = (left, False) if read.size else (grad, relu)
  inverse, count = lax.rsqrt(var + epsilon), math.prod(x.shape[:3])
  by_scale = by_centred * inverse
  slope = (2 * by_var - scale * inverse**2 * by_scale) / count
  offset = (by_mean - scale * inverse * by_bias) / count
  factors = jnp.concatenate([factors, jnp.stack([slope, offset])])

  def by_images(x, grad, factors):
    return (_call('GradientByImages', _like(x), x, grad, factors, relu=again),)

  (by_image,) = _by_device(by_images, 'ssw', 's', x, left, factors)
  return by_image, by_scale, by_bias, None if y is None else left


_batch_norm.defvjp(_norm_forward, _norm_backward)


def max_pool(x: jax.Array) -> jax.Array:
  """See `native_ops.max_pool`. Other types are left to `cpu_ops`, see `conv`."""
  if x.dtype not in (jnp.float32, jnp.bfloat16):
    return cpu_ops.max_pool(x)
  register()
  return _max_pool(x)


@jax.custom_vjp
def _max_pool(x):
  return _pool_forward(x)[0]


def _pool_forward(x):
  def call(x):
    rows, columns = (-(-n // 2) for n in x.shape[1:3])
    shape = (len(x), rows, columns, x.shape[3])
    results = [jax.ShapeDtypeStruct(shape, dtype) for dtype in (x.dtype, jnp.uint8)]
    return _call('MaxPool', results, x)

  y, tap = _by_device(call, 's', 'ss', x)
  # The empty array carries the shape of x.
  return y, (tap, x[:, :, :, :0])


def _pool_backward(saved, grad):
  tap, empty = saved

  def call(grad, tap):
    shape = (len(grad), *empty.shape[1:3], grad.shape[3])
    return (
      _call('MaxPoolGradient', jax.ShapeDtypeStruct(shape, grad.dtype), grad, tap),
    )

  return _by_device(call, 'ss', 's', grad, tap)


_max_pool.defvjp(_pool_forward, _pool_backward)
