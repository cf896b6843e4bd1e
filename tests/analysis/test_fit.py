"""A fit with every law: what it answers, and what it refuses."""

import subprocess
import sys

import numpy as np
import pytest
from curves import FEW, SIZES, bending, fitted, noisy, typical

from analysis.fit import SHOWN, Fit, fit
from analysis.law_fit import LawFit
from analysis.laws import LAWS
from analysis.prediction import Refusal


def test_a_noiseless_power_law_is_forecast_at_ten_times():
  found = fitted(SIZES, bending())
  truth = bending([64_000])
  # A tenth of a point, where the last value is off by 1.7 points.
  assert found.predict(64_000).value == pytest.approx(truth, abs=1e-3)
  bands = found.predict(64_000)
  assert bands.curve_lo <= truth <= bands.curve_hi
  assert found.law == 'power_floor'
  # Its own law is found exactly; the tolerance is that of the optimiser.
  assert found.params == pytest.approx({'e': 0.1, 'b': 2.0, 'c': 0.5}, rel=1e-4)


# What a fit holds.


def test_every_law_is_accounted_for():
  found = typical()
  assert set(found.laws) == set(LAWS)
  assert sum(found.weights.values()) == pytest.approx(1, abs=1e-12)
  assert all(weight >= 0 for weight in found.weights.values())
  assert set(found.weights) == set(found.scores) == set(LAWS)
  assert all(np.isfinite(score) for score in found.scores.values())
  assert found.weights[found.law] >= 0.9 * max(found.weights.values())
  assert found.best is found.laws[found.law]
  assert found.intervals == found.best.intervals
  for law in {found.law, *SHOWN}:
    one = found.laws[law]
    assert isinstance(one, LawFit)
    assert set(one.intervals) == {p.name for p in LAWS[law].parameters}
    for name, (lo, hi) in one.intervals.items():
      assert lo <= one.params[name] <= hi
  for one in found.laws.values():
    assert isinstance(one, LawFit)
    assert found.points.sizes[0] <= one.window[0]
    assert one.window[1] == found.points.sizes[-1]


def test_laws_that_need_more_sizes_are_refused_by_themselves():
  found = fitted(SIZES[:5], bending()[:5])
  refused = {law for law, one in found.laws.items() if isinstance(one, Refusal)}
  assert refused == {law for law in LAWS if LAWS[law].min_sizes > 5}
  assert sum(found.weights.values()) == pytest.approx(1, abs=1e-12)


def test_accuracy_and_error_are_one_fit():
  # 2^-40 and its multiples are exact in both, so that 1 - x loses nothing.
  error = np.round(noisy(1 - bending(), 0.01, 2) * 2**40) / 2**40
  left = fitted(SIZES, error, kind='error', laws=FEW)
  right = fitted(SIZES, 1 - error, kind='accuracy', laws=FEW)
  assert right.weights == left.weights
  one, two = left.predict([100, 20_000]), right.predict([100, 20_000])
  np.testing.assert_array_equal(two.value, 1 - one.value)
  np.testing.assert_array_equal(two.lo, 1 - one.hi)
  np.testing.assert_array_equal(two.curve_hi, 1 - one.curve_lo)
  assert right.gain_per_doubling(6400) == left.gain_per_doubling(6400)
  # The target 1 - 0.87 is not 0.13 to the last bit.
  near = pytest.approx(left.images_for(0.13).size, rel=1e-9)
  assert right.images_for(0.87).size == near
  assert right.law == left.law
  assert right.params['c'] == pytest.approx(left.params['c'], rel=1e-9)


def test_same_seed_same_bits_other_seed_other_draws():
  values = 1 - noisy(1 - bending(), 0.02, 3)
  ask = [100.0, 12_800.0, 1e6]
  one, two, other = (
    fitted(SIZES, values, laws=FEW, rng=seed) for seed in ([5, 1], [5, 1], 6)
  )
  for left, right in zip(one.predict(ask), two.predict(ask), strict=True):
    assert np.array_equal(left, right)
  assert one.params == two.params
  assert one.intervals == two.intervals
  assert one.images_for(0.85) == two.images_for(0.85)
  assert not np.array_equal(one.predict(ask).lo, other.predict(ask).lo)
  # The estimate itself has no draws in it.
  assert one.params == other.params
  assert one.weights == other.weights


