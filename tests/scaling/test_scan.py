"""Blocks of a stage stacked and scanned over: the same network in another layout."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from scaling import config as config_lib
from scaling import models, optim
from scaling.errors import UserError
from scaling.models import resnet

pytestmark = pytest.mark.usefixtures('quick_compile')

NETWORKS = [
  ('small', 8, 8),  # one block a stage: nothing to stack
  ('small', 20, 12),
  ('imagenet', 18, 33),
  pytest.param('imagenet', 50, 33, marks=pytest.mark.slow),
]


def make(form='small', depth=20, size=12, **fields):
  config = base.get_config()
  config.data.image_size = size
  config.model.update(dict(form=form, depth=depth, width=4, **fields))
  return config


def draw(tree, seed=0, dtype=np.float64):
  """Returns numbers of the tree's shapes that keep activations near 1."""
  rng = np.random.default_rng(seed)

  def numbers(leaf):
    x = rng.normal(size=leaf.shape)
    kernel = leaf.ndim > 1
    # The head too: its zeros would let no gradient through.
    x = x * math.sqrt(2 * leaf.shape[-1] / leaf.size) if kernel else 1 + x / 10
    return jnp.asarray(x, dtype)

  return jax.tree.map(numbers, tree)


def evaluated(config, variables, size):
  """Returns logits, statistics, logits with these, and gradients."""
  model = models.build(config)
  rng = np.random.default_rng(1)
  dtype = jax.tree.leaves(variables)[0].dtype
  images = jnp.asarray(rng.normal(size=(4, size, size, 3)), dtype)
  weights = jnp.asarray(rng.normal(size=(4, 10)), dtype)

  @jax.jit
  def run(variables):
    def value(params):
      logits, stats = model.apply(variables | {'params': params}, images, True)
      return (logits * weights).sum(), (logits, stats)

    found = jax.grad(value, has_aux=True)(variables['params'])
    return found, model.apply(variables, images, False)[0]

  return run(variables)


def check_scan(form, depth, size, dtype, tolerance, ops='cpu'):
  plain, scanned = (
    make(form, depth, size, dtype=dtype, scan=scan, ops=ops) for scan in (False, True)
  )
  shapes = jax.eval_shape(models.build(plain).init, jax.random.key(0))
  variables = draw(shapes, dtype=dtype)
  stacked = resnet.stack(variables)
  layout = jax.eval_shape(models.build(scanned).init, jax.random.key(0))
  assert jax.tree.structure(stacked) == jax.tree.structure(layout)
  for ours, theirs in zip(*map(jax.tree.leaves, (stacked, layout)), strict=True):
    assert ours.shape == theirs.shape
  expected = evaluated(plain, variables, size)
  found = evaluated(scanned, stacked, size)
  (grads, _), _ = expected
  assert all(np.any(leaf) for leaf in jax.tree.leaves(grads))
  # As the whole: an element near zero carries the rounding of its neighbours, and the
  # gradient of a bias before another norm is zero but for rounding.
  for a, b in zip(
    *map(jax.tree.leaves, (resnet.unstack(found), expected)), strict=True
  ):
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    assert np.linalg.norm(a - b) <= tolerance * (np.linalg.norm(b) + 0.1)


@pytest.mark.parametrize(('form', 'depth', 'size'), NETWORKS)
def test_a_scanned_network_is_the_unrolled_one(form, depth, size):
  # The same operations; XLA may fuse, and so round, them in another way. Twenty layers
  # and more of batch norm amplify the last of float64's 53 bits some hundred times.
  with jax.enable_x64(True):
    check_scan(form, depth, size, 'float64', 1e-12)


@pytest.mark.parametrize('ops', ['native', 'cpu'])
def test_so_it_is_in_float32(ops):
  # The same with 24 bits: 6e-8 a rounding, amplified likewise.
  check_scan('small', 20, 12, 'float32', 1e-4, ops)


