"""Training a cell: that a stop, a kill or a second call changes nothing, and errors."""

import gc
import json
import logging
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from configs import digits
from scaling import config as config_lib
from scaling import metrics, sharding, step
from scaling.checkpoint import Checkpoints
from scaling.errors import DivergedError, Stopped, UserError
from scaling.train import train

# Orbax leaves these behind when it gives up on a broken checkpoint.
pytestmark = [
  pytest.mark.filterwarnings('ignore:coroutine .PyTreeHandler:RuntimeWarning'),
  pytest.mark.filterwarnings(
    'ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning'
  ),
]

# Rows at 2, 4, ...; tests at 0, 4, 8, 12; saves at 3, 6, 9, 12 and where it stops.
SCHEDULE = {'log.eval_every_steps': 4, 'checkpoint.every_steps': 3}


def stop_after(calls: int):
  """Returns a `should_stop` that says so when asked for the time after `calls`."""
  answers = iter([False] * calls)
  return lambda: next(answers, True)


def rows_of(workdir: pathlib.Path) -> list[dict]:
  """Returns the rows without what differs between runs."""
  return [
    {key: value for key, value in row.items() if not key.startswith('time/')}
    for row in metrics.read_rows(workdir / 'metrics.jsonl')
  ]


def state_of(config, workdir: pathlib.Path) -> step.State:
  """Returns the newest saved state."""
  checkpoints = Checkpoints(workdir / 'checkpoints', config.checkpoint.keep)
  like = jax.eval_shape(lambda: step.init(config, jax.random.key(0)))
  found = checkpoints.restore(like, sharding.replicated(sharding.make_mesh()))
  checkpoints.close()
  assert found is not None
  return found[0]


def assert_same_run(config, workdir: pathlib.Path, reference: pathlib.Path) -> None:
  assert rows_of(workdir) == rows_of(reference)
  found, expected = state_of(config, workdir), state_of(config, reference)
  assert int(found.step) == int(expected.step)
  leaves = jax.tree_util.tree_leaves_with_path(found)
  for (path, a), b in zip(leaves, jax.tree.leaves(expected), strict=True):
    assert np.array_equal(a, b), jax.tree_util.keystr(path)


@pytest.fixture(scope='module')
def config(tiny_config):
  return tiny_config(SCHEDULE)


@pytest.fixture(scope='module')
def undisturbed(config, tmp_path_factory) -> pathlib.Path:
  """The folder of a run that nothing disturbed; not to be changed."""
  workdir = tmp_path_factory.mktemp('undisturbed')
  train(config, workdir)
  return workdir


def test_rows_are_on_schedule(config, undisturbed):
  rows = metrics.read_rows(undisturbed / 'metrics.jsonl')
  assert [row['step'] for row in rows] == [0, 2, 4, 6, 8, 10, 12]
  assert [row['step'] for row in rows if 'test/loss' in row] == [0, 4, 8, 12]
  assert [row['step'] for row in rows if 'train/loss' in row] == [2, 4, 6, 8, 10, 12]
  assert all(row['test/num_images'] == 27 for row in rows if 'test/loss' in row)
  assert rows[0]['test/loss'] == pytest.approx(np.log(10), rel=1e-5)  # float32
  for name in ('train', 'input_wait', 'compile', 'eval'):
    seconds = [row[f'time/{name}_seconds'] for row in rows]
    assert seconds == sorted(seconds)
  saved = {path.name for path in (undisturbed / 'checkpoints').iterdir()}
  assert {name for name in saved if name.isdigit()} == {'9', '12'}


def test_tests_that_fall_between_rows_are_rows_of_their_own(tiny_config, tmp_path):
  train(tiny_config({'log.eval_every_steps': 5, 'log.every_steps': 4}), tmp_path)
  rows = rows_of(tmp_path)
  assert [row['step'] for row in rows] == [0, 4, 5, 8, 10, 12]
  assert [row['step'] for row in rows if 'test/loss' in row] == [0, 5, 10, 12]