def test_the_order_of_the_rows_does_not_matter():
  sizes = np.repeat(SIZES, 2)  # sums of two do not depend on their order
  values = 1 - noisy(1 - bending(sizes), 0.02, 4)
  se = 0.01 * np.arange(1, 17) / 16
  order = np.random.default_rng(0).permutation(16)
  for given in ({}, {'se': se}):
    shuffled = {name: array[order] for name, array in given.items()}
    one = fitted(sizes, values, laws=FEW, **given)
    two = fitted(sizes[order], values[order], laws=FEW, **shuffled)
    for left, right in zip(one.predict(1e5), two.predict(1e5), strict=True):
      assert np.array_equal(left, right)
    assert one.intervals == two.intervals


def test_stopping_early_sees_only_the_small_sizes():
  sizes = np.repeat(SIZES, 2)
  values = 1 - noisy(1 - bending(sizes), 0.01, 7)
  se = np.full(16, 0.01)
  changed = np.where(sizes > 1000, 0.5, values)
  options = {'laws': FEW, 'se': se, 'rng': 3, 'level': 0.8}
  early = [fitted(sizes, v, **options).stopped_at(1000) for v in (values, changed)]
  small = sizes <= 1000
  early.append(
    fit(sizes[small], values[small], **{**options, 'se': se[small]}, draws=50)
  )
  for found in early:
    assert isinstance(found, Fit)
    assert found.points.sizes[-1] == SIZES[4]
    assert found.level == 0.8
    for left, right in zip(early[0].predict(6400), found.predict(6400), strict=True):
      assert np.array_equal(left, right)
    assert found.intervals == early[0].intervals
  refused = fitted(sizes, values, **options).stopped_at(210)
  assert isinstance(refused, Refusal)
  assert '3 distinct sizes' in refused.reason


# Curves that are not as they should be.


def test_a_curve_that_turns_is_flagged():
  worse = [0.50, 0.60, 0.70, 0.75, 0.74, 0.60, 0.58, 0.55]
  descent = [0.50, 0.60, 0.70, 0.50, 0.52, 0.75, 0.85, 0.90]
  assert 'not monotone' in fitted(SIZES, worse, laws=FEW).flags
  assert 'double descent' in fitted(SIZES, descent, se=[0.01] * 8, laws=FEW).flags
  # Without any word on the noise it takes a curve that is smooth but for its turns.
  smooth = [0.5, 0.6, 0.68, 0.72, 0.7, 0.64, 0.58, 0.6, 0.7, 0.8, 0.86, 0.9]
  turning = fitted(np.geomspace(50, 1e5, 12), smooth, laws=FEW)
  assert 'double descent' in turning.flags
  for found in (typical(), fitted(SIZES, bending(), laws=FEW)):
    assert not {'not monotone', 'double descent'} & set(found.flags)
  # A dip that the stated errors explain is none.
  dip = bending()
  dip[-1] -= 0.05
  assert 'not monotone' in fitted(SIZES, dip, se=[0.001] * 8, laws=FEW).flags
  assert 'not monotone' not in fitted(SIZES, dip, se=[0.05] * 8, laws=FEW).flags


@pytest.mark.parametrize(
  ('sizes', 'values', 'options', 'words'),
  [
    ([50], [0.1], {}, '1 distinct size;'),
    ([50, 100, 200], [0.1, 0.2, 0.3], {}, '3 distinct sizes'),
    ([50, 100, 200, 200], [0.1, 0.2, 0.3, 0.31], {}, '3 distinct sizes'),
    ([], [], {}, '0 distinct sizes'),
    (SIZES[:6], bending()[:6], {'laws': ('break',)}, '6 distinct sizes; one smooth'),
    (SIZES, [0.5] * 8, {'laws': ('power_floor',)}, 'all 8 values are equal'),
    (SIZES, 9 - bending(), {'laws': ('logit_linear',), 'kind': 'loss'}, 'fractions'),
  ],
)
def test_too_little_is_refused(sizes, values, options, words):
  found = fit(sizes, values, **options)
  assert isinstance(found, Refusal)
  assert words in found.reason


@pytest.mark.parametrize('kind', ['accuracy', 'error'])
@pytest.mark.parametrize('value', [0.0, 0.5, 1.0])
def test_equal_values_are_constant(kind, value):
  found = fitted(SIZES, [value] * 8, kind=kind)
  assert found.law == 'constant'
  one = found.laws['power_floor']
  assert isinstance(one, Refusal)
  assert 'all 8 values are equal' in one.reason
  # Other laws than the constant have a say still; of noise there is none.
  assert found.curve([50, 6400, 12_800]) == pytest.approx(value, abs=2e-3)
  value, lo, hi = found.gain_per_doubling(6400)
  assert lo <= 0 <= hi
  assert value == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize('num_zero', [1, 2, 4, 5])
