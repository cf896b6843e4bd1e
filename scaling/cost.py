"""What a run costs: parameters and FLOPs, counted from the traced network.

They follow any architecture: two FLOPs for each multiply-add of a convolution or matrix
product, taps on the padding included. XLA leaves those taps out, hence counts a few per
cent less. `roofline` turns the same layers into seconds.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from scaling import config as config_lib
from scaling import models, optim
from scaling.chips import CHIPS

# Peak bfloat16 FLOP/s of one device.
PEAK_FLOPS = {name: chip.flops for name, chip in CHIPS.items()}


@dataclasses.dataclass(frozen=True)
class Layer:
  """A convolution or matrix product, for one image.

  Attributes:
    positions: rows of the product: places in the output, over all groups.
    taps: products per position: places in the kernel.
    fan_in, fan_out: channels of a tap, of one group.
    inputs, outputs: numbers read and written.
    weights: numbers in the kernel, or in the other factor.
    from_image: its input depends on no parameter and needs no gradient.
    times: how often a scan repeats it.
  """

  positions: int
  taps: int
  fan_in: int
  fan_out: int
  inputs: int
  outputs: int
  weights: int
  from_image: bool
  times: int = 1

  @property
  def flops(self) -> float:
    """Of the forward pass."""
    return 2.0 * self.outputs * self.taps * self.fan_in * self.times

  @property
  def train_flops(self) -> float:
    """Of forward, weight gradient and, unless it is the first, input gradient."""
    return self.flops * (2 if self.from_image else 3)


@dataclasses.dataclass(frozen=True)
class Network:
  """What one image passes through, and what training keeps.

  Attributes:
    layers: in order; the last one is the classifier.
    shortcuts: numbers added from shortcuts.
    pooled: numbers read, and numbers written, by pooling.
    params: trained parameters.
    norm_channels: channels of all batch norms over the global batch.
    opt_state_bytes: of the optimiser's state.
  """

  layers: tuple[Layer, ...]
  shortcuts: int
  pooled: tuple[int, int]
  params: int
  norm_channels: int
  opt_state_bytes: int


def network(config: ConfigDict) -> Network:
  """Returns the layers of a config's network, without running anything."""
  return _network(config_lib.program_key(config))


def forward_flops(config: ConfigDict) -> float:
  """Returns the FLOPs of one image's forward pass."""
  return sum(layer.flops for layer in network(config).layers)


def train_flops(config: ConfigDict, steps: int) -> float:
  """Returns the FLOPs of a run: forward, weight gradients and input gradients."""
  image = sum(layer.train_flops for layer in network(config).layers)
  return image * config.train.batch_size * steps


def num_params(config: ConfigDict) -> int:
  """Returns the number of trained parameters."""
  return network(config).params


@functools.lru_cache(maxsize=32)
def _network(key: str) -> Network:
  config = config_lib.nested(json.loads(key))
  config.model.ops = 'native'  # counted as the network is, not as a machine runs it
  data, model = config.data, models.build(config)
  variables = jax.eval_shape(model.init, jax.random.key(0))
  opt_state = jax.eval_shape(optim.make(config.optim).init, variables['params'])
  shape = (1, data.image_size, data.image_size, data.channels)
  image = jax.ShapeDtypeStruct(shape, jnp.float32)
  jaxpr = jax.make_jaxpr(lambda v, x: model.apply(v, x, False)[0])(
    variables, image
  ).jaxpr
  layers, shortcuts, pooled = count(jaxpr, num_images=1)
  return Network(
    layers=tuple(layers),
    shortcuts=shortcuts,
    pooled=(pooled[0], pooled[1]),
    params=sum(math.prod(x.shape) for x in jax.tree.leaves(variables['params'])),
    # A mean and a variance each.
    norm_channels=0
    if config.model.ghost_batch
    else sum(math.prod(x.shape) for x in jax.tree.leaves(variables['batch_stats']))
    // 2,
    opt_state_bytes=sum(
      math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(opt_state)
    ),
  )


