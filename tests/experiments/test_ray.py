"""Studies on real clusters of Ray: killed from every side, they end as if undisturbed."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest
from studies import (
  COMMAND,
  PATIENCE,
  alive,
  children,
  holders,
  killed,
  metrics,
  num_done,
  num_rows,
  paused,
  results,
  statuses,
  wait_for,
)

LOOPBACK = (
  '0100007F',  # 127.0.0.1
  '0000000000000000FFFF00000100007F',  # the same in IPv6
  '00000000000000000000000001000000',  # ::1
)


@pytest.fixture(scope='module')
def environment(environment) -> Iterator[dict[str, str]]:
  """As elsewhere, with a place for what Ray leaves behind when it is killed."""
  pytest.importorskip('ray', reason="needs Ray: pip install 'scaling[ray]'")
  folder = tempfile.mkdtemp(prefix='scaling-')
  yield environment | {'TMPDIR': folder}
  shutil.rmtree(folder)


# Long enough to be disturbed half-way.
STUDY = (
  '--config.train.steps=300',  # long beside the seconds that Ray takes to pass on a stop
  '--config.log.eval_every_steps=150',
  '--config.seed=0',
)


@pytest.fixture(scope='module')
def words(tiny_file) -> tuple[str, ...]:
  return (f'--config={tiny_file}', *STUDY)


@pytest.fixture(scope='module')
def reference(run, words, tmp_path_factory) -> pathlib.Path:
  """The study by workers of this machine, undisturbed."""
  workdir = tmp_path_factory.mktemp('reference')
  done = run('study', *words, f'--workdir={workdir}', '--workers=2')
  assert done.returncode == 0, done.stderr
  return workdir


def assert_equal(workdir: pathlib.Path, reference: pathlib.Path) -> None:
  assert [status['state'] for status in statuses(workdir)] == ['done'] * 3
  assert len(results(reference)) > 3
  assert results(workdir) == results(reference)
  assert metrics(workdir) == metrics(reference)


def descendants(pid: int) -> dict[int, str]:
  """Returns the processes below one, with their command lines."""
  found = {}
  for child in children(pid):
    with contextlib.suppress(OSError):
      text = pathlib.Path(f'/proc/{child}/cmdline').read_text()
      found[child] = text.replace('\0', ' ')
    found |= descendants(child)
  return found


def workers(pid: int) -> dict[int, int]:
  """Returns workers of a study below a process, each with the Ray worker above it."""
  found = {}
  for parent, text in descendants(pid).items():
    if text.startswith('ray::'):
      below = descendants(parent)
      found |= {child: parent for child in below if 'cli worker' in below[child][:99]}
  return {
    child: parent
    for child, parent in found.items()
    if not descendants(parent)[child].startswith('sh ')
  }


def listening(pids: list[int]) -> dict[str, int]:
  """Returns the addresses on which processes listen, as the kernel writes them."""
  sockets = {}
  for name in ('tcp', 'tcp6'):
    for line in pathlib.Path(f'/proc/net/{name}').read_text().splitlines()[1:]:
      fields = line.split()
      if fields[3] == '0A':
        sockets[f'socket:[{fields[9]}]'] = fields[1]
  found = {}
  for pid in pids:
    with contextlib.suppress(OSError):
      for file in pathlib.Path(f'/proc/{pid}/fd').iterdir():
        with contextlib.suppress(OSError):
          if (name := os.readlink(file)) in sockets:
            found[sockets[name]] = pid
  return found


@contextlib.contextmanager
def nothing_left(process: subprocess.Popen) -> Iterator[list[int]]:
  """Yields what runs below a process; at the end of the block it must be gone."""
  below = list(descendants(process.pid))
  yield below
  wait_for(lambda: not any(map(alive, below)))


@pytest.mark.slow
def test_study_by_ray_is_that_of_this_machine_and_no_one_else_can_reach_it(
  reference, command, words, tmp_path
):
  workdir = tmp_path / 'a study'
  heard: dict[str, int] = {}
  with killed(
    command('study', '--on=ray', *words, f'--workdir={workdir}', '--workers=2')
  ) as process:

    def all_work() -> bool:
      heard.update(listening([process.pid, *descendants(process.pid)]))
      return len(workers(process.pid)) == 2 and num_rows(workdir) > 0

    wait_for(all_work)
    with nothing_left(process):
      while process.poll() is None:
        heard.update(listening([process.pid, *descendants(process.pid)]))
      _, err = process.communicate(timeout=PATIENCE)
  assert process.returncode == 0, err
  assert_equal(workdir, reference)
  assert [status['attempts'] for status in statuses(workdir)] == [1] * 3
  assert {path.name for path in (workdir / 'logs').iterdir()} == {
    'ray-0.log',
    'ray-1.log',
  }
  assert len(heard) > 4  # store, scheduler, workers, driver
  assert {address.partition(':')[0] for address in heard} <= set(LOOPBACK)


@pytest.mark.slow
def test_killed_workers_are_followed(reference, command, words, tmp_path):
  with killed(command('study', '--on=ray', *words, f'--workdir={tmp_path}')) as process:
    wait_for(lambda: holders(tmp_path))
    (worker, *_) = holders(tmp_path)
    os.kill(workers(process.pid)[worker], signal.SIGKILL)  # Ray's, above ours
    wait_for(lambda: not alive(worker))
    saved = statuses(tmp_path)  # ours has seen it and saved its cell
    assert sum(status['vanished'] for status in saved) == 0
    assert sum(status['preemptions'] for status in saved) == 1

    wait_for(lambda: set(holders(tmp_path)) - {worker})
    (worker, *_) = set(holders(tmp_path)) - {worker}
    os.kill(worker, signal.SIGKILL)
    _, err = process.communicate(timeout=PATIENCE)
  assert process.returncode == 0, err
  assert sum(status['preemptions'] for status in statuses(tmp_path)) == 2
  assert sum(status['failures'] for status in statuses(tmp_path)) == 0
  assert_equal(tmp_path, reference)


@pytest.mark.slow
def test_started_on_ray_stopped_lost_cancelled_and_finished_here(
  reference, command, run, words, tmp_path
):
  words = (*words, f'--workdir={tmp_path}')
  with killed(command('study', '--on=ray', *words)) as process:
    wait_for(lambda: holders(tmp_path))
    with nothing_left(process):
      os.killpg(process.pid, signal.SIGINT)  # as a terminal does
      _, err = process.communicate(timeout=PATIENCE)
  assert process.returncode == 130
  assert 'the same command goes on' in err
  assert 'Traceback' not in err
  stopped = statuses(tmp_path)
  assert {status['state'] for status in stopped} <= {'done', 'preempted', 'pending'}
  assert sum(status['preemptions'] for status in stopped) > 0

  begun = num_rows(tmp_path)
  with killed(command('study', '--on=ray', *words)) as process:
    wait_for(lambda: num_rows(tmp_path) > begun and holders(tmp_path))
    with nothing_left(process) as below:
      ours = workers(process.pid)
      assert ours
      with paused(ours):  # until Ray has seen that its driver is gone
        process.kill()
        process.wait()
        wait_for(lambda: not any(map(alive, ours.values())))
      wait_for(lambda: not any(map(alive, ours)))
      for pid in filter(
        alive, below
      ):  # Ray's agents would go by themselves in a minute
        with contextlib.suppress(ProcessLookupError):
          os.kill(pid, signal.SIGKILL)
  lost = statuses(tmp_path)
  assert {status['state'] for status in lost} <= {'done', 'preempted', 'pending'}
  assert sum(status['preemptions'] for status in lost) > sum(
    status['preemptions'] for status in stopped
  )

  begun = num_rows(tmp_path)
  with killed(command('sweep', '--on=ray', *words)) as process:
    wait_for(lambda: num_rows(tmp_path) > begun and holders(tmp_path))
    with nothing_left(process):
      with paused(workers(process.pid)):
        assert run('cancel', f'--workdir={tmp_path}').returncode == 0
      out, err = process.communicate(timeout=PATIENCE)
  assert process.returncode == 0, err
  assert 'cancelled' in out
  assert num_done(tmp_path) < 3
  assert {status['state'] for status in statuses(tmp_path)} <= {'done', 'cancelled'}

  done = run('study', *words, '--workers=2')
  assert done.returncode == 0, done.stderr
  assert sum(status['failures'] for status in statuses(tmp_path)) == 0
  assert_equal(tmp_path, reference)


# Two machines as far as Ray can tell; a line on its input takes the second one away.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
store = {'object_store_memory': 80 << 20}
cluster = Cluster(
  initialize_head=True, head_node_args={'num_cpus': 1, 'include_dashboard': False, **store}
)
lost = cluster.add_node(num_cpus=1, **store)
print(cluster.address, flush=True)
if sys.stdin.readline():
  cluster.remove_node(lost, allow_graceful=False)
  print('removed', flush=True)
  sys.stdin.readline()
cluster.shutdown()
"""


