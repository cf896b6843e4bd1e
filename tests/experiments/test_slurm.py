"""The script for Slurm, and studies on a real cluster of two nodes on this machine."""

import json
import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator

import pytest
from slurm_cluster import Cluster, cluster, missing, wait_for
from studies import (
  COMMAND,
  PATIENCE,
  metrics,
  num_done,
  num_rows,
  paused,
  results,
  statuses,
)

from experiments.launch import slurm
from experiments.launch.jobs import Launch
from scaling.errors import UserError


@pytest.fixture
def launch() -> Callable[..., Launch]:
  """Returns a function from options to a launch that has them."""

  def make(num_workers: int = 2, num_processes: int = 1, **options) -> Launch:
    folder = pathlib.Path('/disk/my $HOME 50% #1 "a" \'b\'')
    return Launch(folder, 'a study', 'abc', num_workers, num_processes, options)

  return make


def directives(script: str) -> list[str]:
  mark = '#SBATCH '
  return [line.removeprefix(mark) for line in script.splitlines() if mark in line]


def ran(script: str, tmp_path: pathlib.Path, **environment: str) -> list[list[str]]:
  """Returns what a script calls, in a shell where all of Slurm's tools only take note."""
  calls = tmp_path / 'calls'
  tools = tmp_path / 'tools'
  tools.mkdir(exist_ok=True)
  for tool, more in (
    ('srun', 'exit $CODE'),
    ('squeue', 'echo "$STATE"'),
    ('scontrol', ''),
    ('hostname', 'echo node7'),
  ):
    note = f'printf "%s\\0" {tool} "$@" >> "{calls}"; echo >> "{calls}"'
    (tools / tool).write_text(f'#!/bin/bash\n{note}\n{more}\n')
    (tools / tool).chmod(0o755)
  calls.unlink(missing_ok=True)
  environment = {
    'SLURM_JOB_ID': '4099',
    'SLURM_ARRAY_JOB_ID': '4098',
    'SLURM_ARRAY_TASK_ID': '1',
    'PATH': f'{tools}:{os.environ["PATH"]}',
    'CODE': '0',
    **environment,
  }
  done = subprocess.run(
    ['bash', '-u'], input=script, env=environment, capture_output=True, text=True
  )
  assert (done.returncode, done.stderr) == (int(environment['CODE']), '')
  return [line.split('\0')[:-1] for line in calls.read_text().splitlines()]


def test_script_says_what_slurm_needs_to_know(launch):
  script = slurm.render(launch(3))
  assert directives(script) == [
    '--job-name="a study"',
    '--array=0-2',
    '--output="/disk/my $HOME 50%% #1 \\"a\\" \'b\'/logs/slurm-%A_%a.log"',
    '--open-mode=append',
    '--requeue',
    '--nodes=1',
    '--ntasks=1',
  ]
  assert script.startswith('#!/bin/bash\n#SBATCH')


def test_worker_is_started_with_its_own_words(launch, tmp_path):
  one = launch()
  (srun,) = ran(slurm.render(one), tmp_path)
  assert srun == ['srun', *one.command('--slot=1')]
  (srun,) = ran(slurm.render(one), tmp_path, SLURM_CPUS_PER_TASK='4')
  assert srun == ['srun', '--cpus-per-task=4', *one.command('--slot=1')]


def test_processes_of_a_worker_meet_on_its_first_node(launch, tmp_path):
  several = launch(num_processes=2)
  script = slurm.render(several)
  assert {'--nodes=2', '--ntasks=2'} < set(directives(script))
  _, srun = ran(script, tmp_path)
  command = several.command('--slot=1', '--coordinator=node7:61443')
  assert srun == ['srun', '--kill-on-bad-exit=1', *command]
  on_one = slurm.render(launch(num_processes=2, nodes='1'))
  assert {'--nodes=1', '--ntasks=2'} < set(directives(on_one))


