"""The fitter: recovery, bounds, intervals that cover, refusals."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from analysis.fit import Fit, Refusal, fit
from analysis.laws import LAWS
from analysis.noise import group, seed_variance
from analysis.solve import solve

SIZES = np.geomspace(50, 6400, 8)


def fitted(*args, **options) -> Fit:
  found = fit(*args, **options)
  assert isinstance(found, Fit), found
  return found


@settings(deadline=None, max_examples=30)
@given(
  e=st.floats(0, 0.3), c=st.floats(0.1, 1.5), scale=st.sampled_from([1e1, 1e4, 1e8])
)
def test_recovers_a_noiseless_power_law(e, c, scale):
  sizes = scale * np.geomspace(1, 300, 8)
  b = 0.6 * sizes[0] ** c
  found = fitted(sizes, 1 - (e + b * sizes**-c), law='power_floor')
  # The golden section locates the exponent to about the root of the float precision.
  assert found.params['c'] == pytest.approx(c, rel=1e-5)
  assert found.params['e'] == pytest.approx(e, abs=1e-6)
  assert found.params['b'] == pytest.approx(b, rel=1e-4)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_solver_finds_what_a_general_optimiser_finds(seed):
  """Convergence is checked, not assumed: no start of scipy's does better."""
  rng = np.random.default_rng(seed)
  x, weights = SIZES / 500, rng.uniform(0.2, 2, 8)
  y = rng.uniform(0, 0.2) + rng.uniform(0, 0.3) * x ** -rng.uniform(0.1, 1.2)
  y = y + 0.03 * rng.standard_normal(8)
  law = LAWS['power_floor']
  solution = solve(law, x, y[None], weights)
  weights = weights / weights.sum()

  def squares(c):
    columns = np.stack([np.ones(8), x**-c], 1) * np.sqrt(weights)[:, None]
    return optimize.nnls(columns, y * np.sqrt(weights))[1] ** 2

  best = min(squares(c) for c in np.geomspace(law.shapes[0], law.shapes[-1], 400))
  # Both are the same convex problem at equal c; 1e-12 is the rounding of moments.
  assert solution.sum_squares[0] <= best + 1e-12
  assert solution.sum_squares[0] == pytest.approx(
    squares(solution.shape[0]), rel=1e-6, abs=1e-12
  )


def test_log_linear_is_least_squares():
  rng = np.random.default_rng(0)
  values = 0.2 + 0.1 * np.log10(SIZES) + 0.01 * rng.standard_normal(8)
  found = fitted(SIZES, values, law='log_linear')
  slope, intercept = np.polyfit(np.log10(SIZES), values, 1)
  # Equal weights up to the tiny variance that keeps them finite.
  assert found.params['b'] == pytest.approx(slope, rel=1e-8)
  assert found.params['a'] == pytest.approx(intercept, rel=1e-8)


def simulate(law, sizes, repeats, draws, num_test=None):
  """Coverage of the curve at the largest size, of its 2x, of a new run, of the gain."""
  rng = np.random.default_rng(7)
  runs = np.repeat(sizes, repeats)
  largest = sizes[-1]
  points = np.array([largest, 2 * largest])

  def curve(n):
    return 0.05 + 3 * n**-0.5 if law == 'power_floor' else 0.9 - 0.2 * np.log10(n)

  hits = []
  for index in range(draws):
    values = curve(runs) + 0.01 * rng.standard_normal(len(runs))
    found = fitted(
      runs, values.clip(0, 1), law=law, kind='error', num_test=num_test, rng=index
    )
    bands, truth = found.predict(points), curve(points)
    new = truth[1] + 0.01 * rng.standard_normal()
    _, lo, hi = found.gain_per_doubling(largest)
    hits.append(
      [
        *((bands.curve_lo <= truth) & (truth <= bands.curve_hi)),
        bands.lo[1] <= new <= bands.hi[1],
        lo <= truth[0] - truth[1] <= hi,
      ]
    )
  return np.mean(hits, axis=0)


@pytest.mark.parametrize(
  ('law', 'num_sizes', 'repeats'),
  [
    ('power_floor', 8, 3),
    ('power_floor', 6, 1),
    ('log_linear', 8, 3),
    ('log_linear', 6, 1),
  ],
)
def test_intervals_cover(law, num_sizes, repeats):
  sizes = SIZES[:num_sizes]
  coverage = simulate(law, sizes, repeats, draws=160)
  # Nominal 90%, aimed at 85 to 95%; 160 simulations add a standard error of 2.4 points,
  # of which two are allowed for.
  assert (coverage >= 0.85 - 0.048).all(), coverage
  assert (coverage <= 0.95 + 0.048).all(), coverage


def test_few_degrees_of_freedom_widen_the_draws():
  """Six sizes less three parameters leave three degrees of freedom without repeats."""
  rng = np.random.default_rng(0)
  sizes = SIZES[:6]
  values = 1 - (0.05 + 3 * sizes**-0.5) + 0.01 * rng.standard_normal(6)
  found = fitted(sizes, values, law='power_floor')
  assert found.noise.dof == pytest.approx(3)
  assert found.draw_scale.max() > 2


def test_log_linear_loses_openly_on_a_saturating_curve():
  rng = np.random.default_rng(0)
  sizes = np.repeat(SIZES, 3)
  values = 0.9 - 2.5 * sizes**-0.5 + 0.005 * rng.standard_normal(len(sizes))
  line = fitted(sizes, values, law='log_linear')
  power = fitted(sizes, values, law='power_floor')
  assert line.rolling_sizes == power.rolling_sizes == 2
  assert line.rolling_error is not None
  assert power.rolling_error is not None
  assert line.rolling_error > 4 * power.rolling_error
  assert 'lack of fit' in line.flags
  assert 'lack of fit' not in power.flags