def test_folder_tells_what_was_run(config, undisturbed):
  saved = json.loads((undisturbed / 'config.json').read_text())
  assert config_lib.identity(saved) == config_lib.identity(config)
  manifest = json.loads((undisturbed / 'manifest.json').read_text())
  assert manifest['steps'] == 12
  assert manifest['examples'] == 12 * 16
  assert manifest['num_full'] == 64
  assert manifest['num_test'] == 27
  assert manifest['num_devices'] == 4
  assert manifest['num_processes'] == 1
  assert manifest['deterministic'] is False
  assert manifest['compiler_options'] == {}
  assert manifest['num_params'] == sum(
    leaf.size for leaf in jax.tree.leaves(state_of(config, undisturbed).params)
  )


def test_a_run_repeats_exactly(config, undisturbed, tmp_path):
  train(config, tmp_path)
  assert_same_run(config, tmp_path, undisturbed)


def test_another_seed_is_another_run(tiny_config, undisturbed, tmp_path):
  train(tiny_config({**SCHEDULE, 'seed': 1}), tmp_path)
  ours, theirs = rows_of(tmp_path), rows_of(undisturbed)
  assert [row['step'] for row in ours] == [row['step'] for row in theirs]
  assert all(
    a['train/loss'] != b['train/loss']
    for a, b in zip(ours[1:], theirs[1:], strict=True)
  )


def test_a_vit_with_adamw_and_mixup_stopped_and_resumed_ends_equal(
  tiny_config, tmp_path
):
  # Has no statistics of batch norm, counts in the optimiser, and draws in every step.
  config = tiny_config(
    {
      **SCHEDULE,
      'model.name': 'vit',
      'model.depth': 1,
      'model.width': 16,
      'model.heads': 2,
      'model.patch_size': 4,
      'train.mixup': 0.3,
      'optim.name': 'adamw',
      'optim.lr': 0.01,
      'optim.schedule': 'rsqrt',
      'optim.cooldown_fraction': 0.5,
    }
  )
  train(config, tmp_path / 'whole')
  with pytest.raises(Stopped, match='saved at step 5 of 12'):
    train(config, tmp_path / 'parts', should_stop=stop_after(5))
  train(config, tmp_path / 'parts')
  assert_same_run(config, tmp_path / 'parts', tmp_path / 'whole')


def test_a_run_stopped_and_resumed_ends_equal(config, undisturbed, tmp_path):
  # Before the first update, where a test is due, between two rows, where a save is due,
  # twice at one step, and where both a test and a row are due.
  for at, calls in ((0, 0), (4, 4), (5, 1), (6, 1), (6, 0), (8, 2)):
    with pytest.raises(Stopped, match=f'saved at step {at} of 12'):
      train(config, tmp_path, should_stop=stop_after(calls))
    assert int(state_of(config, tmp_path).step) == at
  last = train(config, tmp_path)
  assert last['step'] == 12
  assert_same_run(config, tmp_path, undisturbed)


