"""The laws a learning curve may follow, one entry each.

All are written for an error y, lower is better (an accuracy is fitted as its error),
against x = n / scale, images in a unit near the middle of the data:

    y = offset(x, shape) + first * f(x, shape) + second * s(x, shape)

Given its shape a law is linear in two coefficients, so the fitter scans the shape and
solves the rest exactly (variable projection, `analysis.solve`). An entry holds these
columns, their derivatives by the logarithm of each shape parameter, and the way to
natural units; a new law is a new entry of `LAWS`, not a new fitter.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np

Kind = Literal['accuracy', 'error', 'loss']
KINDS = ('accuracy', 'error', 'loss')
Columns = tuple[np.ndarray, np.ndarray, np.ndarray]  # offset, first, second


@dataclasses.dataclass(frozen=True)
class Parameter:
  """One parameter of a law, in natural units.

  Attributes:
    name: short, as in the formula.
    unit: in which it is reported.
    meaning: one phrase for tables.
  """

  name: str
  unit: str
  meaning: str


@dataclasses.dataclass(frozen=True)
class Law:
  """A law: its words, its columns, and its natural units.

  Attributes:
    name: key in `LAWS`.
    title: name in tables and figures.
    formula: plain text, in natural units.
    models_error: False where the formula is written for the score itself, so that its
      level and slope are turned round for an accuracy.
    parameters: in the order of every parameter array.
    min_sizes: fewest distinct sizes that leave a degree of freedom for an interval.
    domain: where the law can hold.
    source: who proposed it.
    grid: [G, Q] shape parameters, all positive. The ends of each are its bounds.
    columns: (x [J], shape [..., Q], chance) -> three arrays [..., J].
    slopes: (x, shape, columns there, chance) -> their derivatives by log(shape), [Q]
      triples.
    free: which of the two coefficients may be negative.
    linear: how many of the two coefficients are used.
    natural: (first, second, shape [..., Q], scale) -> [..., P] natural parameters.
    internal: natural [..., P] -> first, second, shape at scale 1; inverse of `natural`.
    kinds: for which values the law is defined.
    takes_chance: whether a known chance level replaces a coefficient.
  """

  name: str
  title: str
  formula: str
  models_error: bool
  parameters: tuple[Parameter, ...]
  min_sizes: int
  domain: str
  source: str
  grid: np.ndarray
  columns: Callable[[np.ndarray, np.ndarray, float | None], Columns]
  slopes: Callable[[np.ndarray, np.ndarray, Columns, float | None], list[Columns]]
  natural: Callable[[np.ndarray, np.ndarray, np.ndarray, float], np.ndarray]
  internal: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
  linear: int = 2
  free: tuple[bool, bool] = (False, False)
  kinds: tuple[str, ...] = ('accuracy', 'error', 'loss')
  takes_chance: bool = False

  def curve(
    self, sizes: np.ndarray, parameters: np.ndarray, chance: float | None = None
  ) -> np.ndarray:
    """Error at sizes [S] images for natural parameters [..., P] -> [..., S]."""
    chance = chance if self.takes_chance else None
    first, second, shape = self.internal(np.asarray(parameters, float))
    offset, f, s = self.columns(np.asarray(sizes, float), shape, chance)
    return offset + first[..., None] * f + second[..., None] * s

  def bounds(self) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of each shape parameter, [Q] each."""
    return self.grid.min(axis=0), self.grid.max(axis=0)


def _grid(*axes: np.ndarray) -> np.ndarray:
  return np.stack([a.ravel() for a in np.meshgrid(*axes, indexing='ij')], axis=-1)


def _part(shape: np.ndarray, index: int) -> np.ndarray:
  return shape[..., index, None]


def _zero(x: np.ndarray, shape: np.ndarray) -> np.ndarray:
  return np.zeros((*shape.shape[:-1], len(x)))


def _one(x: np.ndarray, shape: np.ndarray) -> np.ndarray:
  return np.ones((*shape.shape[:-1], len(x)))


def _no_slopes(
  x: np.ndarray, shape: np.ndarray, columns: Columns, chance: float | None
) -> list[Columns]:
  del x, shape, columns, chance
  return []


def _stack(*parts: np.ndarray) -> np.ndarray:
  return np.stack(np.broadcast_arrays(*parts), axis=-1)


# Constant.


