"""Saving and restoring: every bit, on other devices, and past broken files."""

import gc
import logging
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling import sharding
from scaling.checkpoint import Checkpoints
from scaling.step import State

# Orbax leaves these behind when it gives up on a broken checkpoint.
pytestmark = [
  pytest.mark.filterwarnings('ignore:coroutine .PyTreeHandler:RuntimeWarning'),
  pytest.mark.filterwarnings(
    'ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning'
  ),
]

SECONDS = {'train': 1.5, 'eval': 0.1}


@pytest.fixture(autouse=True)
def _collect_garbage():
  """Lets such warnings come up here rather than in some later test."""
  yield
  gc.collect()


def make_state(step: int, mesh) -> State:
  rng = np.random.default_rng(step)
  odd = np.array([np.nan, -0.0, np.inf, 1e-45, 3.4e38], np.float32)
  state = State(
    step=np.int32(step),
    params={
      'a': {'kernel': rng.normal(size=(3, 5)).astype(np.float32), 'odd': odd},
      'half': rng.normal(size=(4,)).astype(jnp.bfloat16),
    },
    batch_stats={'count': rng.integers(-(2**31), 2**31, 6, dtype=np.int32)},
    opt_state=({'trace': rng.normal(size=(2,)).astype(np.float32)}, ()),
  )
  return jax.device_put(state, sharding.replicated(mesh))


def assert_same_bits(found: State, expected: State) -> None:
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.fixture
def mesh():
  return sharding.make_mesh()


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
  return tmp_path / 'checkpoints'


def save(folder, mesh, steps, keep=10) -> None:
  checkpoints = Checkpoints(folder, keep)
  for step in steps:
    checkpoints.save(make_state(step, mesh), SECONDS | {'train': float(step)})
  checkpoints.close()


def restore(folder, mesh):
  checkpoints = Checkpoints(folder, 10)
  like = jax.eval_shape(lambda: make_state(0, mesh))
  found = checkpoints.restore(like, sharding.replicated(mesh))
  checkpoints.close()
  return found


def spoil(folder: pathlib.Path, step: int, how: str) -> None:
  """Truncates or garbles all files of a checkpoint, or leaves only its folder."""
  files = [path for path in (folder / str(step)).rglob('*') if path.is_file()]
  assert files
  for path in files:
    if how == 'truncate':
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == 'garble':
      path.write_bytes(bytes(byte ^ 0x5A for byte in path.read_bytes()))
    else:
      path.unlink()


def test_nothing_saved_is_nothing_restored(folder, mesh):
  assert restore(folder, mesh) is None
  checkpoints = Checkpoints(folder, 1)
  assert checkpoints.latest_step is None
  checkpoints.close()


def test_every_bit_comes_back_with_the_clock(folder, mesh):
  save(folder, mesh, [7])
  state, seconds = restore(folder, mesh)
  assert_same_bits(state, make_state(7, mesh))
  assert seconds == SECONDS | {'train': 7.0}


@pytest.mark.parametrize(('saved_on', 'restored_on'), [(4, 1), (1, 4), (4, 2)])
def test_another_number_of_devices_reads_it(folder, saved_on, restored_on):
  save(folder, sharding.make_mesh(saved_on), [3])
  mesh = sharding.make_mesh(restored_on)
  state, _ = restore(folder, mesh)
  assert_same_bits(state, make_state(3, mesh))
  for leaf in jax.tree.leaves(state):
    assert leaf.sharding == sharding.replicated(mesh)


def test_only_the_newest_are_kept(folder, mesh):
  save(folder, mesh, [1, 2, 5, 9], keep=2)
  names = {path.name for path in folder.iterdir()}
  assert {name for name in names if name.isdigit()} == {'5', '9'}
  checkpoints = Checkpoints(folder, 2)
  assert checkpoints.latest_step == 9
  checkpoints.close()


def test_the_saved_state_may_be_given_away_at_once(folder, mesh):
  checkpoints = Checkpoints(folder, 1)
  state, expected = make_state(1, mesh), make_state(1, mesh)
  grow = jax.jit(lambda s: jax.tree.map(lambda leaf: leaf + 1, s), donate_argnums=0)
  checkpoints.save(state, SECONDS)
  jax.block_until_ready(grow(state))
  checkpoints.close()
  assert_same_bits(restore(folder, mesh)[0], expected)


@pytest.mark.parametrize('how', ['truncate', 'garble', 'empty'])
def test_past_a_broken_checkpoint_the_one_before_is_used(folder, mesh, how, caplog):
  save(folder, mesh, [2, 4])
  spoil(folder, 4, how)
  with caplog.at_level(logging.WARNING, 'scaling'):
    state, seconds = restore(folder, mesh)
  assert_same_bits(state, make_state(2, mesh))
  assert seconds['train'] == 2.0
  if how != 'empty':  # a folder without files may be no checkpoint to begin with
    assert 'checkpoint 4 cannot be read' in caplog.text


def test_one_flipped_bit_of_data_is_not_taken_for_a_state(folder, mesh):
  save(folder, mesh, [2, 4])
  data = max(
    (path for path in (folder / '4').rglob('*') if path.is_file()),
    key=lambda path: path.stat().st_size if '/d/' in str(path) else 0,
  )
  content = bytearray(data.read_bytes())
  content[len(content) // 2] ^= 1
  data.write_bytes(content)
  state, _ = restore(folder, mesh)
  assert_same_bits(state, make_state(int(state.step), mesh))


@pytest.mark.parametrize('how', ['truncate', 'garble', 'empty'])
def test_a_run_past_a_broken_checkpoint_can_save_again(folder, mesh, how):
  save(folder, mesh, [2, 4])
  spoil(folder, 4, how)
  checkpoints = Checkpoints(folder, 10)
  like = jax.eval_shape(lambda: make_state(0, mesh))
  state, _ = checkpoints.restore(like, sharding.replicated(mesh))
  assert int(state.step) == 2
  for step in (3, 4, 5):
    checkpoints.save(make_state(step, mesh), SECONDS)
    checkpoints.wait()
    assert checkpoints.latest_step == step
  checkpoints.close()
  spoil(folder, 5, 'truncate')
  assert_same_bits(restore(folder, mesh)[0], make_state(4, mesh))


def test_when_all_are_broken_the_error_is_raised(folder, mesh):
  save(folder, mesh, [2, 4])
  for step in (2, 4):
    spoil(folder, step, 'garble')
  with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the storage raises
    restore(folder, mesh)


def test_another_network_is_not_read(folder, mesh):
  save(folder, mesh, [2])
  like = make_state(2, mesh)
  like.params['a']['kernel'] = jnp.zeros((3, 6))
  checkpoints = Checkpoints(folder, 10)
  with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the storage raises
    checkpoints.restore(like, sharding.replicated(mesh))
  checkpoints.close()
