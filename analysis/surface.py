"""Fits a law of data size and model size to runs over both, with convergence evidence.

Published fits of such surfaces have stopped short of their optimum unnoticed (Besiroglu
et al. 2024, arXiv 2404.10102, on Hoffmann et al. 2022). So: the objective is the sum of
the loss terms, not their mean; coefficients are solved exactly on a dense grid of
exponents (variable projection) for a first start; that start and random ones are
polished with exact first and second derivatives in scaled units; and a fit says how
many starts reached its optimum and what gradient is left there.

The polish is a damped Newton method on many problems at once. Its damping matrix is the
one of iteratively reweighted least squares, which majorises the Huber loss: strongly
damped it is that safe method, undamped it is Newton's, which ends in a few steps. The
bootstrap draws go through the same code, thousands in one array.

In Hoffmann's letters D is `num_images` (tokens, there) and N is `num_params`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from analysis.law_fit import Prediction, Refusal
from analysis.laws import KINDS, Kind
from analysis.surface_laws import SURFACE_LAWS, SurfaceLaw

Interval = tuple[float, float]

# Published exponents of errors and losses lie in 0.02 to 1.2. Outside these ends a term
# cannot be told from the floor (below) or from a step (above).
_EXPONENTS = (0.01, 3.0)
# Rounding of a logarithm of order one. A fit closer than this is exact.
_EXACT = 8 * np.finfo(float).eps
# What is left of a gradient after its terms have cancelled.
_CANCELLED = 1e-11
# Chinchilla's fit takes 20 steps from a near start and up to 150 from a random one; an
# ill-conditioned one several hundred.
_MAX_STEPS = 1000
# A relative gradient above this means that the optimiser was stopped before its end.
_CONVERGED = 1e-6
# Objectives this close are the same optimum: far below what the data can tell, far
# above rounding.
_SAME_OPTIMUM = 1e-6
# Problems polished at once: their arrays then stay in the processor's cache.
_CHUNK = 128
# Condition number of the Jacobian, columns of length one: how much less well the worst
# combination of parameters is known than a single one. Chinchilla's runs have 33, grids
# over two decades on each axis about 30, over one 100, and over half a decade 400, where
# an interval of an exponent spans a factor of ten.
_ILL_CONDITIONED = 300.0
# Distinct points that a bootstrap draw must hold for its optimum to be determined are
# as many as parameters; tries before the design counts as too small for that.
_MAX_REDRAWS = 1000
# Points of the distribution of the residuals that stand for the noise of a new run.
_MIDPOINTS = (np.arange(50) + 0.5) / 50
# A logarithm beyond every size, whose exponential is still finite.
_LARGE = 600.0


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
class Allocation:
  """How to split a compute budget between data and model.

  Attributes:
    flops: the budget.
    num_images, num_params: what to train on it.
    value: expected there, in the unit of the data.
    params_exponent: a of num_params ~ flops^a; the rest of the growth is data's.
    intervals: of the four, by name.
    in_window: whether both sizes lie inside those that were fitted.
  """

  flops: float
  num_images: float
  num_params: float
  value: float
  params_exponent: float
  intervals: dict[str, Interval]
  in_window: bool


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
    widening: of every interval beyond the percentiles of the draws, see `_widening`.
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
    return self._oriented(self._surface(sizes, self._parameters()))

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
    curve_lo, curve_hi = self._interval(draws, value)
    lo, hi = self._interval(runs.reshape(-1, len(value)), value)
    lo, hi = np.minimum(lo, curve_lo), np.maximum(hi, curve_hi)
    highest = np.inf if self.kind == 'loss' else 1.0
    bands = [np.clip(band, 0, highest) for band in (value, curve_lo, curve_hi, lo, hi)]
    if self.kind == 'accuracy':
      value, curve_lo, curve_hi, lo, hi = (1 - band for band in bands)
      bands = [value, curve_hi, curve_lo, hi, lo]
    return Prediction(*bands)

  def optimal_allocation(
    self, flops: float, flops_per_param_image: float = 6.0
  ) -> Allocation:
    """The sizes that minimise the surface at flops = k x num_params x num_images.

    Hoffmann et al. 2022, eq. 4. The rule of k = 6 operations per parameter and token is
    that of dense language models, whose parameters each see a token once; a network
    that shares weights over positions spends more per image, and each further epoch
    multiplies k.

    Args:
      flops: budget of one training.
      flops_per_param_image: k.

    Raises:
      ValueError: another law or kind than additive and loss, a budget that is not
        positive, or a fitted surface that does not fall along both axes.
    """
    if self.law != 'additive' or self.kind != 'loss':
      raise ValueError(
        f'law={self.law!r}, kind={self.kind!r} has no closed allocation; fit '
        "law='additive' to kind='loss'"
      )
    for name, number in (
      ('flops', flops),
      ('flops_per_param_image', flops_per_param_image),
    ):
      if not (np.isfinite(number) and number > 0):
        raise ValueError(f'{name}={number} must be finite and positive')
    if not (self.params['A'] > 0 and self.params['B'] > 0):
      raise ValueError(
        f'A={self.params["A"]:g} and B={self.params["B"]:g} must be positive: the '
        'surface is flat along one axis, and the best place on it is not finite'
      )
    budget = np.log(flops / flops_per_param_image)

    def optimum(parameters: np.ndarray) -> np.ndarray:
      _, a, b, alpha, beta = np.moveaxis(parameters, -1, 0)
      with np.errstate(divide='ignore'):
        log_ratio = np.log(alpha * a) - np.log(beta * b)
      log_params = (log_ratio + beta * budget) / (alpha + beta)
      log_params = np.clip(log_params, -_LARGE, _LARGE)
      log_images = budget - log_params
      value = SURFACE_LAWS[self.law].curve(
        log_images[:, None], log_params[:, None], parameters
      )
      logs = [log_images, log_params, np.log(value[:, 0])]
      return np.stack([*logs, beta / (alpha + beta)], axis=-1)

    found = optimum(self._parameters()[None])[0]
    lows, highs = self._interval(optimum(self.draws), found)
    names = ('num_images', 'num_params', 'value', 'params_exponent')
    intervals = {}
    for name, lo, hi in zip(names, lows, highs, strict=True):
      if name != 'params_exponent':
        lo, hi = np.exp(np.clip([lo, hi], -_LARGE, _LARGE))
      intervals[name] = (float(lo), float(hi))
    num_images, num_params, value = (float(x) for x in np.exp(found[:3]))
    return Allocation(
      flops=float(flops),
      num_images=num_images,
      num_params=num_params,
      value=value,
      params_exponent=float(found[3]),
      intervals=intervals,
      in_window=(
        self.window_images[0] <= num_images <= self.window_images[1]
        and self.window_params[0] <= num_params <= self.window_params[1]
      ),
    )

  def _parameters(self) -> np.ndarray:
    return np.array(list(self.params.values()))

  def _surface(
    self, sizes: tuple[np.ndarray, np.ndarray], parameters: np.ndarray
  ) -> np.ndarray:
    return SURFACE_LAWS[self.law].curve(np.log(sizes[0]), np.log(sizes[1]), parameters)

  def _oriented(self, values: np.ndarray) -> np.ndarray:
    return 1 - values if self.kind == 'accuracy' else values

  def _interval(
    self, draws: np.ndarray, value: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    return _interval(draws, value, self.level, self.widening)


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
  errors = 1 - values if kind == 'accuracy' else values
  ceiling = None if chance is None else 1 - chance if kind == 'accuracy' else chance
  reason = _refusal(form, sizes, errors, ceiling)
  if reason:
    return Refusal(law, reason)

  problem, to_natural = _problem(
    form, sizes, errors, kind, residual, delta if loss == 'huber' else np.inf, ceiling
  )
  generator = (
    rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)
  )
  for_starts, for_draws = generator.spawn(2)
  once = np.ones((1, len(errors)))
  first = _project(problem, once, np.geomspace(0.03, 2.5, 24))
  starts = np.concatenate([first, _random(problem, for_starts, num_starts - 1)])
  ends = _descend(problem, starts, np.repeat(once, num_starts, axis=0))
  best = int(np.argmin(ends.objective))
  optimum = ends.theta[best]

  counts = _resample(form, sizes, for_draws, draws)
  if counts is None:
    return Refusal(
      law,
      f'{len(errors)} runs at {len(np.unique(np.stack(sizes), axis=1).T)} points are '
      'too few to resample: no draw keeps enough of them for an interval',
    )
  drawn = to_natural(_bootstrap(problem, optimum, counts))
  fitted = to_natural(optimum)
  unit = problem.unit if residual == 'value' else 1.0
  residuals = -_residuals(problem, optimum[None])[0][0] * unit
  dof = len(errors) - int((problem.lower < problem.upper).sum())
  widen = _widening(residuals, problem.delta * unit, dof, level)
  lows, highs = _parameter_intervals(problem, drawn, fitted, level, widen)
  params = {name: float(v) for name, v in zip(form.names, fitted, strict=True)}
  intervals = {
    name: (float(lo), float(hi))
    for name, lo, hi in zip(form.names, lows, highs, strict=True)
  }
  covariance = np.cov(drawn, rowvar=False)
  state = _expand(problem, optimum[None], once)
  objectives = ends.objective * unit**2
  evidence = Starts(
    tried=num_starts,
    agree=_same_optimum(problem, ends.objective, ends.objective[best]),
    objectives=objectives,
    gradient=float(ends.gradient[best]),
    gradient_scale=float(state.scale.max()),
  )
  condition = _condition(problem, optimum)
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
    condition=condition,
    objective=float(objectives[best]),
    starts=evidence,
    flags=_flags(problem, optimum, intervals, sizes, evidence, condition),
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
  errors = 1 - values if kind == 'accuracy' else values
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


@dataclasses.dataclass(frozen=True)
class _Problem:
  """What is minimised, in scaled units.

  Attributes:
    law: the form.
    log_images, log_params: [n] of sizes over their geometric means.
    values: [n] over their mean.
    target: [n] values or their logarithms.
    log: which of the two.
    delta: of Huber, in units of the target; infinite for squares.
    lower, upper: [P] bounds; equal for a parameter that is given.
    unit: mean that the values were divided by.
  """

  law: SurfaceLaw
  log_images: np.ndarray
  log_params: np.ndarray
  values: np.ndarray
  target: np.ndarray
  log: bool
  delta: float
  lower: np.ndarray
  upper: np.ndarray
  unit: float


def _problem(
  law: SurfaceLaw,
  sizes: tuple[np.ndarray, np.ndarray],
  errors: np.ndarray,
  kind: str,
  residual: str,
  delta: float,
  ceiling: float | None,
) -> tuple[_Problem, Callable[[np.ndarray], np.ndarray]]:
  """The scaled problem, and the way from its parameters [..., P] to natural ones."""
  log_images, log_params = np.log(sizes[0]), np.log(sizes[1])
  image_scale, param_scale = float(log_images.mean()), float(log_params.mean())
  unit = float(errors.mean())
  scaled = errors / unit
  log = residual == 'log'
  lower, upper = np.zeros(len(law.parameters)), np.full(len(law.parameters), np.inf)
  for _, exponent in (law.data, law.model):
    lower[exponent], upper[exponent] = _EXPONENTS
  if law.ceiling is not None:
    if ceiling is not None:
      lower[law.ceiling] = upper[law.ceiling] = ceiling / unit
    else:
      # Runs above chance are noise; more than half of them are not. A curve that
      # never comes near chance leaves its level open upwards, for a loss.
      lower[law.ceiling] = np.median(scaled)
      upper[law.ceiling] = 1 / unit if kind != 'loss' else 1e3 * scaled.max()
  problem = _Problem(
    law=law,
    log_images=log_images - image_scale,
    log_params=log_params - param_scale,
    values=scaled,
    target=np.log(scaled) if log else scaled,
    log=log,
    delta=delta if log else delta / unit,
    lower=lower,
    upper=upper,
    unit=unit,
  )
  return problem, lambda theta: law.natural(theta, image_scale, param_scale, unit)


@dataclasses.dataclass(frozen=True)
class _State:
  """Objective and derivatives at K parameter vectors.

  Attributes:
    objective: [K] sum of loss terms.
    gradient: [K, P].
    scale: [K, P] sum of the sizes of the terms of the gradient.
    hessian: [K, P, P], which need not be positive.
    majorant: [K, P, P] of iteratively reweighted least squares, never negative.
  """

  objective: np.ndarray
  gradient: np.ndarray
  scale: np.ndarray
  hessian: np.ndarray
  majorant: np.ndarray


def _expand(problem: _Problem, theta: np.ndarray, counts: np.ndarray) -> _State:
  """Expands the objective about theta [K, P] with weights counts [K, n]."""
  law, delta = problem.law, problem.delta
  # A trial step may land where a value is zero or overflows; its objective is then not
  # a number and the step is refused.
  with np.errstate(all='ignore'):
    residual, rows, value, jacobian = _residuals(problem, theta)
    size = np.abs(residual)
    bounded = np.clip(residual, -delta, delta)
    capped = np.abs(bounded)
    objective = np.einsum('kn,kn->k', counts, capped * (size - capped / 2))
    pull = counts * bounded
    inside = counts * (size <= delta)
    columns = np.swapaxes(rows, 1, 2)
    majorant = (
      rows * np.where(size > delta, counts * (delta / size), counts)[:, None]
    ) @ columns
    if problem.log:
      inside = inside - pull
      weights = pull / value
    else:
      weights = pull
    hessian = (rows * inside[:, None]) @ columns
    hessian += law.second_order(
      problem.log_images, problem.log_params, theta, jacobian, weights
    )
    gradient = (rows @ pull[:, :, None])[..., 0]
    scale = (np.abs(rows) @ np.abs(pull)[:, :, None])[..., 0]
  return _State(objective, gradient, scale, hessian, majorant)


@dataclasses.dataclass(frozen=True)
class _Ends:
  """Where K descents ended: theta [K, P], objective [K], largest free gradient [K]."""

  theta: np.ndarray
  objective: np.ndarray
  gradient: np.ndarray


def _descend(problem: _Problem, start: np.ndarray, counts: np.ndarray) -> _Ends:
  """Minimises the objective from each start [K, P], each with its counts [K, n]."""
  chunks = [
    _descend_chunk(problem, start[i : i + _CHUNK], counts[i : i + _CHUNK])
    for i in range(0, len(start), _CHUNK)
  ]
  return _Ends(
    np.concatenate([chunk.theta for chunk in chunks]),
    np.concatenate([chunk.objective for chunk in chunks]),
    np.concatenate([chunk.gradient for chunk in chunks]),
  )


def _descend_chunk(problem: _Problem, start: np.ndarray, counts: np.ndarray) -> _Ends:
  lower, upper = problem.lower, problem.upper
  final = _Ends(
    np.clip(start, lower, upper), np.empty(len(start)), np.empty(len(start))
  )
  exact = counts.sum(1) * _EXACT**2
  index = np.arange(len(start))
  theta = final.theta.copy()
  damping = np.ones(len(start))
  state = _expand(problem, theta, counts)
  for step in range(_MAX_STEPS + 1):
    free = ~((theta <= lower) & (state.gradient >= 0))
    free &= ~((theta >= upper) & (state.gradient <= 0))
    free &= lower < upper
    gradient = np.where(free, state.gradient, 0.0)
    done = (np.abs(gradient) <= _CANCELLED * state.scale).all(1)
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
      counts, exact, free, gradient = (
        counts[keep],
        exact[keep],
        free[keep],
        gradient[keep],
      )
      state = _select(state, keep)

    matrix = state.hessian + damping[:, None, None] * state.majorant
    moved = _bounded_step(matrix, gradient, free, lower - theta, upper - theta)
    trial = np.clip(theta + moved, lower, upper)
    predicted = -np.einsum('kp,kp->k', gradient, moved) - 0.5 * np.einsum(
      'kp,kpq,kq->k', moved, state.hessian, moved
    )
    tried = _expand(problem, trial, counts)
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


def _select(state: _State, keep: np.ndarray) -> _State:
  return _State(*(getattr(state, f.name)[keep] for f in dataclasses.fields(state)))


def _merge(use: np.ndarray, new: _State, old: _State) -> _State:
  if use.all():
    return new
  merged = []
  for field in dataclasses.fields(old):
    before, after = getattr(old, field.name), getattr(new, field.name)
    merged.append(np.where(use.reshape(-1, *[1] * (before.ndim - 1)), after, before))
  return _State(*merged)


def _residuals(
  problem: _Problem, theta: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Surface minus target [K, n] at theta [K, P] and its derivatives [K, P, n].

  Followed by the same for the values, which differ where the target is a logarithm.
  """
  value, jacobian = problem.law.value_and_jacobian(
    problem.log_images, problem.log_params, theta
  )
  if problem.log:
    rows = jacobian / value[:, None]
    return np.log(value) - problem.target, rows, value, jacobian
  return value - problem.target, jacobian, value, jacobian


