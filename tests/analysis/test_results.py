"""The results table: from folders in any state, and from any CSV."""

import json

import pytest
from pandas.testing import assert_frame_equal

from analysis.results import COLUMNS, TableError, read_csv, read_study


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


def csv(tmp_path, text):
  path = tmp_path / 'curve.csv'
  path.write_text(text)
  return path


def test_reads_any_csv(tmp_path):
  path = csv(tmp_path, 'n,net,top1\n100,b,62.5\n50,b,50\n50,a,45\n50,a,46\n')
  table = read_csv(path, size='n', value='top1', group=['net'], percent=True)
  assert list(table.columns) == ['net', 'num_images', 'seed', 'value']
  assert table['seed'].tolist() == [0, 1, 0, 0]
  assert table['value'].tolist() == [0.45, 0.46, 0.5, 0.625]


@pytest.mark.parametrize(
  ('text', 'options', 'words'),
  [
    ('a,b\n1,2\n', {}, "no column 'n'; it has a, b"),
    ('n,y\n', {}, 'no rows'),
    ('', {}, 'cannot be read'),
    ('n,y\n50,many\n', {}, "row 2: 'many' is not a finite number"),
    ('n,y\n50,0.5\n60,\n', {}, 'row 3: an empty cell is not a finite number'),
    ('n,y\n50,inf\n', {}, 'not a finite number'),
    ('n,y\n0,0.5\n', {}, 'row 2: 0 is not a number of images'),
    ('n,y\n50,62.5\n', {}, r'reaches 62.5.*percent'),
    ('n,y\n50,-0.5\n', {}, r'lies in \[0, 1\]'),
    ('n,y\n50,620\n', {'percent': True}, r'lies in \[0, 1\]'),
    ('n,y,s\n50,0.5,1\n50,0.6,1\n', {'seed': 's'}, 'row 3 repeats num_images=50'),
    ('n,y,g\n50,0.5,\n', {'group': ['g']}, 'empty cells'),
    ('n,y,seed\n50,0.5,1\n', {'group': ['seed']}, 'cannot group'),
  ],
)
def test_bad_csv_says_what_and_where(tmp_path, text, options, words):
  with pytest.raises(TableError, match=words) as caught:
    read_csv(csv(tmp_path, text), size='n', value='y', **options)
  assert '\n' not in str(caught.value)


def test_a_missing_file(tmp_path):
  with pytest.raises(TableError, match='cannot be read'):
    read_csv(tmp_path / 'none.csv')
