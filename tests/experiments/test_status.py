import json

import pytest

from experiments import ledger, status


def write_cell(folder, config, *, state=None, rows=(), steps=None):
  """Writes what a cell leaves on disk."""
  folder.mkdir(parents=True)
  (folder / 'config.json').write_text(json.dumps(config.to_dict()))
  if state is not None:
    (folder / 'status.json').write_text(json.dumps({'attempts': 1} | state))
  if steps is not None:
    about = {'steps': steps, 'num_devices': 2}
    (folder / 'manifest.json').write_text(json.dumps(about))
  if rows:
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in rows))
  return folder


def read(folder, config, before=None):
  """Returns the progress of a cell as a study that lists it alone expects it."""
  listed = {'name': folder.name, 'overrides': {}}
  study = {'config': config.to_dict(), 'cells': [listed]}
  (expected,) = status.expect(folder.parents[1], study)
  return status.read_progress(expected, before)


def test_a_cell_that_has_not_begun(tmp_path, config):
  config.train.steps, config.train.batch_size = 10, 8
  cell = read(write_cell(tmp_path / 'cells' / 'a', config), config)
  assert (cell.name, cell.state, cell.ended) == ('a', 'pending', False)
  assert (cell.images, cell.total_images) == (0, 80)


def test_progress_comes_from_the_last_whole_row(tmp_path, config):
  config.train.batch_size = 8
  rows = [{'step': 2}, {'step': 5, 'test/top1': 0.5}]
  folder = write_cell(
    tmp_path / 'cells' / 'a', config, state={'state': 'preempted'}, rows=rows, steps=20
  )
  with (folder / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 9, "te')  # torn by a kill
  cell = read(folder, config)
  assert (cell.images, cell.total_images, cell.row) == (40, 160, rows[1])


def test_a_running_cell_without_its_worker_is_stale(tmp_path, config):
  lease = {'host': ledger._host(), 'pid': 2**22 + 1, 'start': '1'}
  running = {'state': 'running', 'attempts': 1, 'lease': lease}
  cell = read(write_cell(tmp_path / 'cells' / 'a', config, state=running), config)
  assert (cell.state, cell.stale, cell.ended) == ('stale', True, False)


def test_an_ended_cell_is_not_read_again_until_it_is_retried(tmp_path, config):
  folder = write_cell(tmp_path / 'cells' / 'a', config, state={'state': 'failed'})
  before = read(folder, config)
  assert read(folder, config, before) is before
  assert ledger.reopen(folder, ('failed',))
  assert read(folder, config, before).state == 'pending'


@pytest.fixture
def cells(tmp_path, config):
  """A done, a running-but-dead, two failed and a waiting cell."""
  config.train.batch_size = 8
  done = [{'step': 20, 'test/top1': 0.4321, 'time/images_per_second': 1234.5}]
  done[0]['time/input_wait_share'] = 0.126
  states = {
    'a': ({'state': 'done'}, done),
    'b': ({'state': 'failed', 'reason': 'out of luck'}, [{'step': 10}]),
    'c': ({'state': 'failed', 'reason': 'out of luck'}, ()),
    'd': ({'state': 'failed', 'reason': 'another'}, ()),
    'e': (None, ()),
  }
  return [
    read(
      write_cell(tmp_path / 'cells' / name, config, state=state, rows=rows, steps=20),
      config,
    )
    for name, (state, rows) in states.items()
  ]


def test_counts(cells):
  assert status.counts(cells) == '1 done, 3 failed, 1 pending'


def test_failures_name_each_reason_once_the_commonest_first(cells):
  assert status.failures(cells) == ['b and 1 more: out of luck', 'd: another']


def test_table_has_a_line_for_each_cell(cells):
  lines = status.table(cells).splitlines()
  assert [line.split()[:2] for line in lines] == [
    ['a', 'done'],
    ['b', 'failed'],
    ['c', 'failed'],
    ['d', 'failed'],
    ['e', 'pending'],
  ]
  assert '100%' in lines[0]
  assert '1,23' in lines[0]
  assert '13% waiting for input' in lines[0]
  assert 'top-1 43.21%' in lines[0]
  assert '50%' in lines[1]
  assert lines[1].endswith('out of luck')
  assert '  0%' in lines[4]