def _project(
  problem: _Problem, counts: np.ndarray, exponents: np.ndarray
) -> np.ndarray:
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


def _ceilings(problem: _Problem) -> tuple[float, ...]:
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


def _random(problem: _Problem, rng: np.random.Generator, num: int) -> np.ndarray:
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


def _resample(
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


def _bootstrap(
  problem: _Problem, optimum: np.ndarray, counts: np.ndarray
) -> np.ndarray:
  """Optima [D, P] of the objective with weights counts [D, n].

  Each draw starts from the optimum of all runs and from its own projection, which has
  not seen that, and keeps the better end.
  """
  warm = _descend(problem, np.repeat(optimum[None], len(counts), axis=0), counts)
  grid = np.geomspace(0.03, 2.5, 9)
  own = np.concatenate(
    [
      _project(problem, counts[i : i + _CHUNK], grid)
      for i in range(0, len(counts), _CHUNK)
    ]
  )
  cold = _descend(problem, own, counts)
  better = cold.objective < warm.objective
  return np.where(better[:, None], cold.theta, warm.theta)


def _same_optimum(problem: _Problem, objectives: np.ndarray, best: float) -> int:
  exact = len(problem.values) * (1e3 * _EXACT) ** 2
  return int((objectives <= best * (1 + _SAME_OPTIMUM) + exact).sum())


def _condition(problem: _Problem, optimum: np.ndarray) -> float:
  """Condition number of the Jacobian over the free parameters, columns of length one."""
  _, rows, _, _ = _residuals(problem, optimum[None])
  free = problem.lower < problem.upper
  rows = rows[0][free]
  lengths = np.sqrt((rows**2).sum(1))
  if not (lengths > 0).all():
    return np.inf
  singular = np.linalg.svd(rows / lengths[:, None], compute_uv=False)
  return float(singular[0] / max(singular[-1], np.finfo(float).tiny))


def _flags(
  problem: _Problem,
  optimum: np.ndarray,
  intervals: dict[str, Interval],
  sizes: tuple[np.ndarray, np.ndarray],
  starts: Starts,
  condition: float,
) -> tuple[str, ...]:
  law = problem.law
  flags = []
  for name, size in zip(('data', 'model'), sizes, strict=True):
    if size.max() < 10 * (1 - 1e-9) * size.min():
      flags.append(f'unidentified: {name} sizes span less than a decade')
  free = problem.lower < problem.upper
  at_bound = free & ((optimum <= problem.lower) | (optimum >= problem.upper))
  for coefficient, exponent in (law.data, law.model):
    if optimum[coefficient] == 0:
      at_bound[exponent] = False  # it is idle: any value would do
  if at_bound.any():
    names = ', '.join(np.array(law.names)[at_bound])
    flags.append(f'parameter at bound: {names}')
  if condition > _ILL_CONDITIONED:
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
  if starts.gradient > max(_CONVERGED * starts.gradient_scale, _CANCELLED):
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


def _widening(residuals: np.ndarray, delta: float, dof: int, level: float) -> float:
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


def _interval(
  draws: np.ndarray, value: np.ndarray, level: float, widen: float
) -> tuple[np.ndarray, np.ndarray]:
  """Percentiles over the first axis, widened about the estimate, which they hold."""
  tail = (1 - level) / 2
  # Weibull's definition keeps the nominal coverage with a finite number of draws.
  lo, hi = np.quantile(draws, [tail, 1 - tail], axis=0, method='weibull')
  lo, hi = np.minimum(lo, value), np.maximum(hi, value)
  return value - widen * (value - lo), value + widen * (hi - value)


def _parameter_intervals(
  problem: _Problem,
  draws: np.ndarray,
  fitted: np.ndarray,
  level: float,
  widen: float,
) -> tuple[np.ndarray, np.ndarray]:
  """Of the parameters [P] in natural units, from draws [D, P].

  Coefficients at size one vary by factors and are widened so; none leaves its bounds.
  """
  law = problem.law
  lows, highs = _interval(draws, fitted, level, widen)
  for coefficient, exponent in (law.data, law.model):
    if fitted[coefficient] > 0:
      logs = np.log(np.maximum(draws[:, coefficient], np.exp(-_LARGE)))
      lo, hi = _interval(logs, np.log(fitted[coefficient]), level, widen)
      lows[coefficient] = np.exp(lo) if lo > -_LARGE else 0.0
      highs[coefficient] = np.exp(min(hi, _LARGE))
    lows[exponent] = max(lows[exponent], problem.lower[exponent])
    highs[exponent] = min(highs[exponent], problem.upper[exponent])
  if law.ceiling is not None:
    highest = problem.upper[law.ceiling] * problem.unit
    highs[law.ceiling] = min(highs[law.ceiling], highest)
  return np.maximum(lows, 0.0), highs
