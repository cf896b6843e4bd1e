"""Whole studies through the real command: undisturbed, killed, stopped, short of disk."""

import json
import os
import pathlib
import random
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from studies import (
  PATIENCE,
  alive,
  assert_same_checkpoints,
  children,
  killed,
  metrics,
  num_done,
  num_rows,
  results,
  statuses,
  wait_for,
)

from experiments.launch import local

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def reference(run, tiny_file, tmp_path_factory) -> pathlib.Path:
  """An undisturbed study, by two workers."""
  workdir = tmp_path_factory.mktemp('reference') / 'new' / 'study'
  done = run('study', f'--config={tiny_file}', f'--workdir={workdir}', '--workers=2')
  assert done.returncode == 0, done.stderr
  return workdir


def test_study_trains_and_reports_and_then_has_nothing_to_do(reference, run, tiny_file):
  report = reference / 'report'
  names = {path.name for path in report.iterdir()}
  assert {'results.csv', 'fits.csv', 'report.html', 'report.md'} <= names
  for suffix in ('.png', '.svg'):
    assert any(name.endswith(suffix) for name in names)
  assert all(path.stat().st_size for path in report.iterdir())
  assert {row['protocol'] for row in results(reference)} == {'steps'}
  assert {row['num_images'] for row in results(reference)} == {'30', '90', '300'}

  before = (report / 'results.csv').read_bytes()
  again = run('study', f'--config={tiny_file}', f'--workdir={reference}')
  assert again.returncode == 0
  assert 'nothing to do' in again.stdout
  assert (report / 'results.csv').read_bytes() == before


def test_two_undisturbed_studies_are_equal(reference, run, tiny_file, tmp_path):
  # By one worker, where the reference had two: who trains a cell must not show in it.
  words = (f'--config={tiny_file}', f'--workdir={tmp_path}', '--config.seed=0')
  assert run('study', *words, '--workers=1').returncode == 0
  assert results(tmp_path) == results(reference, seed=0)
  assert metrics(tmp_path) == metrics(reference)


def test_study_killed_three_times_ends_equal(
  reference, command, run, tiny_file, tmp_path
):
  words = ('study', f'--config={tiny_file}', f'--workdir={tmp_path}', '--workers=2')
  moments = random.Random()
  for num_cells in (0, 2, 4):
    # A cell is given up after three deaths over it, so each kill meets another cell.
    with killed(command(*words)) as process:
      # Rows and not seconds, in which a fast machine would have done the other cells.
      rows = num_rows(tmp_path) + moments.randrange(3)
      wait_for(
        lambda n=num_cells, rows=rows: (
          num_done(tmp_path) >= n and num_rows(tmp_path) > rows
        )
      )
      time.sleep(moments.uniform(0, 0.05))
      workers = children(process.pid)
      # One that finds no cell left to claim has gone.
      left = sum(status['state'] != 'done' for status in statuses(tmp_path))
      assert len(workers) >= min(2, left)
    assert process.returncode == -signal.SIGKILL
  vanished = sum(status['preemptions'] for status in statuses(tmp_path))
  left = sum(status['state'] == 'running' for status in statuses(tmp_path))
  assert vanished + left > 0  # at least one kill fell into a cell

  done = run(*words)
  assert done.returncode == 0, done.stderr
  assert results(tmp_path) == results(reference)
  assert metrics(tmp_path) == metrics(reference)
  assert metrics(tmp_path, seed=1) == metrics(reference, seed=1)
  assert_same_checkpoints(tmp_path, reference)


def test_a_stopped_study_is_resumed_without_its_config_file(
  reference, command, run, tiny_file, tmp_path
):
  file = tmp_path / 'tiny.py'
  file.write_text(tiny_file.read_text())
  workdir = tmp_path / 'study'
  words = ('sweep', f'--config={file}', f'--workdir={workdir}')
  # Of two sweeps, the last of which is stopped.
  assert run(*words, '--config.data.num_images=30').returncode == 0
  process = command(*words, '--workers=1')
  wait_for(lambda: num_done(workdir) >= 3)
  process.send_signal(signal.SIGINT)
  process.communicate(timeout=PATIENCE)
  assert num_done(workdir) < 6
  words = ('resume', f'--workdir={workdir}', '--on=slurm', '--dry_run')
  file.write_text(
    f"{file.read_text()}\n\ndef get_launch():\n  return {{'slurm': {{'time': '1:00'}}}}\n"
  )
  shown = run(*words)
  assert shown.stdout.startswith('cells: 6, programs: 1, workers: 1')
  assert '#SBATCH --time=1:00' in shown.stdout
  file.unlink()
  shown = run(*words)
  assert '--time=' not in shown.stdout
  assert f'{file} is not there: what its get_launch() may say of slurm' in shown.stderr
  done = run('resume', f'--workdir={workdir}', '--workers=2')
  assert done.returncode == 0, done.stderr
  assert run('report', f'--workdir={workdir}').returncode == 0
  assert results(workdir) == results(reference)
  assert metrics(workdir) == metrics(reference)
  assert 'nothing to do' in run('resume', f'--workdir={workdir}').stdout