def test_rows_beyond_the_checkpoint_are_written_again(config, undisturbed, tmp_path):
  with pytest.raises(Stopped):
    train(config, tmp_path, should_stop=stop_after(5))
  # As a kill leaves it: rows of updates that no checkpoint holds, the last one torn.
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 6, "train/loss": -1.0}\n{"step": 8, "test/lo')
  train(config, tmp_path)
  assert_same_run(config, tmp_path, undisturbed)


def test_a_test_that_is_missing_at_the_checkpoint_is_run_first(
  config, undisturbed, tmp_path
):
  with pytest.raises(Stopped):
    train(config, tmp_path, should_stop=stop_after(4))
  rows = metrics.read_rows(tmp_path / 'metrics.jsonl')
  assert rows[-1]['step'] == 4
  metrics.cut_rows(tmp_path / 'metrics.jsonl', 3)
  train(config, tmp_path)
  tests = [
    [row | {k: 0 for k in row if k.startswith('train/')} for row in rows_of(folder)]
    for folder in (tmp_path, undisturbed)
  ]
  assert [row['step'] for row in tests[0]] == [row['step'] for row in tests[1]]
  pick = [[r['test/loss'] for r in t if 'test/loss' in r] for t in tests]
  assert pick[0] == pick[1]


# 8 is where it was stopped; at 9 a save is due, which meets the broken one.
@pytest.mark.parametrize('broken', [8, 9])
def test_a_run_goes_on_from_before_a_broken_checkpoint(
  config, undisturbed, tmp_path, caplog, broken
):
  with pytest.raises(Stopped):
    train(config, tmp_path, should_stop=stop_after(broken))
  for path in (tmp_path / 'checkpoints' / str(broken)).rglob('*'):
    if path.is_file():
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  with (
    caplog.at_level(logging.WARNING, 'scaling'),
    pytest.raises(Stopped, match='saved at step 7 of 12'),
  ):
    train(config, tmp_path, should_stop=stop_after(1))
  assert f'checkpoint {broken} cannot be read' in caplog.text
  caplog.clear()  # the log holds the error, and that what Orbax left behind
  gc.collect()
  assert int(state_of(config, tmp_path).step) == 7
  train(config, tmp_path)
  assert_same_run(config, tmp_path, undisturbed)


# Rows at every step; tests at 0, 8, 16, 24; saves at 6, 12, 18, 24 and at the best tests.
HARSH = {
  'train.steps': 24,
  'train.ema_decay': 0.9,
  'log.every_steps': 1,
  'log.eval_every_steps': 8,
  'checkpoint.every_steps': 6,
  'checkpoint.keep': 1,
  'checkpoint.keep_every_steps': 12,
  'checkpoint.best': 'test/loss',
}


def child_of(config, workdir: pathlib.Path, devices: int, **orders) -> subprocess.Popen:
  """Starts a process that trains the cell; see child.py."""
  orders |= {'workdir': str(workdir), 'config': config_lib.plain(config)}
  script = str(pathlib.Path(__file__).with_name('child.py'))
  root = str(pathlib.Path(config_lib.__file__).parents[1])
  return subprocess.Popen(
    [sys.executable, script, json.dumps(orders)],
    env={**os.environ, 'JAX_NUM_CPU_DEVICES': str(devices), 'PYTHONPATH': root},
  )


def saved_steps(workdir: pathlib.Path) -> set[int]:
  names = (path.name for path in (workdir / 'checkpoints').iterdir())
  return {int(name) for name in names if name.isdigit()}


def kill_at_random(config, workdir: pathlib.Path, devices: int, least: int) -> None:
  """Kills a run at any moment after it has written the row of a step."""
  path = workdir / 'metrics.jsonl'
  child = child_of(config, workdir, devices, pause=0.03)
  try:
    deadline = time.monotonic() + 300
    while metrics.last_row(path).get('step', -1) < least:
      assert child.poll() is None, 'the run ended by itself'
      assert time.monotonic() < deadline
      time.sleep(0.01)
    time.sleep(np.random.default_rng().uniform(0, 0.2))  # random indeed: any must do
  finally:
    child.kill()
  assert child.wait() == -signal.SIGKILL


def check_killed_run(config, folder: pathlib.Path, devices: int, kills) -> None:
  """Kills a run at each of the places, lets it end, and compares it to a calm one."""
  reference, workdir = folder / 'reference', folder / 'killed'
  assert child_of(config, reference, devices).wait() == 0
  for kill in kills:
    if kill[0] == 'random':
      kill_at_random(config, workdir, devices, kill[1])
      continue
    assert child_of(config, workdir, devices, die=kill).wait() == -signal.SIGKILL, kill
    if kill[0] == 'save':
      assert list((workdir / 'checkpoints').glob('*orbax-checkpoint-tmp'))
  assert child_of(config, workdir, devices).wait() == 0
  assert_same_run(config, workdir, reference)
  assert saved_steps(workdir) == saved_steps(reference)
  assert not list((workdir / 'checkpoints').glob('*tmp'))


@pytest.mark.slow
@pytest.mark.parametrize(
  ('devices', 'dtype'), [(1, 'bfloat16'), (4, 'float32')], ids=str
)
def test_a_run_killed_again_and_again_ends_equal(tiny_config, tmp_path, devices, dtype):
  config = tiny_config(HARSH | {'model.dtype': dtype})
  # In a test that is due; with its row on disk and its save to come; in two saves, the
  # second with a test in the same step; and anywhere.
  kills = [['test', 8], ['save', 6], ['row', 16], ['random', 17], ['save', 24]]
  check_killed_run(config, tmp_path, devices, kills)


@pytest.mark.soak
@pytest.mark.parametrize('devices', [1, 2, 4])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('parts', [1, 2])
def test_a_long_run_killed_a_dozen_times_ends_equal(
  tiny_config, tmp_path, devices, dtype, parts
):
  fields = {
    'model.dtype': dtype,
    'train.accumulate_steps': parts,
    'train.steps': 96,
    'optim.clip_norm': 1.0,
  }
  rng = np.random.default_rng()
  places = ['test', 'save', 'row', 'random']
  kills = [[str(rng.choice(places)), int(step)] for step in range(4, 88, 7)]
  print(kills)
  check_killed_run(tiny_config(HARSH | fields), tmp_path, devices, kills)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_devices(tiny_config, tmp_path):
  config = tiny_config(SCHEDULE | {'train.ema_decay': 0.9})
  begun, notes = tmp_path / 'begun', tmp_path / 'batches'
  notes.mkdir()
  assert child_of(config, begun, 4, stop_at=6).wait() == 0
  assert int(state_of(config, begun).step) == 6
  runs = {}
  for devices in (4, 2, 1):
    workdir = runs[devices] = tmp_path / str(devices)
    shutil.copytree(begun, workdir)
    note = str(notes / str(devices))
    assert child_of(config, workdir, devices, batches=note).wait() == 0
  expected = rows_of(runs[4])
  assert [row['step'] for row in expected] == [0, 2, 4, 6, 8, 10, 12]
  for devices in (2, 1):
    found = rows_of(runs[devices])
    assert found[:4] == expected[:4]
    for row, other in zip(found[4:], expected[4:], strict=True):
      assert row.keys() == other.keys()
      for name, value in row.items():
        # Sums in another order: six float32 updates, as in test_step, where three give
        # 1e-6; an image that is tested differently would show.
        assert value == pytest.approx(other[name], rel=1e-4), name
    # The state was restored bit by bit, and so is what is fed to it.
    assert (notes / str(devices)).read_text() == (notes / '4').read_text()
  lines = (notes / '4').read_text().splitlines()
  assert [json.loads(line)[0] for line in lines] == list(range(6, 12))


@pytest.fixture
def failing_disk(monkeypatch):
  """Returns a set of steps; what is saved at these meets a limit on file sizes."""
  steps: set[int] = set()
  start = Checkpoints.save
  before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead
  free = resource.getrlimit(resource.RLIMIT_FSIZE)

  def save(self, state, *args):
    limited = int(state.step) in steps
    if limited:
      self.wait()  # for the one before
      resource.setrlimit(resource.RLIMIT_FSIZE, (4000, free[1]))
    try:
      start(self, state, *args)
      if limited:
        self._settle()
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, free)

  monkeypatch.setattr(Checkpoints, 'save', save)
  yield steps
  signal.signal(signal.SIGXFSZ, before)


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(
  config, undisturbed, tmp_path, failing_disk, caplog
):
  failing_disk |= {6}
  with caplog.at_level(logging.WARNING, 'scaling'):
    train(config, tmp_path)
  assert 'checkpoint 6 could not be saved (' in caplog.text
  assert 'its newest checkpoint is step 3; training goes on' in caplog.text
  caplog.clear()
  gc.collect()
  assert_same_run(config, tmp_path, undisturbed)


