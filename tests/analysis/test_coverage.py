"""Intervals of one law hold the truth as often as they say, by simulation."""

import numpy as np
import pytest
from law_fits import fitted

from analysis.laws import LAWS

# Truths by law: natural parameters with errors in (0, 1) for 50 to 6400 images.
TRUTHS = {
  'constant': [0.3],
  'log_linear': [0.9, -0.2],  # of an error
  'logit_linear': [-3.0, 1.2],
  'power': [2.0, 0.35],
  'power_floor': [0.08, 3.0, 0.5],
  'shifted_power': [3.0, 5e-4, 0.45],
  'double_saturation': [0.08, 6.0, 60.0, 0.55],
  'exponential': [0.1, 0.5, 2e-3],
  'stretched_exponential': [0.1, 0.7, 5e-3, 0.6],
  'break': [0.02, 1.2, 0.15, 0.7, 600.0, 0.3],
}
TRUTHS['saturating'] = list(
  LAWS['saturating'].natural(
    np.array(0.08), np.array(0.82), np.array([0.9, 0.8, 1.3]), 400.0
  )
)
NOISES = {'absolute': 0.01, 'relative': 0.03}


def coverage(law, num_sizes, repeats, kind, simulations, draws=200, span=(50, 6400)):
  """Share of simulations in which 90% intervals hold the truth, by name.

  The parameters; the curve in the middle, at the end and at twice the end; a new run
  at twice the end; the gain of doubling at the end.
  """
  rng = np.random.default_rng(7)
  truth = np.array(TRUTHS[law])
  sizes = np.geomspace(*span, num_sizes)
  largest = sizes[-1]
  at = np.array([sizes[num_sizes // 2], largest, 2 * largest])
  runs = np.repeat(sizes, repeats)

  def simulate(n):
    error = LAWS[law].curve(n, truth)
    sd = NOISES[kind] * (error if kind == 'relative' else 1.0)
    values = error + sd * rng.standard_normal(len(n))
    assert (values > 0).all()
    assert (values < 1).all()
    return values

  hits = {}
  for index in range(simulations):
    found = fitted(runs, simulate(runs), law, kind='error', seed=index, draws=draws)
    bands, there = found.predict(at), LAWS[law].curve(at, truth)
    inside = (bands.curve_lo <= there) & (there <= bands.curve_hi)
    new = simulate(at[2:])[0]
    _, lo, hi = found.gain_per_doubling(largest)
    row = dict(zip(('middle', 'end', 'twice'), inside, strict=True))
    row |= {'run': bands.lo[2] <= new <= bands.hi[2], 'gain': lo <= there[1] - there[2]}
    row['gain'] &= there[1] - there[2] <= hi
    for parameter, value in zip(found.params, truth, strict=True):
      lo, hi = found.intervals[parameter]
      row[parameter] = lo <= value <= hi
    for name, hit in row.items():
      hits.setdefault(name, []).append(hit)
  return {name: float(np.mean(values)) for name, values in hits.items()}


def allowance(simulations):
  """Three standard errors of a share of 0.9: many shares are looked at at once."""
  return 3 * np.sqrt(0.09 / simulations)


@pytest.mark.parametrize('kind', NOISES)
@pytest.mark.parametrize(
  ('law', 'num_sizes', 'repeats'),
  [
    ('log_linear', 6, 1),
    ('log_linear', 12, 1),
    ('power', 6, 1),
    ('power', 8, 3),
    ('power_floor', 6, 1),
    ('power_floor', 8, 3),
    ('power_floor', 12, 1),
  ],
)
def test_intervals_cover(law, num_sizes, repeats, kind):
  found = coverage(law, num_sizes, repeats, kind, simulations=100, draws=100)
  assert_covers(found, repeats, 100)


def assert_covers(found, repeats, simulations):
  """Parameters and gains; bands where repeats tell how the noise depends on the size.

  Without repeats the misfit is taken in proportion to the level, so absolute noise is
  thought too small at the largest sizes; `test_bands_without_repeats_of_absolute_noise` states that.
  """
  bands = {'middle', 'end', 'twice'}
  names = found.keys() - {'run'} - (set() if repeats > 1 else bands)
  # Nominal 90%, aimed at 85 to 95%, and what so many simulations may be off. Intervals
  # that are widened to hold the estimate, and floors that end at 0, may cover more.
  low = 0.85 - allowance(simulations)
  high = min(0.95 + allowance(simulations), 1.0)
  assert all(low <= found[name] <= high for name in names), found


@pytest.mark.soak
@pytest.mark.parametrize('kind', NOISES)
@pytest.mark.parametrize('law', ['log_linear', 'power', 'power_floor'])
@pytest.mark.parametrize(('num_sizes', 'repeats'), [(6, 1), (8, 1), (12, 1), (8, 3)])
def test_intervals_cover_at_length(law, num_sizes, repeats, kind):
  found = coverage(law, num_sizes, repeats, kind, simulations=400)
  assert_covers(found, repeats, 400)


@pytest.mark.soak
@pytest.mark.parametrize('kind', NOISES)
@pytest.mark.parametrize('law', LAWS)
def test_curves_of_every_law_cover(law, kind):
  """Only inside the sizes: past them several laws rest on what no size has shown."""
  found = coverage(law, 12, 3, kind, simulations=200)
  low = 0.85 - allowance(200)
  assert found['middle'] >= low, found
  assert found['end'] >= low, found


@pytest.mark.soak
@pytest.mark.xfail(
  strict=True, reason='misfit in proportion to the level; measured 70%'
)
def test_bands_without_repeats_of_absolute_noise():
  """Known shortfall: an error that falls fourfold under noise of equal size."""
  found = coverage('log_linear', 6, 1, 'absolute', simulations=400)
  assert found['end'] >= 0.85 - allowance(400), found
