"""The results that docs/reproduce.md shows follow from the tables stored beside it."""

import pathlib
import re

import pytest

# ml_collections loads config files in a way that Python 3.11 already warns about.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')

DOCS = pathlib.Path(__file__).parents[2] / 'docs'
CIFAR10 = ('--config=cifar10', '--sizes=500,1000,2000,4000,8000,16000')
STORED = {
  'data_size': ('data_size', (), 'Of 6 claims 2 hold, 2 do not hold and 2 cannot'),
  'data_size_cifar10': (
    'data_size',
    CIFAR10,
    'Of 6 claims 1 holds, 2 do not hold and 3 cannot',
  ),
  'transfer_cifar10_digits': (
    'transfer',
    ('--config=cifar10', '--sizes=1000,4000,16000', '--depths=8,14', '--epochs=8'),
    'Of 4 claims 1 does not hold and 3 cannot',
  ),
  'depth_cifar10': (
    'depth',
    ('--config=cifar10', '--sizes=1000,2000,4000,8000', '--seeds=5'),
    'Of 2 claims 1 holds and 1 cannot be judged.',
  ),
  'width_or_depth': (
    'width_or_depth',
    ('--sizes=500,2000,8000',),
    'Of 2 claims 1 holds and 1 does not hold.',
  ),
  'label_noise': (
    'label_noise',
    ('--sizes=250,1000,4000',),
    'Of 3 claims 3 hold.',
  ),
  'initialisation': (
    'initialisation',
    (),
    'Of 3 claims 1 holds and 2 cannot be judged.',
  ),
  'dedup_cifar10': (
    'dedup',
    ('--config=cifar10', '--sizes=1000,2000,4000,8000,16000'),
    'Of 2 claims 2 hold.',
  ),
  'epochs': (
    'epochs',
    (),
    'Of 4 claims 1 holds, 1 does not hold and 2 cannot',
  ),
  'schedule': (
    'schedule',
    (),
    'Of 2 claims 1 does not hold and 1 cannot be judged.',
  ),
  'label_space': ('label_space', (), 'The same images with few or many classes'),
}


@pytest.mark.parametrize(
  'words',
  [(), ('--sizes=1000,2000,4000,8000', '--seeds=3'), ('--sizes=1000,2000,4000',)],
)
def test_a_table_is_not_judged_by_other_settings(call, tmp_path, words):
  table = DOCS / 'results' / 'depth_cifar10' / 'results.csv'
  status, _, err = call(
    'reproduce', 'depth', f'--results={table}', f'--out={tmp_path}', *words
  )
  assert status == 2
  assert 'give the flags that they were made with' in err
  assert '--sizes=1000,2000,4000,8000' in err
  assert not list(tmp_path.iterdir())


def test_runs_that_a_table_lacks_are_told_and_a_set_that_it_does_not_name_is_not(
  call, tmp_path
):
  table = DOCS / 'results' / 'depth_cifar10' / 'results.csv'
  rows = table.read_text().splitlines(keepends=True)
  stored = tmp_path / 'stored.csv'
  stored.write_text(''.join(row for row in rows if 'n1000-seed3' not in row))
  words = ('--sizes=1000,2000,4000,8000', '--seeds=5', f'--out={tmp_path / "page"}')
  status, out, _ = call('reproduce', 'depth', f'--results={stored}', *words)
  assert status == 0
  assert 'resnet8-n1000-seed3' in (tmp_path / 'page' / 'report.md').read_text()
  assert out.startswith('More depth\n')


@pytest.mark.parametrize('folder', STORED)
def test_the_table_gives_the_page(call, tmp_path, folder):
  name, words, lead = STORED[folder]
  table = DOCS / 'results' / folder / 'results.csv'
  status, out, _ = call(
    'reproduce', name, f'--results={table}', f'--out={tmp_path}', *words
  )
  assert status == 0
  assert lead in out
  drawn = {path.stem for path in tmp_path.glob('*.png')}
  assert {path.stem for path in table.parent.glob('*.png')} <= drawn
  # What the docs say of the largest size stands in the page.
  text = (DOCS / 'reproduce.md').read_text()
  shown = re.search(rf'results/{folder}/.*?\.png\)(.*?)\n## ', text, re.DOTALL)
  assert shown
  page = (tmp_path / 'report.md').read_text()
  found = re.findall(r'\| [\d,]+ \| (\d\d\.\d%) \| (\d\d\.\d%)', shown[1])
  assert found or name != 'data_size'
  assert all(f'| {one} | {two} |' in page for one, two in found)
