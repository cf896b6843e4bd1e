"""`scaling reproduce`: every study's cells, its judgement, and what it refuses."""

import itertools
import pathlib

import pandas as pd
import pytest

from configs import procedural
from configs.cooldowns import cooldowns
from experiments import paper, reproduce
from experiments.paper.scales import SCALES

# ml_collections loads config files in a way that Python 3.11 already warns about.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')

WORDS = (
  '--sizes=64,128,256,512', '--seeds=2', '--epochs=16',
  '--config.model.width=4', '--config.data.image_size=8',
  '--config.data.procedural.num_test=200', '--config.log.eval_batch_size=100',
  '--config.transfer.draws=2', '--config.transfer.probe_images=200',
)  # fmt: skip


# What `measure` of dedup adds to the table.
MEASURED = tuple(
  f'dedup/{name}'
  for name in (
    'clean', 'duplicated', 'change', 'change_lo', 'change_hi',
    'gain_change', 'gain_change_lo', 'gain_change_hi',
  )
)  # fmt: skip


def cells_of(name, scale='laptop'):
  config = procedural.get_config()
  return reproduce.cells_of(paper.load(name), config, SCALES[scale], {}), config


def pretended(name):
  """Returns a table as if all cells of a study had been trained, and what judges it."""
  cells, config = cells_of(name)
  swept = sorted({field for cell in cells for field in cell.overrides})
  rows = []
  for cell, metric in itertools.product(
    cells,
    ('test/top1', 'transfer/10_shot', 'transfer/probe', 'test/map100', *MEASURED),
  ):
    data, train = cell.config.data, cell.config.train
    if metric in MEASURED and name != 'dedup':
      continue
    if metric.startswith('transfer') and not cell.config.transfer.source:
      continue
    if (metric == 'test/map100') != (
      train.loss == 'sigmoid'
    ) and 'transfer' not in metric:
      continue
    flat = {field: _field(cell.config, field) for field in swept}
    wiggle = 0.002 * (cell.config.seed - 1)
    value = 0.1 * (data.num_images / 100) ** 0.4 / 5 + cell.config.model.depth / 200
    rows.append(
      flat
      | {
        'cell': cell.name,
        'metric': metric,
        'value': value + wiggle,
        'num_images': data.num_images,
        'seed': cell.config.seed,
        'depth': cell.config.model.depth,
        'width': cell.config.model.width,
        'steps': train.steps,
        'epochs': train.steps * train.batch_size / data.num_images,
        'examples_seen': train.steps * train.batch_size,
        'protocol': 'steps',
        'flops': 1e9,
        'params': 1e4,
        'num_test': 8000,
        'train_seconds': 1.0,
      }
    )
  return pd.DataFrame(rows), config


def _field(config, name):
  for part in name.split('.'):
    config = config[part]
  return str(config) if isinstance(config, tuple) else config


@pytest.mark.parametrize('name', paper.NAMES)
def test_every_study_lists_cells_and_judges_them(name):
  table, config = pretended(name)
  found = paper.load(name).judge(table, config, SCALES['laptop'])
  assert found.verdicts
  assert all(verdict.measured for verdict in found.verdicts)
  assert found.figures
  assert all(len(figure.table) for figure in found.figures)


@pytest.mark.parametrize('name', paper.NAMES)
def test_a_study_without_results_cannot_say(name):
  table, config = pretended(name)
  found = paper.load(name).judge(table[:0], config, SCALES['laptop'])
  assert {verdict.answer for verdict in found.verdicts} == {'cannot say'}


def test_depth_recovers_an_interaction_that_is_there():
  table, config = pretended('depth')
  deeper = table['depth'] / 20
  table['value'] = 0.2 + 0.02 * deeper * (table['num_images'] / 250).pow(0.5)
  table['value'] += 0.001 * (table['seed'] - 1)
  found = paper.load('depth').judge(table, config, SCALES['laptop'])
  assert [verdict.answer for verdict in found.verdicts] == ['holds', 'holds']
  table['value'] = 0.5 - table['value']
  found = paper.load('depth').judge(table, config, SCALES['laptop'])
  assert {verdict.answer for verdict in found.verdicts} == {'does not hold'}


def test_protocols_of_data_size_share_their_cells():
  cells, config = cells_of('data_size')
  scale = SCALES['laptop']
  assert len({cell.name for cell in cells}) == len(cells)
  table, _ = pretended('data_size')
  found = paper.load('data_size').judge(table, config, scale)
  arms = found.figures[0].table
  for arm in ('fixed epochs', 'fixed steps'):
    assert set(arms[arms['arm'] == arm]['num_images']) == set(scale.sizes)


