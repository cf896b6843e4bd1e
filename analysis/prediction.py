"""What fits answer with: a prediction with its bands, or a refusal with its reason."""

import dataclasses
from typing import NamedTuple, TypeVar

import numpy as np

Interval = tuple[float, float]
_Value = TypeVar('_Value', float, np.ndarray)

# Points of a standard normal that stand for the noise of a new run in a prediction
# band: the same for each draw, so bands are smooth in the size and reproducible.
_MIDPOINTS = (np.arange(25) + 0.5) / 25


@dataclasses.dataclass(frozen=True)
class Refusal:
  """A law or a curve that the data cannot carry, and why."""

  law: str
  reason: str


class Prediction(NamedTuple):
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


def as_error(kind: str, values: _Value) -> _Value:
  """Between the unit of the data and errors; its own inverse."""
  return 1 - values if kind == 'accuracy' else values


def as_prediction(
  kind: str,
  value: np.ndarray,
  curve_lo: np.ndarray,
  curve_hi: np.ndarray,
  lo: np.ndarray,
  hi: np.ndarray,
) -> Prediction:
  """Bands of errors [S] in the unit of the data; fractions stay in [0, 1].

  The band of a run holds that of the curve.
  """
  lo, hi = np.minimum(lo, curve_lo), np.maximum(hi, curve_hi)
  if kind == 'accuracy':
    # The lower end of an error is the upper end of its accuracy.
    curve_lo, curve_hi, lo, hi = curve_hi, curve_lo, hi, lo
  bands = [as_error(kind, band) for band in (value, curve_lo, curve_hi, lo, hi)]
  if kind != 'loss':
    bands = [np.clip(band, 0.0, 1.0) for band in bands]
  return Prediction(*bands)


def interval(
  draws: np.ndarray, value: np.ndarray | float, level: float
) -> tuple[np.ndarray, np.ndarray]:
  """Percentile interval over the first axis, widened to hold the estimate itself."""
  tail = (1 - level) / 2
  # Weibull's definition keeps the nominal coverage with a finite number of draws.
  lo, hi = np.quantile(draws, [tail, 1 - tail], axis=0, method='weibull')
  return np.minimum(lo, value), np.maximum(hi, value)


def normal_points() -> np.ndarray:
  """[25] equally likely points of a standard normal, of unit variance."""
  from scipy import special  # its import costs more than a fit

  points = special.ndtri(_MIDPOINTS)
  return points / points.std()