@pytest.mark.parametrize('kind', ['accuracy', 'error'])
def test_errors_of_exactly_zero(num_zero, kind):
  errors = np.append(
    [0.4, 0.3, 0.2, 0.1, 0.05, 0.04, 0.03, 0.02][:-num_zero], [0] * num_zero
  )
  found = fitted(SIZES, errors if kind == 'error' else 1 - errors, kind=kind)
  bands = found.predict([1e4, 1e6])
  perfect = 0.0 if kind == 'error' else 1.0
  assert bands.value == pytest.approx(perfect, abs=0.03)


def test_a_loss_scales():
  """Units of a loss are anyone's: a power of two changes no bit of the shape."""
  loss = 2 + 20 * SIZES**-0.5 * (1 + 0.01 * np.sin(SIZES))
  one, large = (fitted(SIZES, k * loss, kind='loss', laws=FEW) for k in (1.0, 2.0**20))
  assert large.law == one.law
  assert large.params['c'] == pytest.approx(one.params['c'], rel=1e-9)
  # The tiny absolute guards against 0 do not scale.
  assert large.predict(1e5).value == pytest.approx(
    2**20 * one.predict(1e5).value, rel=1e-6
  )
  assert large.weights == pytest.approx(one.weights, abs=1e-6)


def test_laws_for_fractions_have_no_say_in_a_loss():
  found = fitted(SIZES, 2 + 20 * SIZES**-0.5, kind='loss')
  of_fractions = {law for law in LAWS if 'loss' not in LAWS[law].kinds}
  assert of_fractions
  for law in of_fractions:
    assert isinstance(found.laws[law], Refusal)
    assert law not in found.weights


def test_stated_errors_set_the_noise():
  values = 1 - noisy(1 - bending(), 0.01, 9)
  small, large = (
    fitted(SIZES, values, laws=FEW, se=np.full(8, s)) for s in (1e-3, 0.03)
  )
  assert small.evidence.source == large.evidence.source == 'standard errors'

  def width(found):
    bands = found.predict(12_800)
    return bands.hi - bands.lo

  assert width(large) > 3 * width(small)


def test_the_test_set_is_evidence_where_there_is_no_other():
  values = 1 - noisy(1 - bending(), 0.01, 10)
  alone = fitted(SIZES, values, laws=FEW, num_test=100)
  assert alone.evidence.source == 'test set'
  assert alone.evidence.v0 > 0.05 * 0.95 / 100
  twice = np.concatenate([values, values + 1e-3])
  repeated = fitted(np.tile(SIZES, 2), twice, laws=FEW, num_test=100)
  assert repeated.evidence.source == 'repeats'
  assert repeated.evidence.v0 < 1e-5
  assert fitted(SIZES, values, laws=FEW).evidence.source == 'none'


def test_chance_pins_the_saturating_law():
  error = 0.05 + 0.85 / (1 + (SIZES / 300) ** 0.8)
  found = fitted(SIZES, 1 - error, chance=0.1)
  assert found.data.chance == pytest.approx(0.9)
  one = found.laws['saturating']
  assert isinstance(one, LawFit)
  assert one.chance == pytest.approx(0.9)
  # Nothing near no data is as bad as a guess is good.
  assert found.predict(1e-3).value[0] < 0.45


def test_robust_weighs_an_outlier_down():
  values = bending()
  values[4] -= 0.2
  plain, robust = (
    fitted(SIZES, values, laws=('power_floor',), robust=r) for r in (False, True)
  )
  miss = [
    abs(float(found.best.curve(12_800)[0] - bending(12_800)))
    for found in (plain, robust)
  ]
  assert miss[1] < 0.5 * miss[0]


