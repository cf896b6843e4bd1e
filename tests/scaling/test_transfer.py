"""Frozen features judged on another set, and cells that start from other cells."""

import jax
import numpy as np
import pytest
from runs import assert_same_run, rows_of, state_of

from configs import base
from scaling import models, sharding, trained, weights
from scaling import step as step_lib
from scaling.data import sources
from scaling.data.adapt import adapt, with_channels
from scaling.errors import UserError
from scaling.evals import features, transfer
from scaling.train import train

pytestmark = pytest.mark.usefixtures('quick_compile')
DIGITS = {'transfer.source': 'digits', 'transfer.name': 'digits'}


def test_features_are_what_the_head_sees(tiny_config, random_variables):
  config = tiny_config({'data.source': 'digits', 'data.name': 'digits'})
  variables = random_variables(models.build(config))
  split, _ = sources.load(config.data)
  ids = np.arange(37)[::-1]  # no multiple of the batch, and in no order
  mesh = sharding.make_mesh()
  seen, read = features.outputs('features', config, variables, split, ids, mesh)
  assert read.all()
  assert seen.shape == (37, 16)
  head = variables['params']['head']
  logits, _ = features.outputs('logits', config, variables, split, ids, mesh)
  # Two programs in float32, which sum in different orders.
  np.testing.assert_allclose(
    logits, seen @ head['kernel'] + head['bias'], rtol=1e-4, atol=1e-5
  )
  (one,), _ = features.outputs('features', config, variables, split, ids[5:6], mesh)
  assert np.array_equal(one, seen[5])


def test_few_shots_nest_and_have_each_class():
  labels = np.arange(100) % 7
  few, rank = transfer.few_shot(labels, 5, draw=0)
  assert (np.bincount(labels[few]) == 5).all()
  one, _ = transfer.few_shot(labels, 1, draw=0)
  assert set(one) == set(few[rank < 1])
  assert set(one) != set(transfer.few_shot(labels, 1, draw=1)[0])


def test_probe_learns_what_is_linear():
  rng = np.random.default_rng(0)
  labels = np.arange(300) % 3
  x = np.eye(3)[labels] * 3 + rng.normal(size=(300, 3))
  unseen = np.eye(3)[labels] * 3 + rng.normal(size=(300, 3))
  assert (transfer.linear_probe(x, labels, unseen) == labels).mean() > 0.9
  noise = rng.normal(size=(300, 3))
  assert (transfer.linear_probe(noise, labels, noise[::-1]) == labels).mean() < 0.5


def test_a_probe_of_a_few_images_of_each_class():
  labels = np.arange(12) % 3
  x = np.eye(3)[labels] * 3
  assert np.array_equal(transfer.linear_probe(x, labels, x), labels)


def test_judged_after_the_last_step_and_only_then(tiny_config, tmp_path):
  config = tiny_config(DIGITS | {'transfer.shots': (1, 10), 'transfer.draws': 2})
  last = train(config, tmp_path / 'run')
  rows = rows_of(tmp_path / 'run')
  assert [row['step'] for row in rows if 'transfer/1_shot' in row] == [12]
  assert last['transfer/num_images'] == 359
  # Random features of a small network tell digits apart somewhat, more images better.
  assert 0.15 < last['transfer/1_shot'] < last['transfer/10_shot'] < 1
  assert 'transfer/probe' in last
  train(config, tmp_path / 'again')
  assert rows_of(tmp_path / 'again') == rows


def test_images_that_the_network_is_trained_on_are_refused(tiny_config, tmp_path):
  config = tiny_config(
    DIGITS
    | {'data.source': 'idx', 'data.name': 'digits', 'transfer.source': 'idx'}
    | {'transfer.test_split': 'train', 'transfer.num_classes': 10}
  )
  split = sources.load(tiny_config({'data.source': 'digits'}).data)[0]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sources, 'load', lambda *_: (split, split))
    with pytest.raises(UserError, match='trained on; judge on others'):
      transfer.load(config, split, None)
    with pytest.raises(UserError, match='trained on; test on others'):
      train(tiny_config(), tmp_path)


