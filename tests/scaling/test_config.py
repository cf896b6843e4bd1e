"""The checks of a config, its identity, and what is derived from it."""

import copy
import itertools
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict, FrozenConfigDict

from configs import base
from scaling import config as config_lib
from scaling.errors import UserError


@pytest.mark.parametrize(
  ('name', 'value', 'way_out'),
  [
    ('data.source', 'digit', 'Did you mean "digits"?'),
    ('data.subset', 'ballanced', 'Did you mean "balanced"?'),
    ('model.name', 'vitt', 'Did you mean "vit"?'),
    ('model.form', 'tiny', 'use small, imagenet'),
    ('model.dtype', 'float16', 'use float32, bfloat16'),
    ('train.loss', 'sigmod', 'Did you mean "sigmoid"?'),
    (
      'optim.name',
      'adam',
      'use sgd, rmsprop, adamw, lars, lamb. Did you mean "adamw"?',
    ),
    ('optim.name', 'lamp', 'Did you mean "lamb"?'),
    ('optim.schedule', 'rsqr', 'Did you mean "rsqrt"?'),
    ('optim.step_fractions', (0.5, 1.0), 'above 0 and below 1'),
    ('optim.step_fractions', (0.0,), 'above 0 and below 1'),
    ('optim.step_fractions', (30, 60), 'above 0 and below 1'),
    ('optim.warmup_steps', 10, 'set one of them to 0'),
    ('optim.schedule', 'cosin', 'Did you mean "cosine"?'),
    *((name, 0, 'must be above 0') for name in config_lib._POSITIVE),
    *((name, -1, 'must not be negative') for name in config_lib._NOT_NEGATIVE),
    ('model.depth', 18, 'use 8, 14, 20, 32, 44, 56, 110'),
    ('data.mean', (0.5,), 'data.channels=3'),
    ('data.std', (0.5, 0.5, 0.5, 0.5), 'data.channels=3'),
    ('data.max_labels', 2, 'needs train.loss=sigmoid'),
  ],
)
def test_bad_field_is_named_with_value_and_way_out(name, value, way_out):
  config = base.get_config()
  config.update_from_flattened_dict({name: value})
  with pytest.raises(UserError) as error:
    config_lib.check(config)
  shown = repr(config_lib.field(config, name))
  assert str(error.value).startswith(f'{name}={shown}')
  assert way_out in str(error.value)


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('optim.lr', -0.1),
    ('optim.lr', math.nan),
    ('optim.lr', math.inf),
    ('optim.momentum', 1.0),
    ('optim.weight_decay', -1e-4),
    ('optim.warmup_fraction', 1.5),
    ('optim.decay_images', -1),
    ('optim.decay_rate', 0.0),
    ('optim.cooldown_fraction', 1.0),
    ('optim.b2', 1.0),
    ('train.mixup', math.inf),
    ('train.label_smoothing', 1.5),
    ('data.min_crop_area', 1.5),
    ('data.min_crop_area', -0.1),
    ('data.std', (0.25, 0.0, 0.25)),
    ('data.mean', (0.5, math.nan, 0.5)),
    ('optim.step_fractions', ('a',)),
    ('optim.rms_eps', -1.0),
    ('checkpoint.keep_steps', (-1,)),
    ('checkpoint.keep_steps', (2.5,)),
    ('checkpoint.keep_steps', ('a',)),
    ('transfer.shots', (1.5,)),
    ('transfer.shots', (True,)),
    ('optim.step_fractions', (10**400,)),
    ('train.steps', 2**31),
    ('train.batch_size', 2**31),
    ('seed', -1),
    ('seed', 2**32),
  ],
)
def test_numbers_that_could_not_train_are_refused(name, value):
  config = base.get_config()
  config.update_from_flattened_dict({name: value})
  with pytest.raises(UserError, match=name):
    config_lib.check(config)


def test_a_schedule_longer_than_the_run_is_refused():
  config = base.get_config()
  config.optim.warmup_fraction, config.optim.cooldown_fraction = 0.5, 0.5
  config_lib.check(config)
  config.optim.cooldown_fraction = 0.75
  with pytest.raises(UserError) as error:
    config_lib.check(config)
  assert str(error.value) == (
    'optim.warmup_fraction=0.5 and optim.cooldown_fraction=0.75 are longer than the run; '
    'together they may be 1'
  )


def test_average_precision_is_of_several_labels():
  config = base.get_config()
  config.checkpoint.best = 'test/map100'
  with pytest.raises(UserError, match=r'test/map100 needs train\.loss=sigmoid'):
    config_lib.check(config)
  config.train.loss = 'sigmoid'
  config_lib.check(config)


