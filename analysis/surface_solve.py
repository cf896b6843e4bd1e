"""Minimises the objective of a surface: starts, and the descent from many at once.

A first start solves the coefficients exactly on a grid of exponents (variable
projection), others are random. The descent is a damped Newton method on many problems
at once. Its damping matrix is the one of iteratively reweighted least squares, which
majorises the Huber loss: strongly damped it is that safe method, undamped it is
Newton's, which ends in a few steps. The bootstrap draws go through the same code,
thousands in one array.
"""

from typing import NamedTuple

import numpy as np

from analysis.surface_problem import Problem, State, expand

# Rounding of a logarithm of order one. A fit closer than this is exact.
_EXACT = 8 * np.finfo(float).eps
# What is left of a gradient after its terms have cancelled.
CANCELLED = 1e-11
# Chinchilla's fit takes 20 steps from a near start and up to 150 from a random one; an
# ill-conditioned one several hundred.
_MAX_STEPS = 1000
# Objectives this close are the same optimum: far below what the data can tell, far
# above rounding.
_SAME_OPTIMUM = 1e-6
# Problems polished at once: their arrays then stay in the processor's cache.
_CHUNK = 128


class Ends(NamedTuple):
  """Where K descents ended: theta [K, P], objective [K], largest free gradient [K]."""

  theta: np.ndarray
  objective: np.ndarray
  gradient: np.ndarray


def descend(problem: Problem, start: np.ndarray, counts: np.ndarray) -> Ends:
  """Minimises the objective from each start [K, P], each with its counts [K, n]."""
  chunks = [
    _descend_chunk(problem, start[i : i + _CHUNK], counts[i : i + _CHUNK])
    for i in range(0, len(start), _CHUNK)
  ]
  return Ends(*(np.concatenate(parts) for parts in zip(*chunks, strict=True)))


def _descend_chunk(problem: Problem, start: np.ndarray, counts: np.ndarray) -> Ends:
  lower, upper = problem.lower, problem.upper
  final = Ends(np.clip(start, lower, upper), np.empty(len(start)), np.empty(len(start)))
  exact = counts.sum(1) * _EXACT**2
  index = np.arange(len(start))
  theta = final.theta.copy()
  damping = np.ones(len(start))
  state = expand(problem, theta, counts)
  for step in range(_MAX_STEPS + 1):
    free = ~((theta <= lower) & (state.gradient >= 0))
    free &= ~((theta >= upper) & (state.gradient <= 0))
    free &= problem.free
    gradient = np.where(free, state.gradient, 0.0)
    done = (np.abs(gradient) <= CANCELLED * state.scale).all(1)
    done |= state.objective <= exact
    done |= (damping > 1e12) | (step == _MAX_STEPS)
    if done.any():
      final.theta[index[done]] = theta[done]
      final.objective[index[done]] = state.objective[done]
      final.gradient[index[done]] = np.abs(gradient[done]).max(1)
      keep = ~done
      if not keep.any():
        break
      index, theta, damping = index[keep], theta[keep], damping[keep]
      counts, exact = counts[keep], exact[keep]
      free, gradient = free[keep], gradient[keep]
      state = State(*(array[keep] for array in state))

    matrix = state.hessian + damping[:, None, None] * state.majorant
    moved = _bounded_step(matrix, gradient, free, lower - theta, upper - theta)
    trial = np.clip(theta + moved, lower, upper)
    predicted = -np.einsum('kp,kp->k', gradient, moved) - 0.5 * np.einsum(
      'kp,kpq,kq->k', moved, state.hessian, moved
    )
    tried = expand(problem, trial, counts)
    gain = state.objective - tried.objective
    # Near the optimum the objective is flat to rounding while the gradient is not.
    level = (np.abs(gain) <= 1e-13 * state.objective) & (
      np.abs(np.where(free, tried.gradient, 0)).max(1) < 0.5 * np.abs(gradient).max(1)
    )
    accepted = (gain > 0) | level
    good = accepted & (level | (gain > 0.5 * predicted))
    poor = ~accepted | (gain < 0.1 * predicted) & ~level
    damping = np.where(good, damping / 8, np.where(poor, 4 * damping, damping))
    damping = np.maximum(damping, 1e-7)
    theta = np.where(accepted[:, None], trial, theta)
    state = _merge(accepted, tried, state)
  return final