def test_a_best_length_that_may_be_longer_is_told():
  table, config = pretended('data_size')
  scale = SCALES['laptop']
  table['value'] += table['steps'] / 1e6  # longer is better
  found = paper.load('data_size').judge(table, config, scale)
  told = [v.because for v in found.verdicts if 'best length' in v.claim]
  assert all('at 6 of 6 sizes the longest run is the best' in each for each in told)
  table['value'] -= 2 * table['steps'] / 1e6
  found = paper.load('data_size').judge(table, config, scale)
  told = [v.because for v in found.verdicts if 'best length' in v.claim]
  assert all('at 1 of 6 sizes' in each for each in told)  # where there is but one


def test_the_exponent_of_the_error_stands_beside_that_of_the_images():
  table, config = pretended('data_size')
  table['value'] = 1 - 3 * table['num_images'] ** -0.3 * (1 + table['seed'] / 1000)
  found = paper.load('data_size').judge(table, config, SCALES['laptop']).tables[-1]
  exponent = {row[0]: float(row[1].split()[0]) for row in found.rows}
  assert exponent['fixed steps'] == pytest.approx(0.3, abs=0.002)
  assert 'made with the exponent 0.4,' in found.note
  config.data.source = 'digits'
  found = paper.load('data_size').judge(table, config, SCALES['laptop']).tables[-1]
  assert 'were made' not in found.note


def test_networks_of_equal_cost():
  from experiments.paper import width_or_depth
  from scaling import cost

  config = procedural.get_config()
  found = width_or_depth.networks(config, SCALES['laptop'])
  flops = {}
  for name, network in found.items():
    sized = config.copy_and_resolve_references()
    sized.update_from_flattened_dict(network)
    flops[name] = cost.forward_flops(sized)
  assert flops['deeper'] == pytest.approx(flops['wider'], rel=0.1)
  assert flops['deeper'] > 2 * flops['base']


def test_cooldowns_branch_off_one_run():
  found = cooldowns([50, 100, 200], 0.2, seed=3)
  assert [cell['init.step'] for cell in found] == [40, 80, 160]
  trunk = found[0]['init.cell']
  assert all(cell['init.cell'] == trunk for cell in found)
  assert (trunk['train.steps'], trunk['checkpoint.keep_steps']) == (160, (40, 80, 160))
  assert trunk['seed'] == 3


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['data_sise'], 'Did you mean "data_size"'),
    (['depth'], '--workdir is missing'),
    (['depth', '--sizes=5'], 'at least two --sizes, and 5 is one'),
    (['depth', '--depths=8'], 'at least 2 --depths, and 8 is one'),
    (['epochs', '--depths=8,14'], 'use --config.model.depth=14'),
    (['depth', '--sizes=a,b'], 'must be whole numbers'),
    (['label_noise', '--config=digits', '--workdir=x'], '--config=procedural'),
    (['depth', '--results=absent.csv'], 'absent.csv'),
    (['depth', '--scale=huge'], 'should be one of'),
  ],
)
def test_what_cannot_be_is_said_in_a_line(call, tmp_path, monkeypatch, words, message):
  monkeypatch.chdir(tmp_path)
  status, _, err = call('reproduce', *words)
  assert status == 2
  assert message in err
  assert len(err.splitlines()) == 1
  assert not list(pathlib.Path(tmp_path).iterdir())


@pytest.mark.parametrize(
  ('name', 'scale', 'machine'),
  [
    ('data_size', 'laptop', 'a guess of 10 a core'),
    *((name, 'gpu', '1 x H100') for name in paper.NAMES),
    ('label_noise', 'pod', '256 x TPU v5e'),
    ('depth', 'pod', '256 x TPU v5e'),
  ],
)
def test_each_scale_has_a_plan(call, tmp_path, name, scale, machine):
  words = (f'--scale={scale}', '--dry_run', f'--workdir={tmp_path / "study"}')
  status, out, err = call('reproduce', name, *words)
  assert status == 0, err
  assert machine in out
  assert not list(tmp_path.iterdir())
  if scale == 'gpu':  # where one depth will do it is that of the scale
    assert 'resnet20-' in out or name == 'label_noise'


def test_table_of_something_else_is_refused(call, tmp_path):
  (tmp_path / 'other.csv').write_text('a,b\n1,2\n')
  status, _, err = call('reproduce', 'depth', f'--results={tmp_path / "other.csv"}')
  assert status == 2
  assert 'has no column cell' in err


