"""The split of a budget between data and model."""

import numpy as np
import pytest
from surfaces import IMAGES, PARAMS, VISION, additive, fitted, noisy, rosenfeld

from analysis.allocation import optimal_allocation


def test_allocation_minimises_the_surface():
  found = fitted(IMAGES, PARAMS, noisy(additive(IMAGES, PARAMS), 0.003, 0))
  flops, per = 1e21, 4.0
  best = optimal_allocation(found, flops, flops_per_param_image=per)
  assert per * best.num_images * best.num_params == pytest.approx(flops, rel=1e-12)
  params = best.num_params * np.geomspace(0.5, 2, 201)
  along = found.curve(flops / per / params, params)
  assert np.argmin(along) == 100
  assert along[100] == pytest.approx(best.value, rel=1e-12)
  for name, (lo, hi) in best.intervals.items():
    assert lo <= getattr(best, name) <= hi
  grown = optimal_allocation(found, 10 * flops, flops_per_param_image=per)
  assert np.log10(grown.num_params / best.num_params) == pytest.approx(
    best.params_exponent, rel=1e-9
  )
  assert best.in_window
  assert not optimal_allocation(found, 1e26).in_window
  with pytest.raises(ValueError, match='flops=-1 must be finite and positive'):
    optimal_allocation(found, -1)
  errors = fitted(*VISION, rosenfeld(*VISION), kind='error', draws=20)
  with pytest.raises(ValueError, match='has no closed allocation'):
    optimal_allocation(errors, 1e20)


def test_a_surface_flat_along_one_axis_has_no_best_place():
  found = fitted(IMAGES, PARAMS, 1.8 + 2100 * IMAGES**-0.37 + 0.02 * np.log10(PARAMS))
  with pytest.raises(ValueError, match='flat along one axis'):
    optimal_allocation(found, 1e20)
