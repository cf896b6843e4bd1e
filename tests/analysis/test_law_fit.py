"""One fitted law: what it reports and what it refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from law_fits import fitted

from analysis import noise
from analysis.law_fit import LawFit, fit_law, refusal, score_form
from analysis.laws import LAWS
from analysis.noise import group, seed_variance
from analysis.prediction import as_error

SIZES = np.geomspace(50, 6400, 8)


@settings(max_examples=30)
@given(
  e=st.floats(0, 0.3), c=st.floats(0.1, 1.5), scale=st.sampled_from([1e1, 1e4, 1e8])
)
def test_recovers_a_noiseless_power_law(e, c, scale):
  sizes = scale * np.geomspace(1, 300, 8)
  b = 0.6 * sizes[0] ** c
  found = fitted(sizes, 1 - (e + b * sizes**-c), 'power_floor')
  # 1 - (1 - y) costs 1e-16, which the ridge of e and c makes 1e3 times as large; b has
  # c ln(n), up to 28, times the error of c.
  assert found.params['c'] == pytest.approx(c, rel=1e-8)
  assert found.params['e'] == pytest.approx(e, abs=1e-8)
  assert found.params['b'] == pytest.approx(b, rel=1e-6)


def test_full_precision_parameters_rebuild_the_curve():
  values = 0.9 - 2 * SIZES**-0.5
  found = fitted(SIZES, values, 'power_floor')
  e, b, c = found.params.values()
  # exp(-c log n) and n^-c differ in the last bit.
  np.testing.assert_allclose(found.curve(SIZES), 1 - (e + b * SIZES**-c), rtol=1e-14)
  found = fitted(SIZES, values, 'log_linear')
  a, b = found.params.values()
  np.testing.assert_allclose(found.curve(SIZES), a + b * np.log10(SIZES), rtol=1e-14)


@pytest.mark.parametrize('law', LAWS)
def test_curve_of_the_parameters_is_the_curve_that_was_fitted(law):
  rng = np.random.default_rng(0)
  values = 0.9 - 2 * SIZES**-0.5 + 0.01 * rng.standard_normal(8)
  found = fitted(SIZES, values, law, draws=0)
  squares = found.weights @ (values - found.curve(SIZES)) ** 2
  # The optimum in scaled units and the sum at the natural parameters: 1 - (1 - y) and
  # the way back cost the last digits of residuals that are 1% of the values.
  assert squares == pytest.approx(found.starts.sum_squares.min(), rel=1e-8)
  assert list(found.params) == [p.name for p in LAWS[law].parameters]


@pytest.mark.parametrize('law', LAWS)
def test_accuracy_and_error_are_one_fit(law):
  rng = np.random.default_rng(2)
  sizes = np.repeat(SIZES, 2)
  error = 0.1 + 2 * sizes**-0.5 + 0.01 * rng.standard_normal(16)
  left = fitted(sizes, error, law, kind='error')
  right = fitted(sizes, 1 - error, law, kind='accuracy')
  # 1 - (1 - x) costs the last bits, and a ridge makes of them what it will; the curve
  # has no ridge.
  np.testing.assert_allclose(right.curve(SIZES), 1 - left.curve(SIZES), atol=1e-6)
  gains = [one.gain_per_doubling(1600) for one in (left, right)]
  np.testing.assert_allclose(gains[1], gains[0], atol=1e-4)
  bands = left.predict(SIZES), right.predict(SIZES)
  # The rough polishing of draws stops at 1e-3 of a shape.
  np.testing.assert_allclose(bands[1].lo, 1 - bands[0].hi, atol=1e-3)
  assert left.flags == right.flags
  if LAWS[law].grid.shape[1] < 2:
    turned = score_form(LAWS[law], 'accuracy', np.array(list(left.params.values())))
    np.testing.assert_allclose(list(right.params.values()), turned, rtol=1e-5)


def test_score_form_and_error_are_their_own_inverses():
  values = np.array([0.2, 0.9])
  for kind in ('accuracy', 'error', 'loss'):
    np.testing.assert_allclose(as_error(kind, as_error(kind, values)), values)
    twice = score_form(
      LAWS['log_linear'], kind, score_form(LAWS['log_linear'], kind, values)
    )
    np.testing.assert_allclose(twice, values)
  assert score_form(LAWS['log_linear'], 'accuracy', values) == pytest.approx(
    [0.8, -0.9]
  )
  assert score_form(LAWS['power'], 'accuracy', values) is values


def test_same_seed_same_fit_other_seed_other_draws():
  values = 0.9 - 2 * SIZES**-0.5 + 0.01 * np.random.default_rng(3).standard_normal(8)
  one, two, three = (
    fitted(SIZES, values, 'power_floor', seed=seed) for seed in (0, 0, 1)
  )
  assert np.array_equal(one.draws, two.draws)
  assert one.intervals == two.intervals
  assert not np.array_equal(one.draws, three.draws)
  assert one.params == three.params


def test_without_draws_there_is_an_estimate_but_no_band():
  values = 0.9 - 2 * SIZES**-0.5 + 0.01 * np.random.default_rng(3).standard_normal(8)
  alone = fitted(SIZES, values, 'power_floor', draws=0)
  assert alone.params == fitted(SIZES, values, 'power_floor').params
  assert alone.intervals == {}
  assert len(alone.curve([100, 200])) == 2
  with pytest.raises(ValueError, match='without draws'):
    alone.predict([100])


def test_log_linear_is_least_squares():
  rng = np.random.default_rng(0)
  values = 0.2 + 0.1 * np.log10(SIZES) + 0.01 * rng.standard_normal(8)
  found = fitted(SIZES, values, 'log_linear')
  slope, intercept = np.polyfit(np.log10(SIZES), values, 1, w=np.sqrt(found.weights))
  assert found.params['b'] == pytest.approx(slope, rel=1e-10)
  assert found.params['a'] == pytest.approx(intercept, rel=1e-10)
  # The misfit grows with the level of the error, so larger sizes weigh more.
  assert (np.diff(found.weights) > 0).mean() > 0.5


def test_seed_variance_is_pooled_and_non_negative():
  rng = np.random.default_rng(4)
  sizes = np.repeat(SIZES, 200)
  values = np.sqrt(1e-4 + 0.05 / sizes) * rng.standard_normal(len(sizes))
  v0, v1, dof = seed_variance(group(sizes, values))
  assert dof == 8 * 199
  assert v0 == pytest.approx(1e-4, rel=0.15)  # 4 standard errors of 1592 deviations
  assert v1 == pytest.approx(0.05, rel=0.2)
  few = seed_variance(group(np.repeat(SIZES, 2), rng.standard_normal(16)))
  assert few[0] >= 0
  assert few[1] >= 0


def test_binomial_floor_only_without_repeats():
  values = 0.9 - 2 * SIZES**-0.5
  alone = fitted(SIZES, values, 'log_linear', num_test=100)
  assert alone.noise.v0 > 0.05 * 0.95 / 100
  twice = np.concatenate([values, values + 1e-3])
  repeated = fitted(np.tile(SIZES, 2), twice, 'log_linear', num_test=100)
  assert repeated.noise.seed_dof == 8
  assert repeated.noise.v0 < 1e-5


def test_few_degrees_of_freedom_widen_the_draws():
  """Six sizes less three parameters leave three degrees of freedom without repeats."""
  rng = np.random.default_rng(0)
  sizes = SIZES[:6]
  values = 1 - (0.05 + 3 * sizes**-0.5) + 0.01 * rng.standard_normal(6)
  found = fitted(sizes, values, 'power_floor')
  assert found.noise.dof == pytest.approx(3)
  assert found.draw_scale.max() > 2
  many = fitted(np.repeat(SIZES, 50), 0.9 - 0.01 * rng.standard_normal(400), 'constant')
  assert many.noise.dof > 30
  assert many.draw_scale.max() < 2


def test_known_chance_replaces_a_parameter():
  rng = np.random.default_rng(5)
  sizes = np.geomspace(20, 20000, 12)
  law = LAWS['saturating']
  truth = law.natural(np.array(0.1), np.array(0.8), np.array([0.9, 1.0, 1.3]), 400.0)
  values = 1 - law.curve(sizes, truth) + 0.003 * rng.standard_normal(12)
  told = fitted(sizes, values, 'saturating', chance=0.9)
  free = fitted(sizes, values, 'saturating')
  assert told.params['e_0'] == pytest.approx(0.9, rel=1e-12)
  # All draws agree on it, up to e + (chance - e).
  np.testing.assert_allclose(told.draws[:, 1], 0.9, rtol=1e-12)
  assert told.chance == 0.9
  assert free.chance is None
  assert free.params['e_0'] != told.params['e_0']
  assert np.ptp(free.draws[:, 1]) > 0
  # One more degree of freedom, and a sum of squares that is no smaller.
  assert told.noise.dof == pytest.approx(8)
  assert free.noise.dof == pytest.approx(7)
  far = told.curve([1e-3])[0]
  assert far == pytest.approx(0.1, abs=1e-3)
  # Laws that have no chance level take no notice of one.
  power = fitted(sizes, values, 'power_floor', chance=0.9)
  assert power.params == fitted(sizes, values, 'power_floor').params
  assert power.chance is None


@pytest.mark.parametrize('chance', [None, 0.9])
@pytest.mark.parametrize('level', [0.3, 0.95])
@pytest.mark.parametrize('slope', [0, 0.02])
def test_saturating_of_a_curve_that_does_not_fall_stays_finite(chance, level, slope):
  """Draws then have e_0 = e, where the formula's b is 0 or infinite; also above chance."""
  rng = np.random.default_rng(0)
  values = level + slope * np.log10(SIZES) + 0.01 * rng.standard_normal(8)
  found = fitted(SIZES, values, 'saturating', kind='error', chance=chance)
  assert np.isfinite(found.draws).all()
  for band in found.predict(np.geomspace(1, 1e9, 20)):
    assert np.isfinite(band).all()
  assert np.isfinite(found.covariance).all()
  squares = found.weights @ (values - found.curve(SIZES)) ** 2
  assert squares == pytest.approx(found.starts.sum_squares.min(), rel=1e-6)