def test_a_full_disk_at_the_end_is_an_error_that_a_second_call_mends(
  config, undisturbed, tmp_path, failing_disk
):
  failing_disk |= {12}
  with pytest.raises(UserError) as error:
    train(config, tmp_path)
  message = str(error.value)
  assert message.startswith('checkpoint 12 could not be saved (')
  assert 'its newest checkpoint is step 9' in message
  assert 'free some space there and run the same command again' in message
  failing_disk.clear()
  train(config, tmp_path)
  assert_same_run(config, tmp_path, undisturbed)


def test_a_folder_of_checkpoints_that_was_half_deleted_is_gone_on_from(
  config, undisturbed, tmp_path, caplog
):
  with pytest.raises(Stopped):
    train(config, tmp_path, should_stop=stop_after(7))
  checkpoints = tmp_path / 'checkpoints'
  assert saved_steps(tmp_path) == {6, 7}
  shutil.rmtree(checkpoints / '7' / 'state')
  for path in (checkpoints / '7').iterdir():
    path.unlink()
  with (
    caplog.at_level(logging.WARNING, 'scaling'),
    pytest.raises(Stopped, match='saved at step 6 of 12'),
  ):
    train(config, tmp_path, should_stop=stop_after(0))
  assert 'checkpoint 7 cannot be read, trying older' in caplog.text
  shutil.rmtree(checkpoints)  # all of it: a start from nothing
  train(config, tmp_path)
  assert_same_run(config, tmp_path, undisturbed)


