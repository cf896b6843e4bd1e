"""Saving and restoring: every bit, on other devices, and past broken files."""

import gc
import logging
import math
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from runs import placed

from scaling import checkpoint, leaves, sharding
from scaling.checkpoint import Checkpoints
from scaling.errors import UserError
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
      'large': rng.normal(size=(128, leaves.SMALL_BYTES // 512)).astype(np.float32),
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
  found = checkpoints.restore(placed(like, mesh))
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


def test_one_with_an_array_for_each_leaf_is_read_as_before(folder, mesh):
  about = {'seconds': SECONDS, 'leaves': leaves.describe(make_state(7, mesh))}
  about['crc32'] = checkpoint._checksum_text(about)
  with ocp.training.Checkpointer(folder) as older:
    state = {'state': make_state(7, mesh)}
    older.save_checkpointables(7, state, custom_metadata=about)
  state, seconds = restore(folder, mesh)
  assert_same_bits(state, make_state(7, mesh))
  assert seconds == SECONDS


def test_only_the_newest_are_kept(folder, mesh):
  save(folder, mesh, [1, 2, 5, 9], keep=2)
  names = {path.name for path in folder.iterdir()}
  assert {name for name in names if name.isdigit()} == {'5', '9'}
  checkpoints = Checkpoints(folder, 2)
  assert checkpoints.latest_step == 9
  checkpoints.close()


def kept(folder: pathlib.Path) -> set[int]:
  return {int(path.name) for path in folder.iterdir() if path.name.isdigit()}


def test_those_of_whole_multiples_stay_too(folder, mesh):
  checkpoints = Checkpoints(folder, 1, keep_every_steps=4)
  for step in (2, 4, 6, 8, 9, 10):
    checkpoints.save(make_state(step, mesh), SECONDS)
  checkpoints.close()
  assert kept(folder) == {4, 8, 10}


def test_the_best_stays_as_long_as_it_is_the_best(folder, mesh):
  checkpoints = Checkpoints(folder, 1)
  scores = {}
  # After each save: the best so far that was saved, and the newest. Step 4 only equals 2,
  # 5 was scored and not saved, 6 could not be scored.
  for step, score, stay in (
    (1, 0.1, {1}),
    (2, 0.5, {2}),
    (3, 0.2, {2, 3}),
    (4, 0.5, {2, 4}),
    (6, -math.inf, {2, 6}),
    (7, 0.6, {7}),
    (8, 0.1, {7, 8}),
  ):
    scores |= {step: score, 5: 0.9}
    checkpoints.save(make_state(step, mesh), SECONDS, scores)
    checkpoints.wait()
    assert kept(folder) == stay, step
  checkpoints.close()


def test_a_state_that_is_spread_over_devices_is_verified_whole(folder, mesh):
  state = make_state(5, mesh)
  kernel = np.arange(48, dtype=np.float32).reshape(8, 6)
  state.params['a']['kernel'] = jax.device_put(kernel, sharding.split_batch(mesh))
  checkpoints = Checkpoints(folder, 1)
  checkpoints.save(state, SECONDS)
  like = jax.eval_shape(lambda: state)
  found = checkpoints.restore(placed(like, mesh))
  checkpoints.close()
  assert found is not None
  assert_same_bits(found[0], state)


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


def files_of(folder: pathlib.Path, step: int) -> list[pathlib.Path]:
  """Returns the files of a checkpoint, the one with the array data last."""
  files = [path for path in (folder / str(step)).rglob('*') if path.is_file()]
  return sorted(files, key=lambda path: ('/d/' in str(path), path.stat().st_size))


@pytest.mark.parametrize('where', [0.3, 0.5, 0.9])
def test_a_flipped_bit_is_not_taken_for_a_state(folder, mesh, where, caplog):
  # Random bits, which no compression stores with redundancy; step 2 has no such leaf.
  noise = np.random.default_rng(0).integers(0, 2**32, 50_000, np.uint32)
  state = make_state(4, mesh)
  state.batch_stats['count'] = jax.device_put(noise, sharding.replicated(mesh))
  state.params['large'] = jnp.zeros_like(state.params['large'])  # next to no bytes
  save(folder, mesh, [2])
  checkpoints = Checkpoints(folder, 10)
  checkpoints.save(state, SECONDS)
  checkpoints.close()
  data = files_of(folder, 4)[-1]
  assert data.stat().st_size > 100_000
  content = bytearray(data.read_bytes())
  content[int(where * len(content))] ^= 1
  data.write_bytes(content)

  checkpoints = Checkpoints(folder, 10)
  with (
    caplog.at_level(logging.WARNING, 'scaling'),
    pytest.raises(UserError, match='holds another network'),
  ):
    checkpoints.restore(placed(jax.eval_shape(lambda: state), mesh))
  checkpoints.close()
  assert 'checkpoint 4 cannot be read' in caplog.text
  assert 'batch_stats/count is not what was saved' in caplog.text


@pytest.mark.parametrize('how', ['flip', 'delete'])
def test_damage_to_any_one_file_is_harmless_or_noticed(folder, mesh, how, caplog):
  save(folder, mesh, [2, 4])
  noticed = 0
  for i, file in enumerate(files_of(folder, 4)):
    copy = folder.with_name(f'copy{i}')
    shutil.copytree(folder, copy)
    path = copy / file.relative_to(folder)
    caplog.clear()
    with caplog.at_level(logging.WARNING, 'scaling'):
      if how == 'flip':
        path.write_bytes(
          bytes(byte ^ (i % 7 == 3) for i, byte in enumerate(path.read_bytes()))
        )
      else:
        path.unlink()
      state, _ = restore(copy, mesh)
    assert_same_bits(state, make_state(int(state.step), mesh))
    if int(state.step) == 2:
      assert 'checkpoint 4 cannot be read' in caplog.text
      assert kept(copy) == {2}  # the broken one is cleared away
      noticed += 1
  assert noticed >= 4  # data, its index, and two descriptions


@pytest.mark.parametrize('how', ['truncate', 'garble', 'empty'])
def test_a_run_past_a_broken_checkpoint_can_save_again(folder, mesh, how):
  save(folder, mesh, [2, 4])
  spoil(folder, 4, how)
  checkpoints = Checkpoints(folder, 10)
  like = jax.eval_shape(lambda: make_state(0, mesh))
  state, _ = checkpoints.restore(placed(like, mesh))
  assert int(state.step) == 2
  for step in (3, 4, 5):
    checkpoints.save(make_state(step, mesh), SECONDS)
    checkpoints.wait()
    assert checkpoints.latest_step == step
  checkpoints.close()
  spoil(folder, 5, 'truncate')
  assert_same_bits(restore(folder, mesh)[0], make_state(4, mesh))


@pytest.mark.parametrize('how', ['truncate', 'garble', 'empty'])
def test_when_all_are_broken_the_error_says_how_to_start_over(folder, mesh, how):
  save(folder, mesh, [2, 4])
  for step in (2, 4):
    spoil(folder, step, how)
  with pytest.raises(UserError) as error:
    restore(folder, mesh)
  message = str(error.value)
  assert f'none of the checkpoints 4, 2 in {folder} can be read' in message
  assert 'delete that folder to start over' in message
  assert '\n' not in message
  assert kept(folder) == {2, 4}  # left for a person to look at


@pytest.mark.parametrize(
  ('leaf', 'difference'),
  [
    (np.zeros((3, 6), np.float32), 'is float32[3, 5] there and float32[3, 6] here'),
    (np.zeros((3, 5), np.int32), 'is float32[3, 5] there and int32[3, 5] here'),
    (None, 'is float32[3, 5] there and absent here'),
  ],
)
def test_another_network_is_named_by_its_first_leaf_that_differs(
  folder, mesh, leaf, difference
):
  save(folder, mesh, [2, 4])
  like = make_state(4, mesh)
  like.params['a']['kernel'] = leaf
  like.params['half'] = jnp.zeros(7)  # comes later
  checkpoints = Checkpoints(folder, 10)
  with pytest.raises(UserError) as error:
    checkpoints.restore(placed(like, mesh))
  checkpoints.close()
  message = str(error.value)
  if leaf is not None:
    assert f'params/a/kernel {difference}' in message
  else:  # what is here and differs is named before what is missing here
    assert 'params/half is bfloat16[4] there and float32[7] here' in message
  assert f'checkpoint 4 in {folder}' in message
  assert '--workdir' in message
  assert kept(folder) == {2, 4}


_FULL = """
import logging, pathlib, resource, signal, sys, time
import jax, numpy as np
from scaling import sharding
from scaling.checkpoint import Checkpoints
from scaling.errors import UserError
from scaling.step import State

logging.basicConfig(format='%(message)s', level=logging.WARNING)
whole = sharding.replicated(sharding.make_mesh())

def state(step):
  noise = np.random.default_rng(step).integers(0, 2**32, 50_000, np.uint32)
  return jax.device_put(State(np.int32(step), {'noise': noise}, {}, {}), whole)

def allow(num_bytes):  # in any one file
  resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that the write fails instead
folder = pathlib.Path(sys.argv[1])
checkpoints = Checkpoints(folder, 1)
checkpoints.save(state(1), {})
checkpoints.wait()
allow(20_000)
checkpoints.save(state(2), {})
checkpoints.save(state(3), {})
try:
  checkpoints.wait()
except UserError as error:
  print('RAISED', error)
until = time.monotonic() + 60
while (left := sorted(path.name for path in folder.iterdir())) != ['1']:
  assert time.monotonic() < until, left  # half of a checkpoint is left to fill the disk
  time.sleep(0.05)
def shape(leaf):
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole)

found, _ = checkpoints.restore(jax.tree.map(shape, state(0)))
assert (np.asarray(found.params['noise']) == np.asarray(state(1).params['noise'])).all()
allow(resource.RLIM_INFINITY)
checkpoints.save(state(4), {})
checkpoints.wait()
checkpoints.close()
print('LEFT', sorted(path.name for path in folder.iterdir()))
"""


def test_a_save_that_cannot_be_written_loses_nothing_and_the_next_may_succeed(folder):
  # A limit on the size of files stands in for a full disk: both fail the write.
  done = subprocess.run(
    [sys.executable, '-c', _FULL, str(folder)],
    capture_output=True,
    text=True,
    check=True,
  )
  for step in (2, 3):
    assert f'checkpoint {step} could not be saved (' in done.stderr
  assert 'File too large' in done.stderr
  assert 'training goes on' in done.stderr
  raised, left = done.stdout.splitlines()
  assert raised.startswith('RAISED checkpoint 3 could not be saved (')
  assert f'{folder} has ' in raised
  assert 'its newest checkpoint is step 1' in raised
  assert 'free some space there and run the same command again' in raised
  assert left == "LEFT ['4']"
