"""Sweeps whose workers train several cells in one program."""

import json
import logging
import os
import signal
import threading

import pytest
from studies import assert_same_checkpoints, holders, killed, metrics, wait_for

from experiments import packs, worker
from experiments.orders import Orders
from scaling import packing, processes

pytestmark = pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')


@pytest.fixture(scope='module')
def packed(run, tiny_file, tmp_path_factory):
  """The folder of a study that one worker trained, two cells at a time."""
  workdir = tmp_path_factory.mktemp('packed')
  words = (f'--config={tiny_file}', f'--workdir={workdir}', '--workers=1', '--pack=2')
  found = run('sweep', *words)
  assert found.returncode == 0, found.stderr
  return workdir


def test_a_packed_study_is_as_any_other(run, tiny_file, packed, tmp_path):
  words = (f'--config={tiny_file}', f'--workdir={tmp_path}', '--workers=1')
  assert run('sweep', *words).returncode == 0
  for seed in (0, 1):
    alone = metrics(tmp_path, seed)
    for name, rows in metrics(packed, seed).items():
      for row, expected in zip(rows, alone[name], strict=True):
        assert row == pytest.approx(expected, rel=1e-3, abs=3e-3)
  assert run('report', f'--workdir={packed}').returncode == 0


def test_each_cell_has_a_log_of_its_own(packed):
  for cell in (packed / 'cells').iterdir():
    log = (cell / 'log.txt').read_text()
    assert log.count('cell ') == log.count(f'cell {cell.name}') == 1
    assert log.count(' step 20/20') == 1
    assert log.rstrip().endswith('done')


def test_killed_it_goes_on_exactly(command, run, tiny_file, packed, tmp_path):
  words = (f'--config={tiny_file}', f'--workdir={tmp_path}', '--workers=1', '--pack=2')
  with killed(command('sweep', *words)) as sweep:
    wait_for(lambda: holders(tmp_path) or sweep.poll() is not None)
    for pid in set(holders(tmp_path)):
      os.kill(pid, signal.SIGKILL)
    sweep.communicate()
  assert run('sweep', *words).returncode in (0, 2)  # done already, or now
  assert_same_checkpoints(tmp_path, packed)
  assert metrics(tmp_path) == metrics(packed)


@pytest.mark.parametrize(
  'words', ['--processes=2', '--model_devices=2', '--fsdp'], ids=lambda word: word[2:]
)
def test_many_on_a_device_and_one_on_many_exclude_each_other(
  error, tiny_file, tmp_path, words
):
  said = error(
    'sweep', f'--config={tiny_file}', f'--workdir={tmp_path}', '--pack=2', words
  )
  assert '--pack=2' in said
  assert not list(tmp_path.iterdir())


def test_nobody_is_packed_on_a_cpu_unasked(tmp_path, monkeypatch):
  assert packs.choose(tmp_path, Orders([])) is None
  asked = packs.choose(tmp_path, Orders([], pack=3))
  assert asked is not None
  assert asked.size == 3
  monkeypatch.setattr(processes, 'device_kind', lambda: 'TPU v5e')
  found = packs.choose(tmp_path, Orders([]))
  assert found is not None
  assert found.size == packs.SIZE
  for orders in (
    Orders([], pack=1),
    Orders([], fsdp=True),
    Orders([], model_devices=2),
  ):
    assert packs.choose(tmp_path, orders) is None


def test_the_gain_is_measured_once_for_a_study(tmp_path):
  measured = []

  def measure(gain):
    measured.append(gain)
    return gain

  assert packs.gain(tmp_path, 'one', lambda: measure(1.5)) == 1.5
  assert packs.gain(tmp_path, 'one', lambda: measure(0.5)) == 1.5
  assert packs.gain(tmp_path, 'other', lambda: measure(0.5)) == 0.5
  assert measured == [1.5, 0.5]
  paths = (tmp_path / 'packing').iterdir()
  told = [json.loads(path.read_text()) for path in paths]
  assert {one['device_kind'] for one in told} == {'cpu'}


def test_an_error_of_one_thread_has_the_others_save_and_is_raised(
  monkeypatch, tmp_path
):
  stop = threading.Event()
  calls = []

  def work_alone(cells, orders, stop, pack):
    calls.append(pack.size)
    if len(calls) == 1:
      raise OSError('no space')
    assert stop.wait(60)
    return worker.STOPPED

  monkeypatch.setattr(worker, 'work_alone', work_alone)
  with pytest.raises(OSError, match='no space'):
    worker.work_side_by_side([], Orders([]), stop, packing.Pack(3))
  assert calls == [3, 3, 3]


def test_records_of_threads_beside_are_left_out_of_a_log(tmp_path):
  path = tmp_path / 'log.txt'

  def log(text):
    worker.LOG.warning(text)

  with worker._logged_to(path):
    for name in ('cell_1', 'prefetch_0'):
      thread = threading.Thread(target=log, args=(f'of {name}',), name=name)
      thread.start()
      thread.join()
    logging.getLogger('scaling').warning('own')
  assert [line.split(' ', 2)[2] for line in path.read_text().splitlines()] == [
    'of prefetch_0',
    'own',
  ]


def test_metrics_that_cannot_go_elsewhere_are_refused_before_anything_starts(
  error, tiny_file, tmp_path, monkeypatch
):
  words = ('sweep', f'--config={tiny_file}', f'--workdir={tmp_path}')
  assert 'gone.py' in error(*words, f'--mirror={tmp_path / "gone.py"}')
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  assert 'pip install' in error(*words, '--tensorboard')
  assert not list(tmp_path.iterdir())