def test_images_of_another_size_and_colour():
  config = base.get_config()
  config.data.source = config.data.name = 'digits'
  config.data.image_size, config.data.adapt = 12, True
  split, _ = sources.load(config.data)
  assert split.shape == (12, 12, 3)
  images = split.images(np.arange(5))
  assert images.shape == (5, 12, 12, 3)
  assert (images[..., 0] == images[..., 2]).all()
  config.data.adapt = False
  with pytest.raises(UserError, match=r'data\.adapt=True'):
    sources.load(config.data)


def test_grey_and_colour_and_back():
  grey = np.arange(48, dtype=np.uint8).reshape(1, 6, 8, 1)
  assert np.array_equal(with_channels(with_channels(grey, 3), 1), grey)
  split, _ = sources.load(base.get_config().data)
  assert adapt(split, 32, 3) is split


def test_cell_that_starts_from_another(tiny_config, tmp_path):
  first = tiny_config({'train.ema_decay': 0.9})
  train(first, tmp_path / 'first')
  known = trained.load(tmp_path / 'first')[1]
  own = tiny_config({'init.cell': 'first', 'seed': 3, 'data.num_images': 20})
  state = _begun(own, tmp_path)
  same = {k: v for k, v in known['params'].items() if k != 'head'}
  for name, leaves in same.items():
    jax.tree.map(np.testing.assert_array_equal, state.params[name], leaves)
  jax.tree.map(np.testing.assert_array_equal, state.batch_stats, known['batch_stats'])
  assert not np.asarray(state.params['head']['kernel']).any()
  own.init.head = 'kept'
  kept = _begun(own, tmp_path).params['head']['kernel']
  np.testing.assert_array_equal(kept, known['params']['head']['kernel'])
  train(own, tmp_path / 'second')


def test_cell_that_starts_from_a_file(tiny_config, tmp_path):
  train(tiny_config(), tmp_path / 'first')
  config, known = trained.load(tmp_path / 'first')
  weights.write_weights(tmp_path / 'w.safetensors', config, known)
  own = tiny_config({'init.file': str(tmp_path / 'w.safetensors'), 'init.head': 'kept'})
  state = _begun(own, tmp_path)
  found = {'params': state.params, 'batch_stats': state.batch_stats}
  jax.tree.map(np.testing.assert_array_equal, found, known)
  own.init.head = 'new'
  assert not np.asarray(_begun(own, tmp_path).params['head']['kernel']).any()
  own.init.file = str(tmp_path / 'absent.npz')
  with pytest.raises(UserError, match='there is no'):
    _begun(own, tmp_path)


def _begun(config, folder):
  from scaling import start

  mesh = sharding.make_mesh()
  program = step_lib.compile_program(config, mesh)
  key, _ = sharding.put_keys(config.seed, 2, mesh)
  return start.first_state(config, folder / 'own', program, key)


def test_scanned_cell_starts_from_one_that_is_not(tiny_config, tmp_path):
  config = tiny_config({'model.depth': 14})
  train(config, tmp_path / 'first')
  scanned = tiny_config({'model.depth': 14, 'model.scan': True, 'init.cell': 'first'})
  state = models.unstack(_begun(scanned, tmp_path))
  known = trained.load(tmp_path / 'first')[1]
  found = state.params['stage1_block2']
  jax.tree.map(np.testing.assert_array_equal, found, known['params']['stage1_block2'])


