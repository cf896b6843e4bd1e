"""Convolutions by oneDNN, which PyTorch uses on CPUs too; the rest as in `cpu_ops`.

For CPUs with AVX-512, where XLA's own convolutions reach half of the machine in float32
and a quarter in bfloat16 (docs/performance.md). Optional: `pip install
'scaling[onednn]'` brings the library, and what stands between it and XLA, onednn.cc, is
compiled when it is first used, see `onednn`.
"""

import ctypes
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from scaling import processes
from scaling.models import cpu_ops, onednn

batch_norm, max_pool = cpu_ops.batch_norm, cpu_ops.max_pool

_TARGET = 'scaling_onednn_convolve'
_FORWARD, _BY_IMAGES, _BY_KERNEL = range(3)


@functools.cache
def _register() -> None:
  library = ctypes.CDLL(str(onednn.build()))
  handler = jax.ffi.pycapsule(library.ScalingConvolve)
  jax.ffi.register_ffi_target(_TARGET, handler, platform='cpu')


def _has_bfloat16() -> bool:
  """Returns whether this CPU multiplies bfloat16 in hardware, as oneDNN would."""
  return not cpu_ops.cpu_flags().isdisjoint(('avx512_bf16', 'amx_bf16'))


def _call(direction, first, second, stride, shape, dtype):
  """Returns from two of images, kernel and outputs the third, of this shape.

  XLA cannot see how a call of a library may be split; under a mesh we say so.
  """
  rows = 1 if direction == _BY_IMAGES else 0  # which argument has images
  count = len((first, second)[rows])
  mesh = jax.sharding.get_abstract_mesh()
  devices = dict(mesh.shape).get('data', 1)
  if devices == 1 or count % devices:
    return _alone(direction, first, second, stride, shape, dtype)
  split, whole = PartitionSpec('data'), PartitionSpec()
  places = {
    _FORWARD: (split, split, whole),
    _BY_IMAGES: (split, whole, split),
    _BY_KERNEL: (whole, split, split),
  }
  place, *wanted = places[direction]

  def on_each(first, second):
    own = shape if direction == _BY_KERNEL else (count // devices, *shape[1:])
    part = _alone(direction, first, second, stride, own, dtype)
    return jax.lax.psum(part, 'data') if direction == _BY_KERNEL else part

  return jax.shard_map(
    on_each, mesh=mesh, in_specs=tuple(wanted), out_specs=place, check_vma=False
  )(first, second)


def _alone(direction, first, second, stride, shape, dtype):
  kernel = {_FORWARD: second.shape, _BY_IMAGES: first.shape, _BY_KERNEL: shape}
  # Each device has its share of the cores.
  threads = max(1, processes.num_cores() // jax.local_device_count())
  call = jax.ffi.ffi_call(
    _TARGET, jax.ShapeDtypeStruct(shape, dtype), vmap_method='sequential'
  )
  return call(
    first,
    second,
    direction=np.int64(direction),
    stride=np.int64(stride),
    pad=np.int64(kernel[direction][0] // 2),
    threads=np.int64(threads),
  )


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
  """See `native_ops.conv`. Other types than float32 and bfloat16 are left to `cpu_ops`.

  So are images smaller than the kernel, of which oneDNN 3.2 reads more than there is.

  Raises:
    UserError: see `onednn.build`.
  """
  small = min(x.shape[1:3]) < kernel.shape[0]
  if small or x.dtype not in (jnp.float32, jnp.bfloat16):
    return cpu_ops.conv(x, kernel, stride)
  _register()
  if x.dtype == jnp.bfloat16 and not _has_bfloat16():
    wide = _conv(x.astype(jnp.float32), kernel.astype(jnp.float32), stride)
    return jnp.asarray(wide, x.dtype)
  return _conv(x, kernel, stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x, kernel, stride):
  rows, columns = (-(-n // stride) for n in x.shape[1:3])
  shape = (len(x), rows, columns, kernel.shape[3])
  return _call(_FORWARD, x, kernel, stride, shape, x.dtype)


def _conv_forward(x, kernel, stride):
  return _conv(x, kernel, stride), (x, kernel)


def _conv_backward(stride, saved, grad):
  x, kernel = saved
  by_images = _call(_BY_IMAGES, kernel, grad, stride, x.shape, x.dtype)
  # Summed in float32, whatever the images are.
  by_kernel = _call(_BY_KERNEL, x, grad, stride, kernel.shape, jnp.float32)
  return by_images, by_kernel.astype(kernel.dtype)


_conv.defvjp(_conv_forward, _conv_backward)
