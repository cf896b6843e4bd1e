"""Forecasts and their grades."""

import numpy as np
import pytest
from curves import PAIR, curve

from analysis.fit import Fit, fit
from analysis.forecast import FACTORS, forecasts, grade


def test_near_is_trusted_more_than_far():
  found = curve(np.geomspace(50, 50_000, 10), noise=0.001)
  near, far = forecasts(found)
  assert (near.factor, far.factor) == (2, 10)
  assert near.size == pytest.approx(100_000)
  assert near.grade == 'A'
  assert near.grade < far.grade
  assert near.lo < near.curve_lo < near.value < near.curve_hi < near.hi


def test_ten_times_from_little_data_is_graded_low_and_says_so():
  letter, reason = grade(curve(np.geomspace(50, 1600, 6)), 16_000)
  assert letter == 'D'
  assert '10 times' in reason
  assert '1.5 decades' in reason


def test_no_repeats_and_few_sizes_limit_the_grade():
  assert grade(curve(np.geomspace(50, 50_000, 10), repeats=1), 1e5)[0] >= 'B'
  assert grade(curve(np.geomspace(50, 50_000, 4)), 1e5)[0] >= 'C'


def test_a_line_that_leaves_the_range_is_graded_d():
  found = curve([50, 100, 200, 400, 800], laws=('log_linear',), b=5.0)
  far = forecasts(found)[1]
  assert far.value <= 1
  assert far.grade == 'D'


def test_a_forecast_is_what_the_fit_predicts():
  found = curve(np.geomspace(50, 6400, 8), laws=PAIR)
  for factor, row in zip(FACTORS, forecasts(found), strict=True):
    bands = found.predict(factor * 6400)
    assert (row.value, row.lo, row.hi) == (bands.value[0], bands.lo[0], bands.hi[0])
    assert (row.grade, row.grade_reason) == grade(found, row.size)


def test_a_curve_that_turns_is_not_trusted():
  sizes = np.geomspace(50, 50_000, 10)
  values = np.append(0.9 - 2 * sizes[:7] ** -0.5, [0.7, 0.65, 0.6])
  found = fit(sizes, values, se=[0.004] * 10, laws=PAIR, draws=50)
  assert isinstance(found, Fit)
  letter, _ = grade(found, 1e5)
  assert letter >= 'C'
  assert 'not monotone' in found.flags