def test_weights_of_classes_are_of_several_labels():
  config = base.get_config()
  config.checkpoint.best, config.train.loss = 'test/weighted_map100', 'sigmoid'
  with pytest.raises(UserError, match=r'needs data\.class_weights'):
    config_lib.check(config)
  config.data.class_weights = 'weights.csv'
  config_lib.check(config)
  config.train.loss, config.checkpoint.best = 'softmax', 'none'
  with pytest.raises(
    UserError, match=r'class_weights=weights\.csv .*set train\.loss=sig'
  ):
    config_lib.check(config)


def test_smoothing_is_refused_with_sigmoid():
  config = base.get_config()
  config.train.loss, config.train.label_smoothing = 'sigmoid', 0.1
  with pytest.raises(UserError, match=r'label_smoothing.*set it to 0'):
    config_lib.check(config)


@pytest.mark.parametrize(
  ('epochs', 'steps'), [(0.0, 0), (1.0, 1), (-1.0, 1), (math.nan, 0), (math.inf, 0)]
)
def test_anything_but_one_length_is_refused(epochs, steps):
  config = base.get_config()
  config.train.epochs, config.train.steps = epochs, steps
  with pytest.raises(UserError, match=r'exactly one of train.epochs=.*train.steps='):
    config_lib.check(config)


def test_num_steps_is_whole_passes_rounded_up_or_the_steps_asked_for(tiny_config):
  by_epochs = tiny_config({'train.steps': 0, 'train.epochs': 2.5})
  assert config_lib.protocol(by_epochs) == 'epochs'
  assert config_lib.num_steps(by_epochs, 40) == 7  # 100 images in batches of 16
  assert config_lib.num_steps(by_epochs, 1) == 1
  by_steps = tiny_config({'train.steps': 7})
  assert config_lib.protocol(by_steps) == 'steps'
  assert {config_lib.num_steps(by_steps, n) for n in (1, 40, 10**9)} == {7}


def test_more_updates_than_can_be_counted_are_refused(tiny_config):
  config = tiny_config()
  config.train.update(epochs=1e308, steps=0, batch_size=1)
  config_lib.check(config)
  with pytest.raises(UserError, match='are inf updates'):
    config_lib.num_steps(config, 1000)
  config.train.epochs = 1e300
  with pytest.raises(
    UserError, match=r'epochs=1e\+300 of 10 images are 1e\+301 updates'
  ):
    config_lib.num_steps(config, 10)
  config.train.epochs = 1.0
  assert config_lib.num_steps(config, 2**31 - 1) == 2**31 - 1


def test_the_seeds_that_are_refused_give_the_weights_of_others():
  import jax

  assert (jax.random.key(2**32) == jax.random.key(0)).all()
  assert (jax.random.key(-1) == jax.random.key(2**32 - 1)).all()
  assert (jax.random.key(2**32 - 1) != jax.random.key(0)).all()


def test_identity_is_the_same_in_another_process_and_key_order():
  config = base.get_config()

  def turned(tree):
    if not isinstance(tree, dict):
      return tree
    return {key: turned(tree[key]) for key in reversed(tree)}

  here = config_lib.identity(config)
  plain = config_lib.plain(config)
  assert list(turned(plain)) != list(plain)
  assert config_lib.identity(turned(plain)) == here
  assert config_lib.identity(json.loads(json.dumps(plain))) == here
  assert config_lib.identity(FrozenConfigDict(config)) == here
  code = (
    'from configs import base; from scaling import config; '
    'print(config.identity(base.get_config()))'
  )
  there = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert there.stdout.strip() == here
  assert len(here) == 8
  assert config_lib.cell_name(config) == f'resnet8-nall-seed0-{here}'


def test_identity_tells_values_and_types_apart():
  values = [18, 18.0, '18', True, 1, None, 18.000000000000004, [18], [], 'None']
  names = [config_lib.identity({'model': {'depth': value}}) for value in values]
  assert len(set(names)) == len(values)
  config = base.get_config()
  seen = {config_lib.identity(config)}
  for name, value in config_lib.flat(config).items():
    changed = config_lib.flat(config) | {name: f'not {value}'}
    seen.add(config_lib.identity(config_lib.nested(changed)))
  assert len(seen) == 1 + len(config_lib.flat(config))


@pytest.mark.parametrize(
  'value', [math.inf, math.nan, len, lambda x: x, object(), {1}, b'bytes']
)
def test_values_without_stable_text_have_no_identity(value):
  with pytest.raises(UserError, match='no stable identity'):
    config_lib.identity({'train': {'epochs': [value]}})


_names = st.text('abcdefgh_', min_size=1, max_size=4)
_leaves = st.one_of(
  st.none(),
  st.booleans(),
  st.integers(),
  st.floats(allow_nan=False, allow_infinity=False),
  st.text(max_size=5),
  st.lists(st.integers(), max_size=3),
)
_trees = st.dictionaries(
  _names,
  st.recursive(
    _leaves, lambda inner: st.dictionaries(_names, inner, min_size=1, max_size=3)
  ),
  max_size=4,
)


