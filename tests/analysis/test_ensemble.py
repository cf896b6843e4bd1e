"""All laws together forecast curves of known laws: how well, and how wide."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from curves import fitted

from analysis.fit import Fit
from analysis.law_fit import LawFit

LARGEST = 5000.0
FACTORS = np.array([2.0, 4.0])
FAMILIES = (
  'power_floor',
  'power',
  'log_linear',
  'logit_linear',
  'double_saturation',
  'stretched_exponential',
)
SHAPES = tuple((sizes, seeds) for sizes in (6, 8, 12) for seeds in (1, 3))


@dataclasses.dataclass(frozen=True)
class Simulated:
  """Errors of a known curve, and what follows at `FACTORS`."""

  family: str
  shape: tuple[int, int]
  sizes: np.ndarray
  errors: np.ndarray
  truth: np.ndarray
  new: np.ndarray


def draw_curve(family: str, rng: np.random.Generator) -> Callable:
  """Error as a function of x, the size over the largest one."""
  level = np.exp(rng.uniform(np.log(0.05), np.log(0.4)))
  floor = rng.uniform(0, 0.8) * level
  c, k = rng.uniform(0.2, 0.8), rng.uniform(0.3, 2.0)
  slope = rng.uniform(0.1, 0.5) * level
  shift = np.exp(rng.uniform(np.log(0.01), np.log(0.1)))
  return {
    'power_floor': lambda x: floor + (level - floor) * x**-c,
    'power': lambda x: level * x ** (-c / 2),
    'log_linear': lambda x: level - slope * np.log10(x),
    'logit_linear': lambda x: 1 / (1 + (1 / level - 1) * x ** (c / 2)),
    'double_saturation': lambda x: (
      floor + (level - floor) * ((x + shift) / (1 + shift)) ** -c
    ),
    'stretched_exponential': lambda x: (
      floor + (level - floor) * np.exp((1 / k) ** 0.5 - (x / k) ** 0.5)
    ),
  }[family]


def simulate(rounds: int) -> Iterator[Simulated]:
  """`rounds` curves of each shape, the families in turn; the same ones every time."""
  for index in range(rounds):
    for place, (num, repeats) in enumerate(SHAPES):
      rng = np.random.default_rng([index, num, repeats])
      family = FAMILIES[(index + place) % len(FAMILIES)]
      x = np.logspace(-rng.uniform(1.5, 2.5), 0, num)
      while True:
        law = draw_curve(family, rng)
        if law(x)[0] <= 0.99:
          break
      sd = rng.uniform(0.005, 0.03)
      runs = np.repeat(x, repeats)

      def run(errors, sd=sd, rng=rng):
        return np.clip(errors * (1 + sd * rng.standard_normal(len(errors))), 0, 1)

      errors, truth = run(law(runs)), law(FACTORS)
      yield Simulated(family, (num, repeats), LARGEST * runs, errors, truth, run(truth))


def forecast_all(rounds: int) -> list[tuple[Simulated, Fit]]:
  return [
    (curve, fitted(curve.sizes, curve.errors, kind='error', rng=index))
    for index, curve in enumerate(simulate(rounds))
  ]


@pytest.fixture(scope='module')
def forecasts() -> list[tuple[Simulated, Fit]]:
  """48 curves of six laws, with their fits."""
  return forecast_all(8)


def test_the_stack_beats_the_last_value_and_one_law(forecasts):
  misses = {'stack': [], 'power_floor': [], 'last': []}
  for curve, found in forecasts:
    alone = found.laws['power_floor']
    assert isinstance(alone, LawFit)
    said = {
      'stack': found.curve(LARGEST * FACTORS),
      'power_floor': alone.curve(LARGEST * FACTORS),
      'last': found.points.means[-1],
    }
    for name, value in said.items():
      misses[name].append(np.abs(value - curve.truth)[1])
  median = {name: np.median(miss) for name, miss in misses.items()}
  # Measured on 240 such curves: a tenth of the last value's, four fifths of one law's.
  assert median['stack'] < 0.25 * median['last'], median
  assert median['stack'] < median['power_floor'], median
  assert np.mean(misses['stack']) < np.mean(misses['power_floor'])


def covered(
  forecasts: list[tuple[Simulated, Fit]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Which truths and new runs lie in their bands, [N, 2, 2]; widths of the first."""
  hits, widths, changes = [], [], []
  for curve, found in forecasts:
    bands = found.predict(LARGEST * FACTORS)
    hits.append(
      [
        (bands.curve_lo <= curve.truth) & (curve.truth <= bands.curve_hi),
        (bands.lo <= curve.new) & (curve.new <= bands.hi),
      ]
    )
    widths.append((bands.curve_hi - bands.curve_lo) / 2)
    changes.append(found.points.means[-1] - curve.truth)
  return np.array(hits), np.array(widths), np.array(changes)


def test_bands_cover(forecasts):
  hits, widths, changes = covered(forecasts)
  coverage = hits.mean(axis=0)
  # Nominal 90%, aimed at 85 to 95%; 48 curves add a standard error of 5 points, of which
  # two are allowed for.
  assert (coverage >= 0.85 - 0.10).all(), coverage
  # Wide bands cover too: these must tell the gain from nothing.
  assert (np.median(widths, axis=0) < 0.5 * np.median(changes, axis=0)).all()


@pytest.mark.soak
def test_bands_cover_at_every_number_of_sizes_and_seeds():
  found = forecast_all(40)
  hits, _, _ = covered(found)
  shapes = np.array([curve.shape for curve, _ in found])
  coverage = hits.mean(axis=0)
  # Aimed at 85 to 95%; the standard error is 2.2 points over 240 curves and 5.4 over 40,
  # of which two and three are allowed for.
  assert (coverage >= 0.85 - 0.045).all(), coverage
  assert (coverage <= 0.95 + 0.045).all(), coverage
  for shape in SHAPES:
    coverage = hits[(shapes == shape).all(axis=1)].mean(axis=0)
    assert (coverage >= 0.85 - 0.165).all(), (shape, coverage)
