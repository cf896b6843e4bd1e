"""Fits one law to the runs of one curve: its parameters and how well they are known.

Weighted least squares on the size means, with the weights and the degrees of freedom
from one noise model (`analysis.noise`). Each bootstrap draw simulates new size means
from the fitted curve with a variance drawn from its own sampling distribution, so that
few sizes and few seeds widen the intervals as Student's t does; plain percentiles are
too narrow there. Exponents and floors lie on ridges and at bounds, where a bootstrap of
the optimum is not to be trusted, so theirs are profile-likelihood intervals.
`docs/fitting.md` has the coverage of both, measured.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from analysis import noise as noise_lib
from analysis import profile
from analysis.laws import LAWS, Kind, Law
from analysis.prediction import Interval, Prediction, as_error, interval, normal_points
from analysis.solve import ROUGH, Solution, Starts, solve, solve_from_many

# Least eigenvalue of the parameters' correlation below which they are one ridge: with two
# of them, a correlation of 0.999.
_RIDGE = 1e-3


@dataclasses.dataclass(frozen=True)
class LawFit:
  """A fitted law. Values and gains are in the unit of the data: 0.01 is one point.

  Attributes:
    law: key in `LAWS`.
    kind: what the values are; tells which direction is better.
    level: nominal coverage of every interval.
    params: natural units, full precision.
    intervals: of the parameters, by name.
    window: smallest and largest size used, in images.
    num_sizes: distinct sizes used.
    num_points: runs used.
    flags: what limits the use of the numbers, in words.
    residual_sd: of single runs about the curve.
    aicc: corrected Akaike criterion of the size means; inf where it is undefined.
    noise: variance model behind weights and intervals.
    points: the data used, by size, as values.
    weights: [J] of the size means.
    starts: how the starts of the optimiser compare.
    covariance: [P, P] of the draws.
    chance: error without data, where the law was told.
    draws: [D, P] parameters of the bootstrap draws.
    draw_scale: [D] noise sd of each draw relative to the estimate.
  """

  law: str
  kind: Kind
  level: float
  params: dict[str, float]
  intervals: dict[str, Interval]
  window: tuple[float, float]
  num_sizes: int
  num_points: int
  flags: tuple[str, ...]
  residual_sd: float
  aicc: float
  noise: noise_lib.Noise
  points: noise_lib.Points
  weights: np.ndarray
  starts: Starts
  covariance: np.ndarray = dataclasses.field(repr=False)
  chance: float | None
  draws: np.ndarray = dataclasses.field(repr=False)
  draw_scale: np.ndarray = dataclasses.field(repr=False)

  def predict(self, sizes: Sequence[float] | np.ndarray | float) -> Prediction:
    """The curve with both bands at sizes [S] (images); fractions stay in [0, 1].

    Raises:
      ValueError: fitted without draws, so that there are no bands.
    """
    if not len(self.draws):
      raise ValueError(f'{self.law} was fitted without draws; ask for its curve')
    sizes = np.atleast_1d(np.asarray(sizes, float))
    value = self._curve(sizes, self._parameters())
    draws = self._curve(sizes, self.draws)
    curve_lo, curve_hi = interval(draws, value, self.level)
    variance = self.noise.run_variance(sizes, self.points)
    spread = np.sqrt(variance) * self.draw_scale[:, None]
    runs = draws[:, None] + spread[:, None] * normal_points()[:, None]
    lo, hi = interval(runs.reshape(-1, len(sizes)), value, self.level)
    bands = (
      value,
      curve_lo,
      curve_hi,
      np.minimum(lo, curve_lo),
      np.maximum(hi, curve_hi),
    )
    if self.kind != 'loss':
      bands = tuple(np.clip(band, 0.0, 1.0) for band in bands)
    return Prediction(*bands)

  def gain_per_doubling(self, size: float) -> tuple[float, float, float]:
    """What going from `size` to twice `size` images buys; positive is better.

    Returns:
      Value, lower and upper end of its interval, in the unit of the data.
    """
    pair = np.array([size, 2 * size], float)
    sign = 1 if self.kind == 'accuracy' else -1
    value = sign * np.diff(self._curve(pair, self._parameters()))[0]
    draws = sign * np.diff(self._curve(pair, self.draws), axis=-1)[:, 0]
    lo, hi = interval(draws, value, self.level)
    return float(value), float(lo), float(hi)

  def curve(self, sizes: Sequence[float] | np.ndarray | float) -> np.ndarray:
    """The curve at sizes [S], not clipped: a line may leave [0, 1]."""
    sizes = np.atleast_1d(np.asarray(sizes, float))
    return self._curve(sizes, self._parameters())

  def _parameters(self) -> np.ndarray:
    return np.array(list(self.params.values()))

  def _curve(self, sizes: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    law = LAWS[self.law]
    errors = law.curve(sizes, score_form(law, self.kind, parameters), self.chance)
    return as_error(self.kind, errors)


def score_form(law: Law, kind: str, parameters: np.ndarray) -> np.ndarray:
  """Between the parameters of an error and those a law is written in; its own inverse.

  A formula for the score itself, a + b log10(n), has level 1 - a and slope -b for the
  error of an accuracy.
  """
  if law.models_error or kind != 'accuracy':
    return parameters
  return np.concatenate([1 - parameters[..., :1], -parameters[..., 1:]], axis=-1)


def refusal(law: Law, kind: str, sizes: np.ndarray, values: np.ndarray) -> str | None:
  """Why the runs [N] cannot carry the law, or None."""
  num_sizes = len(np.unique(sizes))
  if num_sizes < law.min_sizes:
    noun = 'size' if num_sizes == 1 else 'sizes'
    return f'{num_sizes} distinct {noun}; {law.title} needs at least {law.min_sizes}'
  if law.name != 'constant' and np.ptp(values) == 0:
    return f'all {len(values)} values are equal ({values[0]:g}): nothing changes with n'
  if kind not in law.kinds:
    return f'{law.title} is for fractions, not for a {kind}'
  return None


def fit_law(
  law: str,
  points: noise_lib.Points,
  evidence: noise_lib.Known,
  *,
  kind: Kind,
  chance: float | None = None,
  robust: bool = False,
  draws: int = 200,
  level: float = 0.9,
  generator: np.random.Generator,
) -> LawFit:
  """Fits `law` to runs grouped by size that it does not refuse.

  Args:
    law: key in `LAWS`.
    points: the runs by size, in the unit of the data.
    evidence: what is known of their noise.
    kind: what the values are.
    chance: error without data, for the laws that use it.
    robust: weigh sizes down that lie far off (Student's t of 4 degrees of freedom whose
      scale is estimated).
    draws: bootstrap draws; 0 for the estimate alone, without intervals.
    level: nominal coverage.
    generator: of the draws.
  """
  form = LAWS[law]
  chance = chance if form.takes_chance else None
  target = dataclasses.replace(points, means=as_error(kind, points.means))
  scale = float(np.exp(np.log(points.sizes).mean()))
  x = points.sizes / scale
  columns = form.columns(x, form.grid, chance)

  def curve(weights: np.ndarray) -> np.ndarray:
    found = solve(form, x, target.means[None], weights, chance, ROUGH, columns)
    return _curve_of(form, x, found.first, found.second, found.shape, chance)[0]

  noise = noise_lib.estimate(target, evidence, _num_parameters(form, chance), curve)
  variance = evidence.means + noise.misfit * noise.levels
  weights = 1 / (variance + noise_lib.negligible(target.means))
  if robust:
    weights = weights * _downweights(target.means, weights, curve)
  found, starts = solve_from_many(
    form, x, target.means, weights, chance, columns=columns
  )
  at_sizes = _curve_of(form, x, found.first, found.second, found.shape, chance)[0]
  fitted = _natural(form, kind, found, scale, chance)[0]
  names = [parameter.name for parameter in form.parameters]
  params = {name: float(v) for name, v in zip(names, fitted, strict=True)}

  intervals: dict[str, Interval] = {}
  drawn, draw_scale = np.empty((0, len(names))), np.empty(0)
  if draws:
    # Dividing by a chi-square makes the simulated noise Student-t: the variance of a
    # draw is as uncertain as its estimate.
    draw_scale = np.sqrt(noise.dof / generator.chisquare(noise.dof, draws))
    simulated = at_sizes + (
      generator.standard_normal((draws, len(x)))
      * np.sqrt(variance)
      * draw_scale[:, None]
    )
    solved = solve(form, x, simulated, weights, chance, ROUGH, columns)
    drawn = _natural(form, kind, solved, scale, chance)
    lows, highs = interval(drawn, fitted, level)
    intervals = {
      name: (float(lo), float(hi))
      for name, lo, hi in zip(names, lows, highs, strict=True)
    }
    intervals |= _profiled(
      form, x, target.means, weights, found, noise.dof, level, scale, chance
    )
  residuals = target.means - at_sizes
  squares = points.counts * residuals**2 + (points.counts - 1) * points.variances
  count = int(points.counts.sum())
  return LawFit(
    law=law,
    kind=kind,
    level=level,
    params=params,
    intervals=intervals,
    window=(float(points.sizes[0]), float(points.sizes[-1])),
    num_sizes=len(points.sizes),
    num_points=count,
    flags=_flags(
      form, params, intervals, found.shape[0], points, noise, evidence, at_sizes, kind
    )
    + _ridge_flags(drawn),
    residual_sd=float(np.sqrt(squares.sum() / max(count - len(names), 1))),
    aicc=aicc(
      len(residuals),
      _num_parameters(form, chance),
      float((weights / np.exp(np.log(weights).mean()) * residuals**2).mean()),
    ),
    noise=noise,
    points=points,
    weights=weights,
    starts=starts,
    covariance=np.cov(drawn.T).reshape(len(names), -1) if draws else np.empty((0, 0)),
    chance=chance,
    draws=drawn,
    draw_scale=draw_scale,
  )


def _num_parameters(law: Law, chance: float | None) -> int:
  return len(law.parameters) - (chance is not None)


def _curve_of(
  law: Law,
  x: np.ndarray,
  first: np.ndarray,
  second: np.ndarray,
  shape: np.ndarray,
  chance: float | None,
) -> np.ndarray:
  offset, f, s = law.columns(x, shape, chance)
  return offset + first[:, None] * f + second[:, None] * s


def _natural(
  law: Law, kind: str, found: Solution, scale: float, chance: float | None
) -> np.ndarray:
  second = found.second if chance is None else chance - found.first
  natural = law.natural(found.first, second, found.shape, scale)
  return score_form(law, kind, natural)


def _profiled(
  law: Law,
  x: np.ndarray,
  y: np.ndarray,
  weights: np.ndarray,
  found: Solution,
  dof: float,
  level: float,
  scale: float,
  chance: float | None,
) -> dict[str, Interval]:
  """Intervals of the exponent and the floor of laws with one shape parameter."""
  names = [parameter.name for parameter in law.parameters]
  if law.grid.shape[1] != 1:
    return {}
  limit = profile.allowed(dof, level)
  best = float(found.sum_squares[0])
  shape = float(found.shape[0, 0])
  low, high = (float(np.log(end[0])) for end in law.bounds())
  values = np.exp(profile.around(np.log(shape), low, high))
  squares = profile.of_shape(law, x, y, weights, values, chance)
  lo, hi = profile.inside(values, squares, best, limit)
  unit = 1 / scale if names[-1] == 'k' else 1.0
  intervals = {names[-1]: (unit * min(lo, shape), unit * max(hi, shape))}
  if 'e' in names:
    floor = float(found.first[0])
    intervals['e'] = profile.floor_interval(law, x, y, weights, floor, best, limit)
  return intervals


def _downweights(means: np.ndarray, weights: np.ndarray, curve) -> np.ndarray:
  """Weights [J] of Student's t with 4 degrees of freedom, by iteration (EM)."""
  factor = np.ones_like(means)
  for _ in range(20):
    squares = weights * (means - curve(weights * factor)) ** 2
    # The scale is the median's, which one outlier in four does not move.
    scale = np.median(squares) / 0.55 + 1e-300
    before, factor = factor, 5 / (4 + squares / scale)
    if np.abs(factor - before).max() < 1e-3:
      break
  return factor


