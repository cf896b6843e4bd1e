"""Depths compared: what the next doubling and the average one buy at each."""

import numpy as np
import pytest
from curves import PAIR, curve

from analysis.fit import fit
from analysis.interaction import interaction, subtract
from analysis.prediction import Refusal


def pair(**options):
  return curve(laws=PAIR, **options)


def test_depths_that_differ_are_told_apart():
  sizes = np.geomspace(50, 6400, 8)
  found = interaction(
    {20: pair(sizes=sizes, b=3.0, seed=1), 8: pair(sizes=sizes, b=2.0)}
  )
  assert [gain.depth for gain in found.gains] == [8, 20, 8, 20]
  assert [(gain.law, gain.where) for gain in found.gains[::2]] == [
    ('log_linear', 'window'),
    ('all', 'next'),
  ]
  window, ahead = found.differences
  assert (window.shallow, window.deep, window.where) == (8, 20, 'window')
  assert window.words == 'deeper gains more'
  assert 0 < window.lo < window.value < window.hi
  assert (ahead.shallow, ahead.deep, ahead.where) == (8, 20, 'next')
  assert ahead.lo < ahead.value < ahead.hi
  assert found.note == ''


def test_the_next_doubling_is_that_of_all_laws():
  sizes = np.geomspace(50, 6400, 8)
  fits = {8: pair(sizes=sizes), 20: pair(sizes=sizes, b=3.0, seed=1)}
  for gain in interaction(fits).gains:
    if gain.where == 'next':
      given = (gain.value, gain.lo, gain.hi)
      assert given == fits[gain.depth].gain_per_doubling(sizes[-1])
    else:
      # The average is the slope of a line over all sizes, whatever window it does best
      # in: log10(2) times that of least squares, for equal noise.
      found = fits[gain.depth]
      slope = np.polyfit(np.log10(sizes), found.points.means, 1)[0]
      assert gain.value == pytest.approx(slope * np.log10(2), rel=0.15)


def test_a_gain_of_errors_is_a_gain():
  sizes = np.geomspace(50, 6400, 8)
  found = interaction(
    {
      8: pair(sizes=sizes, kind='error'),
      20: pair(sizes=sizes, b=3.0, seed=1, kind='error'),
    }
  )
  assert all(gain.value > 0 for gain in found.gains)
  assert found.differences[0].words == 'deeper gains more'


def test_equal_depths_are_rarely_told_apart():
  """The 90% interval of a true zero misses it in about one case of ten."""
  sizes = np.geomspace(50, 1600, 6)
  shown = 0
  for seed in range(60):
    two = {
      depth: curve(sizes, seed=2 * seed + depth, laws=('log_linear',))
      for depth in (0, 1)
    }
    found = interaction(two)
    shown += found.differences[0].words != 'no difference can be shown'
  assert shown <= 13  # mean 6, 3 standard deviations of a binomial of 60


def test_equal_curves_without_noise_do_not_differ():
  sizes = np.geomspace(50, 6400, 8)
  values = 0.9 - 2 * sizes**-0.5
  two = {depth: fit(sizes, values, laws=('log_linear',), draws=50) for depth in (8, 20)}
  difference = interaction(two).differences[0]
  assert difference.value == 0
  assert difference.words == 'no difference can be shown'


def test_a_depth_without_fit_is_named():
  sizes = np.geomspace(50, 6400, 8)
  refused = Refusal('all', 'x')
  found = interaction({8: pair(sizes=sizes), 20: refused})
  assert found.differences == ()
  assert 'depth 20' in found.note
  assert interaction({8: refused}).gains == ()


def test_different_windows_are_noted():
  found = interaction(
    {
      8: pair(sizes=np.geomspace(50, 6400, 8)),
      20: pair(sizes=np.geomspace(50, 6400, 8)[:6]),
    }
  )
  assert 'same sizes' in found.note
  assert found.gains[-1].size == pytest.approx(np.geomspace(50, 6400, 8)[5])


def test_subtract_adds_in_quadrature():
  assert subtract((5, 2, 8), (1, -3, 5)) == (4 - 5, 4 + 5)
