"""Tables of fits: a row a curve, answers row by row, and the record of it all."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest

from analysis import audit
from analysis.fit import Fit
from analysis.fit_table import FitTable, fit_table, predict_rows
from analysis.groups import key_of
from analysis.laws import LAWS
from analysis.prediction import Prediction, Refusal

LAWS_USED = ('constant', 'log_linear', 'power_floor')
SIZES = (50, 100, 200, 400, 800, 1600)
SHORT = 34  # the depth whose curve is too short


def make_table(depths=(8, 20, SHORT), seeds=2) -> pd.DataFrame:
  rows = []
  for depth in depths:
    rng = np.random.default_rng(depth)  # a curve's values are its own
    for size in SIZES[:2] if depth == SHORT else SIZES:
      for seed in range(seeds):
        value = 1 - (0.1 + 3 / depth * size**-0.4) + 0.005 * rng.standard_normal()
        rows.append({'depth': depth, 'num_images': size, 'seed': seed, 'value': value})
  return pd.DataFrame(rows)


def fit_few(table: pd.DataFrame, group=('depth',), **options) -> FitTable:
  return fit_table(table, group=group, laws=LAWS_USED, draws=50, **options)


@pytest.fixture(scope='module')
def fitted() -> FitTable:
  return fit_few(make_table())


def test_one_row_a_curve(fitted):
  frame = fitted.frame
  assert list(frame['depth']) == [8, 20, SHORT]
  assert list(frame['status']) == ['fitted', 'fitted', 'refused']
  assert frame['reason'].str.contains('2 distinct sizes').tolist() == [
    False,
    False,
    True,
  ]
  assert list(frame['num_sizes']) == [6, 6, 2]
  assert list(frame['num_points']) == [12, 12, 4]
  assert list(frame['max_size']) == [1600, 1600, 100]
  found = fitted.fits['value'][(8,)]
  assert isinstance(found, Fit)
  row = frame.iloc[0]
  assert row['law'] == found.law
  assert row['say'] == found.weights[found.law]
  for name, value in found.params.items():
    assert (row[name], row[f'{name}_lo']) == (value, found.intervals[name][0])
  assert row['predict_10x_hi'] == found.predict(16_000).hi[0]
  assert row['gain_per_doubling'] == found.gain_per_doubling(1600)[0]
  assert row['grade'] in 'ABCD'
  # Parameters of other laws and all numbers of a refused curve are empty.
  others = {p.name for law in LAWS.values() for p in law.parameters} - set(found.params)
  assert row[sorted(others)].isna().all()
  empty = frame.iloc[2]
  assert empty[['law', 'predict_2x', 'grade', 'gain_per_doubling']].isna().all()


def test_columns_do_not_depend_on_the_curves(fitted):
  columns = list(fitted.frame.columns)
  assert len(columns) == len(set(columns))
  for law in LAWS.values():
    for parameter in law.parameters:
      assert {parameter.name, f'{parameter.name}_lo', f'{parameter.name}_hi'} <= set(
        columns
      )
  short = fit_few(make_table((SHORT,)))
  assert list(short.frame.columns) == columns
  assert short.predictions.empty
  assert list(short.predictions.columns) == list(fitted.predictions.columns)


def test_predictions_at_the_sizes_and_beyond(fitted):
  rows = fitted.predictions
  assert set(rows['depth']) == {8, 20}
  mine = rows[rows['depth'] == 8]
  assert list(mine['num_images']) == [*SIZES, 3200, 16_000]
  means = make_table((8,)).groupby('num_images')['value'].mean()
  assert list(mine['observed'])[:6] == pytest.approx(list(means))
  assert mine['observed'].isna().tolist() == [False] * 6 + [True] * 2
  found = fitted.fits['value'][(8,)]
  assert isinstance(found, Fit)
  for name, values in found.predict(mine['num_images'])._asdict().items():
    assert np.array_equal(values, mine[name])


def test_adding_a_curve_changes_no_bit_of_another(fitted):
  alone = fit_few(make_table((8,)))
  for one, all_of_them in (
    (alone.frame, fitted.frame),
    (alone.predictions, fitted.predictions),
  ):
    mine = all_of_them[all_of_them['depth'] == 8].reset_index(drop=True)
    pd.testing.assert_frame_equal(one, mine, check_dtype=False, check_exact=True)


def test_curves_have_draws_of_their_own():
  table = make_table((8,))
  twice = pd.concat([table, table.assign(depth=9)])
  one, two = (fit_few(twice).fits['value'][(depth,)] for depth in (8, 9))
  assert isinstance(one, Fit)
  assert isinstance(two, Fit)
  assert one.params == two.params
  assert not np.array_equal(one.predict(1e5).lo, two.predict(1e5).lo)


def test_rows_are_answered_in_their_order(fitted):
  fits = fitted.fits['value']
  asked = pd.DataFrame(
    {
      'num_images': [5000.0, 50.0, 5000.0, 700.0, 5000.0, 5000.0],
      'depth': [20, 8, 8, SHORT, 99, 20],
    },
    index=[5, 5, 3, 2, 1, 0],  # whatever the index, the rows count
  )
  before = asked.copy()
  answer = predict_rows(fits, asked, ('depth',))
  pd.testing.assert_frame_equal(asked, before)
  assert list(answer.columns) == ['depth', 'num_images', *Prediction._fields, 'reason']
  assert list(answer['depth']) == list(asked['depth'])
  assert list(answer['num_images']) == list(asked['num_images'])
  for row in answer.itertuples():
    found = fits.get((row.depth,))
    if isinstance(found, Fit):
      assert row.reason == ''
      # A size is answered by itself; how many are asked at once leaves the last bits.
      expected = [float(band[0]) for band in found.predict(row.num_images)]
      given = [getattr(row, name) for name in Prediction._fields]
      assert given == pytest.approx(expected, rel=1e-12)
    else:
      assert all(math.isnan(getattr(row, name)) for name in Prediction._fields)
  assert '2 distinct sizes' in answer['reason'][3]
  assert answer['reason'][4] == 'no such curve in the table'


def test_groups_match_as_numbers_and_as_text(fitted):
  fits = fitted.fits['value']
  answers = [
    predict_rows(fits, pd.DataFrame({'depth': depth, 'num_images': 5000.0}), ['depth'])
    for depth in ([8], ['8'], [8.0], np.array([8], np.int32))
  ]
  for answer in answers:
    assert answer['value'][0] == answers[0]['value'][0]
    assert answer['reason'][0] == ''
  key = key_of([np.float64(8.0), 0.5, 'a'])
  assert key == (8, 0.5, 'a')
  assert isinstance(key[0], int)


def test_no_groups_and_several():
  table = make_table((8,)).drop(columns='depth')
  found = fit_few(table, group=())
  assert list(found.fits['value']) == [()]
  answer = predict_rows(
    found.fits['value'], pd.DataFrame({'num_images': [9.0, 9e9]}), ()
  )
  assert answer['value'].notna().all()
  both = pd.concat([table.assign(net=net, wide=2) for net in ('b', 'a')])
  pairs = fit_few(both, group=('net', 'wide'))
  assert list(pairs.fits['value']) == [('a', 2), ('b', 2)]
  asked = pd.DataFrame({'net': ['b', 'c'], 'wide': ['2', '2'], 'num_images': 9.0})
  answer = predict_rows(pairs.fits['value'], asked, ('net', 'wide'))
  assert list(answer['value'].isna()) == [False, True]


def test_metrics_and_their_kinds():
  table = make_table((8,))
  loss = table.assign(metric='test/loss', value=2 * (1 - table['value']))
  found = fit_few(pd.concat([table.assign(metric='test/top1'), loss]))
  assert found.kinds == {'test/loss': 'loss', 'test/top1': 'accuracy'}
  assert list(found.frame['metric']) == ['test/loss', 'test/top1']
  assert (found.frame['gain_per_doubling'] > 0).all()


def test_num_test_and_errors_of_the_table_reach_the_fit():
  table = make_table((8,), seeds=1)
  found = fit_few(table.assign(num_test=360)).fits['value'][(8,)]
  assert isinstance(found, Fit)
  assert found.settings['num_test'] == 360
  assert found.evidence.source == 'test set'
  # What the table does not say is told; what it says goes before.
  for num_test, used in ((math.nan, 50), (360, 360)):
    found = fit_few(table.assign(num_test=num_test), num_test=50).fits['value'][(8,)]
    assert isinstance(found, Fit)
    assert found.settings['num_test'] == used
  found = fit_few(table.assign(se=0.01)).fits['value'][(8,)]
  assert isinstance(found, Fit)
  assert found.evidence.source == 'standard errors'


def test_progress_counts_the_curves():
  seen = []
  fit_few(make_table((8, SHORT)), progress=lambda *counts: seen.append(counts))
  assert seen == [(0, 2), (1, 2), (2, 2)]


# The record.


def no_constant(name: str):
  raise AssertionError(f'{name} is not JSON')


def audited(table: pd.DataFrame, fitted: FitTable) -> dict:
  text = audit.audit_json(table, fitted.fits['value'], fitted.group)
  return json.loads(text, parse_constant=no_constant)


def test_the_audit_holds_every_law_of_every_curve(fitted):
  record = audited(make_table(), fitted)
  assert record['rows'] == len(make_table())
  assert set(record['laws']) == set(LAWS)
  assert record['versions']['numpy'] == np.__version__
  assert [curve['curve'] for curve in record['curves']] == [
    {'depth': 8},
    {'depth': 20},
    {'depth': SHORT},
  ]
  assert '2 distinct sizes' in record['curves'][2]['refused']
  found, curve = fitted.fits['value'][(8,)], record['curves'][0]
  assert isinstance(found, Fit)
  assert set(curve['laws']) == set(LAWS_USED)
  assert curve['law'] == found.law
  assert curve['say'] == dict(found.weights)
  for law, one in curve['laws'].items():
    fit = found.laws[law]
    assert not isinstance(fit, Refusal)
    assert one['parameters'] == fit.params  # to the last bit
    assert one['optimum']['agree'] >= 1
    assert one['weights'] == list(fit.weights)
  assert [dict(held) for held in curve['rolling']] == [
    dataclasses.asdict(held) for held in found.held
  ]
  assert curve['settings']['rng'] == list(found.settings['rng'])


def test_the_audit_of_all_laws_has_no_number_that_json_lacks():
  """Five sizes refuse some laws and leave others without AICc, which is infinite."""
  table = make_table((8,), seeds=1)
  table = table[table['num_images'] <= 800]
  fitted = fit_table(table, group=('depth',), draws=50)
  curve = audited(table, fitted)['curves'][0]
  assert set(curve['laws']) == set(LAWS)
  assert 'needs at least 8' in curve['laws']['break']['refused']
  assert 'inf' in {one.get('aicc') for one in curve['laws'].values()}


def test_the_hash_is_of_the_data(fitted):
  table = make_table()
  first = audited(table, fitted)['data']
  assert first.startswith('sha256:')
  assert audited(table.copy(), fitted)['data'] == first
  changed = table.copy()
  changed.loc[3, 'value'] += 1e-12
  assert audited(changed, fitted)['data'] != first


def test_equal_tables_give_equal_audits(fitted):
  again = fit_few(make_table())
  one, two = (
    audit.audit_json(make_table(), f.fits['value'], ('depth',)) for f in (fitted, again)
  )
  assert one == two


@pytest.mark.parametrize('name', ['e', 'law', 'lo', 'reason'])
def test_a_group_may_be_named_like_a_result(name):
  table = make_table((8, SHORT)).rename(columns={'depth': name})
  found = fit_few(table, group=(name,))
  assert list(found.frame[name]) == [8, SHORT]
  assert found.frame.columns.is_unique
  assert found.predictions.columns.is_unique
  if name in ('e', 'law', 'reason'):
    assert f'fit_{name}' in found.frame
  sizes = pd.DataFrame({name: [SHORT, 8], 'num_images': [10.0, 3200.0]})
  answer = predict_rows(found.fits['value'], sizes, (name,))
  assert list(answer[name]) == [SHORT, 8]
  assert answer['value'].isna().tolist() == [True, False]
