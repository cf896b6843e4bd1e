"""Simulated learning curves and their fits, for several tests."""

import functools

import numpy as np

from analysis import noise
from analysis.fit import Fit, fit
from analysis.law_fit import fit_law
from analysis.plateau import LAW, Scaled, scaled

SIZES = np.geomspace(50, 6400, 8)
FEW = ('constant', 'log_linear', 'power_floor')  # for tests of anything but the laws


def fitted(*args, **options) -> Fit:
  found = fit(*args, **{'draws': 50, **options})
  assert isinstance(found, Fit), found
  return found


def noisy(errors, sd: float, seed: int) -> np.ndarray:
  """Noise in proportion to the error, kept in [0, 1]."""
  errors = np.asarray(errors, float)
  rng = np.random.default_rng(seed)
  return np.clip(errors * (1 + sd * rng.standard_normal(errors.shape)), 0, 1)


def bending(sizes=SIZES) -> np.ndarray:
  """Accuracy without noise that ends at 0.9."""
  return 0.9 - 2 * np.asarray(sizes, float) ** -0.5


@functools.cache
def typical() -> Fit:
  """A plain curve with all laws, for the tests that only ask."""
  return fitted(SIZES, 1 - noisy(1 - bending(), 0.01, 0))


def points_of(sizes: np.ndarray, errors: np.ndarray) -> Scaled:
  """The points behind a power law with floor, as its tests and pooling see them."""
  points = noise.group(sizes, errors)
  known = noise.known(points)
  found = fit_law(
    LAW, points, known, kind='error', draws=0, generator=np.random.default_rng(0)
  )
  return scaled(found, known)
