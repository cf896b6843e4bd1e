"""The networks, and the only home of flax: the rest sees three plain functions.

`init(key) -> variables`, `apply(variables, images, train) -> (logits, batch_stats)` and
`features(variables, images) -> [B, F]`, where variables is `{'params': ..., 'batch_stats': ...}`, the second empty without batch
norm.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from scaling import architectures
from scaling.models import bit, resnet, vit, xception
from scaling.models.layers import choose_ops
from scaling.models.resnet import stack, unstack

__all__ = ['Model', 'build', 'choose_ops', 'stack', 'unstack']

# The logit of an output that is no class: no softmax, sigmoid or ranking sees it.
PADDING = -1e9


class Model(NamedTuple):
  """A network as pure functions; `features(variables, images)` is what its head sees.

  Outputs beyond the classes, which fill the head up to `model.head_multiple`, have the
  logit `PADDING` and no gradient.
  """

  init: Callable[[jax.Array], Any]
  apply: Callable[[Any, jax.Array, bool], tuple[jax.Array, Any]]
  features: Callable[[Any, jax.Array], jax.Array]


def _resnet(model: ConfigDict, **shared: Any) -> nn.Module:
  return resnet.ResNet(
    form=model.form,
    bottleneck_factor=model.bottleneck_factor,
    ops=choose_ops(model.ops, jax.default_backend()),
    scan=model.scan,
    ghost_batch=model.ghost_batch,
    **shared,
  )


def _bit(model: ConfigDict, **shared: Any) -> nn.Module:
  del model  # depth and width say it all
  return bit.BiT(**shared)


def _vit(model: ConfigDict, **shared: Any) -> nn.Module:
  return vit.ViT(
    patch_size=model.patch_size,
    heads=architectures.heads(model),
    mlp_dim=model.mlp_dim or 4 * model.width,
    positions=model.positions,
    pool=model.pool,
    **shared,
  )


def _xception(model: ConfigDict, **shared: Any) -> nn.Module:
  return xception.Xception(ghost_batch=model.ghost_batch, **shared)


_MODULES = {'resnet': _resnet, 'bit': _bit, 'vit': _vit, 'xception': _xception}


def build(config: ConfigDict) -> Model:
  """Returns the model of a checked config."""
  model, data = config.model, config.data
  num_outputs = -(-data.num_classes // model.head_multiple) * model.head_multiple
  module = _MODULES[model.name](
    model,
    depth=model.depth,
    width=model.width,
    num_classes=num_outputs,
    head_bias=model.head_bias,
    dtype=jnp.dtype(model.dtype),
  )

  def init(key):
    images = jnp.zeros((1, data.image_size, data.image_size, data.channels))
    return {'batch_stats': {}, **module.init(key, images, train=False)}

  def apply(variables: Any, images: jax.Array, train: bool) -> Any:
    mutable = ['batch_stats'] if train else []
    logits, new = module.apply(variables, images, train=train, mutable=mutable)
    if num_outputs > data.num_classes:
      padding = jnp.arange(num_outputs) >= data.num_classes
      logits = jnp.where(padding, PADDING, logits)
    return logits, new.get('batch_stats', {}) if train else variables['batch_stats']

  def features(variables: Any, images: jax.Array) -> Any:
    return module.clone(num_classes=0).apply(variables, images, train=False)

  return Model(init, apply, features)