@pytest.fixture
def loopback(environment) -> dict[str, str]:
  """The environment of a cluster that keeps to the loopback, and of who joins it."""
  ours = {'RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER': '0', 'RAY_USAGE_STATS_ENABLED': '0'}
  return environment | ours


@pytest.fixture
def cluster(loopback) -> Iterator[tuple[str, subprocess.Popen[str]]]:
  """Yields a cluster of two nodes: its address and the process that made it."""
  process = subprocess.Popen(
    [sys.executable, '-c', CLUSTER],
    env=loopback,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  )
  with killed(process):
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address
    with nothing_left(process):
      yield address, process
      process.communicate(timeout=PATIENCE)  # the end of its input ends it


@pytest.mark.slow
def test_a_lost_node_costs_its_worker_a_restart(
  reference, loopback, words, cluster, tmp_path
):
  address, nodes = cluster
  words = (*words, f'--workdir={tmp_path}', '--workers=2')
  with killed(
    subprocess.Popen(
      [*COMMAND, 'study', '--on=ray', f'--option=address={address}', *words],
      env=loopback,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      start_new_session=True,
    )
  ) as process:
    # On a busy machine one may begin long after the other.
    wait_for(lambda: len(holders(tmp_path, 40)) == 2 or process.poll() is not None)
    lost = holders(tmp_path, 40)
    assert len(lost) == 2
    nodes.stdin.write('\n')
    nodes.stdin.flush()
    assert nodes.stdout.readline() == 'removed\n'
    wait_for(lambda: not all(map(alive, lost)))
    _, err = process.communicate(timeout=PATIENCE)
  assert process.returncode == 0, err
  assert sum(status['preemptions'] for status in statuses(tmp_path)) > 0
  assert sum(status['failures'] for status in statuses(tmp_path)) == 0
  assert_equal(tmp_path, reference)


