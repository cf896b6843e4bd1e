"""Does depth change what more data buys? Gains per doubling, compared between depths."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from scipy import special

from analysis import noise
from analysis.fit import Fit
from analysis.law_fit import LawFit, fit_law
from analysis.prediction import Interval, Refusal


@dataclasses.dataclass(frozen=True)
class Gain:
  """Gain per doubling of the data at one depth; positive is better.

  Attributes:
    depth: of the network.
    law: that gave it; 'all' for the stack.
    where: 'window' (average over the sizes, log-linear) or 'next' (from `size` to twice
      it).
    size: images; the largest common size.
    value, lo, hi: in the unit of the data.
  """

  depth: int
  law: str
  where: str
  size: float
  value: float
  lo: float
  hi: float


@dataclasses.dataclass(frozen=True)
class Difference:
  """Gain per doubling of the deepest minus the shallowest network."""

  shallow: int
  deep: int
  law: str
  where: str
  size: float
  value: float
  lo: float
  hi: float
  words: str


@dataclasses.dataclass(frozen=True)
class Interaction:
  """Does depth change what more data buys?

  Attributes:
    gains: one per depth and way of measuring.
    differences: one per way of measuring; empty with fewer than two depths.
    note: what was left out, or ''.
  """

  gains: tuple[Gain, ...]
  differences: tuple[Difference, ...]
  note: str


def interaction(
  fits_by_depth: Mapping[int, Fit | Refusal],
) -> Interaction:
  """Compares the gain per doubling between depths.

  Two ways: the average over the sizes (slope of the log-linear law times log10(2)),
  which needs no extrapolation, and the next doubling from the largest size all depths
  have (all laws together), which is the decision to be made.

  Args:
    fits_by_depth: depth -> fit.

  Returns:
    Gains and differences with intervals. Over the window the two depths are compared
    size by size, so that a curvature they share cancels instead of widening the
    interval. Otherwise the interval of a difference combines those of its two ends
    (Zou and Donner 2008). Both take the depths as independent; runs that share a subset
    are positively correlated, so the intervals err on the wide side.
  """
  usable = {
    depth: fit for depth, fit in sorted(fits_by_depth.items()) if isinstance(fit, Fit)
  }
  if not usable:
    return Interaction((), (), 'no depth could be fitted')
  common = set.intersection(*(set(fit.points.sizes) for fit in usable.values()))
  notes = []
  left_out = [str(depth) for depth in sorted(fits_by_depth) if depth not in usable]
  if left_out:
    notes.append(f'depth {", ".join(left_out)} could not be fitted')
  ends = {(fit.points.sizes[0], fit.points.sizes[-1]) for fit in usable.values()}
  if len(ends) > 1:
    notes.append('the depths do not cover the same sizes')
  if not common:
    notes.append('the depths share no size')
  size = float(max(common)) if common else float('nan')
  lines = {depth: _line(fit) for depth, fit in usable.items()}
  gains: list[Gain] = []
  differences: list[Difference] = []
  for law, where in (('log_linear', 'window'), ('all', 'next')):
    if where == 'next' and not common:
      continue
    fits = lines if where == 'window' else usable
    rows = [
      Gain(depth, law, where, size, *fit.gain_per_doubling(_start(size)))
      for depth, fit in fits.items()
    ]
    gains += rows
    if len(rows) >= 2:
      shallow, deep = (lines[row.depth] for row in (rows[0], rows[-1]))
      paired = _paired(shallow, deep) if where == 'window' else None
      differences.append(_difference(rows[0], rows[-1], paired))
  return Interaction(tuple(gains), tuple(differences), '; '.join(notes))


def _line(fit: Fit) -> LawFit:
  """The log-linear law over every size, whatever window it forecasts best in."""
  return fit_law(
    'log_linear',
    fit.points,
    fit.evidence,
    kind=fit.kind,
    level=fit.level,
    generator=np.random.default_rng([*fit.settings['rng'], 101]),
  )


def _start(size: float) -> float:
  return size if np.isfinite(size) else 1.0  # the log-linear gain is the same anywhere


def _paired(shallow: LawFit, deep: LawFit) -> tuple[float, float, float] | None:
  """Log-linear gain per doubling of the difference of two curves, with its interval.

  None with fewer than three common sizes.
  """
  common, left, right = np.intersect1d(
    shallow.points.sizes, deep.points.sizes, return_indices=True
  )
  if len(common) < 3:
    return None
  sign = 1 if deep.kind == 'accuracy' else -1
  gap = sign * (deep.points.means[right] - shallow.points.means[left])
  known = np.zeros(len(common))
  known_dof = 0.0
  for fit, index in ((shallow, left), (deep, right)):
    known += (fit.noise.v0 + fit.noise.v1 / common) / fit.points.counts[index]
    known_dof += fit.noise.seed_dof
  x = np.log2(common)

  def slope(weights: np.ndarray) -> tuple[float, float, np.ndarray]:
    weights = weights / weights.sum()
    centred = x - weights @ x
    square = float(weights @ centred**2)
    value = float((weights * centred) @ gap) / square
    return value, square, weights @ gap + value * centred

  dof_left = len(common) - 2
  extra, dof = noise.misfit(
    gap, known, known_dof or dof_left, dof_left, lambda weights: slope(weights)[2]
  )
  variance = known + extra + noise.negligible(gap)
  value, square, _ = slope(1 / variance)
  error = 1 / np.sqrt((1 / variance).sum() * square)
  half = float(special.stdtrit(dof, (1 + deep.level) / 2) * error)
  return value, value - half, value + half


def _difference(
  shallow: Gain, deep: Gain, paired: tuple[float, float, float] | None
) -> Difference:
  if paired:
    value, lo, hi = paired
  else:
    value = deep.value - shallow.value
    lo, hi = subtract(
      (deep.value, deep.lo, deep.hi), (shallow.value, shallow.lo, shallow.hi)
    )
  if lo > 0:
    words = 'deeper gains more'
  elif hi < 0:
    words = 'deeper gains less'
  else:
    words = 'no difference can be shown'
  return Difference(
    shallow.depth, deep.depth, deep.law, deep.where, deep.size, value, lo, hi, words
  )


def subtract(
  first: tuple[float, float, float], second: tuple[float, float, float]
) -> Interval:
  """Interval of a difference of two independent estimates (value, lo, hi each)."""
  a, a_lo, a_hi = first
  b, b_lo, b_hi = second
  value = a - b
  lo = value - float(np.hypot(a - a_lo, b_hi - b))
  hi = value + float(np.hypot(a_hi - a, b - b_lo))
  return lo, hi
