"""Weighted least squares for a law, for many data vectors at once.

Variable projection: for each shape on a dense grid the two coefficients have a closed
form, bounds included, so the only search is in one dimension, and it starts from the
best grid cell of *each* data vector. No starting values, no local optimum that the grid
can see past, and a few hundred bootstrap draws cost one matrix product.
"""

import dataclasses

import numpy as np

from analysis.laws import Law

_GOLDEN = (np.sqrt(5) - 1) / 2
# Shrinks a bracket of two grid steps to 1e-8 of it: the square root of the float
# precision, beyond which a sum of squares is flat.
_GOLDEN_STEPS = 32


@dataclasses.dataclass(frozen=True)
class Solution:
  """Optimum for each of D data vectors, in scaled sizes.

  Attributes:
    first, second, shape: [D].
    sum_squares: [D] weighted.
  """

  first: np.ndarray
  second: np.ndarray
  shape: np.ndarray
  sum_squares: np.ndarray


def solve(law: Law, x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> Solution:
  """Minimises sum_j weights[j] (y[d, j] - law(x[j]))^2 for every d.

  Args:
    law: what to fit.
    x: [J] scaled sizes, around 1.
    y: [D, J] data vectors.
    weights: [J] positive.

  Returns:
    The global optimum over the law's grid, refined within its best cell.
  """
  weights = weights / weights.sum()
  mean = y @ weights
  centred = y - mean[:, None]
  total = centred**2 @ weights
  if law.column is None:
    zero = np.zeros_like(mean)
    return Solution(mean, zero, zero, total)

  grid = law.shapes
  columns = law.column(x, grid)  # [G, J]
  column_mean = columns @ weights
  column_centred = columns - column_mean[:, None]
  first, second, squares = _coefficients(
    mean,
    total,
    column_mean[:, None],
    (column_centred**2 @ weights)[:, None],
    (column_centred * weights) @ centred.T,
    law.nonnegative,
  )
  best = np.argmin(squares, axis=0)  # [D]
  if len(grid) == 1:
    return Solution(first[0], second[0], np.zeros_like(mean), squares[0])

  def at(log_shape: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    column = law.column(x, np.exp(log_shape))  # pyright: ignore[reportOptionalCall]
    column_mean = column @ weights
    column = column - column_mean[:, None]
    return _coefficients(
      mean,
      total,
      column_mean,
      column**2 @ weights,
      (column * centred) @ weights,
      law.nonnegative,
    )

  log_grid = np.log(grid)
  low = log_grid[np.maximum(best - 1, 0)]
  high = log_grid[np.minimum(best + 1, len(grid) - 1)]
  left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
  at_left, at_right = at(left)[2], at(right)[2]
  for _ in range(_GOLDEN_STEPS):
    go_left = at_left <= at_right
    high = np.where(go_left, right, high)
    low = np.where(go_left, low, left)
    probe = np.where(
      go_left, high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    )
    at_probe = at(probe)[2]
    left, right = np.where(go_left, probe, right), np.where(go_left, left, probe)
    at_left, at_right = (
      np.where(go_left, at_probe, at_right),
      np.where(go_left, at_left, at_probe),
    )
  log_shape = np.where(at_left <= at_right, left, right)
  # The golden section never probes the ends, where a bounded optimum sits.
  for end in (log_grid[0], log_grid[-1]):
    ends = np.full_like(log_shape, end)
    log_shape = np.where(at(ends)[2] < at(log_shape)[2], ends, log_shape)
  first, second, squares = at(log_shape)
  return Solution(first, second, np.exp(log_shape), squares)


def _coefficients(
  mean: np.ndarray,
  total: np.ndarray,
  column_mean: np.ndarray,
  column_square: np.ndarray,
  product: np.ndarray,
  nonnegative: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Least squares on (1, column) from moments; all broadcast to one shape.

  With bounds this is non-negative least squares with two columns: the free optimum
  where it is feasible, else the better of the two edges, which is exact because the
  objective is convex.

  Args:
    mean, total: weighted mean of y, and mean square of y about it.
    column_mean, column_square: the same for the column.
    product: weighted mean of the product, both centred.
    nonnegative: whether to bound both coefficients below by zero.

  Returns:
    First and second coefficient, and the weighted mean square of the residuals.
  """
  second = product / np.maximum(column_square, np.finfo(float).tiny)
  first = mean - second * column_mean
  squares = total - second * product
  if nonnegative:
    raw_product = product + column_mean * mean
    raw_square = column_square + column_mean**2
    slope = np.maximum(raw_product / raw_square, 0.0)
    through_zero = total + mean**2 - slope * (2 * raw_product - slope * raw_square)
    level = np.maximum(mean, 0.0)
    flat = total + (mean - level) ** 2
    feasible = (first >= 0) & (second >= 0)
    use_flat = flat < through_zero
    first = np.where(feasible, first, np.where(use_flat, level, 0.0))
    second = np.where(feasible, second, np.where(use_flat, 0.0, slope))
    squares = np.where(feasible, squares, np.where(use_flat, flat, through_zero))
  return first, second, np.maximum(squares, 0.0)