def _bounded_step(
  matrix: np.ndarray,
  gradient: np.ndarray,
  free: np.ndarray,
  lowest: np.ndarray,
  highest: np.ndarray,
) -> np.ndarray:
  """Newton steps [K, P] within bounds.

  A coordinate that would leave its bounds is put onto the bound and the others are
  solved again given that: cutting it off alone may turn a descent into an ascent.

  Args:
    matrix: [K, P, P].
    gradient: [K, P].
    free: [K, P] which coordinates may move.
    lowest, highest: [K, P] what keeps each within its bounds.
  """
  diagonal = np.arange(gradient.shape[1])
  # Keeps the matrix regular where a coefficient is zero and its exponent idle.
  ridge = 1e-14 * np.abs(matrix[:, diagonal, diagonal]).sum(1, keepdims=True) + 1e-300
  step = np.zeros_like(gradient)
  for _ in diagonal:
    pull = np.where(free, -gradient - np.einsum('kpq,kq->kp', matrix, step), 0.0)
    block = np.where(free[:, :, None] & free[:, None, :], matrix, 0.0)
    block[:, diagonal, diagonal] += np.where(free, ridge, 1.0)
    solved = np.where(free, np.linalg.solve(block, pull[..., None])[..., 0], step)
    outside = free & ((solved < lowest) | (solved > highest))
    if not outside.any():
      return solved
    # Free coordinates stay at zero until the set of bounded ones is known.
    step = np.where(outside, np.clip(solved, lowest, highest), step)
    free = free & ~outside
  return np.where(free, 0.0, step)


def _merge(use: np.ndarray, new: State, old: State) -> State:
  if use.all():
    return new
  return State(
    *(
      np.where(use.reshape(-1, *[1] * (before.ndim - 1)), after, before)
      for before, after in zip(old, new, strict=True)
    )
  )


def num_agreeing(problem: Problem, ends: Ends) -> int:
  """How many descents ended at the best optimum."""
  exact = len(problem.values) * (1e3 * _EXACT) ** 2
  best = ends.objective.min()
  return int((ends.objective <= best * (1 + _SAME_OPTIMUM) + exact).sum())


def project(problem: Problem, counts: np.ndarray, exponents: np.ndarray) -> np.ndarray:
  """Variable projection: the best of a grid of exponents, for each of K weightings.

  Given the exponents the core is linear in its coefficients, so that non-negative least
  squares solves those exactly. For residuals of the values, a law without a link and
  squares this is the objective itself; otherwise it is the objective to first order in
  the residuals, taken at the data.

  Args:
    problem: what is fitted.
    counts: [K, n].
    exponents: [G], tried on both axes.

  Returns:
    [K, P] parameters.
  """
  chunks = [
    _project_chunk(problem, counts[i : i + _CHUNK], exponents)
    for i in range(0, len(counts), _CHUNK)
  ]
  return np.concatenate(chunks)