def test_robust_resists_an_outlier():
  rng = np.random.default_rng(1)
  sizes = np.geomspace(50, 6400, 12)
  clean = 0.9 - 2 * sizes**-0.5 + 0.002 * rng.standard_normal(12)
  broken = clean.copy()
  broken[8] -= 0.15  # one diverged run
  ends = {}
  for robust in (False, True):
    pair = [
      fitted(sizes, values, 'power_floor', robust=robust, draws=0)
      for values in (clean, broken)
    ]
    ends[robust] = abs(pair[1].curve(25600)[0] - pair[0].curve(25600)[0])
  assert ends[True] < 0.005
  assert ends[False] > 4 * ends[True]


def test_robust_hardly_changes_a_clean_fit():
  rng = np.random.default_rng(2)
  values = 0.9 - 2 * SIZES**-0.5 + 0.005 * rng.standard_normal(8)
  plain, robust = (
    fitted(SIZES, values, 'power_floor', robust=robust) for robust in (False, True)
  )
  move = abs(robust.curve(12800)[0] - plain.curve(12800)[0])
  band = plain.predict(12800)
  assert move < 0.5 * (band.curve_hi - band.curve_lo)[0]


def test_bands_stay_in_range_and_nest():
  rng = np.random.default_rng(1)
  sizes = np.repeat(SIZES, 2)
  values = (0.99 - 2 * sizes**-0.6 + 0.02 * rng.standard_normal(16)).clip(0, 1)
  for law in LAWS:
    bands = fitted(sizes, values, law).predict(np.geomspace(10, 1e6, 50))
    stacked = np.stack(list(bands))
    assert (stacked >= 0).all()
    assert (stacked <= 1).all()
    order = [bands.lo, bands.curve_lo, bands.value, bands.curve_hi, bands.hi]
    assert (np.diff(np.stack(order), axis=0) >= 0).all()


