"""Fits one law to the runs of one curve, and carries everything one may ask of it.

Weighted least squares on the size means, with the weights, the degrees of freedom and
the bootstrap noise all from one noise model (`analysis.noise`). Each bootstrap draw
simulates new size means from the fitted curve with a variance drawn from its own
sampling distribution, so that few sizes and few seeds widen the intervals as Student's
t does; plain percentiles are too narrow there. `tests/analysis/test_fit.py` measures
the coverage.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from analysis import noise as noise_lib
from analysis.laws import LAWS, Law
from analysis.solve import solve

Kind = Literal['accuracy', 'error', 'loss']
KINDS = ('accuracy', 'error', 'loss')
Interval = tuple[float, float]

# Points of a standard normal that stand for the noise of a new run in a prediction
# band: the same for each draw, so bands are smooth in the size and reproducible.
_MIDPOINTS = (np.arange(25) + 0.5) / 25


@dataclasses.dataclass(frozen=True)
class Refusal:
  """A law that the data cannot carry, and why."""

  law: str
  reason: str


@dataclasses.dataclass(frozen=True)
class Prediction:
  """Values of the curve at some sizes, in the unit of the fitted values.

  Attributes:
    value: [S].
    curve_lo, curve_hi: [S] confidence band of the curve (the mean over seeds).
    lo, hi: [S] prediction band of one new run.
  """

  value: np.ndarray
  curve_lo: np.ndarray
  curve_hi: np.ndarray
  lo: np.ndarray
  hi: np.ndarray

  def __iter__(self):
    return iter((self.value, self.curve_lo, self.curve_hi, self.lo, self.hi))


@dataclasses.dataclass(frozen=True)
class Fit:
  """A fitted law. Values and gains are in the unit of the data: 0.01 is one point.

  Attributes:
    law: key in `LAWS`.
    kind: what the values are; tells which direction is better.
    level: nominal coverage of every interval.
    params: natural units, full precision.
    intervals: of the parameters, by name.
    window: smallest and largest size used, in images.
    num_sizes: distinct sizes.
    num_points: runs.
    flags: what limits the use of the numbers, in words.
    rolling_error: mean absolute error at the held-out largest sizes when only the
      smaller ones are fitted, or None with too few sizes for that.
    rolling_sizes: how many sizes were held out.
    residual_sd: of single runs about the curve.
    noise: variance model behind weights and intervals.
    points: the data, by size.
    draws: [D, P] parameters of the bootstrap draws. Draws of two fits are comparable
      one by one only if the caller gave both the same simulated noise.
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
  rolling_error: float | None
  rolling_sizes: int
  residual_sd: float
  noise: noise_lib.Noise
  points: noise_lib.Points
  draws: np.ndarray = dataclasses.field(repr=False)
  draw_scale: np.ndarray = dataclasses.field(repr=False)

  def predict(self, sizes: Sequence[float] | np.ndarray | float) -> Prediction:
    """The curve with both bands at sizes [S] (images); fractions stay in [0, 1]."""
    sizes = np.atleast_1d(np.asarray(sizes, float))
    value = self._curve(sizes, self._parameters())
    draws = self._curve(sizes, self.draws)
    curve_lo, curve_hi = _interval(draws, value, self.level)
    spread = np.sqrt(self.noise.run_variance(sizes)) * self.draw_scale[:, None]
    runs = draws[:, None] + spread[:, None] * _normal_points()[:, None]
    lo, hi = _interval(runs.reshape(-1, len(sizes)), value, self.level)
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
    lo, hi = _interval(draws, value, self.level)
    return float(value), float(lo), float(hi)

  def curve(self, sizes: Sequence[float] | np.ndarray | float) -> np.ndarray:
    """The curve at sizes [S], not clipped: a line may leave [0, 1]."""
    sizes = np.atleast_1d(np.asarray(sizes, float))
    return self._curve(sizes, self._parameters())

  def _parameters(self) -> np.ndarray:
    return np.array(list(self.params.values()))

  def _curve(self, sizes: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    law = LAWS[self.law]
    return _as_error(law, self.kind, law.curve(sizes, parameters))


def fit(
  sizes: Sequence[float] | np.ndarray,
  values: Sequence[float] | np.ndarray,
  *,
  law: str,
  kind: Kind = 'accuracy',
  seeds: Sequence[int] | np.ndarray | None = None,
  num_test: float | None = None,
  draws: int = 200,
  level: float = 0.9,
  rng: int | Sequence[int] | np.random.Generator = 0,
) -> Fit | Refusal:
  """Fits `law` to runs of one curve.

  Args:
    sizes: [N] training images of each run.
    values: [N] its result: a fraction for 'accuracy' and 'error', any unit for 'loss'.
    law: key in `LAWS`.
    kind: what the values are.
    seeds: [N] replicate of each run; only checked, since equal sizes are repeats.
    num_test: images in the test set, for the binomial variance where nothing repeats.
    draws: bootstrap draws behind the intervals.
    level: nominal coverage of the intervals.
    rng: seed or generator of the draws. Give curves that will be compared different
      seeds, or their draws share their noise.

  Returns:
    The fit, or a refusal that says what is missing.

  Raises:
    ValueError: the arguments are not usable data (shapes, ranges, names).
  """
  sizes, values = np.asarray(sizes, float), np.asarray(values, float)
  _check(sizes, values, law, kind, seeds, draws, level)
  form = LAWS[law]
  reason = _refusal(form, sizes, values)
  if reason:
    return Refusal(law, reason)

  points = noise_lib.group(sizes, values)
  binomial = num_test if kind != 'loss' else None
  fitted, noise = _fit_means(form, kind, points, binomial)
  scale = _scale(points.sizes)
  generator = (
    rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)
  )
  # Dividing by a chi-square makes the simulated noise Student-t: the variance of a draw
  # is as uncertain as its estimate.
  draw_scale = np.sqrt(noise.dof / generator.chisquare(noise.dof, draws))
  variance = noise.mean_variance(points)
  curve = form.curve(points.sizes, fitted)
  simulated = curve + (
    generator.standard_normal((draws, len(points.sizes)))
    * np.sqrt(variance)
    * draw_scale[:, None]
  )
  drawn = _solve(form, points.sizes, simulated, _weights(variance, curve), scale)
  names = [parameter.name for parameter in form.parameters]
  lows, highs = _interval(drawn, fitted, level)
  intervals = {
    name: (float(lo), float(hi))
    for name, lo, hi in zip(names, lows, highs, strict=True)
  }
  params = {name: float(v) for name, v in zip(names, fitted, strict=True)}
  rolling_error, rolling_sizes = _rolling(form, kind, sizes, values, binomial)
  at_points = _as_error(form, kind, curve)
  residuals = values - at_points[np.searchsorted(points.sizes, sizes)]
  dof = max(len(values) - len(names), 1)
  return Fit(
    law=law,
    kind=kind,
    level=level,
    params=params,
    intervals=intervals,
    window=(float(points.sizes[0]), float(points.sizes[-1])),
    num_sizes=len(points.sizes),
    num_points=len(values),
    flags=_flags(form, params, intervals, points, noise, curve, kind),
    rolling_error=rolling_error,
    rolling_sizes=rolling_sizes,
    residual_sd=float(np.sqrt((residuals**2).sum() / dof)),
    noise=noise,
    points=points,
    draws=drawn,
    draw_scale=draw_scale,
  )