@pytest.mark.parametrize('depth', [8, 20, 32])
@pytest.mark.parametrize('name', config_lib._CHOICES['optim.name'])
def test_layouts_lead_to_each_other_exactly(name, depth):
  config = make(depth=depth)
  config.optim.name, config.optim.clip_norm = name, 1.0
  variables = jax.eval_shape(models.build(config).init, jax.random.key(0))
  shapes = jax.eval_shape(optim.make(config.optim).init, variables['params'])
  apart = draw(variables, 1, np.float32), draw(shapes, 2, np.float32)
  stacked = resnet.stack(apart)
  if depth > 8:
    assert {'stage2_block1', 'stage2_rest'} <= stacked[0]['params'].keys()
    assert 'stage2_block2' not in stacked[0]['params']
  for ours, theirs in (
    (resnet.unstack(stacked), apart),
    (resnet.stack(resnet.unstack(stacked)), stacked),
    (resnet.unstack(apart), apart),
    (resnet.stack(stacked), stacked),
  ):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
  # Block j of the network is row j - 2 of its stage.
  params, rest = apart[0]['params'], stacked[0]['params'].get('stage1_rest')
  for j in range(2, resnet.stages('small', depth)[0] + 1):
    np.testing.assert_array_equal(
      rest['Conv_0']['kernel'][j - 2], params[f'stage1_block{j}']['Conv_0']['kernel']
    )


def test_more_than_nine_blocks_keep_their_order():
  layers = {f'stage1_block{j}': {'x': jnp.int32(j)} for j in range(1, 13)}
  rest = resnet.stack(layers)['stage1_rest']['x']
  assert rest.tolist() == list(range(2, 13))


@pytest.mark.parametrize('form', ['small', 'imagenet'])
def test_the_same_parameters_decay_in_both_layouts(form):
  config = make(form, 20 if form == 'small' else 34)
  params = jax.eval_shape(models.build(config).init, jax.random.key(0))['params']
  flags = jax.tree.map(jnp.asarray, optim.decays(params))
  stacked = jax.eval_shape(resnet.stack, params)
  rows = jax.tree.map(
    lambda decay, leaf: jnp.full(leaf.shape[:1] or (1,), decay),
    optim.decays(stacked),
    stacked,
  )
  found = resnet.unstack(rows)
  for path, decay in jax.tree_util.tree_leaves_with_path(flags):
    other = found
    for key in path:
      other = other[key.key]
    assert np.all(other == decay), path


@pytest.mark.parametrize('name', ['sgd', 'rmsprop', 'adamw'])
def test_an_update_is_the_same_in_both_layouts(name):
  config = make()
  config.optim.name, config.optim.clip_norm = name, 1.0
  shapes = jax.eval_shape(models.build(config).init, jax.random.key(0))['params']
  params, grads = (draw(shapes, seed, np.float32) for seed in (1, 2))
  optimiser = optim.make(config.optim)

  def update(params, grads):
    state = optimiser.init(params)
    return optimiser.update(grads, state, params, rate=jnp.float32(0.1))

  expected = update(params, grads)
  found = resnet.unstack(update(resnet.stack(params), resnet.stack(grads)))
  # Element by element; but the norm that clips is a sum in another order: float32.
  for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize('name', ['bit', 'vit', 'xception'])
def test_other_networks_do_not_scan(name):
  config = make(depth=50, size=64, name=name, scan=True)
  config.model.depth, config.model.width = {'xception': (36, 64)}.get(name, (50, 64))
  with pytest.raises(UserError) as error:
    config_lib.check(config)
  assert str(error.value) == (
    'model.scan=True is for a resnet, whose stages repeat a block, and not for '
    f'model.name={name}; leave it out'
  )
  config.model.scan = False
  config_lib.check(config)


@pytest.mark.parametrize('name', ['lars', 'lamb'])
def test_norms_of_kernels_are_not_taken_over_a_stack(name):
  config = make(scan=True)
  config.optim.name = name
  with pytest.raises(UserError) as error:
    config_lib.check(config)
  assert str(error.value) == (
    f'optim.name={name} takes the norm of each kernel, and model.scan=True stacks '
    'them; leave model.scan out'
  )
  config.model.scan = False
  config_lib.check(config)
