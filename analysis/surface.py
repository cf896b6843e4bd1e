"""Fits a law of data size and model size to runs over both, with convergence evidence.

Published fits of such surfaces have stopped short of their optimum unnoticed (Besiroglu
et al. 2024, arXiv 2404.10102, on Hoffmann et al. 2022). So: the objective is the sum of
the loss terms, not their mean; coefficients are solved exactly on a dense grid of
exponents (variable projection) for a first start; that start and random ones are
polished with exact first and second derivatives in scaled units; and a fit says how
many starts reached its optimum and what gradient is left there.

In Hoffmann's letters D is `num_images` (tokens, there) and N is `num_params`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from analysis.laws import KINDS, Kind
from analysis.prediction import Interval, Prediction, Refusal, as_error, as_prediction
from analysis.surface_bootstrap import (
  bootstrap,
  interval,
  parameter_intervals,
  resample,
  widening,
)
from analysis.surface_laws import SURFACE_LAWS, SurfaceLaw
from analysis.surface_problem import (
  Problem,
  condition,
  deviations,
  expand,
  scaled_problem,
)
from analysis.surface_solve import (
  CANCELLED,
  descend,
  num_agreeing,
  project,
  random_starts,
)

# A relative gradient above this means that the optimiser was stopped before its end.
_CONVERGED = 1e-6
# Condition number of the Jacobian, columns of length one: how much less well the worst
# combination of parameters is known than a single one. Chinchilla's runs have 33, grids
# over two decades on each axis about 30, over one 100, and over half a decade 400, where
# an interval of an exponent spans a factor of ten.
_ILL_CONDITIONED = 300.0
# Points of the distribution of the residuals that stand for the noise of a new run.
_MIDPOINTS = (np.arange(50) + 0.5) / 50


@dataclasses.dataclass(frozen=True)
class Starts:
  """What the starts of one fit came to: the evidence that its optimum is global.

  Attributes:
    tried: how many there were. The first is the optimum of variable projection, the
      others are random in every parameter.
    agree: how many ended within a relative 1e-6 of the best objective.
    objectives: [tried] sums of loss terms, in the order of the starts.
    gradient: largest derivative of the objective at the optimum among parameters
      that are not at a bound, sizes and values scaled to their means; for comparison,
      `gradient_scale` is what it would be if its terms did not cancel.
    gradient_scale: see there.
  """

  tried: int
  agree: int
  objectives: np.ndarray = dataclasses.field(repr=False)
  gradient: float
  gradient_scale: float


@dataclasses.dataclass(frozen=True)
class SurfaceFit:
  """A fitted law of two sizes. Values are in the unit of the data.

  Attributes:
    law: key in `SURFACE_LAWS`.
    kind: what the values are. Laws model errors: parameters of an accuracy are those of
      1 - accuracy.
    level: nominal coverage of every interval.
    residual, loss, delta: what was minimised, see `fit_surface`.
    params: natural units, full precision.
    intervals: of the parameters, by name.
    standard_errors: of the parameters, by name: standard deviation of the draws.
    covariance: [P, P] of the draws, natural units, order of `params`.
    condition: of the Jacobian of the residuals, columns of length one; see
      `_ILL_CONDITIONED`.
    objective: sum over the points of the loss terms, r^2 / 2 near zero.
    starts: evidence of the optimum.
    flags: what limits the use of the numbers, in words.
    window_images, window_params: smallest and largest size used, on each axis.
    num_points: runs.
    dof: runs less parameters fitted.
    widening: of every interval beyond the percentiles of the draws, see `widening` in
      `analysis.surface_bootstrap`.
    residuals: [num_points] value minus surface, of logarithms for residual='log'.
    draws: [D, P] parameters of the bootstrap draws, natural units.
  """

  law: str
  kind: Kind
  level: float
  residual: str
  loss: str
  delta: float
  params: dict[str, float]
  intervals: dict[str, Interval]
  standard_errors: dict[str, float]
  covariance: np.ndarray = dataclasses.field(repr=False)
  condition: float
  objective: float
  starts: Starts
  flags: tuple[str, ...]
  window_images: Interval
  window_params: Interval
  num_points: int
  dof: int
  widening: float
  residuals: np.ndarray = dataclasses.field(repr=False)
  draws: np.ndarray = dataclasses.field(repr=False)

  @property
  def correlation(self) -> np.ndarray:
    """[P, P] of the draws; zero for a parameter that does not vary."""
    sd = np.sqrt(np.diag(self.covariance))
    return (
      self.covariance / np.where(sd > 0, sd, np.inf) / np.where(sd > 0, sd, 1)[:, None]
    )

  def curve(
    self,
    num_images: Sequence[float] | np.ndarray | float,
    num_params: Sequence[float] | np.ndarray | float,
  ) -> np.ndarray:
    """The surface at sizes [S] (one of the two may be a single number)."""
    sizes = _broadcast(num_images, num_params)
    return as_error(self.kind, self._surface(sizes, self._parameters()))

  def predict(
    self,
    num_images: Sequence[float] | np.ndarray | float,
    num_params: Sequence[float] | np.ndarray | float,
  ) -> Prediction:
    """The surface with both bands at sizes [S]; fractions stay in [0, 1].

    Args:
      num_images: [S] or one number.
      num_params: [S] or one number.

    Returns:
      Values, the band of the surface (what the draws disagree on) and that of a new run
      (which adds the residuals of the runs fitted), [S] each.
    """
    sizes = _broadcast(num_images, num_params)
    value = self._surface(sizes, self._parameters())
    draws = self._surface(sizes, self.draws)
    noise = np.quantile(self.residuals, _MIDPOINTS, method='hazen')[:, None]
    if self.residual == 'log':
      runs = draws[:, None] * np.exp(noise)
    else:
      runs = draws[:, None] + noise
    runs = runs.reshape(-1, len(value))
    curve = interval(draws, value, self.level, self.widening)
    run = interval(runs, value, self.level, self.widening)
    bands = (np.maximum(band, 0.0) for band in (value, *curve, *run))
    return as_prediction(self.kind, *bands)

  def _parameters(self) -> np.ndarray:
    return np.array(list(self.params.values()))

  def _surface(
    self, sizes: tuple[np.ndarray, np.ndarray], parameters: np.ndarray
  ) -> np.ndarray:
    return SURFACE_LAWS[self.law].curve(np.log(sizes[0]), np.log(sizes[1]), parameters)


def fit_surface(
  num_images: Sequence[float] | np.ndarray,
  num_params: Sequence[float] | np.ndarray,
  values: Sequence[float] | np.ndarray,
  *,
  law: str = 'additive',
  kind: Kind = 'loss',
  residual: Literal['log', 'value'] = 'log',
  loss: Literal['huber', 'squares'] = 'huber',
  delta: float = 1e-3,
  chance: float | None = None,
  draws: int = 200,
  level: float = 0.9,
  rng: int | Sequence[int] | np.random.Generator = 0,
  num_starts: int = 32,
) -> SurfaceFit | Refusal:
  """Fits `law` to runs over data size and model size.

  The defaults are the estimator of Hoffmann et al. 2022 and of Besiroglu et al. 2024:
  the sum of Huber terms of log residuals with delta = 1e-3, pairs bootstrap. So small a
  delta makes it a median regression; `loss='squares'` is more efficient where no run
  has gone wrong.

  Args:
    num_images: [n] training images of each run; tokens for a language model.
    num_params: [n] parameters of its model.
    values: [n] its result: a fraction for 'accuracy' and 'error', any unit for 'loss'.
    law: key in `SURFACE_LAWS`.
    kind: what the values are.
    residual: whether logarithms or values are compared.
    loss: r^2 / 2 of each residual r, or Huber's, which is linear beyond delta.
    delta: of Huber, in the unit of the residual.
    chance: value of guessing, in the unit of the values, for a law that has one; fitted
      when None, which needs runs near chance.
    draws: bootstrap draws behind intervals and standard errors.
    level: nominal coverage of the intervals.
    rng: seed or generator of the random starts and the draws.
    num_starts: starts to polish.

  Returns:
    The fit, or a refusal that says what is missing.

  Raises:
    ValueError: the arguments are not usable data (shapes, ranges, names).
  """
  sizes = np.asarray(num_images, float), np.asarray(num_params, float)
  values = np.asarray(values, float)
  _check(sizes, values, law, kind, residual, loss, delta, chance, draws, level)
  if num_starts < 2:
    raise ValueError(f'num_starts={num_starts} must be at least 2, to be compared')
  form = SURFACE_LAWS[law]
  errors = as_error(kind, values)
  ceiling = None if chance is None else as_error(kind, chance)
  reason = _refusal(form, sizes, errors, ceiling)
  if reason:
    return Refusal(law, reason)

  problem = scaled_problem(
    form, sizes, errors, kind, residual, delta if loss == 'huber' else np.inf, ceiling
  )
  for_starts, for_draws = np.random.default_rng(rng).spawn(2)
  once = np.ones((1, len(errors)))
  first = project(problem, once, np.geomspace(0.03, 2.5, 24))
  starts = np.concatenate([first, random_starts(problem, for_starts, num_starts - 1)])
  ends = descend(problem, starts, np.repeat(once, num_starts, axis=0))
  best = int(np.argmin(ends.objective))
  optimum = ends.theta[best]

  counts = resample(form, sizes, for_draws, draws)
  if counts is None:
    return Refusal(
      law,
      f'{len(errors)} runs at {len(np.unique(np.stack(sizes), axis=1).T)} points are '
      'too few to resample: no draw keeps enough of them for an interval',
    )
  drawn = problem.natural(bootstrap(problem, optimum, counts))
  fitted = problem.natural(optimum)
  unit = problem.unit if residual == 'value' else 1.0
  residuals = -deviations(problem, optimum[None])[0][0] * unit
  dof = len(errors) - int(problem.free.sum())
  widen = widening(residuals, problem.delta * unit, dof, level)
  lows, highs = parameter_intervals(problem, drawn, fitted, level, widen)
  params = {name: float(v) for name, v in zip(form.names, fitted, strict=True)}
  intervals = {
    name: (float(lo), float(hi))
    for name, lo, hi in zip(form.names, lows, highs, strict=True)
  }
  covariance = np.cov(drawn, rowvar=False)
  objectives = ends.objective * unit**2
  evidence = Starts(
    tried=num_starts,
    agree=num_agreeing(problem, ends),
    objectives=objectives,
    gradient=float(ends.gradient[best]),
    gradient_scale=float(expand(problem, optimum[None], once).scale.max()),
  )
  ill = condition(problem, optimum)
  return SurfaceFit(
    law=law,
    kind=kind,
    level=level,
    residual=residual,
    loss=loss,
    delta=delta,
    params=params,
    intervals=intervals,
    standard_errors={
      name: float(sd)
      for name, sd in zip(form.names, np.sqrt(np.diag(covariance)), strict=True)
    },
    covariance=covariance,
    condition=ill,
    objective=float(objectives[best]),
    starts=evidence,
    flags=_flags(problem, optimum, intervals, sizes, evidence, ill),
    window_images=(float(sizes[0].min()), float(sizes[0].max())),
    window_params=(float(sizes[1].min()), float(sizes[1].max())),
    num_points=len(errors),
    dof=dof,
    widening=widen,
    residuals=residuals,
    draws=drawn,
  )


def _check(
  sizes: tuple[np.ndarray, np.ndarray],
  values: np.ndarray,
  law: str,
  kind: str,
  residual: str,
  loss: str,
  delta: float,
  chance: float | None,
  draws: int,
  level: float,
) -> None:
  for name, value, known in (
    ('law', law, tuple(SURFACE_LAWS)),
    ('kind', kind, KINDS),
    ('residual', residual, ('log', 'value')),
    ('loss', loss, ('huber', 'squares')),
  ):
    if value not in known:
      raise ValueError(f'{name}={value!r} is not one of {", ".join(known)}')
  if values.ndim != 1 or any(size.shape != values.shape for size in sizes):
    raise ValueError(
      'num_images, num_params and values must be three equally long lists, not of '
      f'shape {sizes[0].shape}, {sizes[1].shape} and {values.shape}'
    )
  for name, size in zip(('num_images', 'num_params'), sizes, strict=True):
    bad = ~(np.isfinite(size) & (size > 0))
    if bad.any():
      raise ValueError(
        f'{name}[{np.argmax(bad)}]={size[np.argmax(bad)]:g} must be finite and positive'
      )
  bad = ~np.isfinite(values)
  if bad.any():
    raise ValueError(
      f'values[{np.argmax(bad)}]={values[np.argmax(bad)]} must be finite; leave out '
      'the runs that failed'
    )
  if kind != 'loss' and len(values) and not (0 <= values.min() <= values.max() <= 1):
    raise ValueError(
      f'{kind} must lie in [0, 1], not {values.min():g} to {values.max():g}; '
      'divide a percentage by 100'
    )
  errors = as_error(kind, values)
  if len(values) and errors.min() <= 0 and (residual == 'log' or errors.min() < 0):
    worst = int(np.argmin(errors))
    way_out = (
      "residual='value' compares them without one"
      if errors[worst] == 0
      else 'a loss shifted by a constant has to be shifted back'
    )
    raise ValueError(
      f'values[{worst}]={values[worst]:g} must be a positive {kind}'
      f'{", below 1" if kind == "accuracy" else ""}: it has no logarithm; {way_out}'
    )
  if not delta > 0:
    raise ValueError(f"delta={delta} must be positive; use loss='squares' for no bound")
  if chance is not None:
    if SURFACE_LAWS[law].ceiling is None:
      raise ValueError(f"chance={chance} has no place in law={law!r}; use 'rosenfeld'")
    if not 0 < chance < (np.inf if kind == 'loss' else 1):
      raise ValueError(
        f'chance={chance} must be a possible {kind}, such as 1 / classes'
      )
  if draws < 20 or not 0 < level < 1:
    raise ValueError(f'draws={draws} must be at least 20 and level={level} in (0, 1)')


def _refusal(
  law: SurfaceLaw,
  sizes: tuple[np.ndarray, np.ndarray],
  errors: np.ndarray,
  ceiling: float | None,
) -> str | None:
  free = len(law.parameters) - (law.ceiling is not None and ceiling is not None)
  for name, size in zip(('data', 'model'), sizes, strict=True):
    distinct = len(np.unique(size))
    if distinct < law.min_sizes:
      return (
        f'{distinct} distinct {name} sizes; {law.title} need at least {law.min_sizes}'
      )
  points = len(np.unique(np.stack(sizes), axis=1).T)
  if points <= free:
    return (
      f'{points} distinct points; {law.title} with {free} parameters need at least '
      f'{free + 1}'
    )
  if np.ptp(errors) == 0:
    return f'all {len(errors)} values are equal: nothing changes with size'
  if ceiling is not None and np.median(errors) >= ceiling:
    return f'most runs are no better than chance ({ceiling:g})'
  return None


def _flags(
  problem: Problem,
  optimum: np.ndarray,
  intervals: dict[str, Interval],
  sizes: tuple[np.ndarray, np.ndarray],
  starts: Starts,
  ill: float,
) -> tuple[str, ...]:
  law = problem.law
  flags = []
  for name, size in zip(('data', 'model'), sizes, strict=True):
    if size.max() < 10 * (1 - 1e-9) * size.min():
      flags.append(f'unidentified: {name} sizes span less than a decade')
  free = problem.free
  at_bound = free & ((optimum <= problem.lower) | (optimum >= problem.upper))
  for coefficient, exponent in (law.data, law.model):
    if optimum[coefficient] == 0:
      at_bound[exponent] = False  # it is idle: any value would do
  if at_bound.any():
    names = ', '.join(np.array(law.names)[at_bound])
    flags.append(f'parameter at bound: {names}')
  if ill > _ILL_CONDITIONED:
    flags.append('ill-conditioned')
  for coefficient, exponent in (law.data, law.model):
    lo, hi = intervals[law.names[exponent]]
    if hi > 4 * lo or optimum[coefficient] == 0:
      flags.append(f'exponent unidentified: {law.names[exponent]}')
  if law.ceiling is not None and free[law.ceiling]:
    lo, hi = intervals[law.names[law.ceiling]]
    if hi > 2 * lo:
      flags.append('value of guessing unidentified: give chance')
  if starts.agree < starts.tried / 2:
    flags.append('starts disagree')
  if starts.gradient > max(_CONVERGED * starts.gradient_scale, CANCELLED):
    flags.append('optimiser stopped early')
  return tuple(flags)


def _broadcast(
  num_images: Sequence[float] | np.ndarray | float,
  num_params: Sequence[float] | np.ndarray | float,
) -> tuple[np.ndarray, np.ndarray]:
  images, params = np.broadcast_arrays(
    np.atleast_1d(np.asarray(num_images, float)),
    np.atleast_1d(np.asarray(num_params, float)),
  )
  for name, size in (('num_images', images), ('num_params', params)):
    if size.ndim != 1 or not (np.isfinite(size) & (size > 0)).all():
      raise ValueError(f'{name} must be finite positive numbers [S], not {size}')
  return images, params