@pytest.mark.parametrize(
  ('word', 'parts'),
  [
    ('--processes=2', ['--processes=2', '--on=slurm', '--on=local']),
    ('--option=num_cpus=many', ['--option=num_cpus=many', 'whole number']),
    ('--option=TPU=1.5', ['--option=TPU=1.5', 'part of 1']),
    ('--option=num_cpu=two', ['Did you mean "num_cpus"']),
    ('--option=address=ray://host:1', ['ray://host:1', 'HOST:PORT', 'auto']),
  ],
)
@pytest.mark.parametrize('dry', [(), ('--dry_run',)])
@pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')
def test_what_cannot_be_is_named(error, tiny_file, tmp_path, word, parts, dry):
  words = ('sweep', '--on=ray', f'--config={tiny_file}', f'--workdir={tmp_path}')
  line = error(*words, word, *dry)
  for part in parts:
    assert part in line
  assert 'num_cpus"' not in line or 'num_cpu=' in line


@pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')
def test_what_would_be_started_is_shown(call, tiny_file, tmp_path):
  words = ('--on=ray', f'--config={tiny_file}', f'--workdir={tmp_path / "new"}')
  options = ('--option=num_cpus=2', '--option=TPU=4', '--option=address=HEAD:6379')
  status, out, _ = call('sweep', *words, *options, '--workers=3', '--dry_run')
  assert status == 0
  counts, cluster, takes, command = out.splitlines()
  assert counts == 'cells: 6, programs: 1, workers: 3'
  assert cluster == 'cluster: HEAD:6379'
  assert takes == 'each worker takes: 2 CPU, 4 TPU'
  assert f'worker --workdir={tmp_path}' in command
  assert not (tmp_path / 'new').exists()


@pytest.mark.slow
@pytest.mark.parametrize(
  ('word', 'parts'),
  [
    ('TPU=4000', ['4000 TPU', '0 TPU', '--option=address=']),
    ('address=127.0.0.1:1', ['--option=address=127.0.0.1:1', 'refused', 'head']),
  ],
)
def test_what_is_not_there_is_named(run, tiny_file, tmp_path, word, parts):
  ended = run(
    'sweep',
    '--on=ray',
    f'--config={tiny_file}',
    f'--workdir={tmp_path}',
    f'--option={word}',
  )
  assert ended.returncode == 2
  assert 'Traceback' not in ended.stderr
  for part in parts:
    assert part in ended.stderr


@pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')
def test_without_ray_the_way_out_is_named(error, tiny_file, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'ray', None)
  for name in ('RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER', 'RAY_USAGE_STATS_ENABLED'):
    monkeypatch.setenv(name, '')  # which is set for the rest of the process
  line = error('sweep', '--on=ray', f'--config={tiny_file}', f'--workdir={tmp_path}')
  assert "pip install 'scaling[ray]'" in line
