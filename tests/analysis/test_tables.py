"""Any CSV of learning curves: read as meant, or refused in one helpful line."""

import gzip
import math
import pathlib
import tempfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from analysis import results, tables
from analysis.tables import TableError, read_csv, read_sizes

PLAIN = 'n,y\n50,0.5\n100,0.625\n'


def write(folder, text, name='curve.csv', encoding='utf-8'):
  path = folder / name
  path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
  return path


@pytest.fixture
def read(tmp_path):
  """Reads a CSV given as text, with columns n and y."""
  return lambda text, **options: read_csv(
    write(tmp_path, text), **{'size': 'n', 'value': 'y', **options}
  )


@pytest.fixture
def complaint(read):
  """Reads a CSV that cannot be used, and returns the one line that says so."""

  def refused(text, **options):
    with pytest.raises(TableError) as caught:
      read(text, **options)
    assert '\n' not in str(caught.value)
    assert 'curve.csv' in str(caught.value)
    return str(caught.value)

  return refused


def test_reads_runs_by_group_and_numbers_the_repeats(read):
  text = 'n,net,top1\n100,b,62.5\n50,b,50\n50,a,45\n50,a,46\n'
  table = read(text, value='top1', group=['net'], percent=True)
  assert list(table.columns) == ['net', 'num_images', 'seed', 'value']
  assert table['net'].tolist() == ['a', 'a', 'b', 'b']
  assert table['seed'].tolist() == [0, 1, 0, 0]
  assert table['value'].tolist() == [0.45, 0.46, 0.5, 0.625]
  assert table['num_images'].dtype == float


def test_reads_every_column_with_a_meaning(read):
  text = 'n,y,s,e,t,p\n1e3,50,b,2,300,1M\n1000,40,a,1,200,1M\n500,30,a,0,100,2M\n'
  table = read(text, seed='s', se='e', num_test='t', model_size='p', percent=True)
  expected = {
    'num_images': [1000.0, 1000.0, 500.0],
    'seed': ['a', 'b', 'a'],
    'value': [0.4, 0.5, 0.3],
    'se': [0.01, 0.02, 0.0],
    'num_test': [200.0, 300.0, 100.0],
    'num_params': [1e6, 1e6, 2e6],
  }
  assert_frame_equal(table, pd.DataFrame(expected))


def test_a_model_size_tells_runs_apart(read):
  table = read('n,y,p\n50,0.5,10\n50,0.6,20\n', model_size='p')
  assert table['seed'].tolist() == [0, 0]


def test_rows_alike_without_a_seed_are_repeats(read):
  table = read('n,y\n50,0.5\n50,0.5\n50,0.5\n')
  assert table['seed'].tolist() == [0, 1, 2]
  assert table['value'].tolist() == [0.5] * 3


@pytest.mark.parametrize('num_test', ['10k', '10000', 10000, 1e4, '10_000'])
def test_num_test_may_be_a_number(read, num_test):
  assert read(PLAIN, num_test=num_test)['num_test'].tolist() == [10000.0] * 2


def test_num_test_is_first_of_all_a_column(read):
  table = read('n,y,100\n50,0.5,7\n', num_test='100')
  assert table['num_test'].tolist() == [7.0]
  table = read('n,y,100\n50,0.5,7\n', num_test=100)
  assert table['num_test'].tolist() == [100.0]


@pytest.mark.parametrize(
  ('cell', 'number'),
  [
    ('1000', 1000),
    ('+1000', 1000),
    ('1e3', 1000),
    ('1.5E3', 1500),
    ('.5', 0.5),
    ('1_000', 1000),
    ('"1,000"', 1000),
    ('"1,234,567.5"', 1234567.5),
    ('10k', 10_000),
    ('10 K', 10_000),
    ('1.1M', 1_100_000),
    ('300M', 300_000_000),
    ('1G', 1e9),
    ('"1,000B"', 1e12),
    (' 12 ', 12),
  ],
)
def test_spellings_of_a_size(read, cell, number):
  assert read(f'n,y\n{cell},0.5\n')['num_images'].tolist() == [number]