@pytest.mark.parametrize('code', [0, 1, 70, 74, 75, 134, 137, 143])
@pytest.mark.parametrize(
  ('state', 'may'),
  [
    ('RUNNING None', True),
    ('COMPLETING TimeLimit', True),
    ('COMPLETING None', False),  # somebody cancelled it
    ('', False),
  ],
)
def test_what_is_queued_again(launch, tmp_path, code, state, may):
  calls = ran(slurm.render(launch()), tmp_path, CODE=str(code), STATE=state)
  again = ['scontrol', 'requeue', '4098_1'] in calls
  assert again == (may and code in (70, 75, 134, 137, 143))


def test_options_are_those_of_sbatch(launch):
  options = {
    'partition': 'low',
    'cpus_per_task': '4',
    'gres': 'gpu:a100:2',
    'exclusive': '',
    'comment': 'mine # "x"',
    'nodes': '1-2',
  }
  assert directives(slurm.render(launch(**options)))[-7:] == [
    '--nodes=1-2',
    '--ntasks=1',
    '--partition=low',
    '--cpus-per-task=4',
    '--gres=gpu:a100:2',
    '--exclusive',
    '--comment="mine # \\"x\\""',
  ]


@pytest.mark.parametrize(
  ('key', 'value', 'told'),
  [
    ('array', '0-9', '--workers'),
    ('ntasks', '4', '--processes'),
    ('no_requeue', '', 'scaling cancel'),
    ('output', 'here.log', 'WORKDIR/logs'),
    ('p', 'low', 'long name'),
    ('--partition', 'low', 'without its dashes'),
    ('comment', 'a\n#SBATCH --array=0-9', 'one line'),
  ],
)
def test_options_that_are_refused(launch, key, value, told):
  with pytest.raises(UserError, match=told) as error:
    slurm.render(launch(**{key: value}))
  assert f'--option={key}=' in str(error.value)


def test_folder_that_slurm_cannot_write_to():
  with pytest.raises(UserError, match='backslash'):
    slurm.render(Launch(pathlib.Path('/a\\b'), 'a', 'b', 1))


def test_machine_without_slurm(tmp_path, monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path))
  launch = Launch(tmp_path, 'a', 'b', 1)
  with pytest.raises(UserError, match=r'sbatch.*not on this machine; use a login node'):
    slurm.submit(launch)
  with pytest.raises(UserError, match=r'scancel.*not on this machine'):
    slurm.cancel('1')
  assert slurm.states('1') == ''


def task(number, *, state='RUNNING', reason='None', new=False, waiting='', job=7):
  """Returns a task as squeue tells of it in JSON: up to 22.05, or now."""

  def told(value):
    return {'set': value is not None, 'infinite': False, 'number': value or 0}

  return {
    'job_id': told(50 + number) if new else 50 + number,
    'array_job_id': told(job) if new else job,
    'array_task_string': waiting,
    'job_state': state.split() if new else state,
    'state_reason': reason,
  }


@pytest.fixture
def squeue(tmp_path, monkeypatch):
  """Returns a function that sets what squeue says, as JSON and else."""
  tool = tmp_path / 'squeue'
  monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')

  def says(structured, lines=()):
    text = '\n'.join(lines)
    tool.write_text(
      f"#!/bin/sh\ncase $1 in\n--json) cat <<'E'\n{structured}\nE\n;;\n"
      f"*) cat <<'E'\n{text}\nE\nesac\n"
    )
    tool.chmod(0o755)
    return tool

  return says


@pytest.mark.parametrize('new', [False, True])
def test_states_are_counted(squeue, new):
  jobs = [
    task(1, new=new),
    task(2, new=new),
    task(3, new=new, state='PENDING', reason='BeginTime'),
    task(4, new=new, state='PENDING', reason='Priority', waiting='5,8-10%2'),
    task(5, new=new, state='CANCELLED'),
    task(6, new=new, job=8),
  ]
  squeue(json.dumps({'jobs': jobs}))
  found = '1 pending (BeginTime), 4 pending (Priority), 2 running'
  assert slurm.states('7') == found
  squeue(json.dumps({'jobs': jobs[4:]}))
  assert slurm.states('7') == ''


