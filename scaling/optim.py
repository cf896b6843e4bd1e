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

from scaling.errors import UserError


class Schedule(NamedTuple):
  """The traced part of a learning-rate schedule."""

  lr: np.float32  # peak
  steps: np.int32  # of the whole run
  warmup_steps: np.int32
  decay_steps: np.int32  # exponential: updates between two decays
  cooldown_steps: np.int32 = np.int32(0)


def make_schedule(config: ConfigDict, steps: int) -> Schedule:
  """Returns the traced numbers of a run of `steps` updates.

  Raises:
    UserError: if warm-up and cooldown are longer than the run.
  """
  optim = config.optim
  warmup = optim.warmup_steps or round(optim.warmup_fraction * steps)
  cooldown = round(optim.cooldown_fraction * steps)
  if optim.warmup_steps and warmup + cooldown > steps:
    raise UserError(
      f'optim.warmup_steps={warmup} and the {cooldown} steps of optim.cooldown_fraction='
      f'{optim.cooldown_fraction:g} are more than the {steps} steps of the run; train '
      f'longer, or warm up for {max(steps - cooldown, 0)} or fewer'
    )
  return Schedule(
    lr=np.float32(optim.lr),
    steps=np.int32(steps),
    warmup_steps=np.int32(warmup),
    decay_steps=np.int32(max(1, round(optim.decay_images / config.train.batch_size))),
    cooldown_steps=np.int32(cooldown),
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
  done = jnp.clip((at - warmup) / jnp.maximum(schedule.steps - warmup, 1), 0, 1)
  if optim.schedule == 'cosine':
    factor = 0.5 * (1 + jnp.cos(jnp.pi * done))
  elif optim.schedule == 'linear':
    factor = 1 - done
  elif optim.schedule == 'step':
    marks = jnp.asarray(optim.step_fractions) * schedule.steps
    factor = 0.1 ** (at >= marks).sum()
  elif optim.schedule == 'exponential':
    # Whole numbers: float32 cannot count the 36 million updates of the 2017 run.
    count = step // schedule.decay_steps
    if not optim.staircase:
      count += (step % schedule.decay_steps) / schedule.decay_steps
    factor = optim.decay_rate**count
  elif optim.schedule == 'rsqrt':
    # Zhai et al. (2022), section 3.5: its start does not depend on where it will end.
    factor = jax.lax.rsqrt(1 + jnp.maximum(at - warmup, 0) / optim.timescale)
  else:
    factor = 1.0
  rise = jnp.minimum(1.0, (at + 1) / jnp.maximum(warmup, 1))
  left = (schedule.steps - step) / jnp.maximum(schedule.cooldown_steps, 1)
  return schedule.lr * factor * rise * jnp.clip(left, 0.0, 1.0)


def decays(params: Any) -> Any:
  """Returns which parameters decay: kernels do.

  Norms and biases do not, nor do the positions and the extra token of a ViT.
  """
  return jax.tree_util.tree_map_with_path(
    lambda path, _: path[-1].key == 'kernel', params
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
  # The gradient is clipped before anything is added to it.
  clip = [optax.clip_by_global_norm(optim.clip_norm)] if optim.clip_norm else []
  decay = optax.add_decayed_weights(optim.weight_decay, mask=decays)
  return optax.chain(*clip, *_transforms(optim, decay))


def _transforms(
  optim: ConfigDict, decay: optax.GradientTransformation
) -> tuple[optax.GradientTransformation, ...]:
  momentum = optax.trace(optim.momentum, nesterov=optim.nesterov)
  if optim.name == 'sgd':
    return decay, momentum, _scale_by_rate()
  if optim.name == 'lars':
    # You et al. (2017). Each kernel's step is in proportion to its norm; the rate is in
    # the momentum, as in the paper.
    trust = optax.scale_by_trust_ratio(trust_coefficient=optim.trust)
    return decay, optax.masked(trust, mask=decays), _scale_by_rate(), momentum
  if optim.name in ('adamw', 'lamb'):
    # The decay is beside the gradient's moments, not in them (Loshchilov & Hutter 2019).
    adam = optax.scale_by_adam(optim.momentum, optim.b2, optim.eps)
    if optim.name == 'adamw':
      return adam, decay, _scale_by_rate()
    # You et al. (2020).
    trust = optax.masked(optax.scale_by_trust_ratio(), mask=decays)
    return adam, decay, trust, _scale_by_rate()
  # As TensorFlow's RMSProp, which the 2017 networks were trained with: epsilon inside
  # the root, and the rate inside the momentum.
  rms = optax.scale_by_rms(optim.rms_decay, optim.rms_eps, initial_scale=1.0)
  return decay, rms, _scale_by_rate(), optax.trace(optim.momentum)
