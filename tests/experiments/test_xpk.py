"""What would be handed to GKE: the words of the command, and what xpk makes of them."""

import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import sys

import pytest
import yaml
from studies import (
  COMMAND,
  PATIENCE,
  holders,
  is_pending,
  killed,
  paused,
  statuses,
  wait_for,
)

from experiments.launch import xpk
from experiments.launch.jobs import Launch
from scaling.errors import UserError

CLUSTER = {
  'cluster': 'tpus',
  'tpu-type': 'v5litepod-16',
  'docker-image': 'registry/scaling:1',
  'project': 'ours',
  'project-number': '12',
  'zone': 'us-central1-a',
}


def make_launch(workdir: pathlib.Path, **changes) -> Launch:
  fields = {'num_workers': 2, 'options': CLUSTER} | changes
  return Launch(workdir, 'Digits, by depth', '0123456789', **fields)


def flags_of(line: str) -> dict[str, str]:
  words = shlex.split(line)
  assert words[:3] == ['xpk', 'workload', 'create']
  return {key: value for key, _, value in (word.partition('=') for word in words[3:])}


def test_a_command_for_each_worker(tmp_path):
  lines = xpk.render(make_launch(tmp_path / 'a b')).splitlines()
  assert len(lines) == 2
  for slot, line in enumerate(lines):
    flags = flags_of(line)
    assert flags.items() >= {f'--{k}': v for k, v in CLUSTER.items()}.items()
    assert flags['--workload'] == f'digits-by-depth-012345-{slot}'
    assert flags['--restart-on-exit-codes'] == '70,75'
    assert flags['--max-restarts'] == '100'
    assert flags['--termination-grace-period-seconds'] == '120'
    assert shlex.split(flags['--command']) == [
      'exec',
      'scaling',
      'worker',
      f'--workdir={tmp_path}/a b',
      '--orders=0123456789',
      f'--slot={slot}',
      '--coordinator=auto',
    ]


def test_other_flags_of_xpk_pass_and_ours_can_be_changed(tmp_path):
  options = CLUSTER | {'num_slices': '2', 'spot': '', 'tgps': '60', 'max_restarts': '7'}
  line = xpk.render(make_launch(tmp_path, num_workers=1, options=options))
  assert '--spot' in shlex.split(line)
  flags = flags_of(line)
  assert flags['--num-slices'] == '2'
  assert flags['--termination-grace-period-seconds'] == '60'
  assert flags['--max-restarts'] == '7'
  assert line.count('max-restarts') == line.count('termination-grace') == 1


@pytest.mark.parametrize(
  ('changes', 'parts'),
  [
    ({'options': {}}, ['--option=cluster=', '--option=tpu-type=', 'docker-image']),
    ({'options': CLUSTER | {'tpu-type': ''}}, ['needs --option=tpu-type=...;']),
    (
      {'options': {**CLUSTER, 'tpu-type': '', 'tpu-typ': 'v5litepod-16'}},
      ['Did you mean "tpu-type"'],
    ),
    ({'options': CLUSTER | {'command': 'ls'}}, ['--option=command', 'the worker']),
    ({'options': CLUSTER | {'dry_run': ''}}, ['--option=dry-run', 'use --dry_run']),
    ({'num_processes': 4}, ['--processes=4', 'tpu-type', 'leave it out']),
  ],
)
def test_what_cannot_be_is_named(tmp_path, changes, parts):
  with pytest.raises(UserError) as error:
    xpk.render(make_launch(tmp_path, **changes))
  for part in parts:
    assert part in str(error.value)


@pytest.mark.parametrize(
  'study', ['Digits', '2024 study', 'x' * 80, '?', 'a_b', 'ends with -']
)
def test_names_are_such_as_xpk_takes(tmp_path, study):
  launch = Launch(tmp_path, study, '0123456789', 12, options=CLUSTER)
  names = [flags_of(line)['--workload'] for line in xpk.render(launch).splitlines()]
  assert len(set(names)) == 12
  for name in names:
    assert len(name) <= 40
    assert name[0].isalpha()
    assert name.replace('-', '').isalnum()
    assert name == name.lower()


@pytest.fixture
def fake_xpk(tmp_path, monkeypatch) -> pathlib.Path:
  """A command of that name, which writes down its words and refuses a second worker."""
  folder = tmp_path / 'bin'
  folder.mkdir()
  (folder / 'xpk').write_text(
    f'#!{sys.executable}\n'
    'import pathlib, sys\n'
    f'told = pathlib.Path({str(tmp_path)!r}, "told")\n'
    'told.open("a").write(repr(sys.argv[1:]) + "\\n")\n'
    'if "--slot=1" in sys.argv[-1]:\n'
    '  print("[XPK] it already exists"); sys.exit(1)\n'
  )
  (folder / 'xpk').chmod(0o755)
  monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
  return tmp_path / 'told'


def test_workloads_are_submitted_one_by_one(tmp_path, fake_xpk):
  launch = make_launch(tmp_path, num_workers=1)
  assert list(xpk.submit(launch)) == [('digits-by-depth-012345-0', 1)]
  assert fake_xpk.read_text() == f'{xpk.commands(launch)[0][1:]!r}\n'
  jobs = xpk.submit(make_launch(tmp_path))
  assert next(jobs) == ('digits-by-depth-012345-0', 1)  # to be recorded in any case
  with pytest.raises(UserError, match='it already exists') as error:
    next(jobs)
  assert '`xpk workload delete --workload=digits-by-depth-012345-1 --cluster=tpus`' in (
    str(error.value)
  )