@pytest.mark.parametrize(
  ('sizes', 'values', 'options', 'words'),
  [
    ([1, 2], [0.1, 0.2], {'laws': ['cubic']}, 'cubic'),
    ([1, 2], [0.1, 0.2], {'laws': []}, 'no law to fit'),
    ([1, 2], [0.1, 0.2], {'kind': 'f1'}, 'f1'),
    ([1, 2], [0.1], {}, 'equally long'),
    ([[1, 2]], [[0.1, 0.2]], {}, 'equally long'),
    ([0, 2], [0.1, 0.2], {}, 'positive'),
    ([1, np.inf], [0.1, 0.2], {}, 'finite'),
    ([1, 2], [0.1, np.nan], {}, 'leave out the runs that failed'),
    ([1, 2], [10, 20], {}, 'divide a percentage by 100'),
    ([1, 2], [-0.1, 0.2], {'kind': 'error'}, r'error must lie in \[0, 1\]'),
    ([1, 2], [0.0, 0.2], {'kind': 'loss'}, 'loss must be above 0'),
    ([1, 2], [0.1, 0.2], {'se': [0.1]}, '1 standard errors for 2 sizes'),
    ([1, 2], [0.1, 0.2], {'se': [0.1, -0.1]}, 'not negative'),
    ([1, 2], [0.1, 0.2], {'se': [0.1, np.nan]}, 'standard errors must be finite'),
    ([1, 2], [0.1, 0.2], {'chance': 10}, 'chance=10'),
    ([1, 2], [0.1, 0.2], {'chance': np.nan}, 'chance=nan'),
    ([1, 2], [0.1, 0.2], {'num_test': 0}, 'num_test=0'),
    ([1, 2], [0.1, 0.2], {'num_test': np.nan}, 'num_test=nan'),
    ([1, 2], [0.1, 0.2], {'draws': 5}, 'draws=5'),
    ([1, 2], [0.1, 0.2], {'level': 90}, 'level=90'),
  ],
)
def test_unusable_data_is_an_error(sizes, values, options, words):
  with pytest.raises(ValueError, match=words):
    fit(sizes, values, **options)


def test_import_is_light():
  """Neither pandas nor matplotlib nor a device behind `analysis.fit`."""
  code = (
    'import sys, analysis.fit; '
    'print([m for m in ("pandas", "matplotlib", "jax", "scipy") if m in sys.modules])'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == '[]'


def odd_curve(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, dict]:
  """Sizes, values and options that are allowed, however odd."""
  num = int(rng.integers(4, 41) if rng.random() < 0.2 else rng.integers(4, 9))
  sizes = 10 ** rng.uniform(0, 4) * np.logspace(0, rng.uniform(0.2, 6), num)
  if rng.random() < 0.5:
    sizes = np.repeat(sizes, rng.integers(1, 4, num))
  count = len(sizes)
  values = [
    lambda: rng.uniform(0, 1, count),
    lambda: (
      rng.uniform(0, 0.2)
      + rng.uniform(0, 1) * (sizes / sizes[0]) ** -rng.uniform(0, 1.5)
      + rng.choice([0, 1e-9, 0.01, 0.1]) * rng.standard_normal(count)
    ),
    lambda: rng.integers(0, 4, count) / 3,  # many equal, with 0 and 1
    lambda: np.where(np.arange(count) < rng.integers(0, count + 1), rng.random(), 0),
    lambda: np.linspace(0.1, rng.uniform(0.1, 1), count),
  ][rng.integers(5)]()
  values = np.clip(values, 0, 1)
  options = {'kind': str(rng.choice(['accuracy', 'error', 'loss']))}
  if options['kind'] == 'loss':
    values = (values + 1e-6) * 10 ** rng.uniform(-6, 6)
  if rng.random() < 0.3:
    options['se'] = rng.uniform(0, 0.05, count) * (rng.random(count) < 0.8)
  if rng.random() < 0.3:
    options['num_test'] = int(rng.integers(1, 10_000))
  if rng.random() < 0.3 and options['kind'] != 'loss':
    options['chance'] = rng.random()
  if rng.random() < 0.2:
    options['robust'] = True
  return sizes, values, options


def check_odd_curves(seeds: range, laws: tuple[str, ...]) -> None:
  """pytest makes an error of every warning of numpy's on the way, too."""
  ask = np.geomspace(1, 1e12, 13)
  for seed in seeds:
    sizes, values, options = odd_curve(np.random.default_rng(seed))
    try:
      found = fitted(sizes, values, laws=laws, **options)
      bands = found.predict(ask)
      assert all(np.isfinite(band).all() for band in bands)
      order = [bands.lo, bands.curve_lo, bands.value, bands.curve_hi, bands.hi]
      assert (np.diff(np.stack(order), axis=0) >= 0).all()
      assert np.isfinite(found.gain_per_doubling(sizes[-1])).all()
      assert not np.isnan(found.images_for(float(np.median(values))).size)
    except Exception as error:
      error.add_note(f'seed {seed}, laws {laws}')
      raise


def test_no_curve_is_too_odd():
  check_odd_curves(range(60), FEW)
  check_odd_curves(range(60, 66), tuple(LAWS))


@pytest.mark.soak
def test_none_of_a_thousand_curves_is_too_odd():
  check_odd_curves(range(1000, 2000), FEW)
  check_odd_curves(range(2000, 2100), tuple(LAWS))
