"""Times each convolution of a network, forward and both gradients, beside PyTorch's.

  python -m experiments.benchmarks.convolutions --net=resnet50-224px --batch=8

A line for each kind of convolution: milliseconds, of the fastest of several calls, and
the speed of all three beside PyTorch's, above 1 where ours are faster. The last line has
each kind as often as the network. In a step they take somewhat longer: what they read is
no longer in the cache. Runs with the allocator settings of a sweep's workers, unless
GLIBC_TUNABLES is set.
PyTorch and oneDNN come with `pip install '.[bench,onednn]'`.
"""

import argparse
import collections
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments.benchmarks.contenders import limits
from experiments.benchmarks.nets import NETS, make_config
from experiments.launch.local import TUNABLES


class Conv(NamedTuple):
  """A kind of convolution: images `[B, H, W, C]`, a kernel `[h, w, C, F]`, a stride."""

  images: tuple[int, ...]
  kernel: tuple[int, ...]
  stride: int

  @property
  def outputs(self) -> tuple[int, ...]:
    """Shape of its result."""
    batch, height, width, _ = self.images
    sides = (-(-side // self.stride) for side in (height, width))
    return batch, *sides, self.kernel[-1]

  @property
  def flops(self) -> float:
    """Of the forward pass, and of either gradient."""
    return 2.0 * math.prod(self.outputs) * math.prod(self.kernel[:-1])

  @property
  def is_first(self) -> bool:
    """Whether it sees the images themselves, which need no gradient."""
    return self.kernel[2] <= 3


class Times(NamedTuple):
  """Milliseconds; PyTorch makes both gradients in one call."""

  forward: float
  by_images: float
  by_kernel: float
  torch_forward: float
  torch_backward: float

  def __str__(self) -> str:
    ours, theirs = sum(self[:3]), sum(self[3:])
    return ' | '.join([*(f'{ms:.2f}' for ms in self), f'{theirs / ours:.2f}'])


def kinds(config: ConfigDict) -> dict[Conv, int]:
  """Returns the convolutions of a network, and how often it has each."""
  import jax

  from scaling import models, step

  config = config.copy_and_resolve_references()
  config.model.ops = 'native'  # where each is still one operation
  model = models.build(config)
  images = step.abstract_batch(config)['image']
  jaxpr = jax.make_jaxpr(lambda v, x: model.apply(v, x, False)[0])(
    jax.eval_shape(model.init, jax.random.key(0)),
    jax.ShapeDtypeStruct(images.shape, config.model.dtype),
  )
  return collections.Counter(_convs(jaxpr.jaxpr))


def _convs(jaxpr: Any) -> Iterator[Conv]:
  import jax

  for eqn in jaxpr.eqns:
    if eqn.primitive.name == 'conv_general_dilated':
      images, kernel = (each.aval.shape for each in eqn.invars)
      yield Conv(images, kernel, eqn.params['window_strides'][0])
    for inner in jax.tree.leaves(tuple(eqn.params.values())):
      if hasattr(inner := getattr(inner, 'jaxpr', inner), 'eqns'):
        yield from _convs(inner)


def _best(call: Callable[[], Any], calls: int) -> float:
  """Returns the milliseconds of the fastest call."""
  call()  # the first is compiled
  seconds = []
  for _ in range(calls):
    began = time.perf_counter()
    call()
    seconds.append(time.perf_counter() - began)
  return 1e3 * min(seconds)


def measure(conv: Conv, dtype: str, ops: str, calls: int) -> Times:
  """Returns the times of a convolution."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from experiments.benchmarks import torch_step
  from scaling.models.layers import OPS

  rng = np.random.default_rng(0)
  shapes = conv.images, conv.kernel, conv.outputs
  x, k, g = (jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)

  def forward(x, k):
    return OPS[ops].conv(x, k, conv.stride)

  def by_images(x, k, g):
    return jax.vjp(lambda x: forward(x, k), x)[1](g)

  def by_kernel(x, k, g):
    return jax.vjp(lambda k: forward(x, k), k)[1](g)

  def ours(function, *of) -> float:
    compiled = jax.jit(function)
    return _best(lambda: jax.block_until_ready(compiled(*of)), calls)

  torch_forward, torch_backward = torch_step.convolution(
    *(np.asarray(array, np.float32) for array in (x, k, g)),
    stride=conv.stride,
    dtype=dtype,
    by_images=not conv.is_first,
  )
  return Times(
    ours(forward, x, k),
    0.0 if conv.is_first else ours(by_images, x, k, g),
    ours(by_kernel, x, k, g),
    _best(torch_forward, calls),
    _best(torch_backward, calls),
  )


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command."""
  parser = argparse.ArgumentParser(
    prog='convolutions',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--net', choices=NETS, default='resnet50-224px')
  parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32')
  parser.add_argument('--batch', type=int, default=8, help='images; default: 8')
  parser.add_argument('--ops', choices=('onednn', 'cpu', 'native'), default='onednn')
  parser.add_argument('--calls', type=int, default=10, help='of each; default: 10')
  args = parser.parse_args(argv)
  if min(args.batch, args.calls) < 1:
    parser.error('--batch and --calls must be at least 1')
  if 'GLIBC_TUNABLES' not in os.environ:  # read when a process starts
    own = [sys.executable, '-m', 'experiments.benchmarks.convolutions']
    words = sys.argv[1:] if argv is None else argv
    os.execve(own[0], [*own, *words], {**os.environ, 'GLIBC_TUNABLES': TUNABLES})

  import jax

  from scaling import cores

  jax.config.update('jax_cpu_enable_async_dispatch', False)
  found, key = limits(), f'gemm_{args.dtype}_gflops'
  print(
    f'cores: {cores.num_cores()}; products of 2048 x 2048: {found[key]:.0f} GFLOP/s in '
    f'{args.dtype}; memory {found["memory_gbytes_per_second"]:.0f} GB/s\n'
  )
  print('| convolution | times | GFLOP | forward | by images | by kernel |', end=' ')
  print('PyTorch forward | backward | speed |')
  print('|' + '---|' * 9)
  every, flops = Times(0, 0, 0, 0, 0), 0.0
  config = make_config(NETS[args.net], args.dtype, args.batch, args.ops)
  for conv, times in kinds(config).items():
    took = measure(conv, args.dtype, args.ops, args.calls)
    size, _, num_in, num_out = conv.kernel
    words = f'{conv.images[1]} px, {size}x{size}, {num_in} to {num_out}'
    stride = f', stride {conv.stride}' if conv.stride > 1 else ''
    flop = conv.flops / 1e9
    print(f'| {words}{stride} | {times} | {flop:.2f} | {took} |', flush=True)
    every = Times(*(a + times * b for a, b in zip(every, took, strict=True)))
    flops += times * conv.flops * (2 if conv.is_first else 3)
  print(f'| all | | {flops / 1e9:.0f} | {every} |\n')
  ours, theirs = (flops / sum(part) / 1e6 for part in (every[:3], every[3:]))
  print(f'{ours:.0f} GFLOP/s; PyTorch {theirs:.0f}')


if __name__ == '__main__':
  main()