def count(jaxpr: Any, num_images: int) -> tuple[list[Layer], int, list[int]]:
  """Returns layers, numbers added from shortcuts, and those read and written by pooling.

  Args:
    jaxpr: of a function whose inputs are parameters, and then the images.
    num_images: how many of its inputs, the last ones, are no parameters.
  """
  layers: list[Layer] = []
  shortcuts, pooled = 0, [0, 0]
  trained = set(jaxpr.invars[: len(jaxpr.invars) - num_images])
  for equation, depends, times in _walk(jaxpr, trained, 1):
    if not equation.outvars:  # what a scan leaves of a call that nobody needs
      continue
    out = equation.outvars[0]
    if layer := _layer(equation, depends, times):
      layers.append(layer)
    elif equation.primitive.name == 'add' and len(out.aval.shape) == 4:
      # Two arrays of one shape are a shortcut; a bias has ones.
      if all(v.aval.shape == out.aval.shape for v in equation.invars):
        shortcuts += _size(out) * times
    elif equation.primitive.name.startswith('reduce_window'):
      pooled[0] += _size(equation.invars[0]) * times
      pooled[1] += _size(out) * times
  return layers, shortcuts, pooled


def _walk(
  jaxpr: Any, trained: set[Any], times: int
) -> Iterator[tuple[Any, list[bool], int]]:
  """Yields equations, which of their inputs depend on parameters, and their trips."""
  for equation in jaxpr.eqns:
    depends = [not hasattr(v, 'val') and v in trained for v in equation.invars]
    for inner in _inner(equation):
      # Calls and custom derivatives hand their inputs on one by one; in a loop what one
      # trip makes of them is the next one's.
      flags = depends
      if len(inner.invars) != len(depends) or equation.primitive.name == 'scan':
        flags = [any(depends)] * len(inner.invars)
      known = {v for v, flag in zip(inner.invars, flags, strict=True) if flag}
      yield from _walk(inner, known, times * equation.params.get('length', 1))
    yield equation, depends, times
    if any(depends):
      trained.update(equation.outvars)


def _size(variable: Any) -> int:
  return math.prod(variable.aval.shape)


def _layer(equation: Any, depends: list[bool], times: int) -> Layer | None:
  if equation.primitive.name == 'conv_general_dilated':
    kernel = equation.invars[1].aval.shape
    spec = equation.params['dimension_numbers'].rhs_spec
    fan_out, fan_in = kernel[spec[0]], kernel[spec[1]]
    taps = math.prod(kernel) // (fan_out * fan_in)
    fan_out //= equation.params['feature_group_count']
  elif equation.primitive.name == 'dot_general':
    (contracted, _), (batch, _) = equation.params['dimension_numbers']
    left, right = (v.aval.shape for v in equation.invars)
    fan_in = math.prod(left[axis] for axis in contracted)
    shared = math.prod(left[axis] for axis in batch)
    fan_out, taps = math.prod(right) // (fan_in * shared), 1
  else:
    return None
  inputs, weights = (_size(v) for v in equation.invars)
  outputs = _size(equation.outvars[0])
  return Layer(
    positions=outputs // fan_out,
    taps=taps,
    fan_in=fan_in,
    fan_out=fan_out,
    inputs=inputs,
    outputs=outputs,
    weights=weights,
    from_image=not depends[0],
    times=times,
  )


def _inner(equation: Any) -> list[Any]:
  """Returns the jaxprs in the parameters of an equation."""
  leaves = jax.tree.leaves(
    list(equation.params.values()),
    is_leaf=lambda leaf: hasattr(leaf, 'eqns') or hasattr(leaf, 'jaxpr'),
  )
  inner = [getattr(leaf, 'jaxpr', leaf) for leaf in leaves]
  return [jaxpr for jaxpr in inner if hasattr(jaxpr, 'eqns')]
