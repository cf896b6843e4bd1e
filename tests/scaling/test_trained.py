"""What a cell has learnt, read back: the newest, one by name, and while it trains."""

import gc
import json
import shutil

import jax
import numpy as np
import pytest
from runs import placed, state_of

from scaling import config as config_lib
from scaling import models, sharding, step, trained
from scaling.checkpoint import Checkpoints
from scaling.errors import UserError

# Orbax leaves these behind when it gives up on a broken checkpoint.
pytestmark = [
  pytest.mark.filterwarnings('ignore:coroutine .PyTreeHandler:RuntimeWarning'),
  pytest.mark.filterwarnings(
    'ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning'
  ),
]


@pytest.fixture(autouse=True)
def _collect_garbage():
  """Lets such warnings come up here rather than in some later test."""
  yield
  gc.collect()


def assert_equal(found, expected) -> None:
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    assert isinstance(a, np.ndarray)
    np.testing.assert_array_equal(a, b)


def make_cell(folder, config, seed=1):
  """Writes a cell with a checkpoint of random numbers at step 3; returns its state."""
  rng = np.random.default_rng(seed)
  mesh = sharding.make_mesh()
  shapes = jax.eval_shape(
    lambda key: models.unstack(step.init(config, key)), jax.random.key(0)
  )
  state = jax.tree.map(
    lambda like: jax.device_put(
      np.asarray(
        3 if like.dtype == np.int32 else rng.normal(size=like.shape), like.dtype
      ),
      like.sharding,
    ),
    placed(shapes, mesh),
  )
  folder.mkdir()
  text = json.dumps(config_lib.plain(config))
  (folder / 'config.json').write_text(text)
  checkpoints = Checkpoints(folder / 'checkpoints', 2)
  checkpoints.save(state, {'train': 1.0})
  checkpoints.close()
  return state


def test_the_newest_checkpoint_or_the_one_asked_for(config, undisturbed):
  state = state_of(config, undisturbed)
  newest = {'params': state.params, 'batch_stats': state.batch_stats}
  found_config, variables = trained.load(undisturbed)
  assert config_lib.identity(found_config) == config_lib.identity(config)
  assert_equal(variables, newest)
  assert_equal(trained.load(undisturbed, 12)[1], newest)
  older = trained.load(undisturbed, 9)[1]
  assert not np.array_equal(
    older['params']['head']['kernel'], newest['params']['head']['kernel']
  )


def test_running_means_where_the_cell_has_them(tiny_config, tmp_path):
  config = tiny_config({'train.ema_decay': 0.9})
  state = make_cell(tmp_path / 'cell', config)
  assert_equal(trained.load(tmp_path / 'cell')[1], state.ema)


@pytest.mark.parametrize(
  'network',
  [
    {'model.depth': 14, 'model.scan': True},
    {'model.name': 'vit', 'model.patch_size': 4, 'model.depth': 1, 'model.width': 64},
  ],
)
def test_any_network_in_the_layout_of_single_blocks(network, tiny_config, tmp_path):
  config = tiny_config(network)
  state = make_cell(tmp_path / 'cell', config)
  variables = trained.load(tmp_path / 'cell')[1]
  assert_equal(variables, {'params': state.params, 'batch_stats': state.batch_stats})
  if config.model.scan:
    variables = models.stack(variables)
  images = np.zeros((1, 8, 8, 1), np.float32)
  apply = models.build(config).apply
  assert jax.eval_shape(lambda v: apply(v, images, False)[0], variables).shape == (
    1,
    10,
  )


def test_reading_leaves_the_folder_of_a_running_cell_alone(
  config, undisturbed, tmp_path, caplog
):
  shutil.copytree(undisturbed, tmp_path / 'cell')
  folder = tmp_path / 'cell' / 'checkpoints'
  # A save that is under way, and one that broke.
  under_way = folder / '13.orbax-checkpoint-tmp'
  under_way.mkdir()
  (folder / '12' / '_CHECKPOINT_METADATA').write_text('{')
  before = sorted(path for path in tmp_path.rglob('*'))
  variables = trained.load(tmp_path / 'cell')[1]
  assert 'checkpoint 12 cannot be read' in caplog.text
  assert_equal(variables, trained.load(undisturbed, 9)[1])
  assert sorted(path for path in tmp_path.rglob('*')) == before
  with pytest.raises(UserError, match=r'checkpoint 12 cannot be read \(.*no other'):
    trained.load(tmp_path / 'cell', 12)


def test_what_is_not_there_is_named(undisturbed, tmp_path):
  with pytest.raises(UserError, match=f'^{tmp_path} is no cell: it has no config.json'):
    trained.load(tmp_path)
  shutil.copy(undisturbed / 'config.json', tmp_path)
  with pytest.raises(UserError, match='has no checkpoint yet; train the cell first'):
    trained.load(tmp_path)
  with pytest.raises(UserError, match='has no checkpoint 7; use 12, 9'):
    trained.load(undisturbed, 7)
  shutil.copytree(undisturbed / 'checkpoints', tmp_path / 'checkpoints')
  other = json.loads((tmp_path / 'config.json').read_text())
  other['model']['width'] = 8
  (tmp_path / 'config.json').write_text(json.dumps(other))
  with pytest.raises(UserError, match='holds another network: params/'):
    trained.load(tmp_path)


def test_checkpoints_that_are_not_what_was_saved(undisturbed, tmp_path):
  assert trained.broken(undisturbed) == {}
  cell = tmp_path / 'cell'
  shutil.copytree(undisturbed, cell)
  data = max(
    (cell / 'checkpoints/9').rglob('d/*'), key=lambda path: path.stat().st_size
  )
  content = bytearray(data.read_bytes())
  content[len(content) // 2] ^= 1
  data.write_bytes(content)
  (cell / 'checkpoints/12/_CHECKPOINT_METADATA').write_text('{')
  found = trained.broken(cell)
  assert found.keys() == {9, 12}
  assert all(found.values())
  shutil.rmtree(cell / 'checkpoints')
  assert trained.broken(cell) == {}
