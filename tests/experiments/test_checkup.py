import json
import os

import pytest

from experiments import checkup, ledger, sweep
from scaling import trained


@pytest.fixture
def study(tmp_path, config):
  """A study of three cells that are done, and one that waits."""
  wanted = [{'data.num_images': n} for n in (10, 20, 30, 40)]
  cells = sweep.make_cells(config, wanted)
  sweep.write_study(tmp_path, config, 'x.py', cells)
  manifest = {'git_commit': 'abc', 'num_devices': 1, 'versions': {'jax': '0.10.2'}}
  for cell in cells[:3]:
    folder = sweep.cell_folder(tmp_path, cell.name)
    (folder / 'manifest.json').write_text(json.dumps(manifest))
    (folder / 'metrics.jsonl').write_text('{"step": 0}\n{"step": 4}\n')
    (folder / 'status.json').write_text(json.dumps({'state': 'done', 'attempts': 1}))
  return tmp_path


@pytest.fixture
def cell(study):
  """The folder of the first cell."""
  return sweep.cell_folder(study, sweep.read_study(study)['cells'][0]['name'])


def told(study):
  return checkup.check(study, sweep.read_study(study))


def test_nothing_is_wrong(study, call):
  assert told(study) == []
  assert call('doctor', f'--workdir={study}') == (
    0,
    '4 cells, nothing wrong with them\n',
    '',
  )


@pytest.mark.parametrize('name', ['config.json', 'manifest.json', 'status.json'])
def test_a_torn_file(study, cell, call, name):
  (cell / name).write_text('{"a": ')
  (line,) = told(study)
  assert line.startswith(f'{cell.name}: {name} cannot be read')
  assert 'delete' in line
  status, out, _ = call('doctor', f'--workdir={study}')
  assert (status, out) == (1, line + '\n')


def test_checkpoints_are_read_where_asked(study, cell, call, error, monkeypatch):
  monkeypatch.setattr(
    trained, 'broken', lambda at: {40: 'params/a is torn'} if at == cell else {}
  )
  assert told(study) == []
  status, out, _ = call('doctor', f'--workdir={study}', '--checkpoints')
  assert status == 1
  assert out.startswith(
    f'{cell.name}: checkpoint 40 cannot be read (params/a is torn); '
  )
  assert out.count('\n') == 1
  lease = {'host': 'a', 'pid': 1, 'beat': 0}
  (cell / 'status.json').write_text(json.dumps({'state': 'running', 'lease': lease}))
  found = checkup.check(study, sweep.read_study(study), checkpoints=True)
  assert not any('checkpoint' in line for line in found)  # its worker may be writing
  assert '--workdir' in error('doctor', '--checkpoints')


@pytest.mark.parametrize('content', ['', '[]', 'null', '{"a": 1}'])
def test_a_status_of_no_fields(study, cell, call, error, content):
  (cell / 'status.json').write_text(content)
  (line,) = told(study)
  assert line.startswith(f'{cell.name}: status.json cannot be read')
  for verb in ('status', 'cancel', 'retry'):
    said = error(verb, f'--workdir={study}')
    assert f'{cell.name}/status.json cannot be read' in said
    assert 'delete it' in said


def test_a_cell_that_is_done_without_its_last_row(study, cell):
  (cell / 'manifest.json').write_text(json.dumps({'steps': 8}))
  assert any(
    f'{cell.name}: done, but its metrics end at step 4' in x for x in told(study)
  )
  (cell / 'metrics.jsonl').unlink()
  lines = told(study)
  assert any(f'{cell.name}: done, but its metrics end at step none' in x for x in lines)


@pytest.mark.parametrize('content', ['{', '[]', '{"cells": []}'])
@pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')
def test_a_study_that_is_torn(study, error, content, tiny_file):
  (study / 'study.json').write_text(content)
  for words in (
    ['status'],
    ['doctor'],
    ['sweep', f'--config={tiny_file}'],
  ):
    said = error(*words, f'--workdir={study}')
    assert 'study.json cannot be read' in said
    assert 'writes it anew' in said


