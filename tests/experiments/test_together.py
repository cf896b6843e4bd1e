"""Workers of two processes each, that train a cell together on one machine."""

import os
import pathlib
import signal

import pytest
from studies import (
  PATIENCE,
  alive,
  children,
  killed,
  metrics,
  num_rows,
  statuses,
  wait_for,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def words(tiny_file) -> tuple[str, ...]:
  return (
    'sweep', f'--config={tiny_file}', '--config.seed=0', '--config.train.steps=40',
    '--workers=1', '--processes=2',
  )  # fmt: skip


@pytest.fixture(scope='module')
def together(run, words, tmp_path_factory) -> pathlib.Path:
  """An undisturbed sweep."""
  workdir = tmp_path_factory.mktemp('together') / 'study'
  done = run(*words, f'--workdir={workdir}')
  assert done.returncode == 0, done.stderr
  return workdir


def test_two_processes_train_what_one_does(together, run, words, tmp_path):
  assert run(*words, f'--workdir={tmp_path}', '--processes=1').returncode == 0
  found, alone = metrics(together), metrics(tmp_path)
  assert found.keys() == alone.keys()
  for name, rows in found.items():
    for row, other in zip(rows, alone[name], strict=True):
      assert row['step'] == other['step']
      for key, value in row.items():
        # The images are the same, sums are taken in another order; 40 updates.
        assert value == pytest.approx(other[key], rel=1e-2, abs=1e-2), (name, key)


@pytest.mark.parametrize(
  ('who', 'number'),
  [
    (0, signal.SIGKILL),
    (1, signal.SIGKILL),
    (1, signal.SIGTERM),  # preempted: all save at one step, and leave with 75
  ],
)
def test_one_process_is_ended_and_all_go_on_to_the_same_end(
  together, command, words, tmp_path, who, number
):
  with killed(command(*words, f'--workdir={tmp_path}')) as process:
    wait_for(lambda: num_rows(tmp_path) > 3)
    found = sorted(children(process.pid))
    assert len(found) == 2
    os.kill(found[who], number)
    wait_for(lambda: not any(map(alive, found)))
    wait_for(lambda: len(children(process.pid)) == 2)  # started again, both
    _, err = process.communicate(timeout=PATIENCE)
  assert process.returncode == 0, err
  assert metrics(tmp_path) == metrics(together)
  assert sum(status['preemptions'] for status in statuses(tmp_path)) == 1
  assert sum(status['failures'] for status in statuses(tmp_path)) == 0
  log = '\n'.join(path.read_text() for path in tmp_path.glob('cells/*/log.txt'))
  assert ('preempted: saved at step' in log) == (number == signal.SIGTERM)


def test_a_cell_that_fails_has_two_tries_and_the_others_are_trained(
  run, words, tiny_file, tmp_path
):
  config_file = tmp_path / 'failing.py'
  config_file.write_text(
    tiny_file.read_text()
    + """

def get_sweep():
  return [{'data.num_images': 5000}, {'data.num_images': 30}]
"""
  )
  ended = run(
    'sweep', f'--config={config_file}', f'--workdir={tmp_path / "study"}', *words[4:]
  )
  assert ended.returncode == 1
  found = sorted((s['state'], s['attempts']) for s in statuses(tmp_path / 'study'))
  assert found == [('done', 1), ('failed', 2)]