def _check(
  sizes: np.ndarray,
  values: np.ndarray,
  law: str,
  kind: str,
  seeds: Sequence[int] | np.ndarray | None,
  draws: int,
  level: float,
) -> None:
  if law not in LAWS:
    raise ValueError(f'law={law!r} is not one of {", ".join(LAWS)}')
  if kind not in KINDS:
    raise ValueError(f'kind={kind!r} is not one of {", ".join(KINDS)}')
  if sizes.ndim != 1 or sizes.shape != values.shape:
    raise ValueError(
      f'sizes and values must be two equally long lists, not of shape {sizes.shape} '
      f'and {values.shape}'
    )
  if seeds is not None and len(seeds) != len(sizes):
    raise ValueError(f'{len(seeds)} seeds for {len(sizes)} sizes')
  if not (np.isfinite(sizes).all() and (sizes > 0).all()):
    raise ValueError('sizes must be finite and positive')
  if not np.isfinite(values).all():
    raise ValueError('values must be finite; leave out the runs that failed')
  if kind != 'loss' and len(values) and not (0 <= values.min() <= values.max() <= 1):
    raise ValueError(
      f'{kind} must lie in [0, 1], not {values.min():g} to {values.max():g}; '
      'divide a percentage by 100'
    )
  if draws < 20 or not 0 < level < 1:
    raise ValueError(f'draws={draws} must be at least 20 and level={level} in (0, 1)')


def _refusal(law: Law, sizes: np.ndarray, values: np.ndarray) -> str | None:
  num_sizes = len(np.unique(sizes))
  if num_sizes < law.min_sizes:
    return f'{num_sizes} distinct sizes; {law.title} needs at least {law.min_sizes}'
  if law.column is not None and np.ptp(values) == 0:
    return f'all {len(values)} values are equal ({values[0]:g}): nothing changes with n'
  return None