def test_damaged_metrics(study, cell):
  (cell / 'metrics.jsonl').write_text('{"step": 0}\n{"st\n{"step": 4}\n')
  (line,) = told(study)
  assert f'{cell.name}: line 2 of metrics.jsonl is damaged' in line
  (cell / 'metrics.jsonl').write_text('{"step": 0}\n{"st')
  (line,) = told(study)
  assert 'done, but the last line' in line
  (cell / 'status.json').write_text(json.dumps({'state': 'preempted', 'attempts': 1}))
  assert told(study) == []  # so does a kill leave it, and resuming cuts it


def test_a_worker_that_is_gone_and_what_it_left(study, cell):
  lease = {'host': ledger._host(), 'pid': 2**22 + 1, 'start': '1'}
  running = {'state': 'running', 'attempts': 1, 'lease': lease}
  (cell / 'status.json').write_text(json.dumps(running))
  (cell / f'.config.json.{os.getpid()}').write_text('{')
  gone, left = told(study)
  assert f'{cell.name}: its worker is gone (process {2**22 + 1} on' in gone
  assert f'.config.json.{os.getpid()} left by a writer' in left


def test_mixed_versions(study, cell):
  manifest = {'git_commit': 'abd', 'num_devices': 1, 'versions': {'jax': '0.11.0'}}
  (cell / 'manifest.json').write_text(json.dumps(manifest))
  commit, jax = told(study)
  assert (
    commit == 'cells differ in git_commit: abc in 2, abd in 1; their results may too'
  )
  assert 'cells differ in jax: 0.10.2 in 2, 0.11.0 in 1' in jax


def test_a_cell_that_was_gone_on_with_by_another_version(study, cell):
  manifest = json.loads((cell / 'manifest.json').read_text())
  manifest['earlier'] = [manifest | {'versions': {'jax': '0.9.0'}}]
  (cell / 'manifest.json').write_text(json.dumps(manifest))
  (line,) = told(study)
  assert 'cells differ in jax: 0.10.2 in 3, 0.9.0 in 1' in line


def test_a_disk_that_will_be_full(study, cell, monkeypatch):
  (cell / 'checkpoints').mkdir()
  (cell / 'checkpoints' / 'state').write_bytes(bytes(2_000_000))
  usage = checkup.shutil.disk_usage(study)
  few = type(usage)(usage.total, usage.used, 1_000_000)
  monkeypatch.setattr(checkup.shutil, 'disk_usage', lambda _: few)
  (line,) = told(study)
  assert '1 cells that are left may take 0.00 GB each' in line


def test_retry_says_what_it_finds(study, cell, call):
  assert (
    call('retry', f'--workdir={study}')[1] == 'no cell has failed; nothing is changed\n'
  )
  (cell / 'status.json').write_text(json.dumps({'state': 'failed', 'failures': 2}))
  status, out, _ = call('retry', f'--workdir={study}')
  assert status == 0
  assert out.startswith('1 failed cells may be tried again')
  assert ledger.read_status(cell).state != 'failed'


def test_the_log_of_a_cell_and_what_a_study_cost(study, cell, call, error):
  (cell / 'log.txt').write_text('step 1\n')
  assert call('logs', 'n10-', f'--workdir={study}') == (0, 'step 1\n', '')
  assert 'n77' in error('logs', 'n77', f'--workdir={study}')
  row = {'step': 4, 'time/train_seconds': 9000.0}
  (cell / 'metrics.jsonl').write_text(json.dumps(row) + '\n')
  (cell / 'manifest.json').write_text('{')  # it is damaged, and status goes on
  _, out, _ = call('status', f'--workdir={study}', '--price_per_hour=2')
  assert out.splitlines()[-1].endswith('2.5 device hours, 5.00 USD')
