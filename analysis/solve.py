"""Weighted least squares for a law, for many data vectors at once.

Variable projection: for each shape on a dense grid the two coefficients have a closed
form, bounds included, so the search is over the shape alone and needs no starting
values. The best cells are then polished by a trust region (Levenberg-Marquardt with
analytic derivatives, in logarithms of the shape), all data vectors and starts together.
"""

import dataclasses

import numpy as np

from analysis.laws import Columns, Law

_ROUNDS = 60
# Enough for a shape to 1e-3 from a grid cell: for draws and weights, not for results.
ROUGH = 4


@dataclasses.dataclass(frozen=True)
class Solution:
  """Optimum for each of D data vectors, in scaled sizes.

  Attributes:
    first, second: [D] coefficients.
    shape: [D, Q].
    sum_squares: [D] weighted.
  """

  first: np.ndarray
  second: np.ndarray
  shape: np.ndarray
  sum_squares: np.ndarray


@dataclasses.dataclass(frozen=True)
class Starts:
  """How the starts of one solution compare.

  Attributes:
    shapes: [K, Q] where the starts began.
    sum_squares: [K] where they ended.
    agree: how many ended at the best optimum.
    gradient: norm of the gradient of log(sum of squares) by log(shape), over the
      directions that no bound blocks.
  """

  shapes: np.ndarray
  sum_squares: np.ndarray
  agree: int
  gradient: float


def solve(
  law: Law,
  x: np.ndarray,
  y: np.ndarray,
  weights: np.ndarray,
  chance: float | None = None,
  rounds: int = _ROUNDS,
  columns: Columns | None = None,
) -> Solution:
  """Minimises sum_j weights[j] (y[d, j] - law(x[j]))^2 for every d.

  Args:
    law: what to fit.
    x: [J] scaled sizes, around 1.
    y: [D, J] data vectors.
    weights: [J] positive.
    chance: of `Law.columns`.
    rounds: of polishing at most.
    columns: of the grid at x, if at hand; computing them is half of the work.

  Returns:
    The optimum over the law's grid, polished from its best cell.
  """
  squares = _scan(law, x, y, weights, chance, columns)
  shape = law.grid[np.argmin(squares, axis=0)]
  return _polish(law, x, y, weights, chance, shape, rounds)[0]


def solve_from_many(
  law: Law,
  x: np.ndarray,
  y: np.ndarray,
  weights: np.ndarray,
  chance: float | None = None,
  num_starts: int = 16,
  columns: Columns | None = None,
) -> tuple[Solution, Starts]:
  """`solve` for one data vector [J] from several far-apart starts, and their optima.

  The starts are the best cells of as many parts of the grid, so that an optimum which
  the best cell cannot see is found from another. Of 250 noiseless breaks with floor 0, 8
  starts missed 3 (all 8 agreed on another optimum) and 16 none, in the same time.
  """
  squares = _scan(law, x, y[None], weights, chance, columns)[:, 0]
  parts = np.array_split(np.arange(len(squares)), min(num_starts, len(squares)))
  best = np.array([part[np.argmin(squares[part])] for part in parts])
  best = np.unique(np.append(best, np.argmin(squares)))
  shapes = law.grid[best]
  many = np.repeat(y[None], len(best), axis=0)
  found, gradient = _polish(law, x, many, weights, chance, shapes)
  ended = found.sum_squares
  top = int(np.argmin(ended))
  floor = 1e-20 * float(weights @ y**2)  # below it all sums are rounding
  agree = int((ended <= ended[top] * (1 + 1e-6) + floor).sum())
  one = slice(top, top + 1)
  solution = Solution(found.first[one], found.second[one], found.shape[one], ended[one])
  return solution, Starts(shapes, ended, agree, float(gradient[top]))