@pytest.mark.parametrize('scan', [True, False])
def test_a_run_goes_on_in_the_other_layout(tiny_config, tmp_path, scan):
  """With the optimiser's state and the running means; losses differ by rounding alone."""
  fields = {
    'model.depth': 14,
    'train.ema_decay': 0.9,
    'train.steps': 6,
    'log.every_steps': 1,
    'optim.name': 'adamw',
    'optim.lr': 0.01,
    'checkpoint.keep_steps': (3,),
  }
  train(tiny_config(fields | {'model.scan': scan}), tmp_path / 'first')
  start = {'init.cell': 'first', 'init.part': 'state', 'init.step': 3}
  train(tiny_config(fields | {'model.scan': not scan} | start), tmp_path / 'second')
  expected = [row for row in rows_of(tmp_path / 'first') if row['step'] > 3]
  found = rows_of(tmp_path / 'second')
  assert [row['step'] for row in found] == [4, 5, 6]
  for one, other in zip(found, expected, strict=True):
    assert one['train/loss'] == pytest.approx(other['train/loss'], rel=1e-4)
    assert one['train/param_norm'] == pytest.approx(other['train/param_norm'], rel=1e-5)
  assert found[-1]['test/loss'] == pytest.approx(expected[-1]['test/loss'], rel=1e-4)


def test_cell_to_start_from_is_missing_or_another(tiny_config, tmp_path):
  config = tiny_config({'init.cell': 'first'})
  with pytest.raises(UserError, match=r'init\.cell=first has not been trained'):
    train(config, tmp_path / 'own')
  train(tiny_config(), tmp_path / 'first')
  wider = tiny_config({'init.cell': 'first', 'model.width': 8})
  with pytest.raises(
    UserError, match=r'BatchNorm_0/mean is \[.*\] there and \[.*\] here'
  ):
    train(wider, tmp_path / 'wider')
  more = tiny_config({'init.cell': 'first', 'init.head': 'kept', 'data.num_classes': 9})
  more.data.made_up_train = 65
  with pytest.raises(UserError, match=r'has other classes: 10: .*; use init.head=new'):
    train(more, tmp_path / 'more')
  absent = tiny_config({'init.cell': 'first', 'init.part': 'state', 'init.step': 5})
  with pytest.raises(UserError, match='no checkpoint 5'):
    train(absent, tmp_path / 'absent')


def test_branch_of_a_run_ends_as_the_run_that_went_there(tiny_config, tmp_path):
  """A constant rate and a cooldown: branching off changes nothing, to the bit."""
  steady = {
    'optim.schedule': 'constant',
    'optim.warmup_fraction': 0.0,
    'optim.warmup_steps': 2,
    'train.ema_decay': 0.9,
  }
  trunk = tiny_config(steady | {'checkpoint.keep_steps': (6,)})
  train(trunk, tmp_path / 'trunk')
  short = steady | {'train.steps': 9, 'optim.cooldown_fraction': 1 / 3}
  train(tiny_config(short), tmp_path / 'whole')
  branch = short | {'init.cell': 'trunk', 'init.part': 'state', 'init.step': 6}
  config = tiny_config(branch)
  train(config, tmp_path / 'branch')
  whole = [row for row in rows_of(tmp_path / 'whole') if row['step'] > 6]
  assert rows_of(tmp_path / 'branch') == whole
  found, expected = (
    state_of(tiny_config(short), tmp_path / name) for name in ('branch', 'whole')
  )
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  # Resumed, it does not begin anew.
  train(config, tmp_path / 'branch')
  assert_same_run(config, tmp_path / 'branch', tmp_path / 'branch')


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'init.step': 5}, 'init.step=5 needs init.cell'),
    ({'init.part': 'state'}, 'init.part=state needs init.cell'),
    ({'init.cell': 'a', 'init.file': 'b'}, 'both say what to start from'),
    (
      {'init.cell': 'a', 'init.part': 'state', 'init.step': 12},
      'not before the end of the run',
    ),
    ({'transfer.source': 'digit'}, 'Did you mean "digits"'),
    (DIGITS | {'transfer.shots': (0, 1)}, 'must be above 0'),
    (DIGITS | {'transfer.num_classes': 11}, '11 but digits has 10'),
  ],
)
def test_what_cannot_be_is_refused(tiny_config, tmp_path, fields, message):
  with pytest.raises(UserError, match=message):
    train(tiny_config(fields), tmp_path)