def _constant_columns(
  x: np.ndarray, shape: np.ndarray, chance: float | None
) -> Columns:
  del chance
  zero = _zero(x, shape)
  return zero, _one(x, shape), zero


def _constant_natural(
  first: np.ndarray, second: np.ndarray, shape: np.ndarray, scale: float
) -> np.ndarray:
  del second, shape, scale
  return _stack(first)


def _constant_internal(p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  return p[..., 0], np.zeros(p.shape[:-1]), np.zeros((*p.shape[:-1], 0))


# Log-linear: a - b log10(x).


def _log_columns(x: np.ndarray, shape: np.ndarray, chance: float | None) -> Columns:
  del chance
  return _zero(x, shape), _one(x, shape), -np.log10(x) + _zero(x, shape)


def _log_natural(
  first: np.ndarray, second: np.ndarray, shape: np.ndarray, scale: float
) -> np.ndarray:
  del shape
  return _stack(first + second * np.log10(scale), -second)


def _log_internal(p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  return p[..., 0], -p[..., 1], np.zeros((*p.shape[:-1], 0))


# The share u of the reducible error that is left, u / (1 - u)^a = (x / s)^-c. With
# a = 1 it is logistic in log x.


def _share(x: np.ndarray, c: np.ndarray, s: np.ndarray, a: np.ndarray) -> np.ndarray:
  """Solves log u - a log(1 - u) = -c log(x / s) for u in (0, 1)."""
  level = -c * (np.log(x) - np.log(s))
  a = a + np.zeros_like(level)
  # In the log-odds v of u the left side is convex-concave with slopes between 1 and a,
  # so Newton from either asymptote converges in a few steps.
  v = np.where(level < 0, level, level / a)
  for _ in range(30):
    # log(1 + e^-v) and log(1 + e^v) without overflow
    low = np.maximum(-v, 0) + np.log1p(np.exp(-np.abs(v)))
    high = low + v
    u = np.exp(-low)
    step = (a * high - low - level) / ((1 - u) + a * u)
    v = v - step
    if np.abs(step).max() < 1e-13 * max(1.0, np.abs(v).max()):
      break
  return 1 / (1 + np.exp(-np.clip(v, -700, 700)))


def _share_slopes(
  u: np.ndarray, x: np.ndarray, c: np.ndarray, s: np.ndarray, a: np.ndarray
) -> list[np.ndarray]:
  """Derivatives of the share u by log c, log s and log a."""
  by_level = u * (1 - u) / ((1 - u) + a * u)
  level = -c * (np.log(x) - np.log(s))
  by_a = a * by_level * np.log1p(-np.minimum(u, 1 - 1e-16))
  return [by_level * level, by_level * c, by_a]


def _logit_columns(x: np.ndarray, shape: np.ndarray, chance: float | None) -> Columns:
  del chance
  zero = _zero(x, shape)
  share = _share(x, _part(shape, 0), _part(shape, 1), np.ones(1))
  return share + zero, zero, zero


def _logit_slopes(
  x: np.ndarray, shape: np.ndarray, columns: Columns, chance: float | None
) -> list[Columns]:
  del chance
  u, zero, _ = columns
  slopes = _share_slopes(u, x, _part(shape, 0), _part(shape, 1), np.ones(1))
  return [(slope, zero, zero) for slope in slopes[:2]]


_LN10 = float(np.log(10))


def _logit_natural(
  first: np.ndarray, second: np.ndarray, shape: np.ndarray, scale: float
) -> np.ndarray:
  del first, second
  c, s = shape[..., 0], shape[..., 1]
  return _stack(-c * np.log(s * scale), c * _LN10)


def _logit_internal(p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  c = p[..., 1] / _LN10
  zero = np.zeros(p.shape[:-1])
  return zero, zero, _stack(c, np.exp(-p[..., 0] / c))


def _saturating_columns(
  x: np.ndarray, shape: np.ndarray, chance: float | None
) -> Columns:
  u = _share(x, _part(shape, 0), _part(shape, 1), _part(shape, 2))
  zero = _zero(x, shape)
  if chance is None:
    return zero, zero + 1, u
  return chance * u, 1 - u, zero


def _saturating_slopes(
  x: np.ndarray, shape: np.ndarray, columns: Columns, chance: float | None
) -> list[Columns]:
  u = columns[2] if chance is None else columns[0] / chance
  slopes = _share_slopes(u, x, _part(shape, 0), _part(shape, 1), _part(shape, 2))
  zero = _zero(x, shape)
  if chance is None:
    return [(zero, zero, slope) for slope in slopes]
  return [(chance * slope, -slope, zero) for slope in slopes]


def _saturating_natural(
  first: np.ndarray, second: np.ndarray, shape: np.ndarray, scale: float
) -> np.ndarray:
  """e, e_0, a, b, c. With a known chance `second` is chance - e, as the fitter sets.

  A flat curve, e_0 = e, has b = 0, which the formula says whatever a is.
  """
  c, s, a = (shape[..., i] for i in range(3))
  span = np.where(second > 0, second, 1.0)
  b = np.where(second > 0, (s * scale) ** c * span ** (1 - a), 0.0)
  return _stack(first, first + second, a, b, c)


def _saturating_internal(p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  e, e_0, a, b, c = (p[..., i] for i in range(5))
  span = np.maximum(e_0 - e, 0.0)
  # By logarithms, within what a float holds: s is of no consequence where e_0 - e is 0
  # or so small that nothing but rounding is left of it.
  log_s = (
    np.log(np.maximum(b, 1e-300)) + (a - 1) * np.log(np.maximum(span, 1e-300))
  ) / c
  return e, span, _stack(c, np.exp(np.clip(log_s, -690, 690)), a)


# Power laws.


def _power(x: np.ndarray, c: np.ndarray) -> np.ndarray:
  return np.exp(-c * np.log(x))


def _power_columns(x: np.ndarray, shape: np.ndarray, chance: float | None) -> Columns:
  del chance
  zero = _zero(x, shape)
  return zero, zero, _power(x, _part(shape, 0))


def _power_slopes(
  x: np.ndarray, shape: np.ndarray, columns: Columns, chance: float | None
) -> list[Columns]:
  del chance
  c, zero = _part(shape, 0), _zero(x, shape)
  return [(zero, zero, -c * np.log(x) * columns[2])]


def _power_natural(
  first: np.ndarray, second: np.ndarray, shape: np.ndarray, scale: float
) -> np.ndarray:
  del first
  c = shape[..., 0]
  return _stack(second * scale**c, c)


def _power_internal(p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  return np.zeros(p.shape[:-1]), p[..., 0], p[..., 1:2]


def _floor_columns(x: np.ndarray, shape: np.ndarray, chance: float | None) -> Columns:
  del chance
  return _zero(x, shape), _one(x, shape), _power(x, _part(shape, 0))


def _floor_natural(
  first: np.ndarray, second: np.ndarray, shape: np.ndarray, scale: float
) -> np.ndarray:
  c = shape[..., 0]
  return _stack(first, second * scale**c, c)


def _floor_internal(p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  return p[..., 0], p[..., 1], p[..., 2:3]


def _shifted_columns(x: np.ndarray, shape: np.ndarray, chance: float | None) -> Columns:
  del chance
  c, g, zero = _part(shape, 0), _part(shape, 1), _zero(x, shape)
  return zero, zero, np.exp(c * np.log(1 / x + g))


def _shifted_slopes(
  x: np.ndarray, shape: np.ndarray, columns: Columns, chance: float | None
) -> list[Columns]:
  c, g, zero = _part(shape, 0), _part(shape, 1), _zero(x, shape)
  value = columns[2]
  by_c = c * np.log(1 / x + g) * value
  by_g = c * g / (1 / x + g) * value
  return [(zero, zero, by_c), (zero, zero, by_g)]


def _shifted_natural(
  first: np.ndarray, second: np.ndarray, shape: np.ndarray, scale: float
) -> np.ndarray:
  del first
  c, g = shape[..., 0], shape[..., 1]
  return _stack(second * scale**c, g / scale, c)


def _shifted_internal(p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  return np.zeros(p.shape[:-1]), p[..., 0], _stack(p[..., 2], p[..., 1])


def _double_columns(x: np.ndarray, shape: np.ndarray, chance: float | None) -> Columns:
  del chance
  b, d = _part(shape, 0), _part(shape, 1)
  return _zero(x, shape), _one(x, shape), np.exp(-b * np.log((x + d) / (1 + d)))


def _double_slopes(
  x: np.ndarray, shape: np.ndarray, columns: Columns, chance: float | None
) -> list[Columns]:
  b, d, zero = _part(shape, 0), _part(shape, 1), _zero(x, shape)
  value = columns[2]
  by_b = -b * np.log((x + d) / (1 + d)) * value
  by_d = -b * d * (1 / (x + d) - 1 / (1 + d)) * value
  return [(zero, zero, by_b), (zero, zero, by_d)]


def _double_natural(
  first: np.ndarray, second: np.ndarray, shape: np.ndarray, scale: float
) -> np.ndarray:
  b, d = shape[..., 0], shape[..., 1]
  return _stack(first, second * (scale * (1 + d)) ** b, d * scale, b)


def _double_internal(p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  c, a, d, b = (p[..., i] for i in range(4))
  return c, a * (1 + d) ** -b, _stack(b, d)


# Exponentials.


def _exponential_columns(
  x: np.ndarray, shape: np.ndarray, chance: float | None
) -> Columns:
  del chance
  return _zero(x, shape), _one(x, shape), np.exp(-_part(shape, 0) * x)


def _exponential_slopes(
  x: np.ndarray, shape: np.ndarray, columns: Columns, chance: float | None
) -> list[Columns]:
  del chance
  return [(columns[0], columns[0], -_part(shape, 0) * x * columns[2])]


def _exponential_natural(
  first: np.ndarray, second: np.ndarray, shape: np.ndarray, scale: float
) -> np.ndarray:
  return _stack(first, second, shape[..., 0] / scale)


def _stretched_columns(
  x: np.ndarray, shape: np.ndarray, chance: float | None
) -> Columns:
  del chance
  power = np.exp(_part(shape, 1) * np.log(_part(shape, 0) * x))
  return _zero(x, shape), _one(x, shape), np.exp(-power)


def _stretched_slopes(
  x: np.ndarray, shape: np.ndarray, columns: Columns, chance: float | None
) -> list[Columns]:
  del chance
  k, d, zero = _part(shape, 0), _part(shape, 1), _zero(x, shape)
  log = np.log(k * x)
  power = np.exp(d * log)
  slope = -power * columns[2] * d
  return [(zero, zero, slope + 0 * log), (zero, zero, slope * log)]


def _stretched_natural(
  first: np.ndarray, second: np.ndarray, shape: np.ndarray, scale: float
) -> np.ndarray:
  return _stack(first, second, shape[..., 0] / scale, shape[..., 1])


def _stretched_internal(p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  return p[..., 0], p[..., 1], p[..., 2:4]


# One smooth break from exponent c0 to c1 at size d, over a factor exp(4 f) of sizes.


def _break_columns(x: np.ndarray, shape: np.ndarray, chance: float | None) -> Columns:
  del chance
  c0, c1, d, f = (_part(shape, i) for i in range(4))
  log = np.log(x)
  bend = f * np.logaddexp(0, (log - np.log(d)) / f)
  return _zero(x, shape), _one(x, shape), np.exp(-c0 * log - (c1 - c0) * bend)


def _break_slopes(
  x: np.ndarray, shape: np.ndarray, columns: Columns, chance: float | None
) -> list[Columns]:
  c0, c1, d, f = (_part(shape, i) for i in range(4))
  zero = _zero(x, shape)
  value = columns[2]
  log = np.log(x)
  z = (log - np.log(d)) / f
  soft = np.logaddexp(0, z)
  gate = 1 / (1 + np.exp(-np.clip(z, -700, 700)))
  slopes = [
    c0 * (f * soft - log) * value,
    -c1 * f * soft * value,
    (c1 - c0) * gate * value,
    -(c1 - c0) * f * (soft - z * gate) * value,
  ]
  return [(zero, zero, slope) for slope in slopes]


def _break_natural(
  first: np.ndarray, second: np.ndarray, shape: np.ndarray, scale: float
) -> np.ndarray:
  c0, c1, d, f = (shape[..., i] for i in range(4))
  return _stack(first, second * scale**c0, c0, c1, d * scale, f)


def _break_internal(p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  return p[..., 0], p[..., 1], p[..., 2:6]


_NO_SHAPE = np.zeros((1, 0))
_FRACTIONS = ('accuracy', 'error')
_FLOOR = Parameter('e', 'error', 'error with unlimited data')
_AMPLITUDE = Parameter('b', 'error', 'reducible error at one image')
_EXPONENT = Parameter('c', '1', 'exponent')

LAWS: dict[str, Law] = {
  law.name: law
  for law in (
    Law(
      name='constant',
      title='constant',
      formula='score = a',
      models_error=False,
      parameters=(Parameter('a', 'score', 'score at every size'),),
      min_sizes=2,
      domain='any size; the null against which a gain is shown',
      source='null model',
      grid=_NO_SHAPE,
      columns=_constant_columns,
      slopes=_no_slopes,
      natural=_constant_natural,
      internal=_constant_internal,
      linear=1,
      free=(True, True),
    ),
    Law(
      name='log_linear',
      title='log-linear',
      formula='score = a + b log10(n)',
      models_error=False,
      parameters=(
        Parameter('a', 'score', 'score at one image'),
        Parameter('b', 'score per decade', 'gain per tenfold data'),
      ),
      min_sizes=3,
      domain='between chance and saturation; leaves [0, 1] on both sides',
      source='Sun et al. 2017 (arXiv 1707.02968), the log-linear claim',
      grid=_NO_SHAPE,
      columns=_log_columns,
      slopes=_no_slopes,
      natural=_log_natural,
      internal=_log_internal,
      free=(True, True),
    ),
    Law(
      name='logit_linear',
      title='logit-linear',
      formula='log((1 - error) / error) = a + b log10(n)',
      models_error=True,
      parameters=(
        Parameter('a', 'log-odds', 'log-odds of being right at one image'),
        Parameter('b', 'log-odds per decade', 'gain per tenfold data'),
      ),
      min_sizes=3,
      domain='errors from 1 down to 0 without chance level or floor',
      source='log-linear on the logit scale; see Hestness et al. 2017 (1712.00409)',
      grid=_grid(np.geomspace(0.02, 3.0, 16), np.geomspace(1e-5, 1e5, 27)),
      columns=_logit_columns,
      slopes=_logit_slopes,
      natural=_logit_natural,
      internal=_logit_internal,
      linear=0,
      kinds=_FRACTIONS,
    ),
    Law(
      name='power',
      title='power law',
      formula='error = b n^-c',
      models_error=True,
      parameters=(_AMPLITUDE, _EXPONENT),
      min_sizes=3,
      domain='between the chance plateau and the floor; b >= 0, c > 0',
      source='Hestness et al. 2017 (arXiv 1712.00409)',
      grid=np.geomspace(0.01, 3.0, 60)[:, None],
      columns=_power_columns,
      slopes=_power_slopes,
      natural=_power_natural,
      internal=_power_internal,
      linear=1,
    ),
    Law(
      name='power_floor',
      title='power law + floor',
      formula='error = e + b n^-c',
      models_error=True,
      parameters=(_FLOOR, _AMPLITUDE, _EXPONENT),
      min_sizes=4,
      domain='past the chance plateau of the smallest sizes; e >= 0, b >= 0, c > 0',
      source='Hestness et al. 2017 (arXiv 1712.00409); Hoiem et al. 2021 (2010.11029)',
      # Published exponents of vision errors lie in 0.05 to 1; outside these ends the
      # curve cannot be told from a logarithm (below) or from a step (above).
      grid=np.geomspace(0.01, 3.0, 80)[:, None],
      columns=_floor_columns,
      slopes=_power_slopes,
      natural=_floor_natural,
      internal=_floor_internal,
    ),
    Law(
      name='shifted_power',
      title='shifted power law',
      formula='error = b (1/n + g)^c',
      models_error=True,
      parameters=(
        Parameter('b', 'error', 'scale'),
        Parameter('g', '1/images', 'shift; the error ends at b g^c'),
        _EXPONENT,
      ),
      min_sizes=4,
      domain='past the chance plateau; b >= 0, c > 0, g > 0',
      source='M3 of Alabdulmohsin et al. 2022 (arXiv 2209.06640)',
      grid=_grid(np.geomspace(0.02, 3.0, 26), np.geomspace(1e-4, 10.0, 16)),
      columns=_shifted_columns,
      slopes=_shifted_slopes,
      natural=_shifted_natural,
      internal=_shifted_internal,
      linear=1,
    ),
    Law(
      name='saturating',
      title='saturating power law',
      formula='(error - e) / (e_0 - error)^a = b n^-c',
      models_error=True,
      parameters=(
        _FLOOR,
        Parameter('e_0', 'error', 'error without data (chance)'),
        Parameter('a', '1', 'how fast the curve leaves chance'),
        Parameter('b', 'error^(1-a)', 'scale'),
        _EXPONENT,
      ),
      min_sizes=6,
      domain='from chance to floor; 0 <= e <= error <= e_0, a > 0, c > 0',
      source='M4 of Alabdulmohsin et al. 2022 (arXiv 2209.06640), eq. 5',
      grid=_grid(
        np.geomspace(0.1, 3.0, 14), np.geomspace(1e-3, 30.0, 14), np.array([0.4, 1, 2])
      ),
      columns=_saturating_columns,
      slopes=_saturating_slopes,
      natural=_saturating_natural,
      internal=_saturating_internal,
      takes_chance=True,
    ),
    Law(
      name='double_saturation',
      title='double saturation',
      formula='error = c + a (n + d)^-b',
      models_error=True,
      parameters=(
        Parameter('c', 'error', 'error with unlimited data'),
        Parameter('a', 'error', 'scale'),
        Parameter('d', 'images', 'below it the curve is flat'),
        Parameter('b', '1', 'exponent'),
      ),
      min_sizes=5,
      domain='from a plateau at few images to a floor; c, a, d >= 0, b > 0',
      source='Zhai et al. 2022 (arXiv 2106.04560), section 2',
      grid=_grid(np.geomspace(0.05, 3.0, 18), np.geomspace(0.01, 30.0, 12)),
      columns=_double_columns,
      slopes=_double_slopes,
      natural=_double_natural,
      internal=_double_internal,
    ),
    Law(
      name='exponential',
      title='exponential',
      formula='error = e + b exp(-k n)',
      models_error=True,
      parameters=(
        _FLOOR,
        Parameter('b', 'error', 'reducible error without data'),
        Parameter('k', '1/images', 'rate'),
      ),
      min_sizes=4,
      domain='curves that reach their floor within the data; e, b >= 0, k > 0',
      source='exp3 of Mohr et al. 2022 (LCDB), table 1',
      grid=np.geomspace(0.01, 30.0, 40)[:, None],
      columns=_exponential_columns,
      slopes=_exponential_slopes,
      natural=_exponential_natural,
      internal=_floor_internal,
    ),
    Law(
      name='stretched_exponential',
      title='stretched exponential',
      formula='error = e + b exp(-(k n)^d)',
      models_error=True,
      parameters=(
        _FLOOR,
        Parameter('b', 'error', 'reducible error without data'),
        Parameter('k', '1/images', 'rate'),
        Parameter('d', '1', 'stretch; 1 is exponential'),
      ),
      min_sizes=5,
      domain='between a power law and an exponential; e, b >= 0, k > 0, 0 < d <= 1',
      source='Weibull (wbl4) of Mohr et al. 2022 (LCDB), table 1',
      grid=_grid(np.geomspace(0.01, 30.0, 20), np.geomspace(0.15, 1.0, 6)),
      columns=_stretched_columns,
      slopes=_stretched_slopes,
      natural=_stretched_natural,
      internal=_stretched_internal,
    ),
    Law(
      name='break',
      title='one smooth break',
      formula='error = e + b n^-c0 (1 + (n/d)^(1/f))^(-(c1 - c0) f)',
      models_error=True,
      parameters=(
        _FLOOR,
        _AMPLITUDE,
        Parameter('c0', '1', 'exponent before the break'),
        Parameter('c1', '1', 'exponent after the break'),
        Parameter('d', 'images', 'where it breaks'),
        Parameter('f', '1', 'width of the break, in e-folds of n'),
      ),
      min_sizes=8,
      domain='a break inside the sizes; e, b >= 0, c0, c1, d, f > 0',
      source='Caballero et al. 2023 (arXiv 2210.14891), eq. 1 with n = 1',
      grid=_grid(
        np.geomspace(0.02, 1.5, 6),
        np.geomspace(0.02, 2.5, 7),
        np.geomspace(0.15, 6.0, 5),
        np.array([0.1, 0.5]),
      ),
      columns=_break_columns,
      slopes=_break_slopes,
      natural=_break_natural,
      internal=_break_internal,
    ),
  )
}
