"""Simulated learning curves and their fits, for several tests."""

import functools

import numpy as np

from analysis import noise
from analysis.fit import Fit, fit
from analysis.law_fit import fit_law
from analysis.laws import LAWS
from analysis.plateau import LAW, Scaled, scaled

SIZES = np.geomspace(50, 6400, 8)
FEW = ('constant', 'log_linear', 'power_floor')  # for tests of anything but the laws
PAIR = ('log_linear', 'power_floor')  # one line, one curve


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


def curve(
  sizes,
  repeats=3,
  noise=0.004,
  seed=0,
  e=0.1,
  b=2.0,
  c=0.5,
  laws=tuple(LAWS),
  kind='accuracy',
) -> Fit:
  """The fit of a power law with floor, run a few times at each size."""
  rng = np.random.default_rng(seed)
  runs = np.repeat(np.asarray(sizes, float), repeats)
  errors = (e + b * runs**-c + noise * rng.standard_normal(len(runs))).clip(0, 1)
  values = 1 - errors if kind == 'accuracy' else errors
  found = fit(runs, values, laws=laws, draws=50, rng=seed, kind=kind)
  assert isinstance(found, Fit)
  return found