@pytest.mark.parametrize('law', LAWS)
def test_intervals_hold_the_estimate(law):
  rng = np.random.default_rng(6)
  values = 0.9 - 2 * SIZES**-0.5 + 0.01 * rng.standard_normal(8)
  found = fitted(SIZES, values, law)
  assert set(found.intervals) == set(found.params)
  for name, (lo, hi) in found.intervals.items():
    assert lo <= found.params[name] <= hi
  wide = fitted(SIZES, values, law, level=0.99)
  narrow = fitted(SIZES, values, law, level=0.5)
  for name in found.params:
    assert np.ptp(narrow.intervals[name]) <= np.ptp(wide.intervals[name])


def test_gain_has_the_sign_of_better():
  rng = np.random.default_rng(6)
  error = 0.1 + 2 * SIZES**-0.5 + 0.003 * rng.standard_normal(8)
  for kind, values in (('error', error), ('accuracy', 1 - error), ('loss', 5 * error)):
    value, lo, hi = fitted(SIZES, values, 'power_floor', kind=kind).gain_per_doubling(
      800
    )
    assert 0 < lo <= value <= hi
    truth = 2 * (800**-0.5 - 1600**-0.5) * (5 if kind == 'loss' else 1)
    assert value == pytest.approx(truth, rel=0.15)  # 0.003 / 0.02


