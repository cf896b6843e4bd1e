"""Layouts: every array has a place, and where it lies changes nothing but rounding."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from scaling import sharding, step
from scaling.errors import UserError

LAYOUTS = [
  (1, 1, False),
  (8, 1, False),
  (8, 1, True),
  (8, 2, False),
  (8, 4, True),
  (8, 8, False),
]


@pytest.fixture(scope='module')
def eight(tiny_config):
  """What one update is in each of `LAYOUTS`."""
  config = tiny_config(
    {
      'data.num_classes': 300,
      'data.max_labels': 3,
      'data.pad_crop': 0,
      'model.dtype': 'float64',
      'model.width': 32,
      'model.head_multiple': 128,
      'train.loss': 'sigmoid',
      'train.batch_size': 16,
      'train.ema_decay': 0.9,
      'log.eval_batch_size': 16,
    }
  )
  orders = {'config': config.to_dict(), 'layouts': LAYOUTS}
  script = pathlib.Path(__file__).with_name('layouts.py')
  path = os.pathsep.join([str(pathlib.Path(__file__).parents[2]), *sys.path])
  done = subprocess.run(
    [sys.executable, script, json.dumps(orders)],
    capture_output=True,
    text=True,
    check=False,
    env=os.environ
    | {
      'JAX_NUM_CPU_DEVICES': '8',
      'PYTHONPATH': path,
      'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',  # compiles in half the time
    },
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


# Sums of 16 images in another order: rounding of the float32 parameters and gradients,
# 6e-8 of the largest number of an array, a few times over.
_ROUNDING = 1e-6


def test_every_layout_makes_the_same_update(eight):
  assert max(eight['apart']) < _ROUNDING


def test_the_state_is_split_as_asked(eight):
  whole = eight['kernels'][0]
  shares = [whole // size for size in eight['kernels']]
  # FSDP splits what is left over the devices along 'data'.
  assert shares == [1, 1, 8, 2, 8, 8]


def test_a_shared_classifier_stays_where_it_is(eight):
  # Features and labels travel to the classes, never logits or the classifier.
  whole_kernel = 4 * eight['kernels'][0]
  for layout, gathered in zip(LAYOUTS, eight['gathered'], strict=True):
    if layout[1] > 1 and not layout[2]:
      assert gathered < whole_kernel // 20


@pytest.mark.parametrize('name', ['sgd', 'rmsprop', 'adamw', 'lars', 'lamb'])
@pytest.mark.parametrize(
  'network',
  [
    {'model.name': 'resnet', 'model.width': 32},
    {'model.depth': 14, 'model.width': 32, 'model.scan': True},
    {'model.name': 'bit', 'model.depth': 14, 'model.width': 32},
    {
      'model.name': 'vit',
      'model.width': 64,
      'model.patch_size': 4,
      'model.positions': 'learnt',
      'model.pool': 'token',
    },
    {'model.name': 'xception', 'model.depth': 15, 'model.width': 8},
  ],
)
def test_rules_cover_every_network_and_optimiser(name, network, tiny_config):
  config = tiny_config(
    {'optim.name': name, 'data.image_size': 32, 'train.ema_decay': 0.9, **network}
  )
  state = jax.eval_shape(lambda key: step.init(config, key), jax.random.key(0))
  mesh = sharding.make_mesh()
  for fsdp in (False, True):
    placed = sharding.by_rule(state, mesh, fsdp)
    assert jax.tree.structure(placed) == jax.tree.structure(state)
  split = [
    leaf.size
    for leaf, place in zip(jax.tree.leaves(state), jax.tree.leaves(placed), strict=True)
    if 'data' in place.spec
  ]
  assert split
  assert min(split) >= 4096


def test_a_leaf_without_a_rule_is_refused():
  leaf = jax.ShapeDtypeStruct((3, 4), 'float32')
  with pytest.raises(UserError, match=r'matches params/mixer/gate \[3, 4\]'):
    sharding.by_rule({'params': {'mixer': {'gate': leaf}}}, sharding.make_mesh())


def test_a_head_that_does_not_divide_is_refused():
  leaf = jax.ShapeDtypeStruct((8, 10), 'float32')
  mesh = sharding.make_mesh(model_devices=4)
  with pytest.raises(UserError, match=r'--model_devices=4; set model.head_multiple=4'):
    sharding.by_rule({'params': {'head': {'kernel': leaf}}}, mesh)


def test_a_mesh_that_the_devices_cannot_form_is_refused():
  with pytest.raises(UserError, match='a mesh of 5 devices, but there are 4'):
    sharding.make_mesh(5)
  with pytest.raises(UserError, match=r'--model_devices=3 .*; use 1, 2, 4'):
    sharding.make_mesh(model_devices=3)


def test_scanned_blocks_are_stored_one_by_one(tiny_config):
  fields = {'model.depth': 14, 'train.ema_decay': 0.9}
  apart, scanned = (
    step.compile_program(
      tiny_config(fields | {'model.scan': scan}), sharding.make_mesh()
    )
    for scan in (False, True)
  )
  key, _ = sharding.put_keys(0, 2, sharding.make_mesh())
  state = scanned.init(key)
  stored = scanned.store(state)
  like = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), apart.stored)
  assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), stored) == like
  again = scanned.load(stored)
  assert jax.tree.structure(again) == jax.tree.structure(state)
  assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), again, state))
  # What is not scanned over is not copied either.
  plain = apart.init(key)
  assert apart.store(plain) is plain
