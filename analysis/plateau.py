"""Is the curve flat yet? The floor, a test of it, and what the next doubling buys.

Three questions that a plot invites to mix up are kept apart: whether the error ends
above zero (a floor far away is no plateau), whether more data has changed anything at
all, and whether the next doubling buys enough to matter. Only the last is a verdict,
and it is one of equivalence: a gain that is not significant is not thereby small.
"""

import dataclasses
from typing import Literal

import numpy as np

from analysis import noise as noise_lib
from analysis import profile, words
from analysis.fit import Fit
from analysis.law_fit import LawFit
from analysis.laws import LAWS, Kind
from analysis.prediction import Interval, Refusal, as_error
from analysis.solve import Solution, solve

Verdict = Literal['flat', 'still rising', 'cannot say']
LAW = 'power_floor'
# Below half a point few people would double their data.
_THRESHOLD = 0.005


@dataclasses.dataclass(frozen=True)
class Scaled:
  """The points behind a law of one shape parameter, in the units of the solver.

  Attributes:
    x: [J] sizes over `scale`.
    y: [J] mean errors.
    weights: [J] 1 / variance of the means, so that sums of squares are in units of the
      noise.
    scale: images.
    dof: behind the variance.
    level: nominal coverage of intervals.
    best: the optimum of the law.
  """

  x: np.ndarray
  y: np.ndarray
  weights: np.ndarray
  scale: float
  dof: float
  level: float
  best: Solution

  @property
  def squares(self) -> float:
    """Least weighted sum of squares."""
    return float(self.best.sum_squares[0])

  @property
  def limit(self) -> float:
    """Excess over `squares` that an interval may reach."""
    return profile.allowed(self.dof, self.level)


@dataclasses.dataclass(frozen=True)
class Plateau:
  """Whether a curve is flat. Values and gains are in the unit of the data.

  Attributes:
    kind: what the values are.
    level: nominal coverage of the intervals.
    window: smallest and largest size behind floor and tests, in images.
    floor, floor_lo, floor_hi: of the error with unlimited data, with its
      profile-likelihood interval; also for an accuracy it is an error.
    upper_bound_only: whether the interval touches 0, so that only `floor_hi` says
      something.
    p_floor: p-value of "the error falls to 0".
    p_trend: p-value of "nothing changes with the data", against a falling error.
    size: images, the largest measured.
    gain, gain_lo, gain_hi: what the next doubling from `size` buys; positive is better.
    threshold: gain below which the curve counts as flat.
    verdict: 'flat' if the whole interval of the gain lies below the threshold, 'still
      rising' if it lies above 0, else 'cannot say'.
    words: all of it in sentences.
  """

  kind: Kind
  level: float
  window: Interval
  floor: float
  floor_lo: float
  floor_hi: float
  upper_bound_only: bool
  p_floor: float
  p_trend: float
  size: float
  gain: float
  gain_lo: float
  gain_hi: float
  threshold: float
  verdict: Verdict
  words: str


def plateau(fit: Fit, threshold: float | None = None) -> Plateau | Refusal:
  """Whether the curve is flat at its largest size.

  Floor and tests are those of the power law with a floor in the window where that law
  forecast best; the gain is that of all laws together. The tests take the window as
  given.

  Args:
    fit: of one curve.
    threshold: gain per doubling that does not matter, in the unit of the data; default
      the standard deviation of one run, or 0.5 points of a fraction if it is unknown.

  Raises:
    ValueError: a threshold that is no positive number.
  """
  if threshold is not None and not (np.isfinite(threshold) and threshold > 0):
    raise ValueError(f'threshold={threshold:g} must be a gain above 0, such as 0.005')
  found = fit.law_alone(LAW)
  if isinstance(found, Refusal):
    return found
  points = scaled(found, fit.evidence)
  floor, lo, hi = floor_interval(points)
  size = float(fit.points.sizes[-1])
  gain, gain_lo, gain_hi = fit.gain_per_doubling(size)
  threshold = _noise(fit, found, size) if threshold is None else float(threshold)
  verdict: Verdict = 'cannot say'
  if gain_hi < threshold:
    verdict = 'flat'
  elif gain_lo > 0:
    verdict = 'still rising'
  answer = Plateau(
    kind=fit.kind,
    level=fit.level,
    window=found.window,
    floor=floor,
    floor_lo=lo,
    floor_hi=hi,
    upper_bound_only=lo <= 0,
    p_floor=floor_test(points),
    p_trend=trend_test(points),
    size=size,
    gain=gain,
    gain_lo=gain_lo,
    gain_hi=gain_hi,
    threshold=threshold,
    verdict=verdict,
    words='',
  )
  return dataclasses.replace(answer, words=_words(answer))


