"""Batch norm over groups of images: against NumPy, the whole batch, and on devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling import config as config_lib
from scaling import models, optim, sharding, step
from scaling.errors import UserError
from scaling.models.layers import BatchNorm

pytestmark = pytest.mark.usefixtures('quick_compile')

SHAPE = (12, 5, 3, 7)


def layer(ops, ghost_batch, relu=True):
  return BatchNorm(train=True, relu=relu, ops=ops, ghost_batch=ghost_batch)


def inputs(dtype='float64'):
  rng = np.random.default_rng(0)
  # Each image has a mean of its own, so that the groups differ.
  x = rng.normal(size=SHAPE) * 2 + rng.normal(size=(SHAPE[0], 1, 1, 1)) * 3
  shortcut = rng.normal(size=SHAPE)
  variables = {
    'params': {'scale': rng.normal(size=7), 'bias': rng.normal(size=7)},
    'batch_stats': {'mean': rng.normal(size=7), 'var': 1 + rng.random(7)},
  }
  return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (variables, x, shortcut))


def reference(variables, x, shortcut, group, relu):
  """Returns outputs and running statistics, group by group."""
  params, stats = variables['params'], variables['batch_stats']
  out, means, variances = [], [], []
  for start in range(0, len(x), group):
    rows = np.asarray(x[start : start + group])
    means.append(rows.mean((0, 1, 2)))
    variances.append(rows.var((0, 1, 2)))
    y = (rows - means[-1]) / np.sqrt(variances[-1] + 1e-5)
    y = y * params['scale'] + params['bias']
    if shortcut is not None:
      y = y + shortcut[start : start + group]
    out.append(np.maximum(y, 0) if relu else y)
  return np.concatenate(out), {
    'mean': 0.9 * stats['mean'] + 0.1 * np.mean(means, 0),
    'var': 0.9 * stats['var'] + 0.1 * np.mean(variances, 0),
  }


@pytest.mark.parametrize('ops', ['native', 'cpu'])
@pytest.mark.parametrize('group', [1, 3, 4, 12])
@pytest.mark.parametrize('relu', [False, True])
@pytest.mark.parametrize('has_shortcut', [False, True])
def test_groups_are_those_of_numpy(ops, group, relu, has_shortcut):
  with jax.enable_x64(True):
    variables, x, shortcut = inputs()
    shortcut = shortcut if has_shortcut else None
    module = layer(ops, group, relu)
    y, new = module.apply(variables, x, shortcut, mutable=['batch_stats'])
    expected, stats = reference(variables, x, shortcut, group, relu)
    # Sums of at most 180 float64 numbers below 100, squared for the variance.
    np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-11)
    for name in stats:
      np.testing.assert_allclose(new['batch_stats'][name], stats[name], rtol=1e-12)


@pytest.mark.parametrize('ops', ['native', 'cpu'])
def test_one_group_is_the_batch(ops):
  variables, x, shortcut = inputs('float32')

  def pulled_back(ghost_batch):
    def apply(variables, x, shortcut):
      module = layer(ops, ghost_batch)
      y, new = module.apply(variables, x, shortcut, mutable=['batch_stats'])
      return (y**2).sum(), (y, new)

    return jax.jit(jax.grad(apply, (0, 1, 2), has_aux=True))(variables, x, shortcut)

  jax.tree.map(np.testing.assert_array_equal, pulled_back(12), pulled_back(0))


def test_gradients_of_groups_are_equal_in_both_forms():
  with jax.enable_x64(True):
    variables, x, shortcut = inputs()

    def gradients(ops):
      def value(variables, x, shortcut):
        y, new = layer(ops, 4).apply(variables, x, shortcut, mutable=['batch_stats'])
        return (y**2).sum() + sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(new))

      return jax.jit(jax.grad(value, (0, 1, 2)))(variables, x, shortcut)

    # As in test_ops: float64 sums in another order.
    for a, b in zip(
      *map(jax.tree.leaves, (gradients('cpu'), gradients('native'))), strict=True
    ):
      assert np.linalg.norm(a - b) <= 1e-12 * np.linalg.norm(b)


@pytest.mark.parametrize('name', ['resnet', 'xception'])
def test_an_image_meets_its_group_only(name, tiny_config, random_variables):
  fields = {'model.ghost_batch': 2}
  if name == 'xception':
    fields |= {'model.name': name, 'model.depth': 15, 'data.image_size': 32}
  config = tiny_config(fields)
  model = models.build(config)
  variables = random_variables(model)
  size = config.data.image_size
  x = np.random.default_rng(1).normal(size=(6, size, size, 1)).astype(np.float32)
  apply = jax.jit(lambda x: model.apply(variables, x, True)[0])
  changed = np.concatenate([x[:2], 3 * x[2:3], x[3:]])
  logits, others = np.asarray(apply(x)), np.asarray(apply(changed))
  same = [0, 1, 4, 5]
  np.testing.assert_array_equal(logits[same], others[same])
  assert (np.abs(logits - others)[2:4] > 1e-3).any(axis=1).all()


def losses_of(config, devices):
  """Returns the losses and the state of three updates from a random head."""
  mesh = sharding.make_mesh(devices)
  program = step.compile_program(config, mesh)
  state = program.init(sharding.put_keys(0, 1, mesh)[0])
  rng = np.random.default_rng(0)
  kernel = rng.normal(size=state.params['head']['kernel'].shape).astype(np.float32)
  state.params['head']['kernel'] = jax.device_put(kernel, sharding.replicated(mesh))
  (key,) = sharding.put_keys(1, 1, mesh)
  seen = []
  for _ in range(3):
    batch = {
      'image': rng.integers(0, 256, (16, 8, 8, 1), np.uint8),
      'labels': rng.integers(0, 10, (16, 1), np.int32),
      'id': rng.integers(0, 99, (16, 2), np.uint32),
      'epoch': np.zeros(16, np.uint32),
    }
    state, values = program.train_step(
      state, sharding.put_batch(batch, mesh), key, optim.make_schedule(config, 100)
    )
    seen.append(float(values['loss']))
  return seen, jax.device_get(state)


@pytest.mark.parametrize(
  'fields',
  [
    {'model.ghost_batch': 4},  # a group a device at most
    {'model.ghost_batch': 8},  # a group on two of four devices
    {'model.ghost_batch': 2, 'train.accumulate_steps': 2},
  ],
)
def test_groups_do_not_depend_on_the_devices(fields, tiny_config):
  config = tiny_config(fields)
  one, alone = losses_of(config, 1)
  for devices in (2, 4):
    losses, state = losses_of(config, devices)
    # As in test_step: float32 sums over the batch in another order, some 1e-6 after
    # three updates; other groups show in the second digit.
    np.testing.assert_allclose(losses, one, rtol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (state, alone)), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)
  whole, _ = losses_of(tiny_config(fields | {'model.ghost_batch': 0}), 1)
  assert abs(whole[0] - one[0]) > 1e-2


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'model.ghost_batch': 3},
      'model.ghost_batch=3 does not divide the 16 images of a batch; use 2 or 4',
    ),
    (
      {'model.ghost_batch': 32},
      'model.ghost_batch=32 does not divide the 16 images of a batch; use 16',
    ),
    (
      {'model.ghost_batch': 16, 'train.accumulate_steps': 2},
      'model.ghost_batch=16 does not divide the 8 images of a batch part; use 8',
    ),
    (
      {
        'model.ghost_batch': 4,
        'model.name': 'bit',
        'model.depth': 14,
        'model.width': 32,
        'data.image_size': 32,
      },
      'model.ghost_batch=4 is for networks with batch norm, and model.name=bit has '
      'none; use 0',
    ),
  ],
)
def test_groups_that_cannot_be_are_refused(fields, message, tiny_config):
  with pytest.raises(UserError) as error:
    config_lib.check(tiny_config(fields))
  assert str(error.value) == message