@pytest.mark.parametrize(
  'cell',
  ['10m', '1e3k', '1_0', '"10,00"', '"1,000_000"', '10kk', 'k', 'all', '1e999', '0x10',
   '٣', 'nan', 'inf', '.', '1 000', '10%'],
)  # fmt: skip
def test_no_spelling_of_a_size(complaint, cell):
  line = complaint(f'n,y\n50,0.5\n{cell},0.5\n')
  assert "column 'n', row 3: " in line
  assert 'is not a finite number of images; write it like' in line


@pytest.mark.parametrize(
  ('cells', 'labels', 'kind'),
  [
    (['8', '14'], [8, 14], 'i'),
    (['8.0', '14.'], [8, 14], 'i'),
    (['1e1', '-3'], [10, -3], 'i'),
    (['123456789012345678', '0'], [123456789012345678, 0], 'i'),
    (['0.1', '8'], [0.1, 8.0], 'f'),
    (['8', 'deep'], ['8', 'deep'], 'OU'),
    (['007', '8'], ['007', '8'], 'OU'),
    (['1234567890123456789', '1234567890123456788'], None, 'OU'),
    (['None', 'NA'], None, 'OU'),
    (['1e999', '1'], None, 'OU'),
    (['True', 'inf'], None, 'OU'),
  ],
)
def test_what_a_group_is(read, cells, labels, kind):
  text = 'g,n,y\n' + ''.join(f'{cell},50,0.5\n' for cell in cells)
  for options in ({'group': ['g']}, {'seed': 'g'}):
    column = read(text, **options)['g' if 'group' in options else 'seed']
    assert sorted(column.tolist()) == sorted(labels or cells)
    assert np.asarray(column).dtype.kind in kind


@pytest.mark.parametrize(
  'text',
  [
    PLAIN.encode('utf-8-sig'),
    PLAIN.replace('\n', '\r\n'),
    PLAIN.replace('\n', '\r'),
    PLAIN.rstrip(),
    PLAIN.replace(',', ';'),
    PLAIN.replace(',', '\t'),
    PLAIN.replace(',', ', '),
    '"n";"y"\n"50";"0.5"\n"100";"0.625"\n',
    'n;y;"a, b"\n50;0.5;\n100;0.625;1,2\n',
    'n;y;acc (a, b, c, d)\n50;0.5;\n100;0.625;1\n',
    '\n\nn,y\n\n50,0.5\n,,\n  \n100,0.625\n\n',
    'n,y,\n50,0.5,\n100,0.625\n',
    ',n,y,z,z\n0,50,0.5,1,2\n1,100,0.625,,\n',
    gzip.compress(PLAIN.encode(), mtime=0),  # or the clock is in the test's name
  ],
)
def test_files_as_programs_write_them(read, text):
  table = read(text)
  assert table['num_images'].tolist() == [50, 100]
  assert table['value'].tolist() == [0.5, 0.625]


def test_a_gzipped_file_goes_by_its_content(tmp_path):
  for name in ('curve.csv.gz', 'curve'):
    path = write(tmp_path, gzip.compress(PLAIN.encode()), name)
    assert len(read_csv(path, size='n', value='y')) == 2


@pytest.mark.parametrize(
  ('content', 'words'),
  [
    ('', 'curve.csv is empty; it needs column names and one row per run'),
    ('\ufeff\n \n', 'curve.csv is empty'),
    ('n,y\n', 'curve.csv has no rows below its header'),
    (b'PK\x03\x04rest', 'is not CSV but a binary file'),
    ('n,y\n50,0.5\n'.encode('utf-16'), 'is not CSV but a binary file'),
    ('n,y,g\n50,0.5,é\n'.encode('latin-1'), 'not CSV in UTF-8: row 2 has the byte 0xe9'),
    ('n,y\n50,0.5\n"60,0.5\n70,0.6\n', 'is not CSV: row 3: unexpected end of data'),
    ('n,y\n50,0.5\n50,0,5\n', 'row 3 has 3 cells, but the header names 2 columns'),
    (gzip.compress(b'n,y\n50,0.5\n', mtime=0)[:-9], 'cannot be read'),
  ],
)  # fmt: skip
def test_what_is_no_table(complaint, content, words):
  assert words in complaint(content)


