"""Forecasts of held-out sizes: kept as they were made, and made blindly."""

import dataclasses

import numpy as np
import pytest
from curves import SIZES, bending, noisy, typical

from analysis import ensemble
from analysis.laws import LAWS


def test_held_out_sizes_are_forecast_from_each_origin():
  found = typical()
  origins = sorted({held.origin for held in found.held})
  assert origins == list(SIZES[3:7])
  for held in found.held:
    assert held.size > held.origin
    assert 0 <= held.lo <= held.value <= held.hi <= 1
  last = [held for held in found.held if held.origin == SIZES[5]]
  assert found.rolling_sizes == 2
  assert found.rolling_error == pytest.approx(
    np.mean([abs(held.value - held.observed) for held in last])
  )
  assert set(found.rolling_errors) == set(LAWS)
  # The curve bends, so a line misses its end by more.
  assert found.rolling_errors['log_linear'] > 4 * found.rolling_error


@pytest.mark.parametrize('variance', [None, 1e-5 + 1e-3 / SIZES])
@pytest.mark.parametrize('bounded', [True, False])
def test_a_rolling_forecast_does_not_see_what_it_foretells(variance, bounded):
  errors = noisy(1 - bending(), 0.01, 8)
  data = ensemble.Data(SIZES, errors, variance, 10.0, (1e-5, 0.0), bounded=bounded)
  rolled = ensemble.roll(data, tuple(LAWS))
  assert rolled.origins == (4, 5, 6, 7)
  rng = np.random.default_rng(0)
  for place, origin in enumerate(rolled.origins):
    later = np.append(errors[:origin], rng.uniform(0, 0.9, len(SIZES) - origin))
    other = ensemble.roll(dataclasses.replace(data, errors=later), tuple(LAWS))
    for k in range(place + 1):
      assert np.array_equal(rolled.means[k], other.means[k])
      assert np.array_equal(rolled.deviations[k], other.deviations[k])
    assert not np.array_equal(rolled.scores, other.scores)