def test_workers_save_on_sigterm_when_their_launcher_is_gone_and_on_ctrl_c(
  reference, command, run, tiny_file, tmp_path
):
  words = ('study', f'--config={tiny_file}', f'--workdir={tmp_path}', '--config.seed=0')
  words = (*words, '--workers=1')
  with killed(command(*words)) as process:
    wait_for(lambda: num_rows(tmp_path) >= 2)
    (preempted,) = children(process.pid)
    os.kill(preempted, signal.SIGTERM)  # one worker alone: another takes its place
    wait_for(lambda: not alive(preempted))
    begun = num_rows(tmp_path)
    wait_for(lambda: num_rows(tmp_path) > begun)
    workers = children(process.pid)
    assert preempted not in workers
    assert sum(map(alive, workers)) == 1
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(map(alive, workers)))
  first = statuses(tmp_path)
  assert [status['state'] for status in first].count('running') == 0
  assert num_done(tmp_path) < 3  # they left, rather than come to the end

  with killed(command(*words)) as process:
    begun = num_rows(tmp_path)
    wait_for(lambda: num_rows(tmp_path) > begun)
    workers = children(process.pid)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
  assert process.returncode == 130
  assert 'the same command goes on' in err
  assert 'Traceback' not in err
  assert not any(map(alive, workers))
  second = statuses(tmp_path)
  assert {status['state'] for status in second} <= {'done', 'preempted', 'pending'}
  assert not (tmp_path / 'report').exists()  # it was stopped, not finished

  done = run(*words)
  assert done.returncode == 0, done.stderr
  assert [status['state'] for status in statuses(tmp_path)] == ['done'] * 3
  assert sum(status['vanished'] for status in statuses(tmp_path)) == 0
  assert results(tmp_path) == results(reference, seed=0)
  assert metrics(tmp_path) == metrics(reference)


def test_two_sweeps_share_one_folder(reference, command, tiny_file, tmp_path):
  words = ('study', f'--config={tiny_file}', f'--workdir={tmp_path}', '--workers=1')
  with killed(command(*words)) as one, killed(command(*words)) as other:
    for process in (one, other):
      _, err = process.communicate(timeout=PATIENCE)
      assert process.returncode == 0, err
  assert [status['attempts'] for status in statuses(tmp_path)] == [1] * 6
  assert num_done(tmp_path) == 6
  assert results(tmp_path) == results(reference)


def test_cells_that_fail_leave_the_others_alone(reference, run, tiny_file, tmp_path):
  config_file = tmp_path / 'failing.py'
  config_file.write_text(
    tiny_file.read_text()
    + """

def get_sweep():
  return [
    {'data.num_images': 30},
    {'data.num_images': 30, 'optim.lr': 1e30},
    {'data.num_images': 5000},
    {'data.num_images': 90},
  ]
"""
  )
  workdir = tmp_path / 'study'
  ended = run('study', f'--config={config_file}', f'--workdir={workdir}', '--workers=1')
  assert ended.returncode == 1
  assert 'Traceback' not in ended.stderr
  assert '2 done, 2 failed' in ended.stdout
  reasons = {}
  for folder in (workdir / 'cells').iterdir():
    status = json.loads((folder / 'status.json').read_text())
    reasons[folder.name] = status['reason']
    if status['state'] == 'failed':
      assert f'{folder.name}: {status["reason"]}' in ended.stderr
      assert status['reason'] in (folder / 'log.txt').read_text()
      assert folder.name in (workdir / 'report' / 'report.md').read_text()
  diverged, too_large = sorted(
    filter(None, reasons.values()), key=lambda r: '5000' in r
  )
  assert 'optim.lr' in diverged
  assert '1e+30' in diverged
  assert '5000' in too_large
  assert '1438' in too_large or '1,438' in too_large
  good = {name for name, reason in reasons.items() if reason is None}
  assert {row['cell'] for row in results(workdir)} == good
  expected = [row for row in results(reference) if row['cell'] in good]
  found = [
    {name: value for name, value in row.items() if name != 'optim.lr'}  # swept here
    for row in results(workdir)
  ]
  assert found == expected


def test_set_that_is_not_prepared(run, tmp_path):
  words = ('--config=cifar10', '--config.model.depth=20', '--config.seed=0')
  workdir, data_dir = tmp_path / 'study', tmp_path / 'sets'
  ended = run(
    'sweep', *words, f'--workdir={workdir}', f'--data_dir={data_dir}', '--workers=1'
  )
  assert ended.returncode == 1
  assert 'Traceback' not in ended.stderr
  found = statuses(workdir)
  assert [status['state'] for status in found] == ['failed'] * 8
  for status in found:
    assert 'tfds build cifar10 --file_format=array_record' in status['reason']
    assert str(data_dir) in status['reason']
  assert ended.stderr.count('tfds build') == 1  # one line for one reason


