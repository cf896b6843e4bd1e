"""The objective of a fit of a surface, in scaled units, and its derivatives.

It is the sum of the loss terms, not their mean (see `analysis.surface`). Sizes are
divided by their geometric means and values by their mean.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from analysis.surface_laws import SurfaceLaw

# Published exponents of errors and losses lie in 0.02 to 1.2. Outside these ends a term
# cannot be told from the floor (below) or from a step (above).
_EXPONENTS = (0.01, 3.0)


@dataclasses.dataclass(frozen=True)
class Problem:
  """What is minimised, in scaled units.

  Attributes:
    law: the form.
    log_images, log_params: [n] of sizes over their geometric means.
    values: [n] over their mean.
    target: [n] values or their logarithms.
    log: which of the two.
    delta: of Huber, in units of the target; infinite for squares.
    lower, upper: [P] bounds; equal for a parameter that is given.
    log_scales: logarithms of the geometric means of images and parameters.
    unit: mean that the values were divided by.
  """

  law: SurfaceLaw
  log_images: np.ndarray
  log_params: np.ndarray
  values: np.ndarray
  target: np.ndarray
  log: bool
  delta: float
  lower: np.ndarray
  upper: np.ndarray
  log_scales: tuple[float, float]
  unit: float

  @property
  def free(self) -> np.ndarray:
    """[P] whether a parameter is fitted rather than given."""
    return self.lower < self.upper

  def natural(self, theta: np.ndarray) -> np.ndarray:
    """Parameters [..., P] in natural units."""
    return self.law.natural(theta, *self.log_scales, self.unit)


def scaled_problem(
  law: SurfaceLaw,
  sizes: tuple[np.ndarray, np.ndarray],
  errors: np.ndarray,
  kind: str,
  residual: str,
  delta: float,
  ceiling: float | None,
) -> Problem:
  """The problem of fitting `law` to errors [n] at sizes ([n], [n]).

  Args:
    law: the form.
    sizes: images and model parameters.
    errors: what the law models.
    kind: what the values were.
    residual: 'log' or 'value'.
    delta: of Huber, in the unit of the residual; infinite for squares.
    ceiling: error of guessing, or None to fit it.
  """
  log_images, log_params = np.log(sizes[0]), np.log(sizes[1])
  log_scales = float(log_images.mean()), float(log_params.mean())
  unit = float(errors.mean())
  scaled = errors / unit
  log = residual == 'log'
  lower, upper = np.zeros(len(law.parameters)), np.full(len(law.parameters), np.inf)
  for _, exponent in (law.data, law.model):
    lower[exponent], upper[exponent] = _EXPONENTS
  if law.ceiling is not None:
    if ceiling is not None:
      lower[law.ceiling] = upper[law.ceiling] = ceiling / unit
    else:
      # Runs above chance are noise; more than half of them are not. A curve that
      # never comes near chance leaves its level open upwards, for a loss.
      lower[law.ceiling] = np.median(scaled)
      upper[law.ceiling] = 1 / unit if kind != 'loss' else 1e3 * scaled.max()
  return Problem(
    law=law,
    log_images=log_images - log_scales[0],
    log_params=log_params - log_scales[1],
    values=scaled,
    target=np.log(scaled) if log else scaled,
    log=log,
    delta=delta if log else delta / unit,
    lower=lower,
    upper=upper,
    log_scales=log_scales,
    unit=unit,
  )


def deviations(
  problem: Problem, theta: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Surface minus target [K, n] at theta [K, P] and its derivatives [K, P, n].

  Followed by the same for the values, which differ where the target is a logarithm.
  """
  value, jacobian = problem.law.value_and_jacobian(
    problem.log_images, problem.log_params, theta
  )
  if problem.log:
    rows = jacobian / value[:, None]
    return np.log(value) - problem.target, rows, value, jacobian
  return value - problem.target, jacobian, value, jacobian


class State(NamedTuple):
  """Objective and derivatives at K parameter vectors.

  Attributes:
    objective: [K] sum of loss terms.
    gradient: [K, P].
    scale: [K, P] sum of the sizes of the terms of the gradient.
    hessian: [K, P, P], which need not be positive.
    majorant: [K, P, P] of iteratively reweighted least squares, never negative.
  """

  objective: np.ndarray
  gradient: np.ndarray
  scale: np.ndarray
  hessian: np.ndarray
  majorant: np.ndarray


def expand(problem: Problem, theta: np.ndarray, counts: np.ndarray) -> State:
  """Expands the objective about theta [K, P] with weights counts [K, n]."""
  law, delta = problem.law, problem.delta
  # A trial step may land where a value is zero or overflows; its objective is then not
  # a number and the step is refused.
  with np.errstate(all='ignore'):
    residual, rows, value, jacobian = deviations(problem, theta)
    size = np.abs(residual)
    bounded = np.clip(residual, -delta, delta)
    capped = np.abs(bounded)
    objective = np.einsum('kn,kn->k', counts, capped * (size - capped / 2))
    pull = counts * bounded
    inside = counts * (size <= delta)
    columns = np.swapaxes(rows, 1, 2)
    majorant = (
      rows * np.where(size > delta, counts * (delta / size), counts)[:, None]
    ) @ columns
    if problem.log:
      inside = inside - pull
      weights = pull / value
    else:
      weights = pull
    hessian = (rows * inside[:, None]) @ columns
    hessian += law.second_order(
      problem.log_images, problem.log_params, theta, jacobian, weights
    )
    gradient = (rows @ pull[:, :, None])[..., 0]
    scale = (np.abs(rows) @ np.abs(pull)[:, :, None])[..., 0]
  return State(objective, gradient, scale, hessian, majorant)


def condition(problem: Problem, optimum: np.ndarray) -> float:
  """Condition number of the Jacobian over the free parameters, columns of length one."""
  _, rows, _, _ = deviations(problem, optimum[None])
  rows = rows[0][problem.free]
  lengths = np.sqrt((rows**2).sum(1))
  if not (lengths > 0).all():
    return np.inf
  singular = np.linalg.svd(rows / lengths[:, None], compute_uv=False)
  return float(singular[0] / max(singular[-1], np.finfo(float).tiny))