def test_a_loss_may_exceed_one_and_scales():
  rng = np.random.default_rng(7)
  loss = 2.0 + 40 * SIZES**-0.5 + 0.02 * rng.standard_normal(8)
  small, large = (
    fitted(SIZES, factor * loss, 'power_floor', kind='loss') for factor in (1, 1e6)
  )
  assert small.predict(10).value[0] > 2
  assert large.params['c'] == pytest.approx(small.params['c'], rel=1e-6)
  assert large.params['e'] == pytest.approx(1e6 * small.params['e'], rel=1e-6)
  # Intervals of draws that are a million times as large.
  np.testing.assert_allclose(
    large.intervals['b'], 1e6 * np.array(small.intervals['b']), rtol=1e-3
  )


def test_images_in_other_units_change_nothing_but_b():
  rng = np.random.default_rng(8)
  values = 0.9 - 2 * SIZES**-0.5 + 0.01 * rng.standard_normal(8)
  few, many = (fitted(f * SIZES, values, 'power_floor') for f in (1, 1e6))
  assert many.params['c'] == pytest.approx(few.params['c'], rel=1e-7)
  assert many.params['e'] == pytest.approx(few.params['e'], rel=1e-7)
  np.testing.assert_allclose(many.intervals['c'], few.intervals['c'], rtol=1e-5)
  np.testing.assert_allclose(many.curve(1e6 * SIZES), few.curve(SIZES), rtol=1e-9)


def test_flags():
  bending = fitted(SIZES, 1 - np.exp(-(np.log(SIZES) ** 2) / 50), 'power_floor')
  assert bending.params['e'] == 0
  assert 'floor at zero' in bending.flags
  narrow = fitted(SIZES[:4], 0.9 - 2 * SIZES[:4] ** -0.5, 'power_floor')
  assert 'less than one decade' in narrow.flags
  assert 'no repeats' in narrow.flags
  step = np.where(SIZES > 60, 0.9, 0.1)
  assert 'exponent at bound' in fitted(SIZES, step, 'power_floor').flags
  assert 'shape at bound' in fitted(SIZES, step, 'exponential').flags
  falling = fitted(SIZES, 0.9 - 0.1 * np.log10(SIZES), 'power_floor')
  assert 'no trend' in falling.flags
  assert 'exponent at bound' not in falling.flags  # an exponent of nothing
  line = fitted(SIZES, 0.9 - 0.1 * np.log10(SIZES), 'log_linear')
  assert 'gets worse with data' in line.flags
  rng = np.random.default_rng(1)
  flat = fitted(SIZES, 0.5 + 0.01 * rng.standard_normal(8), 'log_linear')
  assert 'no trend' in flat.flags
  noisy = 0.5 - 1.5 * SIZES[:5] ** -0.5 + 0.03 * rng.standard_normal(5)
  vague = fitted(SIZES[:5], noisy, 'power_floor')
  assert 'exponent unidentified' in vague.flags
  assert 'floor unidentified' in vague.flags


