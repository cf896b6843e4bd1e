"""Simulated sweeps over data size and model size, for the tests of surfaces."""

import numpy as np

from analysis.surface import SurfaceFit, fit_surface

IMAGES, PARAMS = (
  axis.ravel()
  for axis in np.meshgrid(np.geomspace(1e9, 3e11, 6), np.geomspace(6e7, 1.6e10, 6))
)
TRUTH = {'E': 1.8, 'A': 480.0, 'B': 2100.0, 'alpha': 0.35, 'beta': 0.37}
# Images and model sizes of a vision sweep, from near chance to near the floor.
VISION_IMAGES, VISION_PARAMS = (
  axis.ravel()
  for axis in np.meshgrid(np.geomspace(100, 5e4, 7), np.geomspace(1e4, 3e7, 6))
)
VISION = VISION_IMAGES, VISION_PARAMS
ROSENFELD = {'c_inf': 0.03, 'a': 40.0, 'b': 5.0, 'alpha': 0.6, 'beta': 0.3, 'e_0': 0.9}


def fitted(*args, **options) -> SurfaceFit:
  found = fit_surface(*args, **options)
  assert isinstance(found, SurfaceFit), found
  return found


def additive(images, params, truth=TRUTH):
  return (
    truth['E']
    + truth['A'] * params ** -truth['alpha']
    + truth['B'] * images ** -truth['beta']
  )


def rosenfeld(images, params, truth=ROSENFELD):
  """As the paper writes it (eqs. 4 and 5), with eta = e_0."""
  t = (
    truth['c_inf']
    + truth['a'] * images ** -truth['alpha']
    + truth['b'] * params ** -truth['beta']
  )
  return truth['e_0'] * np.abs(t / (t - 1j * truth['e_0']))


def noisy(values, sd, seed):
  return values * np.exp(sd * np.random.default_rng(seed).standard_normal(len(values)))