def test_cells_of_an_earlier_call_are_left_out(call, tmp_path, monkeypatch):
  """A folder may hold them, and the same arm may then have runs of two lengths."""
  from analysis import results
  from experiments import sweep_verbs

  listed = []

  def read_study(_):
    table, _ = pretended('label_space')
    names = dict(zip(table['cell'].unique(), (c.name for c in listed), strict=True))
    own = table.assign(cell=table['cell'].map(names))
    other = table.assign(cell=table['cell'] + '-before', value=0.9)
    both = pd.concat([own, other], ignore_index=True)
    none = pd.DataFrame({'name': [], 'state': [], 'reason': []})
    return results.Study('label_space', tmp_path, {}, '', none, both, {})

  monkeypatch.setattr(
    sweep_verbs, 'sweep_cells', lambda _, __, cells: listed.extend(cells) or 0
  )
  monkeypatch.setattr(results, 'read_study', read_study)
  status, _, err = call('reproduce', 'label_space', f'--workdir={tmp_path}')
  assert status == 0, err
  written = pd.read_csv(tmp_path / 'report' / 'results.csv')
  assert set(written['cell']) == {cell.name for cell in listed}


@pytest.mark.slow
def test_a_study_from_its_command_to_its_page_and_again_from_its_table(run, tmp_path):
  """The chain of starts and cooldowns, by the real command and workers."""
  workdir = tmp_path / 'study'
  done = run('reproduce', 'schedule', f'--workdir={workdir}', '--workers=1', *WORDS)
  assert done.returncode == 0, done.stderr
  assert 'One run with cooldowns gives the curve of separate runs' in done.stdout
  page = (workdir / 'report' / 'report.html').read_text()
  assert 'Threats to validity' in page
  assert '<svg' in page
  table = workdir / 'report' / 'results.csv'
  again = run(
    'reproduce', 'schedule', f'--results={table}', f'--out={tmp_path}', *WORDS
  )
  assert again.returncode == 0, again.stderr
  assert (tmp_path / 'results.csv').read_text() == table.read_text()
  assert (tmp_path / 'schedule.png').read_bytes() == (
    workdir / 'report' / 'schedule.png'
  ).read_bytes()


def test_few_duplicates_say_nothing():
  table, config = pretended('dedup')
  table.loc[table['metric'] == 'dedup/duplicated', 'num_test'] = 9
  found = paper.load('dedup').judge(table, config, SCALES['laptop'])
  assert {verdict.answer for verdict in found.verdicts} == {'cannot say'}
  assert '9 duplicated test images are too few' in found.verdicts[0].because


def test_unchanged_accuracy_holds_by_its_interval():
  table, config = pretended('dedup')
  for end, value in (('', 0.0), ('_lo', -0.004), ('_hi', 0.004)):
    table.loc[table['metric'] == f'dedup/change{end}', 'value'] = value
  found = paper.load('dedup').judge(table, config, SCALES['laptop'])
  assert found.verdicts[0].answer == 'holds'
  table.loc[table['metric'] == 'dedup/change_lo', 'value'] = -0.006
  found = paper.load('dedup').judge(table, config, SCALES['laptop'])
  assert found.verdicts[0].answer == 'cannot say'
  assert 'more test images' in found.verdicts[0].because


@pytest.mark.slow
def test_duplicates_are_searched_for_and_left_out(run, tmp_path):
  """On real digits, half of the largest subset: what is written adds up."""
  words = ('--config=digits', '--sizes=100,700', '--seeds=1')
  small = ('--epochs=2', '--config.model.width=4', '--workers=1')
  done = run('reproduce', 'dedup', f'--workdir={tmp_path}', *words, *small)
  assert done.returncode == 0, done.stderr
  table = pd.read_csv(tmp_path / 'report' / 'results.csv')
  by = table.pivot(index='cell', columns='metric', values=['value', 'num_test'])
  value, number = by['value'], by['num_test']
  whole = number['dedup/clean'] + number['dedup/duplicated']
  assert (whole == number['test/top1']).all()
  parts = (
    value[['dedup/clean', 'dedup/duplicated']].fillna(0)
    * number[['dedup/clean', 'dedup/duplicated']]
  )
  assert (parts.sum(axis=1) / whole).tolist() == pytest.approx(
    value['test/top1'].tolist()
  )
  pairs = pd.read_csv(tmp_path / 'report' / 'dedup' / 'duplicates.csv')
  assert (number['dedup/duplicated'] == len(pairs)).all()
  assert pairs['train_id'].max() < 700
