"""Profile-likelihood intervals, for parameters that lie on ridges or at bounds.

The exponent and the floor of a curve make up for each other, and a floor ends at zero.
There the sum of squares is no parabola: an interval is every value that the rest of the
law can be fitted around without the fit becoming significantly worse.
"""

import dataclasses

import numpy as np

from analysis.laws import Columns, Law
from analysis.solve import ROUGH, coefficients, solve


def around(value: float, low: float, high: float, num: int = 201) -> np.ndarray:
  """[num] values from `low` to `high`, ever closer towards `value`."""
  share = np.linspace(-1, 1, num) ** 5  # the closest are 1e-10 of the range apart
  span = np.where(share < 0, value - low, high - value)
  return np.clip(value + span * share, low, high)


def of_shape(
  law: Law,
  x: np.ndarray,
  y: np.ndarray,
  weights: np.ndarray,
  values: np.ndarray,
  chance: float | None,
) -> np.ndarray:
  """Least squares at each of the values [K] of the only shape parameter of a law. [K]"""
  offset, f, s = law.columns(x, values[:, None], chance)
  return _squares(law, f, s, y - offset, weights)


def allowed(dof: float, level: float) -> float:
  """Excess of the sum of squares that an interval may reach: a squared t quantile."""
  from scipy.special import stdtrit  # its import costs more than a fit

  return float(stdtrit(dof, (1 + level) / 2)) ** 2


def floor_interval(
  law: Law,
  x: np.ndarray,
  y: np.ndarray,
  weights: np.ndarray,
  floor: float,
  best: float,
  limit: float,
) -> tuple[float, float]:
  """Interval of the floor of a law, the rest of it free.

  Args:
    law: whose first coefficient is a floor.
    x, y, weights: [J] scaled sizes, errors, 1 / variance.
    floor: at the optimum.
    best, limit: see `inside`.
  """
  floors = around(floor, 0.0, max(float(y.max()), floor))
  squares = _at_floors(law, x, y, weights, floors)
  lo, hi = inside(floors, squares, best, limit)
  return min(lo, floor), max(hi, floor)


def _at_floors(
  law: Law,
  x: np.ndarray,
  y: np.ndarray,
  weights: np.ndarray,
  floors: np.ndarray,
) -> np.ndarray:
  """Least squares at each of the floors [K], the rest of the law free. [K]"""

  def columns(x: np.ndarray, shape: np.ndarray, chance: float | None) -> Columns:
    offset, first, second = law.columns(x, shape, chance)
    return offset, 0 * first, second

  def slopes(
    x: np.ndarray, shape: np.ndarray, columns: Columns, chance: float | None
  ) -> list[Columns]:
    return [(a, 0 * b, c) for a, b, c in law.slopes(x, shape, columns, chance)]

  rest = dataclasses.replace(law, columns=columns, slopes=slopes)
  return solve(rest, x, y - floors[:, None], weights, None, ROUGH).sum_squares


def inside(
  values: np.ndarray, squares: np.ndarray, best: float, limit: float
) -> tuple[float, float]:
  """Smallest and largest value whose sum of squares exceeds `best` by at most `limit`.

  Args:
    values: [K] ascending.
    squares: [K] sums of squares in units of the noise variance.
    best: the least one.
    limit: allowed excess, e.g. the squared quantile of Student's t.

  Returns:
    Ends interpolated between grid values; an end of `values` if the profile is still
    within the limit there.
  """
  excess = squares - best - limit
  ok = np.flatnonzero(excess <= 0)
  if not len(ok):
    nearest = float(values[np.argmin(squares)])
    return nearest, nearest
  first, last = int(ok[0]), int(ok[-1])
  ends = []
  for index, step in ((first, -1), (last, 1)):
    other = index + step
    if not 0 <= other < len(values):
      ends.append(float(values[index]))
      continue
    share = -excess[index] / (excess[other] - excess[index])
    ends.append(float(values[index] + share * (values[other] - values[index])))
  return ends[0], ends[1]


def _squares(
  law: Law, f: np.ndarray, s: np.ndarray, y: np.ndarray, weights: np.ndarray
) -> np.ndarray:
  wf, ws = f * weights, s * weights
  first, second = coefficients(
    law.free,
    (wf * f).sum(1),
    (wf * s).sum(1),
    (ws * s).sum(1),
    (wf * y).sum(1),
    (ws * y).sum(1),
  )
  return ((y - first[:, None] * f - second[:, None] * s) ** 2) @ weights