def test_states_of_several_words(squeue):
  words = ['RUNNING SIGNALING', 'PENDING REQUEUED', 'COMPLETED COMPLETING']
  words += ['COMPLETED STAGE_OUT', 'FAILED LAUNCH_FAILED']
  jobs = [task(i, state=state, new=True) for i, state in enumerate(words)]
  squeue(json.dumps({'jobs': jobs}))
  assert slurm.states('7') == '1 completing, 1 pending, 1 running'


def test_states_where_squeue_knows_no_json(squeue):
  lines = ['RUNNING None', 'PENDING BeginTime', 'RUNNING None', 'PENDING Priority']
  other_forms = ('{"jobs": [{}]}', '{"jobs": null}', '[]', '{"jobs": [3]}')
  for no_json in ('squeue: error: no plugin for JSON', *other_forms):
    tool = squeue(no_json, lines)
    assert slurm.states('7') == '1 pending (BeginTime), 1 pending (Priority), 2 running'
  tool.write_text('#!/bin/sh\necho Invalid job id >&2\nexit 1')
  assert slurm.states('7') == ''


# From here on with a real Slurm.

STEPS = 400  # some seconds a cell, so that there is something to disturb
LONGER = (
  f'--config.train.steps={STEPS}',
  '--config.log.every_steps=20',
  f'--config.log.eval_every_steps={STEPS // 2}',
  '--config.checkpoint.every_steps=50',
)
# Both cores of a node, so that each node has one worker.
LOW = ('--on=slurm', '--option=partition=low', '--option=cpus-per-task=2')


@pytest.fixture(scope='module')
def cluster_of_two(environment) -> Iterator[Cluster]:
  """A cluster that all tests share."""
  if reason := missing():
    pytest.skip(reason)
  with cluster(environment) as made:
    yield made


@pytest.fixture
def two_nodes(cluster_of_two) -> Iterator[Cluster]:
  """The cluster without any job, before and after."""
  yield cluster_of_two
  cluster_of_two.clear()


