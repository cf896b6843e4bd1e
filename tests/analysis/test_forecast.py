"""Forecasts, grades, and the comparison of depths."""

import numpy as np
import pytest

from analysis.fit import Fit, Refusal, fit
from analysis.forecast import forecasts, grade, interaction, subtract


def curve(
  sizes, repeats=3, noise=0.004, seed=0, e=0.1, b=2.0, c=0.5, law='power_floor'
):
  rng = np.random.default_rng(seed)
  runs = np.repeat(np.asarray(sizes, float), repeats)
  values = 1 - (e + b * runs**-c) + noise * rng.standard_normal(len(runs))
  found = fit(runs, values.clip(0, 1), law=law, rng=seed)
  assert isinstance(found, Fit)
  return found


def test_near_is_trusted_more_than_far():
  found = curve(np.geomspace(50, 50_000, 10))
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
  found = curve([50, 100, 200, 400, 800], law='log_linear', b=5.0)
  far = forecasts(found)[1]
  assert far.value <= 1
  assert far.grade == 'D'


def laws(**options):
  return {law: curve(law=law, **options) for law in ('log_linear', 'power_floor')}


def test_depths_that_differ_are_told_apart():
  sizes = np.geomspace(50, 6400, 8)
  found = interaction(
    {20: laws(sizes=sizes, b=3.0, seed=1), 8: laws(sizes=sizes, b=2.0)}
  )
  assert [gain.depth for gain in found.gains] == [8, 20, 8, 20]
  window = found.differences[0]
  assert (window.shallow, window.deep, window.where) == (8, 20, 'window')
  assert window.words == 'deeper gains more'
  assert 0 < window.lo < window.value < window.hi
  assert found.note == ''


def test_equal_depths_are_rarely_told_apart():
  """The 90% interval of a true zero misses it in about one case of ten."""
  sizes = np.geomspace(50, 1600, 6)
  shown = 0
  for seed in range(60):
    pair = {
      depth: {'log_linear': curve(sizes, seed=2 * seed + depth, law='log_linear')}
      for depth in (0, 1)
    }
    found = interaction(pair)
    shown += found.differences[0].words != 'no difference can be shown'
  assert shown <= 13  # mean 6, 3 standard deviations of a binomial of 60


def test_a_depth_without_fit_is_named():
  sizes = np.geomspace(50, 6400, 8)
  refused = {law: Refusal(law, 'x') for law in ('log_linear', 'power_floor')}
  found = interaction({8: laws(sizes=sizes), 20: refused})
  assert found.differences == ()
  assert 'depth 20' in found.note
  assert interaction({8: refused}).gains == ()


def test_different_windows_are_noted():
  found = interaction(
    {
      8: laws(sizes=np.geomspace(50, 6400, 8)),
      20: laws(sizes=np.geomspace(50, 6400, 8)[:6]),
    }
  )
  assert 'same sizes' in found.note
  assert found.gains[-1].size == pytest.approx(np.geomspace(50, 6400, 8)[5])


def test_subtract_adds_in_quadrature():
  assert subtract((5, 2, 8), (1, -3, 5)) == (4 - 5, 4 + 5)
