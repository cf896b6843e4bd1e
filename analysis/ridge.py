"""The ridge on which exponent and floor of a power law make up for each other."""

from typing import NamedTuple

import numpy as np

from analysis import profile
from analysis.curve import Curve
from analysis.law_fit import LawFit
from analysis.laws import LAWS
from analysis.plateau import LAW, Scaled, scaled
from analysis.prediction import Refusal

COVERAGES = (0.5, 0.9, 0.99)


class Ridge(NamedTuple):
  """How well the exponent and the floor of a power law fit together.

  Attributes:
    law: the fit behind it.
    floors: [F] ascending, as errors.
    exponents: [C] ascending.
    excess: [C, F] least squares given both, above the optimum, in units of the noise
      variance.
    limits: excess at which intervals of either parameter end, by `COVERAGES`.
  """

  law: LawFit
  floors: np.ndarray
  exponents: np.ndarray
  excess: np.ndarray
  limits: tuple[float, ...]


def ridge(fit: Curve) -> Ridge | Refusal:
  """The least squares around each exponent and floor of the power law with floor.

  The amplitude is solved for. The limits are those of profile intervals, so the 90%
  contour spans the intervals of a fit of level 0.9. Outliers weigh as in an ordinary
  fit, also where the fit was robust.

  Returns:
    The ridge over a grid that holds the 99% region as far as the law's bounds allow, or
    why the law was not fitted.
  """
  found = fit.law_alone(LAW)
  if isinstance(found, Refusal):
    return found
  points = scaled(found, fit.evidence)
  limits = [profile.allowed(points.dof, coverage) for coverage in COVERAGES]
  low, high = (float(end[0]) for end in LAWS[LAW].bounds())
  floors = np.linspace(0.0, float(points.y.max()), 241)
  exponents = np.geomspace(low, high, 241)
  best = found.params['e'], found.params['c']
  # The region may be a sliver of the whole: the grid closes in on it until it fills.
  for _ in range(12):
    excess = _excess(points, floors, exponents, best)
    rows, columns = np.nonzero(excess <= 1.5 * limits[-1])
    ends = []
    for axis, at, value in (
      (floors, columns, best[0]),
      (np.log(exponents), rows, np.log(best[1])),
    ):
      step = axis[1] - axis[0]
      inside = np.append(axis[at], value)
      start = max(inside.min() - 2 * step, axis[0])
      ends.append((start, min(inside.max() + 2 * step, axis[-1]), axis[-1] - axis[0]))
    if all(stop - start > 0.7 * span for start, stop, span in ends):
      break
    floors = np.linspace(ends[0][0], ends[0][1], 241)
    exponents = np.exp(np.linspace(ends[1][0], ends[1][1], 241))
  excess = _excess(points, floors, exponents, best)
  return Ridge(found, floors, exponents, excess, tuple(limits))


def _excess(
  points: Scaled,
  floors: np.ndarray,
  exponents: np.ndarray,
  best: tuple[float, float],
) -> np.ndarray:
  """[C, F] least squares over the amplitude, above those at `best` (floor, exponent)."""
  weights = points.weights

  def squares(floors: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    power = np.exp(-exponents[:, None] * np.log(points.x))  # [C, J]
    left = points.y - floors[:, None]  # [F, J]
    amplitude = (weights * power) @ left.T / ((weights * power * power).sum(1)[:, None])
    rest = left - np.maximum(amplitude, 0.0)[..., None] * power[:, None]
    return (rest**2) @ weights

  least = squares(np.array(best[:1]), np.array(best[1:]))[0, 0]
  return squares(floors, exponents) - least