def aicc(count: int, num_parameters: int, mean_square: float) -> float:
  """Akaike criterion of least squares, corrected for few points; inf if undefined.

  Args:
    count: points.
    num_parameters: of the curve; the variance is one more.
    mean_square: of the residuals.
  """
  k = num_parameters + 1
  if count <= k + 1:
    return float('inf')
  fitted = count * np.log(max(mean_square, 1e-300))
  return fitted + 2 * k + 2 * k * (k + 1) / (count - k - 1)


def _flags(
  law: Law,
  params: dict[str, float],
  intervals: dict[str, Interval],
  shape: np.ndarray,
  points: noise_lib.Points,
  noise: noise_lib.Noise,
  evidence: noise_lib.Known,
  curve: np.ndarray,
  kind: str,
) -> tuple[str, ...]:
  flags = []
  if points.sizes[-1] < 10 * points.sizes[0]:
    flags.append('less than one decade')
  if not evidence.repeats:
    flags.append('no repeats')
  elif noise.misfit > (noise.v0 + noise.v1 / points.sizes).mean():
    flags.append('lack of fit')
  low, high = law.bounds()
  at_bound = bool(((shape < 1.01 * low) | (shape > high / 1.01)).any())
  if law.name == 'log_linear':
    b_lo, b_hi = intervals.get('b', (params['b'], params['b']))
    if b_lo <= 0 <= b_hi:
      flags.append('no trend')
    elif (params['b'] > 0) != (kind == 'accuracy'):
      flags.append('gets worse with data')
  elif law.name != 'constant':
    if np.ptp(curve) <= 1e-9 * np.abs(curve).max():
      flags.append('no trend')
    elif at_bound:
      flags.append('exponent at bound' if 'c' in params else 'shape at bound')
  if 'c' in params and law.name != 'double_saturation' and 'c' in intervals:
    c_lo, c_hi = intervals['c']
    if c_hi > 4 * c_lo:
      flags.append('exponent unidentified')
  if 'e' in params:
    if params['e'] == 0:
      flags.append('floor at zero')
    e_lo, e_hi = intervals.get('e', (0.0, 0.0))
    if e_hi - e_lo > 0.5 * abs(curve[-1]):
      flags.append('floor unidentified')
  return tuple(flags)


def _ridge_flags(draws: np.ndarray) -> tuple[str, ...]:
  """Whether some parameters are known only together: their draws lie on a ridge."""
  if not len(draws):
    return ()
  # Amplitudes vary over decades; in the linear scale a few draws would be everything.
  values = np.sign(draws) * np.log1p(np.abs(draws))
  values = values[:, values.std(axis=0) > 1e-9 * np.abs(values).max(axis=0)]
  if values.shape[1] < 2:
    return ()
  correlation = np.corrcoef(values, rowvar=False)
  least = float(np.linalg.eigvalsh(correlation)[0])
  return ('ill-conditioned',) if least < _RIDGE else ()