def test_no_file(tmp_path):
  with pytest.raises(TableError, match=r'none\.csv does not exist; check the path'):
    read_csv(tmp_path / 'none.csv')
  with pytest.raises(TableError, match='is a folder; name the CSV file in it'):
    read_csv(tmp_path)
  with pytest.raises(TableError, match='cannot be read: Not a directory'):
    read_csv(write(tmp_path, PLAIN) / 'curve.csv')


@pytest.mark.parametrize(
  ('text', 'options', 'words'),
  [
    ('a,b\n1,2\n', {}, "has no column 'n' (--size) nor 'y' (--value); it has a, b"),
    ('N,y\n1,2\n', {}, "no column 'n' (--size); did you mean 'N'? it has N, y"),
    (
      'n,y,depth\n1,1,1\n',
      {'group': ['detph']},
      "no column 'detph' (--group); did you mean 'depth'?",
    ),
    (PLAIN, {'seed': 'seeed', 'se': 'q'}, "'seeed' (--seed) nor 'q' (--se)"),
    (PLAIN, {'model_size': 'params'}, "'params' (--model_size)"),
    ('50,0.5\n60,0.6\n', {}, 'its first line holds numbers, give it a line of column'),
    ('{"n": [1], "y": [2]}\n', {}, 'it looks like HTML or JSON'),
    ('n y\n50 0.5\n', {}, 'columns are separated by commas, semicolons or tabs'),
    (
      ','.join(f'c{i}' for i in range(20)) + '\n1\n',
      {},
      'c10, c11 and 8 more',
    ),
    ('"' + 'x\n' * 50 + '",b\n1,2\n', {}, '…, b'),
    ('n,y,y\n50,0.5,0.6\n', {}, "columns 2 and 3 are all called 'y' (--value); rename"),
    (
      PLAIN,
      {'value': 'n'},
      "column 'n' is named twice, for --size and for --value; each needs a column",
    ),
    ('n,y,g\n1,1,1\n', {'group': ['g', 'g']}, 'for --group and for --group'),
    ('n,y,g\n1,1,1\n', {'group': ['g'], 'seed': 'g'}, 'for --group and for --seed'),
    ('n,y,g\n1,1,1\n', {'num_test': 'g', 'se': 'g'}, 'for --se and for --num_test'),
    ('n,y,seed\n50,0.5,1\n', {'group': ['seed']}, "cannot group by 'seed', which has"),
    ('n,y,metric\n50,0.5,1\n', {'group': ['metric']}, "cannot group by 'metric'"),
  ],
)
def test_columns_that_cannot_be(complaint, text, options, words):
  assert words in complaint(text, **options)


