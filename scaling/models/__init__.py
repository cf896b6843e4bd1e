"""The networks, and the only home of flax: the rest sees two plain functions.

`init(key) -> variables` and `apply(variables, images, train) -> (logits, batch_stats)`,
where variables is `{'params': ..., 'batch_stats': ...}`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from scaling.models import resnet
from scaling.models.layers import choose_ops


class Model(NamedTuple):
  """A network as two pure functions."""

  init: Callable[[jax.Array], Any]
  apply: Callable[[Any, jax.Array, bool], tuple[jax.Array, Any]]


def build(config: ConfigDict) -> Model:
  """Returns the model of a checked config."""
  model, data = config.model, config.data
  module = resnet.ResNet(
    form=model.form,
    depth=model.depth,
    width=model.width,
    num_classes=data.num_classes,
    head_bias=model.head_bias,
    dtype=jnp.dtype(model.dtype),
    ops=choose_ops(model.ops, jax.default_backend()),
    scan=model.scan,
  )

  def init(key):
    images = jnp.zeros((1, data.image_size, data.image_size, data.channels))
    return module.init(key, images, train=False)

  def apply(variables: Any, images: jax.Array, train: bool) -> Any:
    if not train:
      return module.apply(variables, images, train=False), variables['batch_stats']
    logits, new = module.apply(variables, images, train=True, mutable=['batch_stats'])
    return logits, new['batch_stats']

  return Model(init, apply)