def test_lack_of_fit_needs_repeats_and_a_bend():
  rng = np.random.default_rng(0)
  sizes = np.repeat(SIZES, 3)
  values = 0.9 - 2.5 * sizes**-0.5 + 0.005 * rng.standard_normal(len(sizes))
  line = fitted(sizes, values, 'log_linear')
  power = fitted(sizes, values, 'power_floor')
  assert 'lack of fit' in line.flags
  assert 'lack of fit' not in power.flags
  assert 'no repeats' not in power.flags
  assert line.aicc > power.aicc + 10
  assert 'lack of fit' not in fitted(SIZES, values[::3], 'log_linear').flags


def test_reports_the_data_it_used():
  rng = np.random.default_rng(9)
  sizes = np.repeat(SIZES, 3)
  values = 0.9 - 2 * sizes**-0.5 + 0.01 * rng.standard_normal(24)
  found = fitted(sizes, values, 'power_floor')
  assert isinstance(found, LawFit)
  assert found.window == (SIZES[0], SIZES[-1])
  assert (found.num_sizes, found.num_points) == (8, 24)
  squares = ((values - found.curve(sizes)) ** 2).sum()
  assert found.residual_sd == pytest.approx(np.sqrt(squares / 21), rel=1e-9)
  assert found.covariance.shape == (3, 3)
  assert found.draws.shape == (200, 3)
  # As values, not as errors.
  np.testing.assert_allclose(found.points.means, values.reshape(8, 3).mean(1))


@pytest.mark.parametrize(
  ('law', 'kind', 'sizes', 'values', 'words'),
  [
    ('power_floor', 'accuracy', [50, 100, 200], [0.1, 0.2, 0.3], '3 distinct sizes'),
    (
      'power_floor',
      'accuracy',
      [50, 100, 200, 200],
      [0.1, 0.2, 0.3, 0.31],
      '3 distinct sizes',
    ),
    ('log_linear', 'accuracy', [50, 100], [0.1, 0.2], '2 distinct sizes'),
    ('constant', 'accuracy', [50], [0.1], '1 distinct size;'),
    ('log_linear', 'accuracy', [50, 100, 200], [0.5] * 3, 'all 3 values are equal'),
    ('logit_linear', 'loss', [50, 100, 200], [0.3, 0.2, 0.1], 'not for a loss'),
  ],
)
def test_refuses(law, kind, sizes, values, words):
  reason = refusal(LAWS[law], kind, np.array(sizes), np.array(values))
  assert reason is not None
  assert words in reason


@pytest.mark.parametrize('law', LAWS)
def test_accepts_as_many_sizes_as_it_asks_for(law):
  count = LAWS[law].min_sizes
  sizes = np.geomspace(50, 6400, count)
  values = 0.9 - 2 * sizes**-0.5
  assert refusal(LAWS[law], 'accuracy', sizes, values) is None
  assert refusal(LAWS[law], 'accuracy', sizes[1:], values[1:]) is not None
  rng = np.random.default_rng(count)
  found = fitted(sizes, values + 0.01 * rng.standard_normal(count), law)
  assert found.noise.dof >= 1
  for band in found.predict(np.geomspace(10, 1e6, 7)):
    assert np.isfinite(band).all()


def test_a_constant_has_no_trend_to_refuse():
  sizes, values = np.array([50.0, 100, 200]), np.full(3, 0.5)
  assert refusal(LAWS['constant'], 'accuracy', sizes, values) is None
  found = fitted(sizes, values, 'constant')
  assert found.params == {'a': pytest.approx(0.5, rel=1e-12)}


def test_parameters_known_only_together_are_flagged():
  rng = np.random.default_rng(0)
  # Over a factor 2 of sizes a power law's amplitude and exponent are one number.
  sizes = np.geomspace(10_000, 20_000, 8)
  values = 0.1 * (sizes / 1e4) ** -0.3 * (1 + 0.002 * rng.standard_normal(8))
  points = noise.group(sizes, values)
  options = {'kind': 'error', 'generator': np.random.default_rng(0)}
  found = fit_law('power', points, noise.known(points), **options)
  assert 'ill-conditioned' in found.flags
  wide = np.geomspace(1, 10_000, 8)
  points = noise.group(wide, 0.9 * wide**-0.3 * (1 + 0.01 * rng.standard_normal(8)))
  found = fit_law('power', points, noise.known(points), **options)
  assert 'ill-conditioned' not in found.flags