@pytest.fixture
def small_disk(tmp_path) -> Iterator[pathlib.Path]:
  """A file system of its own that is too small for a study."""
  folder = tmp_path / 'disk'
  folder.mkdir()
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=400k', 'tmpfs', str(folder)]
  try:
    subprocess.run(mount, check=True, capture_output=True)
  except (OSError, subprocess.CalledProcessError) as error:
    pytest.skip(f'a small file system needs root and mount: {error}')
  try:
    yield folder
  finally:
    subprocess.run(['umount', '-l', str(folder)], check=True)


def test_full_disk(reference, run, tiny_file, small_disk):
  workdir = small_disk / 'study'
  words = ('study', f'--config={tiny_file}', f'--workdir={workdir}', '--config.seed=0')
  full = run(*words, '--workers=1')
  assert full.returncode != 0
  assert 'Traceback' not in full.stderr
  assert 'full' in full.stderr or 'No space left' in full.stderr
  assert num_done(workdir) < 3

  subprocess.run(
    ['mount', '-o', 'remount,size=64m', str(small_disk)], check=True, text=True
  )
  done = run(*words, '--workers=1')
  assert done.returncode == 0, done.stderr
  assert results(workdir) == results(reference, seed=0)
  assert metrics(workdir) == metrics(reference)


def test_read_only_folder(reference, run, command, tiny_file, small_disk):
  def remount(options):
    words = ['mount', '-o', f'remount,{options}', str(small_disk)]
    # Not while a worker still saves its cell there.
    wait_for(lambda: subprocess.run(words, capture_output=True).returncode == 0)

  workdir = small_disk / 'study'
  words = ('study', f'--config={tiny_file}', f'--workdir={workdir}', '--config.seed=0')
  remount('size=64m')
  with killed(command(*words, '--workers=1')):
    wait_for(lambda: num_done(workdir) > 0)
  before = {
    path: path.read_bytes() for path in workdir.glob('cells/*/*') if path.is_file()
  }
  remount('ro')
  refused = run(*words, '--workers=1')
  assert refused.returncode == 2
  assert refused.stderr.count('\n') == 1
  assert (
    f'--workdir={workdir} cannot be written: Read-only file system' in refused.stderr
  )
  seen = run('status', f'--workdir={workdir}')
  assert seen.returncode == 0, seen.stderr
  assert 'done' in seen.stdout
  assert before == {path: path.read_bytes() for path in before}

  remount('rw')
  done = run(*words, '--workers=1')
  assert done.returncode == 0, done.stderr
  assert results(workdir) == results(reference, seed=0)
  assert metrics(workdir) == metrics(reference)


def test_workers_that_cannot_start_are_not_started_for_ever(
  run, tiny_file, tmp_path, environment, monkeypatch
):
  monkeypatch.setitem(environment, 'JAX_PLATFORMS', 'no_such_platform')
  words = (f'--config={tiny_file}', f'--workdir={tmp_path}', '--workers=1')
  ended = run('sweep', *words)
  assert ended.returncode == 2
  (line,) = [row for row in ended.stderr.splitlines() if 'ended early' in row]
  assert 'worker0.log ends with: ' in line
  assert 'no_such_platform' in line
  log = (tmp_path / 'logs' / 'worker0.log').read_text()
  assert (
    log.count('RuntimeError: Unable to initialize backend') == local.MAX_CRASHES + 1
  )
  assert {status['state'] for status in statuses(tmp_path)} <= {'pending'}


def test_a_cell_that_hangs_is_given_up_and_the_others_are_trained(
  run, tiny_file, tmp_path
):
  mirror = tmp_path / 'hang.py'
  mirror.write_text(
    'import contextlib, time\n'
    '@contextlib.contextmanager\n'
    'def mirror(workdir, config):\n'
    '  hangs = config.seed == 1 and config.data.num_images == 30\n'
    '  yield lambda step, row: time.sleep(1000 if hangs else 0)\n'
  )
  workdir = tmp_path / 'study'
  words = (f'--config={tiny_file}', f'--workdir={workdir}', '--workers=1')
  ended = run('sweep', *words, f'--mirror={mirror}', '--stall_seconds=20')
  assert ended.returncode == 1, ended.stderr
  states = [status['state'] for status in statuses(workdir)]
  assert states.count('failed') == 1
  assert states.count('done') == len(states) - 1
  (failed,) = [status for status in statuses(workdir) if status['state'] == 'failed']
  assert failed['failures'] == 2
  assert 'no step for 20 s' in failed['reason']
  assert 'raise --stall_seconds' in failed['reason']
  stacks = [path.read_text() for path in workdir.glob('cells/*-n30-seed1-*/log.txt')]
  assert 'hang.py' in stacks[0]
