"""What a fit says about more data, and how far that may be trusted.

A forecast is a number with two intervals and a grade. The grade is the worst of a few
plain limits (how many sizes, how many decades, how far beyond them, whether the curve
is identified, whether it predicted its own largest sizes), and the limit that set it is
given as a sentence, so that a reader can disagree with it.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
from scipy import special

from analysis import noise
from analysis.fit import Fit
from analysis.law_fit import LawFit, fit_law
from analysis.prediction import Interval, Refusal

FACTORS = (2.0, 10.0)
GRADES = 'ABCD'


@dataclasses.dataclass(frozen=True)
class Forecast:
  """The curve at `factor` times the largest size, in the unit of the data.

  Attributes:
    factor: times the largest size.
    size: images.
    value: of the curve.
    curve_lo, curve_hi: confidence interval of the curve.
    lo, hi: prediction interval of one new run.
    grade: A (as good as measured) to D (do not rely on it).
    grade_reason: one sentence, the limit that set the grade.
  """

  factor: float
  size: float
  value: float
  curve_lo: float
  curve_hi: float
  lo: float
  hi: float
  grade: str
  grade_reason: str


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


def forecasts(fit: Fit) -> tuple[Forecast, ...]:
  """Forecasts at 2 and 10 times the largest size measured."""
  largest = float(fit.points.sizes[-1])
  rows = []
  for factor in FACTORS:
    size = factor * largest
    value, curve_lo, curve_hi, lo, hi = (float(band[0]) for band in fit.predict(size))
    grade_letter, reason = grade(fit, size)
    rows.append(
      Forecast(factor, size, value, curve_lo, curve_hi, lo, hi, grade_letter, reason)
    )
  return tuple(rows)


def grade(fit: Fit, size: float) -> tuple[str, str]:
  """Grade of the fit at `size` images, and the sentence for it."""
  limits = [*_limits_of_sizes(fit, size), *_limits_of_fit(fit, size)]
  if not limits:
    return GRADES[0], 'many sizes, a short step ahead, and a tested curve'
  worst, sentence = max(limits, key=lambda pair: pair[0])
  return GRADES[worst], sentence


def _limits_of_sizes(fit: Fit, size: float) -> Iterator[tuple[int, str]]:
  """Yields the best grade that the sizes allow, by its index, and why."""
  largest = float(fit.points.sizes[-1])
  decades = np.log10(largest / fit.points.sizes[0])
  factor = size / largest
  ahead = np.log10(factor)
  times = f'{factor:.3g} times the largest size'
  if ahead > 0 and ahead > 0.5 * decades + 1e-9:
    yield (
      3,
      f'{times} is {ahead:.1f} decades ahead of only {decades:.1f} decades of sizes',
    )
  elif ahead > 0.35 * decades:
    yield 2, f'{times} is far beyond {decades:.1f} decades of sizes'
  elif ahead > 0.16 * decades:
    yield 1, f'{times} is a fair step beyond {decades:.1f} decades of sizes'
  if factor > 4:
    yield 1, f'{times} is beyond the 4 times that curves usually hold'
  if decades < 1:
    yield 2, f'the sizes span {decades:.1f} decades, less than one'
  if fit.num_sizes <= 6:
    yield 2 if fit.num_sizes == 4 else 1, f'only {fit.num_sizes} sizes were fitted'


def _limits_of_fit(fit: Fit, size: float) -> Iterator[tuple[int, str]]:
  """Yields the best grade that the curve allows, by its index, and why."""
  largest = float(fit.points.sizes[-1])
  unidentified = [
    flag
    for flag in fit.flags
    if flag in ('exponent at bound', 'exponent unidentified', 'floor unidentified')
  ]
  if unidentified:
    yield 2 if size > 4 * largest else 1, f'{unidentified[0]} in this window'
  for flag, worst, sentence in (
    (
      'lack of fit',
      2,
      'the size means scatter about the curve more than the seeds explain',
    ),
    ('not monotone', 2, 'the curve is not monotone'),
    ('double descent', 2, 'the curve has a double descent'),
    (
      'no repeats',
      1,
      'without repeats the noise is known from the scatter about the curve only',
    ),
    ('no trend', 2, 'no trend can be told from the noise'),
  ):
    if flag in fit.flags:
      yield worst, sentence
  if fit.rolling_error is None:
    yield 1, 'too few sizes to test it on held-out larger ones'
  else:
    share = fit.rolling_error / max(np.ptp(fit.points.means), 1e-12)
    if share > 0.025:
      missed = (
        f'{fit.rolling_error:.2g}'
        if fit.kind == 'loss'
        else f'{100 * fit.rolling_error:.1f} points'
      )
      yield (
        3 if share > 0.1 else 2 if share > 0.05 else 1,
        f'fitted to the smaller sizes only, it missed the largest by {missed}',
      )
  bands = fit.predict([size, largest])
  gain = abs(bands.value[0] - bands.value[1])
  half = float(bands.curve_hi[0] - bands.curve_lo[0]) / 2
  if half > gain and size > largest:
    yield 2, 'the interval is wider than the change it forecasts'


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
