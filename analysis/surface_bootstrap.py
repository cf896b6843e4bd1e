"""The pairs bootstrap of a surface: resampled runs, their optima, and intervals."""

import numpy as np

from analysis import prediction
from analysis.surface_laws import SurfaceLaw
from analysis.surface_problem import Problem
from analysis.surface_solve import descend, project

# Distinct points that a bootstrap draw must hold for its optimum to be determined are
# as many as parameters; tries before the design counts as too small for that.
_MAX_REDRAWS = 1000
# A logarithm beyond every size, whose exponential is still finite.
LARGE = 600.0


def resample(
  law: SurfaceLaw,
  sizes: tuple[np.ndarray, np.ndarray],
  rng: np.random.Generator,
  draws: int,
) -> np.ndarray | None:
  """How often each run occurs in each draw of the pairs bootstrap, [draws, n].

  Draws that leave the law undetermined (too few sizes or points) are drawn again; None
  when nearly all do.
  """
  num = len(sizes[0])
  groups = [np.unique(size, return_inverse=True)[1] for size in sizes]
  groups.append(np.unique(np.stack(sizes), axis=1, return_inverse=True)[1].ravel())
  least = (law.min_sizes, law.min_sizes, len(law.parameters))
  members = [np.eye(group.max() + 1)[group] for group in groups]
  kept, total = [], 0
  for _ in range(_MAX_REDRAWS):
    drawn = rng.integers(num, size=(draws, num))
    counts = np.zeros((draws, num))
    np.add.at(counts, (np.arange(draws)[:, None], drawn), 1)
    enough = np.ones(draws, bool)
    for member, few in zip(members, least, strict=True):
      enough &= ((counts @ member) > 0).sum(1) >= few
    kept.append(counts[enough])
    total += int(enough.sum())
    if total >= draws:
      return np.concatenate(kept)[:draws]
  return None


def bootstrap(problem: Problem, optimum: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """Optima [D, P] of the objective with weights counts [D, n].

  Each draw starts from the optimum of all runs and from its own projection, which has
  not seen that, and keeps the better end.
  """
  warm = descend(problem, np.repeat(optimum[None], len(counts), axis=0), counts)
  own = project(problem, counts, np.geomspace(0.03, 2.5, 9))
  cold = descend(problem, own, counts)
  better = cold.objective < warm.objective
  return np.where(better[:, None], cold.theta, warm.theta)


def widening(residuals: np.ndarray, delta: float, dof: int, level: float) -> float:
  """What spent degrees of freedom and Student's t add to an interval.

  The variance that a pairs bootstrap sees is that of the pulls of the residuals on the
  fit. Residuals of a fit with few points are too small, and their size is uncertain;
  but beyond delta every residual pulls alike, and there is nothing to correct. The
  correction of least squares is therefore taken in proportion to what the residuals
  within delta contribute. (`tests/analysis/test_surface.py` measures the coverage.)

  Args:
    residuals: [n].
    delta: of Huber, in the unit of the residuals.
    dof: points less parameters.
    level: of the interval.

  Returns:
    The factor, at least one.
  """
  from scipy import special  # its import costs more than a fit

  tail = (1 - level) / 2
  student = special.stdtrit(dof, tail) / special.ndtri(tail)
  full = student * np.sqrt(len(residuals) / dof)
  pulls = np.minimum(np.abs(residuals), delta) ** 2
  within = pulls[np.abs(residuals) <= delta].sum() / max(pulls.sum(), 1e-300)
  return float(1 + (full - 1) * within)


def interval(
  draws: np.ndarray, value: np.ndarray, level: float, widen: float
) -> tuple[np.ndarray, np.ndarray]:
  """Percentiles over the first axis, widened about the estimate, which they hold."""
  lo, hi = prediction.interval(draws, value, level)
  return value - widen * (value - lo), value + widen * (hi - value)


def parameter_intervals(
  problem: Problem,
  draws: np.ndarray,
  fitted: np.ndarray,
  level: float,
  widen: float,
) -> tuple[np.ndarray, np.ndarray]:
  """Of the parameters [P] in natural units, from draws [D, P].

  Coefficients at size one vary by factors and are widened so; none leaves its bounds.
  """
  law = problem.law
  lows, highs = interval(draws, fitted, level, widen)
  for coefficient, exponent in (law.data, law.model):
    if fitted[coefficient] > 0:
      logs = np.log(np.maximum(draws[:, coefficient], np.exp(-LARGE)))
      lo, hi = interval(logs, np.log(fitted[coefficient]), level, widen)
      lows[coefficient] = np.exp(lo) if lo > -LARGE else 0.0
      highs[coefficient] = np.exp(min(hi, LARGE))
    lows[exponent] = max(lows[exponent], problem.lower[exponent])
    highs[exponent] = min(highs[exponent], problem.upper[exponent])
  if law.ceiling is not None:
    highest = problem.upper[law.ceiling] * problem.unit
    highs[law.ceiling] = min(highs[law.ceiling], highest)
  return np.maximum(lows, 0.0), highs