@pytest.fixture(scope='module')
def run(cluster_of_two) -> Callable[..., str]:
  """Returns a function that runs the command and returns what it prints."""

  def to_its_end(*words, status: int = 0) -> str:
    done = subprocess.run(
      [*COMMAND, *map(str, words)],
      env=cluster_of_two.environment,
      capture_output=True,
      text=True,
      timeout=PATIENCE,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr

  return to_its_end


@pytest.fixture(scope='module')
def reference(run, tiny_file, tmp_path_factory) -> pathlib.Path:
  """The same study on this machine; one worker has all cores, as a node has here."""
  workdir = tmp_path_factory.mktemp('reference')
  words = (f'--config={tiny_file}', f'--workdir={workdir}', *LONGER)
  run('study', *words, '--workers=1')
  return workdir


@pytest.fixture
def sweep(run, two_nodes, tiny_file, tmp_path) -> Callable[..., str]:
  """Returns a function that submits a study, and returns the number of its job."""

  def submit(*words, workers: int = 2) -> str:
    words = (f'--config={tiny_file}', f'--workdir={tmp_path}', *LONGER, *words)
    run('sweep', *words, *LOW, f'--workers={workers}')
    jobs = (tmp_path / 'launches').glob('slurm-*.json')
    return str(max(int(path.stem.removeprefix('slurm-')) for path in jobs))

  return submit


def assert_same(workdir: pathlib.Path, reference: pathlib.Path) -> None:
  """All rows of all cells are equal, but for the times."""
  assert {status['state'] for status in statuses(workdir)} == {'done'}
  for seed in (0, 1):
    assert metrics(workdir, seed)
    assert metrics(workdir, seed) == metrics(reference, seed)


def total(workdir: pathlib.Path, count: str) -> int:
  return sum(status[count] for status in statuses(workdir))


def preempt(two_nodes: Cluster, workdir: pathlib.Path) -> None:
  """Has a job of a higher partition take both nodes, once cells have begun."""
  begun = num_rows(workdir)
  wait_for(lambda: num_rows(workdir) > begun + 4)
  words = ('--partition=high', '--nodes=2', '--ntasks=2', '--cpus-per-task=2')
  words = (*words, '--parsable', '--output=/dev/null', '--wrap=true')
  job = two_nodes.run('sbatch', *words)
  wait_for(lambda: two_nodes.over(job))


@pytest.mark.slow
def test_json_says_the_same_as_lines(two_nodes, monkeypatch):
  for name in ('PATH', 'SLURM_CONF'):
    monkeypatch.setenv(name, two_nodes.environment[name])
  words = ('--parsable', '--output=/dev/null', '--wrap=sleep 600')
  job = two_nodes.run('sbatch', '--array=1-3,6-9', *words)
  other = two_nodes.run('sbatch', *words)
  wait_for(lambda: 'RUNNING None' in two_nodes.states(job).values())
  wait_for(lambda: 'PENDING Resources' in two_nodes.states(job).values())
  said = slurm._ask('squeue', '--json', f'--jobs={job}')
  expected = {'running': 4, 'pending (Resources)': 3}
  assert slurm._from_json(said, job) == slurm._from_lines(job) == expected
  assert slurm.states(job) == '3 pending (Resources), 4 running'
  assert slurm.states(other).startswith('1 pending')
  two_nodes.run('scancel', job)
  wait_for(lambda: not two_nodes.states(job))
  assert slurm.states(job) == ''


@pytest.mark.slow
def test_study_by_two_workers_is_equal_and_status_shows_them(
  reference, run, sweep, two_nodes, tmp_path
):
  job = sweep()
  wait_for(lambda: set(two_nodes.states(job).values()) == {'RUNNING None'})
  told = json.loads(run('status', f'--workdir={tmp_path}', '--json'))
  assert told['jobs'] == {f'slurm {job}': '2 running'}
  assert f'slurm {job}: 2 running' in run('status', f'--workdir={tmp_path}')
  wait_for(lambda: two_nodes.over(job))
  run('report', f'--workdir={tmp_path}')
  assert_same(tmp_path, reference)
  assert results(tmp_path) == results(reference)
  assert total(tmp_path, 'attempts') == len(statuses(tmp_path)) == 6
  assert json.loads(run('status', f'--workdir={tmp_path}', '--json'))['jobs'] == {}
  logs = {path.name for path in (tmp_path / 'logs').iterdir()}
  assert logs == {f'slurm-{job}_0.log', f'slurm-{job}_1.log'}


@pytest.mark.slow
def test_preempted_workers_save_and_go_on(reference, run, sweep, two_nodes, tmp_path):
  job = sweep()
  preempt(two_nodes, tmp_path)
  assert total(tmp_path, 'preemptions') >= 1
  assert num_done(tmp_path) < 6
  told = json.loads(run('status', f'--workdir={tmp_path}', '--json'))
  assert sum(cell['preemptions'] for cell in told['cells']) >= 1
  assert 'pending' in told['jobs'][f'slurm {job}']
  wait_for(lambda: two_nodes.over(job))
  assert_same(tmp_path, reference)
  assert total(tmp_path, 'failures') == total(tmp_path, 'vanished') == 0


@pytest.mark.slow
def test_a_node_that_dies_is_done_without(reference, sweep, two_nodes, tmp_path):
  job = sweep()
  begun = num_rows(tmp_path)
  wait_for(lambda: num_rows(tmp_path) > begun + 4)
  wait_for(lambda: set(two_nodes.states(job).values()) == {'RUNNING None'})
  two_nodes.kill_node('n2')
  try:
    wait_for(lambda: num_done(tmp_path) == 6)  # by the other worker
    assert total(tmp_path, 'preemptions') == total(tmp_path, 'vanished') == 1
    assert total(tmp_path, 'failures') == 0
    assert_same(tmp_path, reference)
  finally:
    two_nodes.start_node('n2')
  # The node comes back without its task, which is started again and finds nothing to do.
  wait_for(lambda: 'PENDING BeginTime' in two_nodes.states(job).values())
  wait_for(lambda: two_nodes.over(job))
  assert total(tmp_path, 'attempts') == 7


@pytest.mark.slow
def test_what_was_cancelled_stays_so_until_it_is_wanted_again(
  reference, run, sweep, two_nodes, tiny_file, tmp_path
):
  job = sweep()
  wait_for(lambda: num_rows(tmp_path) > 4)
  two_nodes.run('scancel', job)  # the workers leave with 75, as when preempted
  wait_for(lambda: not two_nodes.states(job))
  saved = [status for status in statuses(tmp_path) if status['state'] == 'preempted']
  assert saved

  job = sweep()
  begun = num_rows(tmp_path)
  wait_for(lambda: num_rows(tmp_path) > begun + 4)
  with paused(
    two_nodes.workers()
  ):  # a fast machine is done before two commands have begun
    refused = run(
      'sweep',
      f'--config={tiny_file}',
      f'--workdir={tmp_path}',
      *(*LONGER, *LOW),
      status=2,
    )
    said = run('cancel', f'--workdir={tmp_path}')
  assert f'slurm still has {job}' in refused
  assert f'slurm: cancelled {job}' in said
  wait_for(lambda: not two_nodes.states(job))
  states = [status['state'] for status in statuses(tmp_path)]
  assert set(states) <= {'done', 'cancelled'}
  logs = [path.read_text() for path in tmp_path.glob('cells/*/log.txt')]
  assert any('cancelled: saved at step' in log for log in logs)

  words = (f'--config={tiny_file}', f'--workdir={tmp_path}', *LONGER, '--workers=1')
  run('sweep', *words)
  assert_same(tmp_path, reference)
  assert not two_nodes.run('squeue', '--noheader')  # nothing was queued again


@pytest.mark.slow
def test_a_cell_by_two_processes_on_two_nodes_is_preempted_and_resumed(
  run, sweep, two_nodes, tiny_file, tmp_path_factory, tmp_path
):
  # Large steps: small ones by processes that share cores wait for each other's turns.
  one_cell = (
    '--config.data.num_images=300',
    '--config.seed=0',
    '--config.model.width=8',
    '--config.train.batch_size=128',
    '--config.train.steps=80',
    '--config.log.every_steps=4',
    '--config.log.eval_every_steps=40',
    '--config.checkpoint.every_steps=10',
  )
  local = tmp_path_factory.mktemp('local')
  words = (f'--config={tiny_file}', f'--workdir={local}', *LONGER, *one_cell)
  run('sweep', *words, '--workers=1', '--processes=2')
  job = sweep(*one_cell, '--processes=2', workers=1)
  wait_for(lambda: num_rows(tmp_path) > 0)
  (task,) = two_nodes.states(job)
  assert two_nodes.run('squeue', '--noheader', f'--jobs={task}', '--format=%D') == '2'
  preempt(two_nodes, tmp_path)
  (status,) = statuses(tmp_path)
  assert (status['state'], status['preemptions']) == ('preempted', 1)
  wait_for(lambda: two_nodes.over(job))
  (status,) = statuses(tmp_path)
  assert (status['state'], status['attempts'], status['vanished']) == ('done', 2, 0)
  assert metrics(tmp_path) == metrics(local)


@pytest.mark.slow
def test_what_slurm_refuses_is_told_in_its_words(run, two_nodes, tiny_file, tmp_path):
  words = (f'--config={tiny_file}', f'--workdir={tmp_path}', '--on=slurm')
  said = run('sweep', *words, '--option=partition=none', status=2)
  assert 'sbatch refused the job' in said
  assert 'invalid partition' in said
  assert '--option=KEY=VALUE' in said
  assert not list((tmp_path / 'launches').glob('slurm-*'))