@pytest.mark.parametrize(
  ('text', 'options', 'words'),
  [
    ('n,y\n50,many\n', {}, "column 'y', row 2: 'many' is not a finite number; correct"),
    ('n,y\n\n50,many\n', {}, 'row 3: '),
    ('n,y,"g\nh"\n50,0.5,"a\nb"\n50,many,\n', {}, 'row 5: '),
    ('n,y\n50,a\n50,b\n50,0.5\n50,c\n', {}, "row 2 (and 2 more): 'a'"),
    ('n,y\n50,0.5\n60,\n', {}, 'row 3: an empty cell is not a finite number; fill it'),
    ('n,y\n50,0.5\n60\n', {}, 'row 3: an empty cell is not a finite number'),
    ('n,y\n,0.5\n', {}, "column 'n', row 2: an empty cell is not a finite number of im"),
    ('n,y\n50,inf\n', {}, "'inf' is not a finite number; correct it or leave the row"),
    ('n,y\n50,-1e999\n', {}, "'-1e999' is not a finite number"),
    ('n,y\n50,NaN\n', {}, "'NaN' is not a finite number"),
    ('n,y\n50,1_0\n', {}, "'1_0' is not a finite number"),
    ('n,y\n50,62.5%\n', {}, "'62.5%' is not a plain number; leave out the signs % and "),
    ('n;y\n50;0,625\n', {}, "'0,625' is not a finite number; write the decimal point"),
    ('n,y\n50,' + 'x' * 99 + '\n', {}, "'" + 'x' * 39 + "…' is not"),
    ('n,y\n0,0.5\n', {}, "row 2: '0' is not a number of images; it must be above 0"),
    ('n,y\n-5,0.5\n', {}, "row 2: '-5' is not a number of images; it must be above 0"),
    ('n,y\n1e-999,0.5\n', {}, 'must be above 0'),
    ('n,y,p\n50,0.5,0\n', {'model_size': 'p'}, "'0' is not a number of parameters"),
    ('n,y,t\n50,0.5,0\n', {'num_test': 't'}, "'0' is not a number of test images"),
    ('n,y,t\n50,0.5,\n', {'num_test': 't'}, "column 't', row 2: an empty cell"),
    ('n,y,test\n50,0.5,1\n', {'num_test': 'tset'}, "did you mean 'test'?"),
    (PLAIN, {'num_test': 'm'}, '--num_test=m is neither a column of the file nor a num'),
    (PLAIN, {'num_test': '0'}, 'neither a column'),
    (PLAIN, {'num_test': -1}, 'neither a column'),
    (PLAIN, {'num_test': math.inf}, 'neither a column'),
    ('n,y,g\n50,0.5,\n', {'group': ['g']}, "column 'g', row 2: an empty cell names no"),
    ('n,y,g\n50,0.5,nan\n', {'group': ['g']}, "'nan' names no group"),
    ('n,y,s\n50,0.5, \n', {'seed': 's'}, "column 's', row 2: an empty cell names no"),
    ('n,y,e\n50,0.5,-1\n', {'se': 'e'}, "'-1' is no standard error, which cannot be be"),
    ('n,y,e\n50,0.5,x\n', {'se': 'e'}, "'x' is not a finite number"),
    ('n,y,e\n50,0.5,inf\n', {'se': 'e'}, "'inf' is not a finite number"),
    ('n,y,e\n50,0.5,0\n60,0.5,0.0\n', {'se': 'e'}, "'e' is 0 in every row; leave out --se"),
    ('n,y,e\n50,0.5,1.5\n', {'se': 'e'}, 'more than an accuracy can vary; give it in'),
    (
      'n,y,e\n50,50,150\n',
      {'se': 'e', 'percent': True},
      'more than an accuracy can vary',
    ),
  ],
)  # fmt: skip
def test_cells_that_cannot_be(complaint, text, options, words):
  assert words in complaint(text, **options)


@pytest.mark.parametrize(
  ('values', 'options', 'words'),
  [
    (
      [62.5],
      {},
      'reaches 62.5 in row 2, but an accuracy is a fraction up to 1; it is i',
    ),
    ([62.5, 100], {}, 'it is in percent: add --percent'),
    ([62.5], {'kind': 'error'}, 'an error is a fraction up to 1'),
    ([0.5, 62.5], {}, '1 of 2 rows look like percent (row 3): divide by 100 there, or'),
    ([1, 50, 60], {}, '2 of 3 rows look like percent (row 3, 4)'),
    ([0, *[50] * 9], {}, '(row 3, 4, 5, 6, 7 and 4 more)'),
    (
      [-0.5],
      {},
      "row 2: '-0.5' is no accuracy, which goes from 0 to 1; correct it, or",
    ),
    ([0.5, -5], {'percent': True}, 'is no accuracy, which goes from 0 to 100'),
    (
      [0.5, 620],
      {},
      "row 3: '620' is no accuracy, not even in percent; correct it, or",
    ),
    ([62, 620], {'percent': True}, "row 3: '620' is no accuracy, not even in percent"),
    (
      [0.5, 0.83, 0.6],
      {'percent': True},
      'reaches 0.83 in row 3 with --percent; are th',
    ),
    ([0, 0], {'percent': True}, 'are they fractions already?'),
    (
      [2.3, 0],
      {'kind': 'loss'},
      "row 3: '0' is no loss; a loss must be above 0; shift",
    ),
    ([-2.3], {'kind': 'loss'}, 'a loss must be above 0'),
    (
      [2.3],
      {'kind': 'loss', 'percent': True},
      'a loss is not in percent; leave out --',
    ),
  ],
)
def test_values_of_another_kind_or_unit(complaint, values, options, words):
  text = 'n,y\n' + ''.join(f'{50 + i},{value}\n' for i, value in enumerate(values))
  assert words in complaint(text, **options)


