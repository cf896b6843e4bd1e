"""What would be handed to SkyPilot, and whether SkyPilot itself takes it."""

import json
import os
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from experiments.launch import skypilot
from experiments.launch.jobs import Launch
from scaling.errors import UserError

TPU = {
  'accelerators': 'tpu-v6e-8',
  'infra': 'gcp/us-central1',
  'use_spot': 'true',
  'accelerator_args': '{"runtime_version": "v2-alpha-tpuv6e"}',
  'setup': 'pip install scaling',
}


def make_launch(workdir: pathlib.Path, **changes) -> Launch:
  fields = {'num_workers': 2, 'options': TPU} | changes
  return Launch(workdir, 'Digits, by depth', '0123456789', **fields)


def test_a_task_says_where_what_and_when_again(tmp_path):
  launch = make_launch(tmp_path / 'a b')
  task = json.loads(skypilot.render(launch))
  assert task['name'] == 'digits-by-depth-012345-0'
  assert task['setup'] == 'pip install scaling'
  assert shlex.split(task['run']) == ['exec', 'scaling', *launch.verb('--slot=0')]
  assert 'num_nodes' not in task
  resources = task['resources']
  assert resources.pop('job_recovery') == {
    'recover_on_exit_codes': [70, 75, 134, 137, 139, 143]
  }
  assert resources == {
    'accelerators': 'tpu-v6e-8',
    'infra': 'gcp/us-central1',
    'use_spot': True,
    'accelerator_args': {'runtime_version': 'v2-alpha-tpuv6e'},
  }


def test_values_of_config_files_and_of_the_command_line_are_alike(tmp_path):
  options = {'use_spot': 'True', 'volumes': "{'/runs': 'runs'}", 'disk_size': '100'}
  task = json.loads(skypilot.render(make_launch(tmp_path, options=options)))
  assert task['volumes'] == {'/runs': 'runs'}
  assert task['resources']['use_spot'] is True
  assert task['resources']['disk_size'] == 100
  options = {'job_recovery': 'FAILOVER'}
  task = json.loads(skypilot.render(make_launch(tmp_path, options=options)))
  assert task['resources']['job_recovery']['strategy'] == 'FAILOVER'
  assert 75 in task['resources']['job_recovery']['recover_on_exit_codes']


def words_of(run: str, tmp_path, **env) -> list[str]:
  """Returns the words that a task's shell gives to the command `scaling`."""
  (tmp_path / 'scaling').write_text(
    f'#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n'
  )
  (tmp_path / 'scaling').chmod(0o755)
  env = os.environ | env | {'PATH': f'{tmp_path}:{os.environ["PATH"]}'}
  done = subprocess.run(
    ['bash', '-c', run], env=env, capture_output=True, text=True, check=True
  )
  return json.loads(done.stdout)


def test_processes_of_one_worker_find_each_other(tmp_path):
  launch = make_launch(tmp_path / 'a b', num_processes=2)
  task = json.loads(skypilot.render(launch))
  assert 'num_nodes' not in task  # the TPU has as many hosts as it has
  words = words_of(task['run'], tmp_path)
  assert words == launch.verb('--slot=0', '--coordinator=auto')

  launch = make_launch(
    tmp_path / 'a b', num_processes=2, options={'accelerators': 'H100:8'}
  )
  task = json.loads(skypilot.render(launch))
  assert task['num_nodes'] == 2
  words = words_of(
    task['run'],
    tmp_path,
    SKYPILOT_NODE_IPS='10.0.0.1\n10.0.0.2',
    SKYPILOT_NUM_NODES='2',
    SKYPILOT_NODE_RANK='1',
  )
  assert words == launch.verb(
    '--slot=0', '--coordinator=10.0.0.1:8476', '--num_processes=2', '--process=1'
  )


@pytest.mark.parametrize('key', ['run', 'name', 'num_nodes', 'resources'])
def test_what_is_ours_is_not_set(tmp_path, key):
  with pytest.raises(UserError, match=f'--option={key} is not for you to set'):
    skypilot.render(make_launch(tmp_path, options={key: 'x'}))


def test_without_skypilot_the_way_out_is_named(tmp_path, monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path))
  skypilot._queue.cache_clear()
  with pytest.raises(UserError, match=r'pip install .scaling\[skypilot\]'):
    list(skypilot.submit(make_launch(tmp_path)))
  assert skypilot.states('job') == ''
  skypilot.cancel('job')


FAKE = """
import json, pathlib, sys
folder = pathlib.Path(__file__).parent
with (folder / 'told').open('a') as told:
  print(json.dumps(sys.argv[1:]), file=told)
if sys.argv[1:3] == ['jobs', 'launch']:
  print(pathlib.Path(sys.argv[-1]).read_text(), file=(folder / sys.argv[-2]).open('w'))
  if sys.argv[-2].endswith('-2'):
    sys.exit('no such cloud')
if sys.argv[1:3] == ['jobs', 'queue']:
  print('starting a server')
  print((folder / 'queue').read_text())
"""


@pytest.fixture
def fake(tmp_path, monkeypatch) -> pathlib.Path:
  """The folder of a command `sky`, that writes down its words and answers from files."""
  folder = tmp_path / 'bin'
  folder.mkdir()
  (folder / 'sky').write_text(f'#!{sys.executable}\n{FAKE}')
  (folder / 'sky').chmod(0o755)
  monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
  skypilot._queue.cache_clear()
  return folder


def told(fake: pathlib.Path) -> list[list[str]]:
  return [json.loads(line) for line in (fake / 'told').read_text().splitlines()]