@given(_trees)
def test_flat_and_nested_are_inverse(tree):
  fields = config_lib.flat(tree)
  assert not any(isinstance(value, dict) for value in fields.values())
  again = config_lib.nested(fields)
  assert config_lib.plain(again) == tree
  assert config_lib.identity(again) == config_lib.identity(tree)


def test_first_difference_names_field_and_both_values():
  old = config_lib.plain(base.get_config())
  new = copy.deepcopy(old)
  assert config_lib.first_difference(old, new) is None
  new['optim']['lr'] = 0.2
  new['train']['steps'] = 5
  # NumPy's numbers have the identity of Python's.
  like = {**old, 'x': np.float64(0.1)}, {'x': 0.1, **old}
  assert config_lib.first_difference(*like) is None
  found = config_lib.first_difference(old, new)
  assert found == 'optim.lr is 0.1 there and 0.2 here'
  del old['optim']['lr']
  found = config_lib.first_difference(old, new)
  assert found == 'optim.lr is (unset) there and 0.2 here'


@pytest.mark.parametrize(('old', 'new'), [(18, 18.0), (1, True)])
def test_first_difference_sees_all_that_identity_sees(old, new):
  old, new = {'model': {'depth': old}}, {'model': {'depth': new}}
  assert config_lib.identity(old) != config_lib.identity(new)
  assert config_lib.first_difference(old, new) is not None


def test_seed_moves_subset_and_order_also_in_a_copy():
  original = base.get_config()
  config = copy.deepcopy(original)
  config.seed = 7
  assert (config.data.subset_seed, config.data.order_seed) == (7, 7)
  assert (original.seed, original.data.subset_seed, original.data.order_seed) == (
    0,
  ) * 3
  assert config_lib.flat(config)['data.order_seed'] == 7


def test_program_key_ignores_what_is_an_argument_of_the_program():
  config = base.get_config()
  key = config_lib.program_key(config)
  for name, value in {
    'data.num_images': 100,
    'data.hierarchy': 'tree.csv',
    'optim.lr': 0.7,
    'optim.warmup_fraction': 0.5,
    'optim.warmup_steps': 5,
    'optim.cooldown_fraction': 0.5,
    'train.steps': 999,
    'train.epochs': 3.0,
    'seed': 5,
    'checkpoint.every_steps': 9,
    'log.every_steps': 9,
  }.items():
    changed = copy.deepcopy(config)
    changed.update_from_flattened_dict({name: value})
    assert config_lib.program_key(changed) == key, name


def test_program_key_tells_apart_what_is_in_the_program():
  keys = {config_lib.program_key(base.get_config())}
  changes = {
    'model.depth': 14,
    'model.width': 8,
    'model.dtype': 'bfloat16',
    'model.ops': 'native',
    'model.head_bias': -10.0,
    'model.head_multiple': 128,
    'model.scan': True,
    'model.ghost_batch': 8,
    'train.batch_size': 32,
    'train.label_smoothing': 0.1,
    'train.mixup': 0.2,
    'model.name': 'bit',
    'model.patch_size': 8,
    'optim.timescale': 5,
    'optim.staircase': False,
    'data.pad_crop': 4,
    'data.flip': True,
    'data.min_crop_area': 0.1,
    'data.mean': (0.4, 0.4, 0.4),
    'data.num_classes': 11,
    'optim.weight_decay': 0.0,
    'optim.schedule': 'constant',
    'optim.step_fractions': (0.5,),
    'optim.decay_rate': 0.5,
    'log.eval_batch_size': 16,
  }
  for name, value in changes.items():
    config = base.get_config()
    config.update_from_flattened_dict({name: value})
    keys.add(config_lib.program_key(config))
  assert len(keys) == 1 + len(changes)


def test_every_field_that_no_program_depends_on_exists():
  fields = config_lib.flat(base.get_config())
  named = itertools.chain(
    config_lib._NOT_COMPILED,
    config_lib._CHOICES,
    config_lib._POSITIVE,
    config_lib._NOT_NEGATIVE,
  )
  assert set(named) <= fields.keys()


def test_a_field_of_a_config_dict_resolves_references():
  config = ConfigDict({'a': {'b': 1}})
  assert config_lib.field(config, 'a.b') == 1


@pytest.mark.parametrize('name', ['vit', 'xception', 'bit'])
def test_onednn_is_for_networks_that_have_it(name):
  config = base.get_config()
  config.model.ops, config.model.name = 'onednn', name
  with pytest.raises(UserError, match=r'model\.ops=onednn is for model\.name=resnet'):
    config_lib.check(config)
