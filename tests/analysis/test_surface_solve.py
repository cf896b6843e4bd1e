"""The optimiser of surfaces: exact where it is linear, and never beaten by another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from surfaces import IMAGES, PARAMS, TRUTH, VISION, additive, fitted, noisy, rosenfeld

from analysis import surface_solve
from analysis.surface_laws import SURFACE_LAWS
from analysis.surface_problem import scaled_problem
from analysis.surface_solve import project, random_starts


def huber(residual, delta):
  size = np.abs(residual)
  far = delta * (size - delta / 2) if np.isfinite(delta) else np.inf
  return np.where(size <= delta, residual**2 / 2, far).sum()


@settings(max_examples=12)
@given(
  seed=st.integers(0, 10**6),
  law=st.sampled_from(sorted(SURFACE_LAWS)),
  delta=st.sampled_from([1e-3, 1e-2, np.inf]),
  residual=st.sampled_from(['log', 'value']),
)
def test_no_start_of_scipy_does_better(seed, law, delta, residual):
  """Convergence is checked, not assumed."""
  kind = 'loss' if law == 'additive' else 'error'
  sizes = (IMAGES, PARAMS) if law == 'additive' else VISION
  truth = additive(*sizes) if law == 'additive' else rosenfeld(*sizes)
  values = np.minimum(noisy(truth, 0.02, seed), 0.99 if kind == 'error' else np.inf)
  problem = scaled_problem(
    SURFACE_LAWS[law], sizes, values, kind, residual, delta, None
  )
  found = fitted(
    *sizes,
    values,
    law=law,
    kind=kind,
    residual=residual,
    loss='squares' if np.isinf(delta) else 'huber',
    delta=1.0 if np.isinf(delta) else delta,
    draws=20,
  )
  seen = np.log if residual == 'log' else np.asarray
  assert found.objective == pytest.approx(
    huber(seen(values) - seen(found.curve(*sizes)), delta), rel=1e-9
  )
  assert found.starts.objectives.min() == found.objective

  def objective(theta):
    value, jacobian = problem.law.value_and_jacobian(
      problem.log_images, problem.log_params, theta
    )
    difference = seen(value) - problem.target
    slope = jacobian / value if problem.log else jacobian
    pull = np.clip(difference, -problem.delta, problem.delta)
    return huber(difference, problem.delta), slope @ pull

  # A surface of zero has no logarithm.
  bounds = list(zip(np.maximum(problem.lower, 1e-6), problem.upper, strict=True))
  unit = problem.unit if residual == 'value' else 1.0
  for start in random_starts(problem, np.random.default_rng(seed), 4):
    end = optimize.minimize(
      objective,
      start,
      jac=True,
      method='L-BFGS-B',
      bounds=bounds,
      options={'maxiter': 2000, 'ftol': 1e-15, 'gtol': 1e-12},
    )
    # Rounding of a sum over about 40 points.
    assert found.objective <= end.fun * unit**2 * (1 + 1e-12)


def test_projection_solves_nonnegative_least_squares():
  rng = np.random.default_rng(0)
  for _ in range(50):
    columns = rng.normal(size=(12, 3)) + rng.uniform(0, 2)
    target = columns @ rng.normal(size=3) + 0.3 * rng.normal(size=12)
    found, reduction = surface_solve._nonnegative(
      columns.T @ columns, columns.T @ target
    )
    expected, norm = optimize.nnls(columns, target)
    # The ridge of 1e-12, times a condition number of up to 1e4.
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (target**2).sum() - reduction == pytest.approx(norm**2, rel=1e-8)


def test_projection_is_the_start_that_squares_need_no_more():
  values = additive(IMAGES, PARAMS)
  problem = scaled_problem(
    SURFACE_LAWS['additive'], (IMAGES, PARAMS), values, 'loss', 'value', np.inf, None
  )
  exponents = np.array([0.2, 0.35, 0.37, 0.8])
  found = problem.natural(project(problem, np.ones((1, 36)), exponents)[0])
  # The exponents are on the grid, so the rest is linear; the ridge of 1e-12 leaves
  # 1e-12 times the square of a condition number of 100.
  np.testing.assert_allclose(found, list(TRUTH.values()), rtol=1e-6)