def test_jobs_are_submitted_one_by_one(fake, tmp_path):
  names = ['digits-by-depth-012345-0', 'digits-by-depth-012345-1']
  assert list(skypilot.submit(make_launch(tmp_path))) == [(name, 1) for name in names]
  for slot, (name, words) in enumerate(zip(names, told(fake), strict=True)):
    assert words[:-1] == ['jobs', 'launch', '--yes', '--detach-run', '--name', name]
    assert not pathlib.Path(words[-1]).exists()
    task = json.loads((fake / name).read_text())
    assert task['name'] == name
    assert f'--slot={slot}' in task['run']
  with pytest.raises(UserError, match='no job digits-by-depth-012345-2: no such cloud'):
    list(skypilot.submit(make_launch(tmp_path, num_workers=3)))


def test_states_and_cancelling(fake):
  rows = [
    {'job_name': 'mine', 'status': 'RECOVERING'},
    {'job_name': 'a', 'status': 'X'},
  ]
  (fake / 'queue').write_text(json.dumps(rows, indent=2))
  assert skypilot.states('mine') == '1 recovering'
  assert skypilot.states('another') == ''
  skypilot.cancel('mine')
  assert told(fake)[0][:2] == ['jobs', 'queue']
  assert told(fake)[-1] == ['jobs', 'cancel', '--yes', '--name', 'mine']


@pytest.mark.parametrize('answer', ['', 'no server', '[\n1]', '[\n{}]', '[]'])
def test_an_answer_of_another_form_is_no_hint(fake, answer):
  (fake / 'queue').write_text(answer)
  assert skypilot.states('mine') == ''


@pytest.fixture
def real(tmp_path) -> Callable[..., subprocess.CompletedProcess[str]]:
  """Returns a function that runs code beside the real SkyPilot, with words."""
  python = os.environ.get('SCALING_SKY_PYTHON')
  if not python:
    pytest.skip('needs the path of a Python with SkyPilot in SCALING_SKY_PYTHON')
  env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
  env |= {'HOME': str(tmp_path), 'SKYPILOT_DISABLE_USAGE_COLLECTION': '1'}

  def run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [python, '-c', code, *words]
    return subprocess.run(command, env=env, capture_output=True, text=True)

  return run


READ = """
import json, sys
import sky
task = sky.Task.from_yaml(sys.argv[1])
told = task.to_yaml_config()
print(json.dumps({key: told.get(key) for key in ('name', 'num_nodes', 'resources', 'run')}))
"""


def read(real, launch: Launch, path: pathlib.Path) -> dict[str, Any]:
  path.write_text(skypilot.render(launch))
  done = real(READ, str(path))
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_skypilot_takes_the_task_as_it_is_meant(real, tmp_path):
  launch = make_launch(tmp_path / 'a b')
  task = read(real, launch, tmp_path / 'task.yaml')
  assert task['name'] == 'digits-by-depth-012345-0'
  assert task['run'] == json.loads(skypilot.render(launch))['run']
  resources = task['resources']
  assert resources['infra'] == 'gcp/us-central1'
  assert resources['accelerators'] == {'tpu-v6e-8': 1}
  assert resources['accelerator_args']['runtime_version'] == 'v2-alpha-tpuv6e'
  assert resources['use_spot'] is True
  recovery = resources['job_recovery']
  assert recovery['recover_on_exit_codes'] == [70, 75, 134, 137, 139, 143]

  options = {
    'accelerators': 'H100:8',
    'infra': 'slurm/ours',
    'job_recovery': 'FAILOVER',
  }
  launch = make_launch(tmp_path, num_processes=2, options=options)
  task = read(real, launch, tmp_path / 'task.yaml')
  assert task['num_nodes'] == 2
  assert task['resources']['infra'] == 'slurm/ours'
  assert task['resources']['job_recovery']['strategy'].upper() == 'FAILOVER'


@pytest.mark.slow
def test_skypilot_refuses_what_it_does_not_know(real, tmp_path):
  path = tmp_path / 'task.yaml'
  path.write_text(skypilot.render(make_launch(tmp_path, options={'use_spott': 'true'})))
  done = real(READ, str(path))
  assert done.returncode != 0
  assert 'use_spott' in done.stderr
  assert 'use_spot' in done.stderr.replace('use_spott', '')


WORDS = """
import click, sys
from sky.client.cli import command
for words in (['jobs', 'launch', '--yes', '--detach-run', '--name', 'n', 'x.yaml'],
              ['jobs', 'queue', '--skip-finished', '--all', '--output', 'json'],
              ['jobs', 'cancel', '--yes', '--name', 'n']):
  group = command.cli.commands[words[0]].commands[words[1]]
  context = group.make_context(words[1], words[2:])
  print(sorted(k for k, v in context.params.items() if v not in (None, (), False)))
"""

QUEUE = """
import json
from sky.jobs.state import ManagedJobStatus
from sky.schemas.api.responses import ManagedJobRecord
rows = [ManagedJobRecord(job_name='mine', status=s) for s in ManagedJobStatus]
print(json.dumps([row.model_dump(mode='json') for row in rows], indent=2))
"""


@pytest.mark.slow
def test_skypilot_knows_our_words_and_we_its_answers(real, fake):
  done = real(WORDS)
  assert done.returncode == 0, done.stderr
  launch, queue, cancel = done.stdout.splitlines()[-3:]
  assert all(f"'{name}'" in launch for name in ('yes', 'detach_run', 'name'))
  assert all(f"'{name}'" in queue for name in ('skip_finished', 'all', 'output_format'))
  assert all(f"'{name}'" in cancel for name in ('yes', 'name'))

  done = real(QUEUE)
  assert done.returncode == 0, done.stderr
  (fake / 'queue').write_text(done.stdout)
  found = skypilot.states('mine')
  assert '1 running' in found
  assert '1 recovering' in found