@pytest.mark.parametrize('kind', ['accuracy', 'error'])
def test_the_ends_of_the_range_are_values(read, kind):
  text = 'n,y\n50,0\n60,1\n'
  assert read(text, kind=kind)['value'].tolist() == [0, 1]
  text = 'n,y\n50,0\n60,0.7\n70,100\n'
  table = read(text, kind=kind, percent=True)
  assert table['value'].tolist() == [0, 0.7 / 100, 1]


def test_a_loss_has_any_unit(read):
  assert read('n,y\n50,1e-9\n60,620\n', kind='loss')['value'].tolist() == [1e-9, 620]


def test_an_unknown_kind(read):
  with pytest.raises(ValueError, match='accuracy, error, loss'):
    read(PLAIN, kind='top1')


def test_a_run_given_twice(complaint, read):
  text = 'n,y,s,d\n50,0.4,1,8\n\n50,0.5,1,8\n50,0.6,1,8\n'
  line = complaint(text, seed='s', group=['d'])
  assert 'rows 2 and 4 both hold d=8, n=50, s=1; keep one, give each repeat' in line
  text = 'n,y,s,p\n10k,0.4,1,1M\n10_000,0.5,1,1e6\n'
  line = complaint(text, seed='s', model_size='p')
  assert 'rows 2 and 3 both hold n=10_000, p=1e6, s=1' in line
  apart = 'n,y,s,d\n50,0.4,1,8\n50,0.5,2,8\n50,0.6,1,14\n60,0.6,1,14\n'
  assert len(read(apart, seed='s', group=['d'])) == 4


def test_sizes_to_predict_keep_their_order(tmp_path):
  text = 'note,n,depth,p\nx,1M,14,10\n,10k,8.0,20\nx,1M,14,10\n'
  path = write(tmp_path, text)
  table = read_sizes(path, size='n', group=['depth'], model_size='p')
  expected = {
    'depth': [14, 8, 14],
    'num_images': [1e6, 1e4, 1e6],
    'num_params': [10.0, 20.0, 10.0],
  }
  assert_frame_equal(table, pd.DataFrame(expected))
  assert list(read_sizes(path, size='n').columns) == ['num_images']


@pytest.mark.parametrize(
  ('text', 'options', 'words'),
  [
    ('m\n1\n', {}, r"no column 'n' \(--size\)"),
    ('n\n', {}, 'has no rows'),
    ('n\n5\n0\n', {}, "row 3: '0' is not a number of images"),
    ('n,g\n5,\n', {'group': ['g']}, 'an empty cell names no group'),
    ('n,g\n5,1\n', {'group': ['g', 'n']}, 'for --size and for --group'),
    ('n,p\n5,x\n', {'model_size': 'p'}, "'x' is not a finite number of parameters"),
  ],
)
def test_sizes_that_cannot_be(tmp_path, text, options, words):
  with pytest.raises(TableError, match=words):
    read_sizes(write(tmp_path, text), size='n', **options)


def test_the_error_is_that_of_the_study_tables():
  assert results.TableError is tables.TableError


