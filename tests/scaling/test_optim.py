"""Schedules and optimisers against plain references, and what decays."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from scaling import config as config_lib
from scaling import models, optim
from scaling.errors import UserError


def make_config(**fields):
  config = base.get_config()
  config.optim.update(fields)
  return config


def rates(config, steps, at):
  """Returns the learning rates at these steps, from one compiled program."""

  @jax.jit
  def rate(step, schedule):
    return jax.vmap(lambda s: optim.learning_rate(s, schedule, config.optim))(step)

  return np.asarray(rate(np.asarray(at, np.int32), optim.make_schedule(config, steps)))


def reference(config, steps, step):
  """Returns the learning rate in Python's own numbers."""
  o = config.optim
  warmup = round(o.warmup_fraction * steps)
  if o.schedule == 'cosine':
    done = max(0, step - warmup) / max(steps - warmup, 1)
    factor = (1 + math.cos(math.pi * done)) / 2
  elif o.schedule == 'step':
    # A mark is at the nearest whole step: 1/3 of 300 is step 100.
    factor = 0.1 ** sum(step >= round(f * steps, 6) for f in o.step_fractions)
  elif o.schedule == 'exponential':
    every = max(1, round(o.decay_images / config.train.batch_size))
    factor = o.decay_rate ** (step // every if o.staircase else step / every)
  elif o.schedule == 'linear':
    factor = 1 - max(0, step - warmup) / max(steps - warmup, 1)
  elif o.schedule == 'rsqrt':
    factor = math.sqrt(o.timescale / (o.timescale + max(0, step - warmup)))
  else:
    factor = 1
  cooldown = round(o.cooldown_fraction * steps)
  factor *= min(1, (steps - step) / max(cooldown, 1))
  return o.lr * factor * min(1, (step + 1) / max(1, warmup))


@pytest.mark.parametrize(
  'fields',
  [
    *({'schedule': name} for name in config_lib._CHOICES['optim.schedule']),
    {'schedule': 'exponential', 'staircase': False},
    {'schedule': 'rsqrt', 'cooldown_fraction': 0.3},
    {'schedule': 'constant', 'cooldown_fraction': 0.5},
  ],
  ids=lambda fields: ' '.join(map(str, fields.values())),
)
@pytest.mark.parametrize('warmup', [0.0, 0.05, 0.5])
@pytest.mark.parametrize('steps', [1, 7, 300, 4000])
def test_rate_is_that_of_the_reference(fields, warmup, steps):
  config = make_config(
    **fields, warmup_fraction=warmup, decay_images=64 * 50, lr=0.3, timescale=100
  )
  found = rates(config, steps, range(steps))
  expected = [reference(config, steps, step) for step in range(steps)]
  # Near its end a cosine is the difference of two numbers close to 1: float32 leaves
  # 6e-8 of the peak rate. Powers keep 1e-6 relative.
  np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-7 * 0.3)


def test_warm_up_ends_at_the_peak():
  config = make_config(schedule='constant', warmup_fraction=0.1, lr=0.5)
  found = rates(config, 100, range(12))
  np.testing.assert_allclose(found[:10], np.arange(1, 11) * 0.05, rtol=1e-6)  # float32
  assert found[9] == found[10] == found[11] == np.float32(0.5)


def test_runs_of_several_lengths_share_their_start_on_the_rsqrt_schedule():
  config = make_config(
    schedule='rsqrt', warmup_fraction=0.0, warmup_steps=50, cooldown_fraction=0.25
  )
  short, long = (rates(config, steps, range(1000)) for steps in (400, 1000))
  assert np.array_equal(short[:301], long[:301])
  assert (np.diff(short[300:400]) < 0).all()
  assert short[399] < 0.02 * short[300]
  assert long[399] > 0.95 * long[300]