def coefficients(
  free: tuple[bool | np.ndarray, bool | np.ndarray],
  ff: np.ndarray,
  fs: np.ndarray,
  ss: np.ndarray,
  fy: np.ndarray,
  sy: np.ndarray,
  rest: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Least squares on two columns from their weighted products, bounds included.

  With bounds this is non-negative least squares with two columns: the free optimum
  where it is feasible, else the better of the two edges, which is exact because the
  objective is convex. A column of zeros gets the coefficient 0.

  Args:
    free: which coefficients may be negative.
    ff, fs, ss: products of the columns.
    fy, sy: products of the columns with the data. All broadcast to one shape.
    rest: of the second column less its projection on the first, the product with itself
      and with the data. Taken from the column it keeps the digits that ff ss - fs^2
      loses where the columns are nearly equal.
  """
  tiny = np.finfo(float).tiny
  along = fs / np.maximum(ff, tiny)
  rr, ry = rest or (ss - along * fs, sy - along * fy)
  apart = (rr > 1e-13 * ss) & (ff > 0)
  second = np.where(apart, ry / np.where(apart, rr, 1.0), 0.0)
  first = np.where(apart, fy / np.maximum(ff, tiny) - along * second, 0.0)
  ok = apart & (free[0] | (first >= 0)) & (free[1] | (second >= 0))
  only_first = fy / np.maximum(ff, tiny)
  only_second = sy / np.maximum(ss, tiny)
  only_first = np.where(free[0], only_first, np.maximum(only_first, 0.0))
  only_second = np.where(free[1], only_second, np.maximum(only_second, 0.0))
  use_first = only_first * fy >= only_second * sy
  first = np.where(ok, first, np.where(use_first, only_first, 0.0))
  second = np.where(ok, second, np.where(use_first, 0.0, only_second))
  return first, second


def _scan(
  law: Law,
  x: np.ndarray,
  y: np.ndarray,
  weights: np.ndarray,
  chance: float | None,
  columns: Columns | None,
) -> np.ndarray:
  """Sum of squares of every grid cell and data vector, [G, D]."""
  offset, f, s = columns or law.columns(x, law.grid, chance)
  wf, ws, wo = f * weights, s * weights, offset * weights
  ff, fs, ss = (wf * f).sum(1), (wf * s).sum(1), (ws * s).sum(1)
  r = s - _ratio(fs, ff)[:, None] * f
  wr = r * weights

  def with_data(column: np.ndarray) -> np.ndarray:
    return column @ y.T - (column * offset).sum(1)[:, None]

  fy, sy = with_data(wf), with_data(ws)
  first, second = coefficients(
    law.free,
    ff[:, None],
    fs[:, None],
    ss[:, None],
    fy,
    sy,
    ((wr * r).sum(1)[:, None], with_data(wr)),
  )
  highest = _highest(law, chance)
  capped = first > highest
  first = np.minimum(first, highest)
  yy = (y * y) @ weights - 2 * (wo @ y.T) + (wo * offset).sum(1)[:, None]
  # first * fy + second * sy is the reduction wherever the coefficients are optimal
  # among those that are not zero, which they are unless held at an upper bound.
  short = np.where(capped, first * (fy - first * ff[:, None]), 0.0)
  return yy - first * fy - second * sy - short


def _ratio(fs: np.ndarray, ff: np.ndarray) -> np.ndarray:
  """How much of the first column is in the second, 0 where there is no first."""
  return np.where(ff > 0, fs / np.where(ff > 0, ff, 1.0), 0.0)


def _highest(law: Law, chance: float | None) -> float:
  """Upper bound of the first coefficient: a floor is no higher than a known chance.

  Such a law has one column, so that cutting the free optimum off is exact.
  """
  return chance if law.takes_chance and chance is not None else np.inf


def _polish(
  law: Law,
  x: np.ndarray,
  y: np.ndarray,
  weights: np.ndarray,
  chance: float | None,
  shape: np.ndarray,
  rounds: int = _ROUNDS,
) -> tuple[Solution, np.ndarray]:
  """Levenberg-Marquardt on log(shape) with the coefficients projected out.

  Args:
    law, x, y, weights, chance: of `solve`.
    shape: [D, Q] starts.

  Returns:
    The optimum, and the norm [D] of the gradient left.
  """
  root = np.sqrt(weights)
  low, high = (np.log(end) for end in law.bounds())
  log_shape = np.log(shape)
  first, second, residual, squares, projected = _project(
    law, x, y, root, chance, log_shape
  )
  num, dims = log_shape.shape
  if not dims:
    return Solution(first, second, shape, squares), np.zeros(num)
  damping = np.full(num, 1e-3)
  floor = 1e-30 * (y * y) @ weights + 1e-300
  active = np.arange(num)
  for _ in range(rounds):
    jacobian = projected[active]  # [A, J, Q]
    rest = residual[active]
    gradient = -np.einsum('ajq,aj->aq', jacobian, rest)
    here = log_shape[active]
    blocked = _blocked(here, gradient, low, high)
    free_gradient = np.where(blocked, 0.0, gradient)
    normal = np.einsum('ajq,ajr->aqr', jacobian, jacobian)
    diagonal = np.einsum('aqq->aq', normal)
    add = damping[active, None] * (diagonal + 1e-12 * diagonal.max(1, keepdims=True))
    eye = np.eye(dims, dtype=bool)
    keep = ~blocked
    normal = np.where(keep[:, :, None] & keep[:, None, :], normal, 0.0)
    normal = normal + np.where(eye, (np.where(keep, add, 1.0) + 1e-300)[:, None], 0.0)
    step = -np.linalg.solve(normal, free_gradient[..., None])[..., 0]
    # What is left to gain, if it is less than the rounding of the sum of squares.
    gain = -(free_gradient * step).sum(1)
    converged = gain <= 1e-14 * squares[active] + floor[active]
    step = np.clip(step, -2.0, 2.0)
    trial = np.clip(here + step, low, high)
    new = _project(law, x, y[active], root, chance, trial)
    better = new[3] < squares[active]
    small = np.abs(trial - here).max(axis=1) < 1e-11
    chosen = active[better]
    log_shape[chosen] = trial[better]
    for old, fresh in zip(
      (first, second, residual, squares, projected), new, strict=True
    ):
      old[chosen] = fresh[better]
    damping[active] = np.clip(
      np.where(better, damping[active] / 5, damping[active] * 8), 1e-12, 1e12
    )
    stuck = ~better & (damping[active] > 1e8)
    active = active[~(small | stuck | converged)]
    if not len(active):
      break
  gradient = -np.einsum('ajq,aj->aq', projected, residual)
  gradient[_blocked(log_shape, gradient, low, high)] = 0.0
  left = 2 * np.linalg.norm(gradient, axis=1) / np.maximum(squares, floor)
  return Solution(first, second, np.exp(log_shape), squares), left


def _blocked(
  at: np.ndarray, gradient: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
  """Where the descent would leave the bounds."""
  return ((at <= low) & (gradient > 0)) | ((at >= high) & (gradient < 0))


def _project(
  law: Law,
  x: np.ndarray,
  y: np.ndarray,
  root: np.ndarray,
  chance: float | None,
  log_shape: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Coefficients [D], weighted residuals [D, J], their squares [D], Jacobian [D, J, Q].

  The Jacobian is Kaufman's: the columns' derivatives less what the coefficients that
  are free to move can make up for.
  """
  shape = np.exp(log_shape)
  columns = law.columns(x, shape, chance)
  offset, f, s = columns
  f, s, target = f * root, s * root, (y - offset) * root
  ff, fs, ss = (f * f).sum(1), (f * s).sum(1), (s * s).sum(1)
  r = s - _ratio(fs, ff)[:, None] * f
  first, second = coefficients(
    law.free,
    ff,
    fs,
    ss,
    (f * target).sum(1),
    (s * target).sum(1),
    ((r * r).sum(1), (r * target).sum(1)),
  )
  highest = _highest(law, chance)
  first = np.minimum(first, highest)
  residual = target - first[:, None] * f - second[:, None] * s
  squares = (residual * residual).sum(1)
  slopes = law.slopes(x, shape, columns, chance)
  jacobian = np.empty((*residual.shape, len(slopes)))
  for q, (d_offset, d_first, d_second) in enumerate(slopes):
    change = d_offset + first[:, None] * d_first + second[:, None] * d_second
    jacobian[..., q] = change * root
  # An orthonormal basis of the columns in use; a coefficient at a bound does not move.
  use_f = (first != 0) & (first < highest) & (ff > 0)
  a = np.where(use_f, 1 / np.sqrt(np.where(ff > 0, ff, 1.0)), 0.0)[:, None] * f
  rest = s - a * (a * s).sum(1)[:, None]
  length = (rest * rest).sum(1)
  use_s = (second != 0) & (length > 1e-14 * ss)
  b = np.where(use_s, 1 / np.sqrt(np.where(use_s, length, 1.0)), 0.0)[:, None] * rest
  for unit in (a, b):
    jacobian -= unit[..., None] * np.einsum('dj,djq->dq', unit, jacobian)[:, None]
  return first, second, residual, squares, jacobian
