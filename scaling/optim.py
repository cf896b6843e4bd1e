"""Optimisers and learning rates whose length is traced.

A schedule that knew its length as a Python number would put it in the program, and
every subset size would compile anew. Here length, peak rate and warm-up are arguments,
so that one compiled step serves all sizes of a depth.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict


class Schedule(NamedTuple):
  """The traced part of a learning-rate schedule."""

  lr: np.float32  # peak
  steps: np.int32  # of the whole run
  warmup_steps: np.int32
  decay_steps: np.int32  # exponential: updates between two decays


def make_schedule(config: ConfigDict, steps: int) -> Schedule:
  """Returns the traced numbers of a run of `steps` updates."""
  optim = config.optim
  return Schedule(
    lr=np.float32(optim.lr),
    steps=np.int32(steps),
    warmup_steps=np.int32(round(optim.warmup_fraction * steps)),
    decay_steps=np.int32(max(1, round(optim.decay_images / config.train.batch_size))),
  )


def learning_rate(step: jax.Array, schedule: Schedule, optim: ConfigDict) -> jax.Array:
  """Returns the rate of update number `step`, counted from 0.

  Args:
    step: int32 scalar, finished updates.
    schedule: its numbers may be traced.
    optim: the `optim` part of the config; only its shape-free choices are read.
  """
  warmup = jnp.asarray(schedule.warmup_steps, jnp.float32)
  at = step.astype(jnp.float32)
  if optim.schedule == 'cosine':
    done = (at - warmup) / jnp.maximum(schedule.steps - warmup, 1)
    factor = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(done, 0, 1)))
  elif optim.schedule == 'step':
    marks = jnp.asarray(optim.step_fractions) * schedule.steps
    factor = 0.1 ** (at >= marks).sum()
  elif optim.schedule == 'exponential':
    # Whole numbers: float32 cannot count the 36 million updates of the 2017 run.
    factor = optim.decay_rate ** (step // schedule.decay_steps)
  else:
    factor = 1.0
  return schedule.lr * factor * jnp.minimum(1.0, (at + 1) / jnp.maximum(warmup, 1))


def decays(params: Any) -> Any:
  """Returns which parameters decay: kernels do, norms and biases do not."""
  return jax.tree.map_with_path(
    lambda path, leaf: leaf.ndim > 1 + ('_rest' in jax.tree_util.keystr(path)), params
  )


def _scale_by_rate() -> optax.GradientTransformationExtraArgs:
  """Scales by minus the rate that `update` is given as `rate`."""

  def init(params):
    del params
    return optax.EmptyState()

  def update(updates, state, params=None, *, rate, **_):
    del params
    return jax.tree.map(lambda leaf: -rate * leaf, updates), state

  return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore


def make(optim: ConfigDict) -> optax.GradientTransformationExtraArgs:
  """Returns the optimiser; its `update` takes the learning rate as `rate=`."""
  first = [optax.add_decayed_weights(optim.weight_decay, mask=decays)]
  if optim.clip_norm:
    first.insert(0, optax.clip_by_global_norm(optim.clip_norm))
  if optim.name == 'sgd':
    return optax.chain(
      *first, optax.trace(optim.momentum, nesterov=optim.nesterov), _scale_by_rate()
    )
  # As TensorFlow's RMSProp, which the 2017 networks were trained with: epsilon inside
  # the root, and the rate inside the momentum.
  return optax.chain(
    *first,
    optax.scale_by_rms(optim.rms_decay, optim.rms_eps, initial_scale=1.0),
    _scale_by_rate(),
    optax.trace(optim.momentum),
  )
