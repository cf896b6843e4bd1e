"""One study on every engine that runs here: a broken cell, a kill, and the same table."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator

import pytest
import slurm_cluster
from studies import COMMAND, holders, killed, results, statuses, wait_for

pytestmark = pytest.mark.slow

# Twelve cells, of which one asks for more images than there are.
SWEEP = """

def get_sweep():
  cells = [
    {'data.num_images': num_images, 'seed': seed}
    for num_images, seed in itertools.product((30, 60, 90, 120), (0, 1, 2))
  ]
  return [*cells[:5], {'data.num_images': 5000}, *cells[6:]]
"""
# Sums over another number of threads may differ in the last bit, so a worker has both
# cores everywhere.
ENGINES = {
  'local': ('--workers=1',),
  'ray': ('--on=ray', '--workers=1', '--option=num_cpus=2'),
  'slurm': ('--on=slurm', '--workers=2', '--option=cpus-per-task=2'),
}


@pytest.fixture(scope='module')
def words(tiny_file, tmp_path_factory) -> tuple[str, ...]:
  config_file = tmp_path_factory.mktemp('config') / 'twelve.py'
  config_file.write_text(tiny_file.read_text() + SWEEP)
  return (
    f'--config={config_file}',
    '--config.train.steps=60',
    '--config.checkpoint.every_steps=20',
  )


@pytest.fixture(scope='module')
def reference(run, words, tmp_path_factory) -> pathlib.Path:
  """The study on this machine without a kill."""
  workdir = tmp_path_factory.mktemp('reference')
  done = run('study', *words, f'--workdir={workdir}', *ENGINES['local'])
  assert done.returncode == 1  # for the broken cell
  assert sum(status['preemptions'] for status in statuses(workdir)) == 0
  return workdir


@contextlib.contextmanager
def ready(engine: str, environment: dict[str, str]) -> Iterator[dict[str, str]]:
  """Yields the environment of a command that finds the engine; skips without it."""
  if engine == 'slurm':
    if reason := slurm_cluster.missing():
      pytest.skip(reason)
    with slurm_cluster.cluster(environment) as made:
      yield made.environment
  elif engine == 'ray':
    pytest.importorskip('ray', reason="needs Ray: pip install 'scaling[ray]'")
    folder = tempfile.mkdtemp(prefix='scaling-')  # a short path, for its sockets
    yield environment | {'TMPDIR': folder}
    shutil.rmtree(folder)
  else:
    yield environment


@pytest.mark.parametrize('engine', ENGINES)
def test_a_broken_cell_and_a_kill_leave_the_same_table(
  engine, reference, run, words, environment, tmp_path
):
  with ready(engine, environment) as env:
    command = [*COMMAND, 'sweep', *words, f'--workdir={tmp_path}', *ENGINES[engine]]
    started = subprocess.Popen(
      command, env=env, stdout=subprocess.DEVNULL, start_new_session=True
    )
    with killed(started):
      wait_for(lambda: holders(tmp_path))
      os.kill(holders(tmp_path)[0], signal.SIGKILL)
      wait_for(
        lambda: sum(s['state'] in ('done', 'failed') for s in statuses(tmp_path)) == 12
      )
      # One that hands its jobs over and leaves has seen no failure.
      assert started.wait() == (0 if engine == 'slurm' else 1)
  found = {state: [] for state in ('done', 'failed')}
  for status in statuses(tmp_path):
    found[status['state']].append(status)
  assert len(found['done']) == 11
  (failed,) = found['failed']
  assert (failed['attempts'], failed['failures']) == (2, 2)
  assert '5000' in failed['reason']
  assert sum(status['attempts'] for status in found['done']) == 12
  assert sum(status['preemptions'] for status in found['done']) == 1
  assert sum(status['failures'] for status in found['done']) == 0
  assert run('report', f'--workdir={tmp_path}').returncode == 0
  assert len({row['cell'] for row in results(reference)}) == 11
  assert results(tmp_path) == results(reference)