def _as_error(law: Law, kind: str, values: np.ndarray) -> np.ndarray:
  """Between the unit of the data and that of the law; its own inverse."""
  return 1 - values if law.models_error and kind == 'accuracy' else values


def _scale(sizes: np.ndarray) -> float:
  return float(np.exp(np.log(sizes).mean()))


def _weights(variance: np.ndarray, curve: np.ndarray) -> np.ndarray:
  # Without any noise at all every weight is the same large number.
  return 1 / (variance + (1e-9 * np.abs(curve).max() + 1e-300) ** 2)


def _solve(
  law: Law, sizes: np.ndarray, y: np.ndarray, weights: np.ndarray, scale: float
) -> np.ndarray:
  """Natural parameters [D, P] for data vectors y [D, J]."""
  solution = solve(law, sizes / scale, y, weights)
  return law.natural(solution.first, solution.second, solution.shape, scale)


def _fit_means(
  law: Law, kind: str, points: noise_lib.Points, num_test: float | None
) -> tuple[np.ndarray, noise_lib.Noise]:
  """Parameters [P] in natural units, and the noise they leave."""
  target = dataclasses.replace(points, means=_as_error(law, kind, points.means))
  scale = _scale(points.sizes)

  def parameters(weights: np.ndarray) -> np.ndarray:
    return _solve(law, points.sizes, target.means[None], weights, scale)[0]

  noise = noise_lib.estimate(
    target,
    len(law.parameters),
    num_test,
    lambda weights: law.curve(points.sizes, parameters(weights)),
  )
  return parameters(_weights(noise.mean_variance(target), target.means)), noise


def _rolling(
  law: Law, kind: str, sizes: np.ndarray, values: np.ndarray, num_test: float | None
) -> tuple[float | None, int]:
  """Had one stopped earlier: the error at the two largest sizes (one if 5 or fewer)."""
  distinct = np.unique(sizes)
  held = 2 if len(distinct) >= 6 else 1
  if len(distinct) - held < law.min_sizes:
    return None, 0
  kept = sizes < distinct[-held]
  if _refusal(law, sizes[kept], values[kept]):
    return None, 0
  points = noise_lib.group(sizes[kept], values[kept])
  parameters, _ = _fit_means(law, kind, points, num_test)
  rest = noise_lib.group(sizes[~kept], values[~kept])
  predicted = _as_error(law, kind, law.curve(rest.sizes, parameters))
  return float(np.abs(predicted - rest.means).mean()), held


def _flags(
  law: Law,
  params: dict[str, float],
  intervals: dict[str, Interval],
  points: noise_lib.Points,
  noise: noise_lib.Noise,
  curve: np.ndarray,
  kind: str,
) -> tuple[str, ...]:
  flags = []
  if points.sizes[-1] < 10 * points.sizes[0]:
    flags.append('less than one decade')
  if not noise.seed_dof:
    flags.append('no repeats')
  elif noise.misfit > (noise.v0 + noise.v1 / points.sizes).mean():
    flags.append('lack of fit')
  if law.name == 'power_floor':
    c_lo, c_hi = intervals['c']
    low, high = law.shapes[0], law.shapes[-1]
    if params['b'] == 0:
      flags.append('no trend')
    elif params['c'] < 1.01 * low or params['c'] > high / 1.01:
      flags.append('exponent at bound')
    if c_hi > 4 * c_lo:
      flags.append('exponent unidentified')
    if params['e'] == 0:
      flags.append('floor at zero')
    e_lo, e_hi = intervals['e']
    if e_hi - e_lo > 0.5 * curve[-1]:
      flags.append('floor unidentified')
  if law.name == 'log_linear':
    b_lo, b_hi = intervals['b']
    if b_lo <= 0 <= b_hi:
      flags.append('no trend')
    elif (params['b'] > 0) != (kind == 'accuracy'):
      flags.append('gets worse with data')
  return tuple(flags)


def _normal_points() -> np.ndarray:
  from scipy import special  # its import costs more than a fit

  points = special.ndtri(_MIDPOINTS)
  return points / points.std()


def _interval(
  draws: np.ndarray, value: np.ndarray | float, level: float
) -> tuple[np.ndarray, np.ndarray]:
  """Percentile interval over the first axis, widened to hold the estimate itself."""
  tail = (1 - level) / 2
  # Weibull's definition keeps the nominal coverage with a finite number of draws.
  lo, hi = np.quantile(draws, [tail, 1 - tail], axis=0, method='weibull')
  return np.minimum(lo, value), np.maximum(hi, value)