@pytest.mark.parametrize('steps', [1, 100, 132])
def test_a_warm_up_longer_than_the_run_is_refused(steps):
  config = make_config(warmup_fraction=0.0, warmup_steps=100, cooldown_fraction=0.25)
  message = f'optim.warmup_steps=100 .* more than the {steps} steps.* warm up for '
  with pytest.raises(UserError, match=f'{message}{steps - round(steps / 4)} or fewer'):
    optim.make_schedule(config, steps)
  optim.make_schedule(config, 133)


def test_step_marks_fall_on_their_steps_at_any_length():
  config = make_config(schedule='step', warmup_fraction=0.0, lr=1.0)
  wrong = []
  # Up to 2^24 steps, as far as float32 counts; beyond, a mark may be a step off.
  for steps in (*range(9, 3000, 9), 9 * 1023, 450_000, 9_000_000, 9 * 1_864_135):
    marks = [steps // 3, 2 * steps // 3, 8 * steps // 9]
    at = [step for mark in marks for step in (mark - 1, mark)]
    found = rates_of_step(config, steps, at)
    expected = [1, 0.1, 0.1, 0.01, 0.01, 0.001]
    if not np.allclose(found, expected, rtol=1e-5):  # of powers of float32(0.1)
      wrong.append((steps, found.tolist()))
  assert not wrong


_step_rate = jax.jit(
  lambda step, schedule: jax.vmap(
    lambda s: optim.learning_rate(
      s, schedule, make_config(schedule='step', warmup_fraction=0.0, lr=1.0).optim
    )
  )(step)
)


def rates_of_step(config, steps, at):
  schedule = optim.make_schedule(config, steps)
  return np.asarray(_step_rate(np.asarray(at, np.int32), schedule))


def test_exponential_decay_falls_on_the_exact_step_of_the_2017_run():
  # 96 million images a decay in batches of 1600: 60,000 updates a decay, 36 million in all,
  # where float32 counts in fours.
  config = make_config(schedule='exponential', warmup_fraction=0.0, lr=1.0)
  config.train.batch_size = 1600
  marks = [60_000 * k for k in (1, 2, 280, 300, 599)]
  at = [step for mark in marks for step in (mark - 1, mark)]
  found = rates(config, 36_000_000, at)
  decays = np.array([step // 60_000 for step in at])
  # float32's power at exponents near 600 loses 600 x 6e-8; a decay is 10%.
  np.testing.assert_allclose(found, 0.9**decays, rtol=1e-4)


@pytest.mark.parametrize('schedule', config_lib._CHOICES['optim.schedule'])
def test_one_program_serves_all_lengths(schedule):
  config = make_config(schedule=schedule, cooldown_fraction=0.1)
  traces = []

  @jax.jit
  def rate(step, schedule):
    traces.append(None)
    return optim.learning_rate(step, schedule, config.optim)

  for steps, lr in ((10, 0.1), (1000, 0.2), (36_000_000, 0.3)):
    rate(np.int32(3), optim.make_schedule(make_config(lr=lr), steps))
  assert len(traces) == 1


@pytest.mark.parametrize(
  'fields',
  [
    {'form': 'small', 'depth': 8},
    {'form': 'imagenet', 'depth': 50},
    {'name': 'bit', 'depth': 14, 'width': 32},
    {'name': 'vit', 'width': 64, 'positions': 'learnt', 'pool': 'token'},
    {'name': 'xception', 'depth': 15},
  ],
)
def test_kernels_decay_and_norms_and_biases_do_not(fields):
  config = base.get_config()
  config.model.update(fields)
  params = jax.eval_shape(models.build(config).init, jax.random.key(0))['params']
  named = jax.tree_util.tree_leaves_with_path(optim.decays(params))
  of_vit = ('token', 'positions') if config.model.name == 'vit' else ()
  assert {path[-1].key for path, _ in named} == {'kernel', 'scale', 'bias', *of_vit}
  for path, decay in named:
    assert decay == (path[-1].key == 'kernel'), path


PARAMS = {
  'kernel': np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
  'bias': np.array([0.5, -0.5, 2.0], np.float32),
}


def gradients(step):
  rng = np.random.default_rng(step)
  return {k: rng.normal(size=v.shape).astype(np.float32) for k, v in PARAMS.items()}


def updates_of(config, steps, rate):
  tx = optim.make(config.optim)
  params = jax.tree.map(jnp.asarray, PARAMS)
  state = tx.init(params)
  for step in range(steps):
    updates, state = tx.update(gradients(step), state, params, rate=rate(step))
    params = jax.tree.map(jnp.add, params, updates)
  return params


def rate(step):
  return 0.1 / (1 + step)


@pytest.mark.parametrize('name', ['sgd', 'rmsprop'])
def test_a_long_gradient_is_shortened_before_the_decay_is_added(name):
  fields = {'name': name, 'momentum': 0.0, 'nesterov': False, 'weight_decay': 0.1}
  norm = math.sqrt(sum((leaf**2).sum() for leaf in gradients(0).values()))

  def change(**more):
    config = make_config(**fields, **more)
    state, tx = None, optim.make(config.optim)
    state = tx.init(PARAMS)
    return tx.update(gradients(0), state, PARAMS, rate=0.1)[0]

  free, long, short = (
    change(),
    change(clip_norm=norm * 1.01),
    change(clip_norm=norm / 2),
  )
  for key, w in PARAMS.items():
    np.testing.assert_array_equal(long[key], free[key])
    g = gradients(0)[key] / 2 + (0.1 * w if key == 'kernel' else 0)
    if name == 'rmsprop':  # its mean square starts at 1
      g = g / np.sqrt(0.9 + 0.1 * g**2 + 1.0)
    # One float32 update of numbers near 1.
    np.testing.assert_allclose(short[key], -0.1 * g, atol=1e-6)


@pytest.mark.parametrize('nesterov', [False, True])
def test_sgd_is_the_reference(nesterov):
  config = make_config(name='sgd', momentum=0.9, nesterov=nesterov, weight_decay=0.1)
  for name, value in updates_of(config, 5, rate).items():
    w = PARAMS[name].astype(np.float64)
    trace = np.zeros_like(w)
    for step in range(5):
      g = gradients(step)[name] + (0.1 * w if name == 'kernel' else 0)
      trace = g + 0.9 * trace
      w = w - rate(step) * (g + 0.9 * trace if nesterov else trace)
    # Five float32 updates of numbers near 1.
    np.testing.assert_allclose(value, w, atol=2e-6)


def test_rmsprop_is_tensorflows():
  config = make_config(
    name='rmsprop', momentum=0.9, rms_decay=0.8, rms_eps=0.5, weight_decay=0.1
  )
  for name, value in updates_of(config, 5, rate).items():
    w = PARAMS[name].astype(np.float64)
    # TensorFlow starts the mean square at 1, has epsilon in the root, and the rate in
    # the momentum (tf.compat.v1.train.RMSPropOptimizer).
    mean_square, momentum = np.ones_like(w), np.zeros_like(w)
    for step in range(5):
      g = gradients(step)[name] + (0.1 * w if name == 'kernel' else 0)
      mean_square = 0.8 * mean_square + 0.2 * g**2
      momentum = 0.9 * momentum + rate(step) * g / np.sqrt(mean_square + 0.5)
      w = w - momentum
    # Five float32 updates of numbers near 1.
    np.testing.assert_allclose(value, w, atol=2e-6)


def adam_steps(name, num_steps):
  """Yields the gradient's mean over the root of its mean square, bias-corrected."""
  mean, square = np.zeros_like(PARAMS[name]), np.zeros_like(PARAMS[name])
  for step in range(num_steps):
    g = gradients(step)[name].astype(np.float64)
    mean = 0.9 * mean + 0.1 * g
    square = 0.99 * square + 0.01 * g**2
    corrected = square / (1 - 0.99 ** (step + 1))
    yield mean / (1 - 0.9 ** (step + 1)) / (np.sqrt(corrected) + 1e-3)


def test_adamw_decays_beside_the_moments():
  config = make_config(name='adamw', momentum=0.9, b2=0.99, eps=1e-3, weight_decay=0.1)
  for name, value in updates_of(config, 5, rate).items():
    w = PARAMS[name].astype(np.float64)
    for step, update in enumerate(adam_steps(name, 5)):
      w = w - rate(step) * (update + (0.1 * w if name == 'kernel' else 0))
    # Five float32 updates of numbers near 1.
    np.testing.assert_allclose(value, w, atol=2e-6)


def test_lamb_steps_kernels_in_proportion_to_their_norm():
  config = make_config(name='lamb', momentum=0.9, b2=0.99, eps=1e-3, weight_decay=0.1)
  for name, value in updates_of(config, 5, rate).items():
    w = PARAMS[name].astype(np.float64)
    for step, update in enumerate(adam_steps(name, 5)):
      if name == 'kernel':
        update = update + 0.1 * w
        update = update * np.linalg.norm(w) / np.linalg.norm(update)
      w = w - rate(step) * update
    # Five float32 updates of numbers near 1.
    np.testing.assert_allclose(value, w, atol=2e-6)


@pytest.mark.parametrize('nesterov', [False, True])
def test_lars_steps_kernels_in_proportion_to_their_norm(nesterov):
  config = make_config(
    name='lars', momentum=0.9, nesterov=nesterov, weight_decay=0.1, trust=0.5
  )
  for name, value in updates_of(config, 5, rate).items():
    w = PARAMS[name].astype(np.float64)
    trace = np.zeros_like(w)
    for step in range(5):
      g = gradients(step)[name].astype(np.float64)
      if name == 'kernel':
        g = g + 0.1 * w
        g = g * 0.5 * np.linalg.norm(w) / np.linalg.norm(g)
      g = rate(step) * g
      trace = g + 0.9 * trace
      w = w - (g + 0.9 * trace if nesterov else trace)
    # Five float32 updates of numbers near 1.
    np.testing.assert_allclose(value, w, atol=2e-6)


@pytest.mark.parametrize('name', config_lib._CHOICES['optim.name'])
def test_a_kernel_of_zeros_can_start(name):
  config = make_config(name=name)
  tx = optim.make(config.optim)
  params = {'head': {'kernel': jnp.zeros((2, 3)), 'bias': jnp.zeros(3)}}
  grads = jax.tree.map(jnp.ones_like, params)
  updates, _ = tx.update(grads, tx.init(params), params, rate=0.1)
  for leaf in jax.tree.leaves(updates):
    assert (leaf < 0).all()


@pytest.mark.parametrize('name', config_lib._CHOICES['optim.name'])
def test_each_optimiser_descends_in_one_compiled_program(name):
  config = make_config(name=name, trust=0.1, rms_eps=1e-3)
  tx = optim.make(config.optim)
  rng = np.random.default_rng(0)
  inputs, labels = rng.normal(size=(16, 5)).astype(np.float32), np.arange(16) % 4

  def loss(params):
    logits = inputs @ params['kernel'] + params['bias']
    return -jax.nn.log_softmax(logits)[np.arange(16), labels].mean()

  @jax.jit
  def update(params, state, rate):
    value, grads = jax.value_and_grad(loss)(params)
    updates, state = tx.update(grads, state, params, rate=rate)
    return jax.tree.map(jnp.add, params, updates), state, value

  params = {'kernel': jnp.asarray(rng.normal(size=(5, 4)), jnp.float32)}
  params['bias'] = jnp.zeros(4)
  state, seen = tx.init(params), []
  for _ in range(30):
    params, state, value = update(params, state, np.float32(0.05))
    seen.append(float(value))
  assert update._cache_size() == 1  # the state keeps its types
  assert seen[-1] < 0.8 * seen[0]