def test_the_checkpoints_of_another_network_are_refused(
  tiny_config, config, undisturbed, tmp_path
):
  other = tiny_config({**SCHEDULE, 'optim.name': 'rmsprop'})
  shutil.copytree(undisturbed / 'checkpoints', tmp_path / 'checkpoints')
  with pytest.raises(UserError) as error:
    train(other, tmp_path)
  message = str(error.value)
  assert 'checkpoint 12 in' in message
  assert 'opt_state/1/nu/head/bias is absent there and float32[10] here' in message
  assert '--workdir' in message


def test_best_and_whole_multiples_are_saved_and_stay(tiny_config, tmp_path):
  fields = {
    'log.eval_every_steps': 3,
    'checkpoint.keep': 1,
    'checkpoint.keep_every_steps': 5,
    'checkpoint.best': 'test/loss',
  }
  train(tiny_config(fields), tmp_path)
  losses = {
    row['step']: row['test/loss'] for row in rows_of(tmp_path) if 'test/loss' in row
  }
  assert set(losses) == {0, 3, 6, 9, 12}
  assert saved_steps(tmp_path) == {5, 10, 12, min(losses, key=losses.__getitem__)}


def all_finite(tree) -> bool:
  return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


# 1e38 overflows the norm of the weights at once, before anything good could be saved.
@pytest.mark.parametrize('lr', [1e4, 1e16, 1e19])
def test_divergence_names_its_step_and_a_checkpoint_that_is_good(
  tiny_config, tmp_path, lr
):
  config = tiny_config(
    {
      'optim.lr': lr,
      'checkpoint.every_steps': 1,
      'train.steps': 60,
      'log.every_steps': 1,
    }
  )
  with pytest.raises(DivergedError) as error:
    train(config, tmp_path)
  state = state_of(config, tmp_path)
  saved, message = int(state.step), str(error.value)
  assert f'last good checkpoint: step {saved};' in message
  assert f'at step {saved + 1};' in message
  assert 'optim.lr' in message
  assert all_finite(state.params)
  assert all_finite(state.batch_stats)
  assert all_finite(state.opt_state)
  rows = rows_of(tmp_path)
  assert rows[-1]['step'] == saved
  assert all_finite(list(rows[-1].values()))


def test_divergence_without_a_checkpoint_says_so(tiny_config, tmp_path):
  config = tiny_config({'optim.lr': 1e25, 'log.every_steps': 50})
  with pytest.raises(DivergedError, match=r'at step [0-9]+; .*checkpoint: none yet'):
    train(config, tmp_path)
  assert [row['step'] for row in rows_of(tmp_path)] == [0]


def test_the_folder_of_another_config_is_refused(tiny_config, undisturbed):
  before = (undisturbed / 'metrics.jsonl').read_bytes()
  with pytest.raises(UserError) as error:
    train(tiny_config({**SCHEDULE, 'optim.lr': 0.25, 'train.steps': 99}), undisturbed)
  message = str(error.value)
  assert 'optim.lr is 0.1 there and 0.25 here' in message
  assert str(undisturbed) in message
  assert '--workdir' in message
  assert (undisturbed / 'metrics.jsonl').read_bytes() == before


def test_a_finished_cell_is_only_read(config, undisturbed, monkeypatch):
  def refuse(*_, **__):
    raise AssertionError('a finished cell compiles nothing')

  monkeypatch.setattr(step, 'compile_program', refuse)
  before = {
    path: path.read_bytes() for path in undisturbed.rglob('*') if path.is_file()
  }
  row = train(config, undisturbed)
  assert row == metrics.read_rows(undisturbed / 'metrics.jsonl')[-1]
  assert row['step'] == 12
  after = {path: path.read_bytes() for path in undisturbed.rglob('*') if path.is_file()}
  assert after == before