def scaled(found: LawFit, evidence: noise_lib.Known) -> Scaled:
  """The points of a fit with the weights it was fitted with.

  Args:
    found: by a law of one shape parameter.
    evidence: `Fit.evidence`, of all sizes of the curve. Weights of a robust fit are
      taken without its downweighting of outliers.
  """
  errors = as_error(found.kind, found.points.means)
  # The window leaves out the smallest sizes only.
  known = evidence.means[len(evidence.means) - len(errors) :]
  variance = known + found.noise.misfit * found.noise.levels
  weights = 1 / (variance + noise_lib.negligible(errors))
  scale = float(np.exp(np.log(found.points.sizes).mean()))
  x = found.points.sizes / scale
  best = solve(LAWS[found.law], x, errors[None], weights)
  return Scaled(x, errors, weights, scale, found.noise.dof, found.level, best)


def floor_interval(points: Scaled) -> tuple[float, float, float]:
  """Floor and its profile-likelihood interval, which may end at 0."""
  floor = float(points.best.first[0])
  lo, hi = profile.floor_interval(
    LAWS[LAW], points.x, points.y, points.weights, floor, points.squares, points.limit
  )
  return floor, lo, hi


def floor_test(points: Scaled) -> float:
  """p-value of e = 0 against e > 0.

  A floor cannot be negative, so under the null its estimate is 0 half of the time and
  the likelihood ratio is a mixture of 0 and a chi-square of one degree of freedom in
  equal parts (Self and Liang 1987, case 5). With a noise variance of few degrees of
  freedom the square root of the second is Student's t: a one-sided t test.
  """
  return _one_sided(points, _least(points, 'power') - points.squares)


def trend_test(points: Scaled) -> float:
  """p-value of a constant error against a power law.

  A power law is constant at the bound c = 0 of its exponent, so the test is the same as
  `floor_test`. Against a law with a floor the exponent would be undefined under the
  null, and the likelihood ratio no chi-square (Davies 1987).
  """
  return _one_sided(points, _least(points, 'constant') - _least(points, 'power'))


def _least(points: Scaled, law: str) -> float:
  found = solve(LAWS[law], points.x, points.y[None], points.weights)
  return float(found.sum_squares[0])


def _one_sided(points: Scaled, excess: float) -> float:
  from scipy.special import stdtr

  # Rounding leaves an excess of about 1e-12 where both fits are the same.
  if excess <= 1e-9 * (1 + points.squares):
    return 1.0
  return float(stdtr(points.dof, -np.sqrt(excess)))


def _noise(fit: Fit, found: LawFit, size: float) -> float:
  evidence = fit.evidence
  variance = evidence.v0 + evidence.v1 / size if evidence.dof else 0.0
  if variance > 0:
    return float(np.sqrt(variance))
  if fit.kind != 'loss':
    return _THRESHOLD
  spread = found.noise.run_variance(np.array([size]), found.points)
  return max(float(np.sqrt(spread[0])), 1e-12)


def _words(found: Plateau) -> str:
  kind = found.kind
  what = 'loss' if kind == 'loss' else 'error'
  size = words.images(found.size)
  limit = words.gain(found.threshold, kind, signed=False)
  ends = words.interval(found.gain_lo, found.gain_hi, kind, signed=True)
  buys = (
    f'the next doubling from {size} images buys '
    f'{words.gain(found.gain, kind)}{words.points(kind)} ({ends})'
  )
  if found.verdict == 'flat':
    text = f'flat: {buys}, less than {limit}'
  elif found.verdict == 'still rising':
    text = f'still rising: {buys}'
  else:
    text = (
      f'cannot say: {buys}, which may be nothing or more than the {limit} that matter'
    )
  top = words.score(found.floor_hi, kind)
  if found.upper_bound_only:
    text += f'. The floor of the {what} is at most {top}'
  else:
    ends = words.interval(found.floor_lo, found.floor_hi, kind)
    text += f'. The floor of the {what} is {words.score(found.floor, kind)} ({ends})'
  text += f'; p {words.p_value(found.p_floor)} for none'
  if found.p_trend > 0.05:
    text += f'. No trend can be told from the noise (p {words.p_value(found.p_trend)})'
  return text
