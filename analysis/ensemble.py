"""All laws together: what each predicted before it saw, and what they say as one.

A member is a law, a first size and a form of noise. Between the law and the points
stand the noise of a run and a discrepancy: no law is exact, so the true curve may leave
it slowly. The discrepancy is an Ornstein-Uhlenbeck process in log size (Kennedy and
O'Hagan 2001 give the idea), which lets a forecast start from where the curve is and
widen with the distance. A member's law is integrated over its whole grid of shapes, not
taken at its best one: near an optimum many shapes fit alike and extrapolate apart.

Members are weighed by their log score at larger sizes when given the smaller ones only
(rolling origin), and stacked.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from analysis.laws import LAWS
from analysis.solve import coefficients

# Variance of the discrepancy relative to that of a run's noise: none, some, most. One
# e-fold of 4 in size (a factor 55) is about the width of a bend of a learning curve.
RHOS = (0.0, 3.0, 30.0)
_LENGTH = 4.0
# With many sizes each origin holds many, so fewer will do.
_MAX_ORIGINS, _MANY_SIZES, _FEW_ORIGINS = 5, 40, 3
# Members that say less than this are left out of draws.
_SILENT = 0.002
# The scale of the noise has the weight of one observation before any is seen: that of a
# run being within a fraction of a percent of the curve.
_PRIOR_DOF, _PRIOR_SD = 1.0, 0.003


@dataclasses.dataclass(frozen=True)
class Data:
  """Size means of one curve, as errors.

  Attributes:
    sizes: [J] ascending, in images.
    errors: [J].
    variance: [J] of the means from seeds, standard errors or the test set; None where
      nothing is known of it.
    variance_dof: degrees of freedom behind it.
    run: (v0, v1) variance v0 + v1 / n of one new run (seeds and test set); used with
      `variance`.
    smallest: error below which levels are not told apart, e.g. half a test image.
    bounded: whether errors lie in [0, 1].
    chance: error without data, if known.
  """

  sizes: np.ndarray
  errors: np.ndarray
  variance: np.ndarray | None = None
  variance_dof: float = 0.0
  run: tuple[float, float] = (0.0, 0.0)
  smallest: float = 1e-6
  bounded: bool = True
  chance: float | None = None

  @property
  def scale(self) -> float:
    """The unit of scaled sizes: their geometric mean."""
    return float(np.exp(np.log(self.sizes).mean()))


@dataclasses.dataclass(frozen=True)
class Member:
  """One voice: a law, how many of the smallest sizes it leaves out, and rho."""

  law: str
  skip: int
  rho: float


@dataclasses.dataclass(frozen=True)
class Rolled:
  """What the members predicted for sizes they had not seen.

  Attributes:
    members: M of them.
    origins: sizes seen, for each origin.
    targets: the held-out sizes of each origin.
    means, deviations: of each origin, [M, S].
    dof: of each origin, [M]; predictions are Student's t.
    scores: [M] sum over origins of the mean log density of the held-out errors.
    table: the laws' grids at the sizes, for `draw`.
  """

  members: tuple[Member, ...]
  origins: tuple[int, ...]
  targets: tuple[np.ndarray, ...]
  means: tuple[np.ndarray, ...]
  deviations: tuple[np.ndarray, ...]
  dof: tuple[np.ndarray, ...]
  scores: np.ndarray
  table: '_Table' = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Draws:
  """Draws of one member.

  Attributes:
    member: whose.
    first, second, shape: [D], [D], [D, Q] in scaled sizes.
    variance: [D] noise scale: run variance is this times the relative one.
  """

  member: Member
  first: np.ndarray
  second: np.ndarray
  shape: np.ndarray
  variance: np.ndarray

  def curve(self, data: Data, sizes: np.ndarray) -> np.ndarray:
    """The law itself, without the discrepancy: [D, S]."""
    law = LAWS[self.member.law]
    chance = data.chance if law.takes_chance else None
    offset, f, s = law.columns(sizes / data.scale, self.shape, chance)
    return offset + self.first[:, None] * f + self.second[:, None] * s


def windows(num_sizes: int) -> tuple[int, ...]:
  """How many of the smallest sizes a member may leave out."""
  if num_sizes < 6:
    return (0,)
  return tuple(sorted({0, num_sizes // 4, num_sizes // 2}))


def usable_laws(data: Data, laws: Sequence[str]) -> tuple[str, ...]:
  """The laws that the number of sizes and the kind of values allow."""
  return tuple(
    name
    for name in laws
    if len(data.sizes) >= min(LAWS[name].min_sizes, 6 if name != 'break' else 8)
    and (data.bounded or 'loss' in LAWS[name].kinds)
  )


def roll(data: Data, laws: Sequence[str]) -> Rolled:
  """Predicts the larger sizes from the smaller ones with every member."""
  num = len(data.sizes)
  first = max(3 if num < 6 else 4, num // 2)
  # Spread over the upper half, so that near and far forecasts both count.
  most = _MAX_ORIGINS if num <= _MANY_SIZES else _FEW_ORIGINS
  count = min(most, num - first)
  # The last two always: what is said of the two largest sizes is reported.
  early = np.linspace(first, num - 2, count - 1).round()
  origins = tuple(int(o) for o in (*early, num - 1))
  skips = windows(num)
  table = _Table(data, laws)
  members = tuple(
    Member(law, skip, rho) for skip in skips for rho in RHOS for law in table.laws
  )
  scores = np.zeros(len(members))
  means, deviations, dofs, targets = [], [], [], []
  for origin in origins:
    rows = []
    for skip in skips:
      # The same share of the sizes seen so far.
      start = 0 if skip == 0 else (origin * skip) // num
      if origin - start < 3:
        start = max(0, origin - 3)
      for rho in RHOS:
        rows.append(_moments(table, slice(start, origin), slice(origin, num), rho))
    mean = np.concatenate([row[0] for row in rows])
    variance = np.concatenate([row[1] for row in rows])
    dof = np.concatenate([row[2] for row in rows])
    deviation = np.sqrt(variance)
    z = (data.errors[origin:] - mean) / deviation
    scores += (log_t(z, dof[:, None]) - np.log(deviation)).mean(axis=1)
    means.append(mean)
    deviations.append(deviation)
    dofs.append(dof)
    targets.append(data.sizes[origin:])
  return Rolled(
    members,
    origins,
    tuple(targets),
    tuple(means),
    tuple(deviations),
    tuple(dofs),
    scores,
    table,
  )


def log_t(z: np.ndarray, dof: np.ndarray) -> np.ndarray:
  """Log density of Student's t."""
  from scipy.special import gammaln

  half = (dof + 1) / 2
  constant = gammaln(half) - gammaln(dof / 2) - 0.5 * np.log(np.pi * dof)
  return constant - half * np.log1p(z * z / dof)