def _project_chunk(
  problem: Problem, counts: np.ndarray, exponents: np.ndarray
) -> np.ndarray:
  law = problem.law
  best = np.full(len(counts), np.inf)
  theta = np.zeros((len(counts), len(problem.lower)))
  one, other = (grid.ravel() for grid in np.meshgrid(exponents, exponents))
  columns = np.stack(
    [
      np.ones((len(one), len(problem.values))),
      np.exp(-one[:, None] * problem.log_images),
      np.exp(-other[:, None] * problem.log_params),
    ],
    axis=1,
  )  # [G * G, 3, n]
  places = (law.floor, law.data[0], law.model[0])
  for ceiling in _ceilings(problem):
    core, weights = problem.values, np.ones_like(problem.values)
    if np.isfinite(ceiling):
      # The inverse of the link, and the derivative of the link there.
      share = np.minimum(problem.values / ceiling, 0.98)
      core = problem.values / np.sqrt(1 - share**2)
      weights = (1 - share**2) ** 3
    if problem.log:
      weights = weights / np.maximum(problem.values, 1e-12) ** 2
    products = columns[:, :, None] * columns[:, None] * weights
    shape = (len(counts), len(columns))
    gram = (counts @ products.reshape(-1, len(core)).T).reshape(*shape, 3, 3)
    right = counts @ (columns * (weights * core)).reshape(-1, len(core)).T
    right = right.reshape(*shape, 3)
    solution, reduction = _nonnegative(gram, right)
    squares = (counts @ (weights * core**2))[:, None] - reduction
    cell = np.argmin(squares, axis=1)
    rows = np.arange(len(counts))
    better = squares[rows, cell] < best
    best = np.where(better, squares[rows, cell], best)
    found = np.zeros_like(theta)
    found[:, places] = solution[rows, cell]
    found[:, law.data[1]], found[:, law.model[1]] = one[cell], other[cell]
    if law.ceiling is not None:
      found[:, law.ceiling] = ceiling
    theta = np.where(better[:, None], found, theta)
  return theta


def _ceilings(problem: Problem) -> tuple[float, ...]:
  """Values of guessing to try, scaled; infinite for a law that has none."""
  if problem.law.ceiling is None:
    return (np.inf,)
  lower, upper = (
    bound[problem.law.ceiling] for bound in (problem.lower, problem.upper)
  )
  if lower == upper:
    return (lower,)
  largest = problem.values.max()
  tries = {float(np.clip(f * largest, lower, upper)) for f in (0.99, 1.1, 1.5, 3.0)}
  return tuple(sorted(tries))


def _nonnegative(gram: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Non-negative least squares with few columns, by trying every set of them.

  Exact because the objective is convex: its minimum is the best feasible one of the
  unconstrained minima over the subsets of the columns.

  Args:
    gram: [..., J, J] products of the columns.
    right: [..., J] their products with the target.

  Returns:
    [..., J] coefficients and [...] what they take off the sum of squares.
  """
  num = right.shape[-1]
  # Columns that coincide, as for tiny exponents, are told apart by rounding only.
  ridge = 1e-12 * np.trace(gram, axis1=-2, axis2=-1)[..., None]
  solution = np.zeros_like(right)
  reduction = np.zeros(right.shape[:-1])
  for subset in range(1, 2**num):
    used = [j for j in range(num) if subset >> j & 1]
    matrix = gram[..., used, :][..., used]
    matrix[..., np.arange(len(used)), np.arange(len(used))] += ridge
    found = np.linalg.solve(matrix, right[..., used, None])[..., 0]
    gain = np.einsum('...j,...j->...', found, right[..., used])
    better = (found >= 0).all(-1) & (gain > reduction)
    reduction = np.where(better, gain, reduction)
    spread = np.zeros_like(right)
    spread[..., used] = found
    solution = np.where(better[..., None], spread, solution)
  return solution, reduction


def random_starts(problem: Problem, rng: np.random.Generator, num: int) -> np.ndarray:
  """Starts [num, P] that know of the data only its scale."""
  law = problem.law
  theta = np.zeros((num, len(problem.lower)))
  theta[:, law.floor] = rng.uniform(0, 1, num)
  for coefficient, exponent in (law.data, law.model):
    theta[:, coefficient] = np.exp(rng.uniform(np.log(0.01), np.log(3), num))
    theta[:, exponent] = np.exp(rng.uniform(np.log(0.05), np.log(2), num))
  if law.ceiling is not None:
    theta[:, law.ceiling] = problem.values.max() * rng.uniform(0.9, 3, num)
  return np.clip(theta, problem.lower, problem.upper)
