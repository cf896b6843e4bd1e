"""What a run costs: parameters, FLOPs, and hours on a given device.

FLOPs are counted from the shapes of the traced network, so they follow any
architecture; two for each multiply-add of a convolution or matrix product, taps on the
padding included. XLA leaves those taps out, hence counts a few per cent less.
"""

import functools
import json
import math
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from scaling import config as config_lib
from scaling import models

# Peak bfloat16 FLOP/s of one device, from the vendors' data sheets.
PEAK_FLOPS = {
  'TPU v4': 275e12,
  'TPU v5e': 197e12,
  'TPU v5p': 459e12,
  'TPU v6e': 918e12,
  'A100': 312e12,
  'H100': 989e12,
}


def _count(jaxpr: Any) -> float:
  total = 0.0
  for equation in jaxpr.eqns:
    for inner in jax.tree.leaves(
      list(equation.params.values()),
      is_leaf=lambda leaf: hasattr(leaf, 'eqns') or hasattr(leaf, 'jaxpr'),
    ):
      inner = getattr(inner, 'jaxpr', inner)
      if hasattr(inner, 'eqns'):
        total += _count(inner) * equation.params.get('length', 1)
    if equation.primitive.name == 'conv_general_dilated':
      kernel = equation.invars[1].aval.shape
      spec = equation.params['dimension_numbers'].rhs_spec
      taps = math.prod(kernel) // kernel[spec[0]]
      total += 2.0 * math.prod(equation.outvars[0].aval.shape) * taps
    elif equation.primitive.name == 'dot_general':
      (contracted, _), _ = equation.params['dimension_numbers']
      shape = equation.invars[0].aval.shape
      depth = math.prod(shape[axis] for axis in contracted)
      total += 2.0 * math.prod(equation.outvars[0].aval.shape) * depth
  return total


def forward_flops(config: ConfigDict) -> float:
  """Returns the FLOPs of one image's forward pass."""
  return _of_network(config_lib.program_key(config))[0]


def train_flops(config: ConfigDict, steps: int) -> float:
  """Returns the FLOPs of a run: backward counts as two forward passes."""
  return 3 * forward_flops(config) * config.train.batch_size * steps


def num_params(config: ConfigDict) -> int:
  """Returns the number of trained parameters."""
  return _of_network(config_lib.program_key(config))[1]


@functools.lru_cache(maxsize=32)
def _of_network(key: str) -> tuple[float, int]:
  config = config_lib.nested(json.loads(key))
  config.model.ops = 'native'  # counted as the network is, not as a machine runs it
  data, model = config.data, models.build(config)
  variables = jax.eval_shape(model.init, jax.random.key(0))
  shape = (1, data.image_size, data.image_size, data.channels)
  traced = jax.make_jaxpr(lambda v, x: model.apply(v, x, False)[0])(
    variables, jax.ShapeDtypeStruct(shape, jnp.float32)
  )
  leaves = jax.tree.leaves(variables['params'])
  return _count(traced.jaxpr), sum(math.prod(leaf.shape) for leaf in leaves)