def test_bands_stay_in_range_and_nest():
  rng = np.random.default_rng(1)
  sizes = np.repeat(SIZES[:5], 2)
  values = (0.99 - 2 * sizes**-0.6 + 0.02 * rng.standard_normal(10)).clip(0, 1)
  for law in LAWS:
    bands = fitted(sizes, values, law=law).predict(np.geomspace(10, 1e6, 50))
    stacked = np.stack(list(bands))
    assert (stacked >= 0).all()
    assert (stacked <= 1).all()
    order = [bands.lo, bands.curve_lo, bands.value, bands.curve_hi, bands.hi]
    assert (np.diff(np.stack(order), axis=0) >= 0).all()


def test_accuracy_and_error_are_one_fit():
  rng = np.random.default_rng(2)
  sizes = np.repeat(SIZES, 2)
  error = 0.1 + 2 * sizes**-0.5 + 0.01 * rng.standard_normal(16)
  left = fitted(sizes, error, law='power_floor', kind='error')
  right = fitted(sizes, 1 - error, law='power_floor', kind='accuracy')
  # 1 - (1 - x) costs the last bits.
  assert right.params == pytest.approx(left.params, rel=1e-5)
  assert right.gain_per_doubling(6400) == pytest.approx(left.gain_per_doubling(6400))
  assert right.predict(100).value == pytest.approx(1 - left.predict(100).value)


def test_same_seed_same_fit_other_seed_other_draws():
  values = 0.9 - 2 * SIZES**-0.5 + 0.01 * np.random.default_rng(3).standard_normal(8)
  one, two, three = (
    fitted(SIZES, values, law='power_floor', rng=seed) for seed in (0, 0, 1)
  )
  assert np.array_equal(one.draws, two.draws)
  assert not np.array_equal(one.draws, three.draws)
  assert one.params == three.params


def test_full_precision_parameters_rebuild_the_curve():
  values = 0.9 - 2 * SIZES**-0.5
  found = fitted(SIZES, values, law='power_floor')
  e, b, c = found.params.values()
  assert np.array_equal(found.curve(SIZES), 1 - (e + b * SIZES**-c))


def test_seed_variance_is_pooled_and_non_negative():
  rng = np.random.default_rng(4)
  sizes = np.repeat(SIZES, 200)
  values = np.sqrt(1e-4 + 0.05 / sizes) * rng.standard_normal(len(sizes))
  v0, v1, dof = seed_variance(group(sizes, values), None)
  assert dof == 8 * 199
  assert v0 == pytest.approx(1e-4, rel=0.15)  # 4 standard errors of 1592 deviations
  assert v1 == pytest.approx(0.05, rel=0.2)


def test_binomial_floor_only_without_repeats():
  values = 0.9 - 2 * SIZES**-0.5
  alone = fitted(SIZES, values, law='log_linear', num_test=100)
  assert alone.noise.v0 > 0.05 * 0.95 / 100
  twice = np.concatenate([values, values + 1e-3])
  repeated = fitted(np.tile(SIZES, 2), twice, law='log_linear', num_test=100)
  assert repeated.noise.seed_dof == 8
  assert repeated.noise.v0 < 1e-5


def test_flags():
  bending = fitted(SIZES, 1 - np.exp(-(np.log(SIZES) ** 2) / 50), law='power_floor')
  assert bending.params['e'] == 0
  assert 'floor at zero' in bending.flags
  narrow = fitted(SIZES[:4], 0.9 - 2 * SIZES[:4] ** -0.5, law='power_floor')
  assert 'less than one decade' in narrow.flags
  step = np.where(SIZES > 60, 0.9, 0.1)
  assert 'exponent at bound' in fitted(SIZES, step, law='power_floor').flags
  falling = fitted(SIZES, 0.9 - 0.1 * np.log10(SIZES), law='power_floor')
  assert 'no trend' in falling.flags
  line = fitted(SIZES, 0.9 - 0.1 * np.log10(SIZES), law='log_linear')
  assert 'gets worse with data' in line.flags


@pytest.mark.parametrize(
  ('law', 'sizes', 'values', 'words'),
  [
    ('power_floor', [50, 100, 200], [0.1, 0.2, 0.3], '3 distinct sizes'),
    ('power_floor', [50, 100, 200, 200], [0.1, 0.2, 0.3, 0.31], '3 distinct sizes'),
    ('log_linear', [50, 100], [0.1, 0.2], '2 distinct sizes'),
    ('constant', [50], [0.1], '1 distinct sizes'),
    ('log_linear', [50, 100, 200], [0.5] * 3, 'all 3 values are equal'),
  ],
)
def test_refuses(law, sizes, values, words):
  found = fit(sizes, values, law=law)
  assert isinstance(found, Refusal)
  assert found.law == law
  assert words in found.reason


@pytest.mark.parametrize(
  ('sizes', 'values', 'options', 'words'),
  [
    ([1, 2], [0.1, 0.2], {'law': 'cubic'}, 'cubic'),
    ([1, 2], [0.1, 0.2], {'law': 'constant', 'kind': 'f1'}, 'f1'),
    ([1, 2], [0.1], {'law': 'constant'}, 'equally long'),
    ([0, 2], [0.1, 0.2], {'law': 'constant'}, 'positive'),
    ([1, 2], [0.1, np.nan], {'law': 'constant'}, 'finite'),
    ([1, 2], [10, 20], {'law': 'constant'}, 'divide a percentage by 100'),
    ([1, 2], [0.1, 0.2], {'law': 'constant', 'seeds': [1]}, '1 seeds'),
    ([1, 2], [0.1, 0.2], {'law': 'constant', 'draws': 5}, 'draws=5'),
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
