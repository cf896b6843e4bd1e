"""A run that was stopped, killed, damaged or moved ends as one that nothing disturbed."""

import gc
import json
import logging
import pathlib
import shutil
import signal
import time

import numpy as np
import pytest
from runs import (
  SCHEDULE,
  assert_same_run,
  child_of,
  rows_of,
  saved_steps,
  state_of,
  stop_after,
)

from scaling import metrics
from scaling.errors import Stopped, UserError
from scaling.train import train

# Orbax leaves these behind when it gives up on a broken checkpoint.
pytestmark = [
  pytest.mark.filterwarnings('ignore:coroutine .PyTreeHandler:RuntimeWarning'),
  pytest.mark.filterwarnings(
    'ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning'
  ),
]

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


def test_a_manifest_says_what_else_made_a_cell(config, tmp_path):
  path = tmp_path / 'manifest.json'

  def go_on(calls, **made_by):
    if path.exists():
      path.write_text(json.dumps(json.loads(path.read_text()) | made_by))
    with pytest.raises(Stopped):
      train(config, tmp_path, should_stop=stop_after(calls))
    return json.loads(path.read_text())['earlier']

  assert go_on(1) == []
  assert go_on(1) == []  # by the same, of whom one entry is enough
  (one,) = go_on(1, git_commit='another')
  assert one['git_commit'] == 'another'
  assert 'jax' in one['versions']
  assert go_on(0) == [one]
  assert [made.get('python') for made in go_on(0, python='2.7')] == [
    one['python'],
    '2.7',
  ]
  path.write_text('{"version": ')
  with pytest.raises(UserError, match=r'manifest\.json cannot be read .*delete it'):
    train(config, tmp_path)


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