NUMBERS = st.floats(0, 1).map(abs)  # no -0.0, which a table may as well write as 0
SIZES = st.one_of(st.integers(1, 10**12), st.floats(1e-3, 1e12))
NAMES = st.one_of(
  st.lists(st.integers(-(10**17), 10**17), min_size=1, max_size=3),
  st.lists(st.floats(-1e6, 1e6).map(lambda x: x + 0.0), min_size=1, max_size=3).filter(
    lambda names: any(name % 1 for name in names)
  ),
  st.lists(
    # Without quotes, as pandas writes it, a lone carriage return ends the line.
    st.text(st.characters(codec='utf-8', exclude_characters='\0\r'), min_size=1)
    .map(lambda text: 'n ' + text.strip() + '.'),
    min_size=1,
    max_size=3,
  ),
)  # fmt: skip


@st.composite
def random_tables(draw):
  """A table as `read_csv` returns it: runs with every column, in order."""
  groups, seeds = draw(NAMES), draw(NAMES)
  keys = st.tuples(st.sampled_from(groups), SIZES, st.sampled_from(seeds))
  rows = draw(st.lists(keys, min_size=1, max_size=12, unique=True))
  table = pd.DataFrame(rows, columns=pd.Index(['net', 'num_images', 'seed']))
  # A column is of one kind: also where only the whole ones of some floats were drawn.
  for name in ('net', 'seed'):
    column = table[name]
    if column.dtype.kind == 'f' and (column % 1 == 0).all():
      table[name] = column.astype(int)
  table['num_images'] = table['num_images'].astype(float)
  columns = st.lists(NUMBERS, min_size=len(rows), max_size=len(rows))
  table['value'] = draw(columns)
  table['se'] = draw(columns.filter(any))
  table['num_test'] = [float(draw(SIZES)) for _ in rows]
  return table.sort_values(['net', 'num_images', 'seed'], ignore_index=True)


@given(
  random_tables(),
  st.sampled_from(',;\t'),
  st.sampled_from(['\n', '\r\n']),
  st.sampled_from(['utf-8', 'utf-8-sig']),
  st.sampled_from([None, 'gzip']),
  st.randoms(use_true_random=False),
)
def test_what_is_written_is_read_back(table, separator, end, encoding, packed, random):
  order = random.sample(range(len(table)), len(table))
  columns = random.sample(list(table.columns), len(table.columns))
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'curve.csv'
    table.iloc[order][columns].to_csv(
      path,
      index=random.random() < 0.5,
      sep=separator,
      lineterminator=end,
      encoding=encoding,
      compression=packed,
    )
    read = read_csv(path, group=['net'], seed='seed', se='se', num_test='num_test')
    sizes = read_sizes(path, group=['net'])
  assert_frame_equal(read, table, check_exact=True)
  expected = table.iloc[order][['net', 'num_images']].reset_index(drop=True)
  assert_frame_equal(sizes, expected, check_exact=True)


@given(st.lists(st.tuples(st.integers(1, 5), NUMBERS), min_size=1))
def test_repeats_keep_the_order_of_the_file(rows):
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'curve.csv'
    pd.DataFrame(rows, columns=pd.Index(['n', 'y'])).to_csv(path)
    table = read_csv(path, size='n', value='y')
  # Sorted by size alone: a stable sort leaves the repeats as they were.
  assert list(zip(table['num_images'], table['value'], strict=True)) == sorted(
    rows, key=lambda row: row[0]
  )
  assert not table.duplicated(['num_images', 'seed']).any()


@given(st.text() | st.text(alphabet='ny0123456789.,;"\n\r\t %-e', max_size=60))
def test_no_text_ends_in_anything_but_a_table_or_one_line(text):
  with tempfile.TemporaryDirectory() as folder:
    path = write(pathlib.Path(folder), 'n,y\n' + text, encoding='utf-8-sig')
    try:
      table, line = read_csv(path, size='n', value='y'), 'curve.csv'
    except TableError as error:
      table, line = None, str(error)
  assert 'curve.csv' in line
  assert len(line.splitlines()) == 1
  if table is not None:
    assert table['value'].between(0, 1).all()
    assert (table['num_images'] > 0).all()
