"""The results table: from folders in any state."""

import json

import pytest
from pandas.testing import assert_frame_equal

from analysis.results import COLUMNS, TableError, read_study


def cell_folder(study, depth, size, seed):
  return next((study / 'cells').glob(f'resnet{depth}-w16-n{size}-seed{seed}-*'))


def test_one_row_per_cell_and_metric(make_study):
  study = read_study(make_study())
  assert list(study.table.columns) == COLUMNS
  assert len(study.table) == 36 * 3
  assert set(study.table['metric']) == {'test/top1', 'test/top5', 'test/loss'}
  assert set(study.table['num_images']) == {50, 100, 200, 400, 800, 1437}
  assert set(study.table['protocol']) == {'epochs'}
  first = study.table.iloc[0]
  assert (first['depth'], first['num_images'], first['seed']) == (8, 50, 0)
  assert first['num_test'] == 360
  assert first['path'] == f'cells/{first["cell"]}'
  assert not len(study.missing)
  keys = study.table[['depth', 'num_images', 'seed', 'metric']]
  assert_frame_equal(keys, keys.sort_values(list(keys.columns)))


def test_fixed_steps(make_study):
  table = read_study(make_study(epochs=0.0, steps=500)).table
  assert set(table['protocol']) == {'steps'}
  assert set(table['steps']) == {500}
  row = table[table['num_images'] == 50].iloc[0]
  assert row['epochs'] == 500 * 64 / 50


def test_missing_cells_are_listed_with_reasons(make_study):
  states = {
    (8, 50, 0): ('pending', None),
    (8, 50, 1): ('failed', 'ValueError: loss is nan'),
    (20, 0, 2): ('preempted', None),
  }
  study = read_study(make_study(states=states))
  missing = study.missing.set_index('state')
  assert set(missing.index) == {'pending', 'failed', 'preempted'}
  assert missing.loc['failed', 'reason'] == 'ValueError: loss is nan'
  assert missing.loc['pending', 'depth'] == 8
  assert len(study.table) == 33 * 3


def test_a_torn_last_line_is_tolerated(make_study):
  folder = make_study()
  whole = read_study(folder).table
  metrics = cell_folder(folder, 8, 50, 0) / 'metrics.jsonl'
  with metrics.open('a') as file:
    file.write('{"step": 99, "test/to')
  assert_frame_equal(read_study(folder).table, whole)


def test_a_cell_is_never_read_half(make_study):
  folder = make_study()
  (cell_folder(folder, 8, 50, 0) / 'manifest.json').write_text('{"steps": 1')
  (cell_folder(folder, 8, 50, 1) / 'status.json').unlink()
  metrics = cell_folder(folder, 8, 50, 2) / 'metrics.jsonl'
  metrics.write_text('\n'.join(metrics.read_text().splitlines()[:-1]) + '\n')
  broken = cell_folder(folder, 8, 100, 0) / 'metrics.jsonl'
  broken.write_text('oops\n' + broken.read_text())
  nan = cell_folder(folder, 8, 100, 1) / 'metrics.jsonl'
  nan.write_text(nan.read_text().replace('"test/loss": 2.3', '"test/loss": 9'))
  lines = nan.read_text().splitlines()
  last = json.loads(lines[-1]) | {'test/loss': float('nan')}
  nan.write_text('\n'.join([*lines[:-1], json.dumps(last)]) + '\n')
  missing = read_study(folder).missing
  reasons = ' | '.join(missing['reason'])
  assert len(missing) == 5
  assert 'manifest.json is missing or unreadable' in reasons
  assert 'last evaluated at step 0' in reasons
  assert 'metrics.jsonl line 1' in reasons
  assert 'test/loss is nan' in reasons


def test_duplicates_are_refused(make_study):
  with pytest.raises(TableError, match=r'are both the result of .*num_images=1437'):
    read_study(make_study(sizes=(50, 100, 0, 1437)))


def test_no_study(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'study\.json'):
    read_study(tmp_path)
  (tmp_path / 'study.json').write_text('[]')
  with pytest.raises(TableError, match='does not list cells'):
    read_study(tmp_path)