def test_without_xpk_the_way_out_is_named(tmp_path, monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path))
  with pytest.raises(UserError, match=r'pip install .scaling\[xpk\]'):
    list(xpk.submit(make_launch(tmp_path)))


@pytest.fixture
def manifests(tmp_path, monkeypatch) -> pathlib.Path:
  """The real xpk on PATH, which writes its manifests to this folder instead of GKE."""
  tool = os.environ.get('SCALING_XPK') or shutil.which('xpk')
  if tool is None:
    pytest.skip('needs xpk on PATH, or its path in SCALING_XPK')
  folder = tmp_path / 'bin'
  folder.mkdir()
  home = shlex.quote(str(tmp_path))
  (folder / 'xpk').write_text(
    '#!/bin/sh\n'
    f'exec env -u PYTHONPATH HOME={home} {shlex.quote(tool)} "$@" --dry-run '
    f'--output-manifest-file={home}/bin/"${{3#--workload=}}".yaml\n'
  )
  (folder / 'xpk').chmod(0o755)
  # It would tell its makers of each call.
  quiet = [tool, 'config', 'set', 'send-telemetry', 'false']
  env = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
  env['HOME'] = str(tmp_path)
  subprocess.run(quiet, env=env, check=True, capture_output=True)
  monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
  return folder


def container(jobset: dict) -> dict:
  (job,) = jobset['spec']['replicatedJobs']
  (found,) = job['template']['spec']['template']['spec']['containers']
  return found


@pytest.mark.slow
@pytest.mark.parametrize(
  ('tpu_type', 'num_hosts', 'topology'),
  [('v5litepod-16', 4, '4x4'), ('v6e-8', 2, '2x4'), ('v5p-32', 4, '2x2x4')],
)
def test_xpk_makes_the_jobset_that_is_meant(
  manifests, tmp_path, tpu_type, num_hosts, topology
):
  options = CLUSTER | {'tpu-type': tpu_type}
  launch = make_launch(tmp_path / 'a b', num_workers=1, options=options)
  assert list(xpk.submit(launch)) == [('digits-by-depth-012345-0', 1)]
  (path,) = manifests.glob('*.yaml')
  jobset = yaml.safe_load(path.read_text())
  assert jobset['kind'] == 'JobSet'
  assert jobset['metadata']['name'] == path.stem == 'digits-by-depth-012345-0'
  assert jobset['spec']['failurePolicy']['maxRestarts'] == 100
  (jobs,) = jobset['spec']['replicatedJobs']
  assert jobs['replicas'] == 1
  job = jobs['template']['spec']
  assert job['parallelism'] == job['completions'] == num_hosts
  assert job['backoffLimit'] == 0
  (rule,) = job['podFailurePolicy']['rules']
  # Any other code ends the set; and 0 ends it well.
  assert rule['action'] == 'FailJob'
  assert rule['onExitCodes']['operator'] == 'NotIn'
  codes = set(rule['onExitCodes']['values'])
  assert codes >= {70, 75, 134, 137, 139, 143}
  assert not codes & {0, 1, 2, 74}
  pod = job['template']['spec']
  assert pod['terminationGracePeriodSeconds'] == 120
  assert pod['restartPolicy'] == 'Never'
  assert pod['nodeSelector']['cloud.google.com/gke-tpu-topology'] == topology
  assert container(jobset)['image'] == 'registry/scaling:1'
  line = flags_of(xpk.render(launch))['--command']
  assert f'({line}) &' in container(jobset)['command'][-1]


@pytest.mark.slow
def test_a_container_saves_and_goes_on(manifests, environment, tiny_file, tmp_path):
  workdir = tmp_path / 'a study'
  words = ('--config.train.steps=100', '--config.data.num_images=30', '--config.seed=0')
  options = [f'--option={key}={value}' for key, value in CLUSTER.items()]
  words = (f'--config={tiny_file}', f'--workdir={workdir}', *words, *options)
  env = environment | {'PATH': os.environ['PATH']}
  sweep = [*COMMAND, 'sweep', '--on=xpk', *words]
  done = subprocess.run(sweep, env=env, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  (job,) = workdir.glob('launches/xpk-tiny-*.json')
  assert job.name[len('xpk-') : -len('.json')] in done.stdout
  (path,) = manifests.glob('*.yaml')
  shell, flag, script = container(yaml.safe_load(path.read_text()))['command']
  # No TPU here says who takes part; this host is alone.
  alone = f'--coordinator=127.0.0.1:{free_port()} --num_processes=1 --process=0'
  assert '--coordinator=auto' in script
  script = script.replace('--coordinator=auto', alone)
  bin_folder = pathlib.Path(COMMAND[0]).parent
  env = environment | {'PATH': f'{bin_folder}:{os.environ["PATH"]}'}

  def start() -> subprocess.Popen[str]:
    return subprocess.Popen(
      [shell, flag, script],
      env=env,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )

  with killed(start()) as process:
    wait_for(lambda: holders(workdir))
    (worker,) = holders(workdir)
    with paused([worker]):  # the container's shell looks every five seconds
      process.send_signal(signal.SIGTERM)
      wait_for(lambda: is_pending(worker, signal.SIGTERM))
    out, _ = process.communicate(timeout=PATIENCE)
  assert process.returncode == 75, out
  assert [status['state'] for status in statuses(workdir)] == ['preempted']
  with killed(start()) as process:
    out, _ = process.communicate(timeout=PATIENCE)
  assert process.returncode == 0, out
  (status,) = statuses(workdir)
  assert (status['state'], status['attempts']) == ('done', 2)


def free_port() -> int:
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return free.getsockname()[1]
