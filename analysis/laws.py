"""The laws a learning curve may follow, one entry each.

Every law here is `first + second * column(x, shape)`: linear in two coefficients once
its shape parameter is given, so that the fitter (`analysis.solve`) can scan the shape
and solve the rest exactly (variable projection). A law says what it needs for that and
how its coefficients, found in scaled sizes x = n / scale, read in natural units; a new
law is a new entry of `LAWS`, not a new fitter.
"""

import dataclasses
from collections.abc import Callable

import numpy as np


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
  """A law: its words, its curve, and what variable projection needs.

  Attributes:
    name: key in `LAWS`.
    title: name in tables and figures.
    formula: plain text, in natural units.
    models_error: whether an accuracy is turned into 1 - accuracy before fitting.
    parameters: in the order of every parameter array.
    min_sizes: fewest distinct sizes that leave a degree of freedom for an interval.
    domain: where the law can hold.
    source: who proposed it.
    shapes: [G] grid of the shape parameter, or one dummy value for a linear law. Its
      ends are the bounds.
    column: (x [..., J], shape [...]) -> [..., J], the column of the second coefficient;
      None when there is only the first.
    nonnegative: whether both coefficients are bounded below by zero.
    natural: (first [...], second [...], shape [...], scale) -> [..., P] parameters.
    curve: (sizes [S], parameters [..., P]) -> [..., S].
  """

  name: str
  title: str
  formula: str
  models_error: bool
  parameters: tuple[Parameter, ...]
  min_sizes: int
  domain: str
  source: str
  shapes: np.ndarray
  column: Callable[[np.ndarray, np.ndarray], np.ndarray] | None
  nonnegative: bool
  natural: Callable[[np.ndarray, np.ndarray, np.ndarray, float], np.ndarray]
  curve: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _constant_natural(
  first: np.ndarray, second: np.ndarray, shape: np.ndarray, scale: float
) -> np.ndarray:
  del second, shape, scale
  return np.stack([first], axis=-1)


def _constant_curve(sizes: np.ndarray, parameters: np.ndarray) -> np.ndarray:
  return parameters[..., :1] + np.zeros(len(sizes))


def _log_column(x: np.ndarray, shape: np.ndarray) -> np.ndarray:
  return np.log10(x) + np.zeros_like(shape)[..., None]


def _log_natural(
  first: np.ndarray, second: np.ndarray, shape: np.ndarray, scale: float
) -> np.ndarray:
  del shape
  return np.stack([first - second * np.log10(scale), second], axis=-1)


def _log_curve(sizes: np.ndarray, parameters: np.ndarray) -> np.ndarray:
  return parameters[..., :1] + parameters[..., 1:2] * np.log10(sizes)


def _power_column(x: np.ndarray, shape: np.ndarray) -> np.ndarray:
  return x ** -shape[..., None]


def _power_natural(
  first: np.ndarray, second: np.ndarray, shape: np.ndarray, scale: float
) -> np.ndarray:
  return np.stack([first, second * scale**shape, shape], axis=-1)


def _power_curve(sizes: np.ndarray, parameters: np.ndarray) -> np.ndarray:
  e, b, c = (parameters[..., i : i + 1] for i in range(3))
  return e + b * sizes**-c


_LINEAR = np.zeros(1)

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
      shapes=_LINEAR,
      column=None,
      nonnegative=False,
      natural=_constant_natural,
      curve=_constant_curve,
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
      shapes=_LINEAR,
      column=_log_column,
      nonnegative=False,
      natural=_log_natural,
      curve=_log_curve,
    ),
    Law(
      name='power_floor',
      title='power law + floor',
      formula='error = e + b n^-c',
      models_error=True,
      parameters=(
        Parameter('e', 'error', 'error with unlimited data'),
        Parameter('b', 'error', 'reducible error at one image'),
        Parameter('c', '1', 'exponent'),
      ),
      min_sizes=4,
      domain='past the chance plateau of the smallest sizes; e >= 0, b >= 0, c > 0',
      source='Hestness et al. 2017 (arXiv 1712.00409); Hoiem et al. 2021 (2010.11029)',
      # Published exponents of vision errors lie in 0.05 to 1; outside these ends the
      # curve cannot be told from a logarithm (below) or from a step (above).
      shapes=np.geomspace(0.01, 3.0, 160),
      column=_power_column,
      nonnegative=True,
      natural=_power_natural,
      curve=_power_curve,
    ),
  )
}