def test_a_cell_that_lost_its_last_row_is_finished_again(config, undisturbed, tmp_path):
  train(config, tmp_path)
  metrics.cut_rows(tmp_path / 'metrics.jsonl', 11)
  row = train(config, tmp_path)
  last = rows_of(undisturbed)[-1]
  expected = {k: v for k, v in last.items() if k == 'step' or k.startswith('test/')}
  assert expected.items() <= row.items()


@pytest.mark.parametrize(('num_images', 'steps'), [(16, 2), (40, 5), (41, 6), (0, 8)])
def test_epochs_are_passes_over_the_subset(tiny_config, tmp_path, num_images, steps):
  fields = {'train.steps': 0, 'train.epochs': 2.0, 'data.num_images': num_images}
  assert train(tiny_config(fields), tmp_path)['step'] == steps


def test_as_many_images_as_there_are_not_are_refused(tiny_config, tmp_path):
  with pytest.raises(UserError, match=r'data\.num_images=65'):
    train(tiny_config({'data.num_images': 65}), tmp_path)


def test_a_bad_config_leaves_no_trace(tiny_config, tmp_path):
  with pytest.raises(UserError, match=r'model.depth=9'):
    train(tiny_config({'model.depth': 9}), tmp_path / 'cell')
  assert not (tmp_path / 'cell').exists()


def test_digits_are_learned(tmp_path):
  config = digits.get_config()
  config.train.steps = 100
  row = train(config, tmp_path)
  # Chance is 0.1. Runs end near 0.97; the margin is for other seeds and devices.
  assert row['test/top1'] > 0.9
  assert row['test/loss'] < 0.5
  assert (
    row['train/loss'] < metrics.read_rows(tmp_path / 'metrics.jsonl')[1]['train/loss']
  )


def write_folder(root: pathlib.Path, num: int) -> None:
  """Writes `num` grey PNGs of 20 x 24 pixels for each of ten classes, and two tests."""
  from PIL import Image

  rng = np.random.default_rng(0)
  for part, count in (('train', num), ('test', 2)):
    for label in range(10):
      (root / part / f'class{label}').mkdir(parents=True)
      for i in range(count):
        pixels = rng.integers(0, 20, (20, 24)) + 23 * label
        image = Image.fromarray(pixels.astype(np.uint8))
        image.save(root / part / f'class{label}' / f'{i}.png')


# With ten classes, one channel and the crop on the host, as all above for the compiler.
@pytest.fixture
def folder_config(tiny_config):
  return tiny_config(
    {
      'data.source': 'folder',
      'data.name': 'mine',
      'data.min_crop_area': 0.3,
      'data.num_images': 0,
      **SCHEDULE,
    }
  )


def test_a_folder_of_images_trains_and_resumes(folder_config, tmp_path):
  write_folder(tmp_path / 'images', 4)
  data_dir = str(tmp_path / 'images')
  before = step._compile.cache_info().misses
  row = train(folder_config, tmp_path / 'whole', data_dir=data_dir)
  assert (row['step'], row['test/num_images']) == (12, 20)
  assert step._compile.cache_info().misses <= before + 1
  with pytest.raises(Stopped):
    train(
      folder_config, tmp_path / 'cell', data_dir=data_dir, should_stop=stop_after(5)
    )
  train(folder_config, tmp_path / 'cell', data_dir=data_dir)
  assert_same_run(folder_config, tmp_path / 'cell', tmp_path / 'whole')


@pytest.mark.parametrize('part', ['train', 'test'])
def test_a_broken_image_is_named(folder_config, tmp_path, part):
  write_folder(tmp_path / 'images', 4)
  broken = tmp_path / 'images' / part / 'class3' / '1.png'
  broken.write_bytes(broken.read_bytes()[:80])
  with pytest.raises(UserError) as error:
    train(folder_config, tmp_path / 'cell', data_dir=str(tmp_path / 'images'))
  assert str(broken) in str(error.value)
  assert 'mend it' in str(error.value)


def test_tensorboard_is_written_beside_the_rows(tiny_config, tmp_path):
  train(tiny_config(), tmp_path, tensorboard=True)
  events = list((tmp_path / 'tensorboard').glob('events.out.tfevents*'))
  assert len(events) == 1
  assert b'test/top1' in events[0].read_bytes()