def draw(
  rolled: Rolled, weights: np.ndarray, num_draws: int, generator: np.random.Generator
) -> tuple[Draws, ...]:
  """Draws from the stack: members by weight, shapes and coefficients by likelihood."""
  weights = np.where(weights < _SILENT * weights.max(), 0.0, weights)
  edges = np.concatenate([[0.0], np.cumsum(weights / weights.sum())])
  # Systematic sampling: the share of a member is its weight to within one draw.
  marks = (np.arange(num_draws) + generator.random()) / num_draws
  counts = np.diff(np.searchsorted(marks, edges))
  data, found = rolled.table.data, []
  posteriors: dict[tuple[int, float], _Posterior] = {}
  for member, count in zip(rolled.members, counts, strict=True):
    if not count:
      continue
    key = (member.skip, member.rho)
    if key not in posteriors:
      seen = slice(member.skip, len(data.sizes))
      noise, level = _relative(data, seen, 0)
      covariance = _kernel(data.sizes[seen], level, member.rho) + np.diag(noise)
      posteriors[key] = _posterior(rolled.table, seen, covariance)
    found.append(_sample(rolled.table, posteriors[key], member, int(count), generator))
  return tuple(found)


def paths(
  data: Data, draws: Sequence[Draws], sizes: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """The true curve at `sizes` [S] given each of the draws, member by member.

  Yields:
    Mean [D, S] of the curve given the draw; and, both to be multiplied by the draw's
    noise scale, the covariance [S, S] of the curve about that mean, normal, and the
    variance [S] that one new run adds.
  """
  rests: dict[tuple[int, float], tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
  for one in draws:
    key = (one.member.skip, one.member.rho)
    if key not in rests:
      rests[key] = _rest(data, *key, sizes)
    gain, rest, run = rests[key]
    curve = one.curve(data, np.append(data.sizes[one.member.skip :], sizes))
    seen = curve.shape[1] - len(sizes)
    left = data.errors[one.member.skip :] - curve[:, :seen]
    yield curve[:, seen:] + left @ gain, rest, run


def _rest(
  data: Data, skip: int, rho: float, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Regression [J, S] on what a law leaves at the sizes seen; see `paths` for the rest."""
  seen = slice(skip, len(data.sizes))
  count = seen.stop - seen.start
  noise, level = _relative(data, seen, len(sizes))
  kernel = _kernel(np.append(data.sizes[seen], sizes), level, rho)
  gain = np.linalg.solve(
    kernel[:count, :count] + np.diag(noise[:count]), kernel[:count, count:]
  )
  rest = kernel[count:, count:] - kernel[count:, :count] @ gain
  run = noise[count:]
  if data.variance is not None:
    run = (data.run[0] + data.run[1] / sizes) / _unit(data)
  return gain, rest, run


# Below: one member at a time is too slow, so all laws share their grids as one table.


class _Table:
  """Columns of every grid cell of every law at the sizes of a curve.

  All laws but one have a first column of ones or none, so it is kept as a number. The
  saturating law with a known chance has its one column first: here it goes second.

  Attributes:
    data, laws: of what.
    constant: [G] the first column, 1 or 0.
    second, offset: [G, J]; `offset` is 0 but for the cells `bent`.
    free: [2, G] which coefficients may be negative.
    linear: [G] how many coefficients are used.
    starts: [L] first cell of each law.
    turned: laws whose first column went second.
  """

  def __init__(self, data: Data, laws: Sequence[str]):
    self.data = data
    self.laws = usable_laws(data, laws)
    x = data.sizes / data.scale
    offsets, constants, seconds, free, linear, counts = [], [], [], [], [], []
    self.turned = set()
    for name in self.laws:
      law = LAWS[name]
      chance = data.chance if law.takes_chance else None
      offset, first, second = law.columns(x, law.grid, chance)
      if np.ptp(first):
        self.turned.add(name)
        first, second = second, first
      offsets.append(offset)
      constants.append(first[:, 0])
      seconds.append(second)
      free.append(np.repeat([law.free], len(law.grid), axis=0))
      linear.append(np.full(len(law.grid), law.linear - (chance is not None)))
      counts.append(len(law.grid))
    self.offset, self.constant, self.second, self.free, self.linear = (
      np.concatenate(part) for part in (offsets, constants, seconds, free, linear)
    )
    self.free = self.free.T
    self.bent = np.flatnonzero(self.offset.any(axis=1))
    self.counts = np.array(counts)
    self.starts = np.cumsum(self.counts) - self.counts

  def cells(self, law: str) -> slice:
    index = self.laws.index(law)
    return slice(self.starts[index], self.starts[index] + self.counts[index])

  def softmax(self, log: np.ndarray) -> np.ndarray:
    """Within each law. [G] -> [G]."""
    top = np.maximum.reduceat(log, self.starts)
    weight = np.exp(log - np.repeat(top, self.counts))
    return weight / np.repeat(np.add.reduceat(weight, self.starts), self.counts)


@dataclasses.dataclass(frozen=True)
class _Posterior:
  """Of every grid cell: coefficients, noise scale and weight within its law."""

  first: np.ndarray
  second: np.ndarray
  variance: np.ndarray
  weight: np.ndarray
  dof: np.ndarray
  products: tuple[np.ndarray, np.ndarray, np.ndarray]


def _unit(data: Data, last: int | None = None) -> float:
  """The variance in which relative noise is 1, from the sizes up to index `last`."""
  if data.variance is not None:
    return float(np.median(data.variance))
  # Larger sizes must not tell: a rolling forecast is scored on them.
  seen = data.errors if last is None else data.errors[: last + 1]
  return max(_PRIOR_SD * float(np.median(seen)), data.smallest) ** 2


def _relative(data: Data, seen: slice, num_ahead: int) -> tuple[np.ndarray, np.ndarray]:
  """Relative noise variance of size means, and relative level of the curve.

  Both for the sizes seen and `num_ahead` others, which take the level of the last: what
  is not seen must not tell.
  """
  last = seen.stop - 1
  level = np.minimum.accumulate(data.errors[: seen.stop])[seen]
  # The lowest of a few noisy points is low: no level is below a tenth of the median.
  level = np.maximum(level, 0.1 * np.median(data.errors[seen]))
  level = np.maximum(level, data.smallest)
  level = np.append(level, np.full(num_ahead, level[-1])) / np.median(level)
  if data.variance is not None:
    noise = np.maximum(data.variance / _unit(data), 1e-4)
    return np.append(noise[seen], np.full(num_ahead, noise[last])), level
  return level**2, level


def _kernel(sizes: np.ndarray, level: np.ndarray, rho: float) -> np.ndarray:
  if not rho:
    return np.zeros((len(sizes), len(sizes)))
  log = np.log(sizes)
  return rho * np.outer(level, level) * np.exp(-np.abs(log[:, None] - log) / _LENGTH)


def _posterior(table: _Table, seen: slice, covariance: np.ndarray) -> _Posterior:
  """Given the sizes seen, whose errors have this covariance relative to the scale."""
  y = table.data.errors[seen]
  s, bent = table.second[:, seen], table.bent
  offset = table.offset[bent, seen]
  # A diagonal precision as a vector: most of the time goes into these products.
  diagonal = np.diag(covariance)
  if np.count_nonzero(covariance) == len(diagonal):
    precision = 1 / diagonal
    sp, op, ones, yp = s * precision, offset * precision, precision, y * precision
  else:
    precision = np.linalg.inv(covariance)
    sp, op, ones, yp = (
      s @ precision,
      offset @ precision,
      precision.sum(0),
      y @ precision,
    )
  ff = table.constant * ones.sum()
  fs, sy = s @ ones * table.constant, s @ yp
  ss = np.einsum('gj,gj->g', sp, s)
  fy = table.constant * yp.sum()
  yy = np.full(len(ss), yp @ y)
  fy[bent] -= table.constant[bent] * op.sum(1)
  sy[bent] -= np.einsum('gj,gj->g', op, s[bent])
  yy[bent] += np.einsum('gj,gj->g', op, offset - 2 * y)
  first, second = coefficients((table.free[0], table.free[1]), ff, fs, ss, fy, sy)
  # From products: the digits that cancel are far below the prior's share of the total.
  squares = yy + first * (first * ff - 2 * fy) + second * (second * ss - 2 * sy)
  squares = np.maximum(squares + 2 * first * second * fs, 0.0)
  prior_dof = _PRIOR_DOF + min(table.data.variance_dof, 3.0)
  dof = np.maximum(len(y) - table.linear, 0.0) + prior_dof
  total = squares + prior_dof * _unit(table.data, seen.stop - 1)
  weight = table.softmax(-0.5 * dof * np.log(total))
  return _Posterior(first, second, total / dof, weight, dof, (ff, fs, ss))


def _inverse(
  post: _Posterior, cells: slice | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Covariance of the coefficients in use, relative to the noise scale."""
  ff, fs, ss = (product[cells] for product in post.products)
  use_f, use_s = post.first[cells] != 0, post.second[cells] != 0
  ff = np.where(use_f, ff * (1 + 1e-9), np.inf)
  ss = np.where(use_s, ss * (1 + 1e-9), np.inf)
  fs = np.where(use_f & use_s, fs, 0.0)
  with np.errstate(invalid='ignore'):
    ratio = np.where(use_f & use_s, fs * fs / ff / ss, 0.0)
  a = 1 / ff / (1 - ratio)
  d = 1 / ss / (1 - ratio)
  b = np.where(use_f & use_s, -fs / np.where(use_f, ff, 1.0) * d, 0.0)
  return a, b, d


def _moments(
  table: _Table, seen: slice, ahead: slice, rho: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Mean and variance [L, S] of new size means under each law, and its dof [L]."""
  data = table.data
  count = seen.stop - seen.start
  noise, level = _relative(data, seen, ahead.stop - ahead.start)
  if data.variance is not None:
    noise[count:] = np.maximum(data.variance[ahead] / _unit(data), 1e-4)
  sizes = np.append(data.sizes[seen], data.sizes[ahead])
  kernel = _kernel(sizes, level, rho)
  covariance = kernel[:count, :count] + np.diag(noise[:count])
  post = _posterior(table, seen, covariance)
  # Regressed on what is left at the sizes seen, [J, S]; without discrepancy nothing is.
  gain = np.linalg.solve(covariance, kernel[:count, count:])
  rest = np.diag(kernel)[count:] + noise[count:]
  rest = rest - (gain * kernel[:count, count:]).sum(0)
  one = 1 - gain.sum(0)
  second = table.second[:, ahead] - (table.second[:, seen] @ gain if rho else 0.0)
  mean = post.first[:, None] * one + post.second[:, None] * second
  mean += data.errors[seen] @ gain
  mean[table.bent] += table.offset[table.bent, ahead]
  mean[table.bent] -= table.offset[table.bent, seen] @ gain
  a, b, d = (part[:, None] for part in _inverse(post, slice(None)))
  spread = a * one**2 + second * (2 * b * one + d * second)
  weight = post.weight[:, None]
  # About the middle of the law, whose square would swallow the variance.
  center = np.add.reduceat(weight * mean, table.starts, axis=0)
  within = post.variance[:, None] * (rest + spread)
  within += (mean - np.repeat(center, table.counts, axis=0)) ** 2
  variance = np.add.reduceat(weight * within, table.starts, axis=0)
  return center, variance, post.dof[table.starts]


def _sample(
  table: _Table,
  post: _Posterior,
  member: Member,
  count: int,
  generator: np.random.Generator,
) -> Draws:
  law = LAWS[member.law]
  cells = table.cells(member.law)
  marks = (np.arange(count) + generator.random()) / count
  inside = np.searchsorted(np.cumsum(post.weight[cells])[:-1], marks)
  index = np.arange(cells.start, cells.stop)[inside]
  dof = post.dof[index]
  variance = post.variance[index] * dof / generator.chisquare(dof)
  a, b, d = _inverse(post, index)
  z1, z2 = generator.standard_normal((2, count))
  root = np.sqrt(variance)
  low = np.sqrt(np.maximum(a, 0.0))
  cross = np.where(low > 0, b / np.where(low > 0, low, 1.0), 0.0)
  high = np.sqrt(np.maximum(d - cross**2, 0.0))
  first = post.first[index] + root * low * z1
  second = post.second[index] + root * (cross * z1 + high * z2)
  if not law.free[0]:
    first = np.maximum(first, 0.0)
  if not law.free[1]:
    second = np.maximum(second, 0.0)
  if member.law in table.turned:
    first, second = second, first
  return Draws(member, first, second, law.grid[inside], variance)
