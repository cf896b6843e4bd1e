"""From paths of possible curves to the images that a target needs."""

import dataclasses

import numpy as np

from analysis import words

# A million times the data is as good as never.
REACH = 1e6


@dataclasses.dataclass(frozen=True)
class Target:
  """Images needed for a target.

  Attributes:
    target: in the unit of the data.
    size: median number of images; inf if more likely never than ever.
    lo, hi: interval; inf is allowed.
    probability: of ever getting there, that is within a million times the largest size
      measured.
    limit, limit_lo, limit_hi: the value at that size, with its interval: what the curve
      ends at, as far as the data can tell.
    level: nominal coverage.
    words: the answer as a sentence.
  """

  target: float
  size: float
  lo: float
  hi: float
  probability: float
  limit: float
  limit_lo: float
  limit_hi: float
  level: float
  words: str


def horizon(smallest: float, largest: float) -> np.ndarray:
  """[S] sizes from the smallest to a million times the largest."""
  steps = int(np.ceil(40 * np.log10(REACH * largest / smallest))) + 1
  return np.geomspace(smallest, REACH * largest, steps)


def first_at_or_below(
  errors: np.ndarray, sizes: np.ndarray, target: float
) -> np.ndarray:
  """Size at which each path [N, S] first is at or below `target`; inf if never. [N]"""
  below = errors <= target
  index = np.argmax(below, axis=1)
  found = sizes[index].astype(float)
  inside = index > 0
  rows = np.flatnonzero(inside)
  right = index[rows]
  high, low = errors[rows, right - 1], errors[rows, right]
  # Linear in log size between two grid points, 6% apart.
  share = (high - target) / np.maximum(high - low, 1e-300)
  found[rows] = sizes[right - 1] * (sizes[right] / sizes[right - 1]) ** share
  return np.where(below.any(axis=1), found, np.inf)


def quantile(values: np.ndarray, shares: list[float]) -> list[float]:
  """Quantiles of values that may be inf, without interpolating into infinity."""
  ordered = np.sort(values)
  places = [min(int(share * len(ordered)), len(ordered) - 1) for share in shares]
  return [float(ordered[place]) for place in places]


def answer(
  target: float,
  sizes: tuple[float, float, float],
  probability: float,
  limits: tuple[float, float, float],
  kind: str,
  level: float,
) -> Target:
  """Puts the quantiles (median, lo, hi) of the images needed, and the limit, in words."""
  size, lo, hi = sizes
  limit, limit_lo, limit_hi = limits
  goal = f'{kind} {words.score(target, kind)}'
  tail = (1 - level) / 2
  if probability <= tail:
    end = limit_hi if kind == 'accuracy' else limit_lo
    side = 'upper' if kind == 'accuracy' else 'lower'
    text = (
      f'{goal} is not reachable: the {side} bound of where the curve ends is '
      f'{words.score(end, kind)}'
    )
  else:
    ends = f'{words.needed(lo)} to {words.needed(hi)}'
    text = f'{goal} needs {words.needed(size)} images ({ends})'
    if probability < 1 - tail:
      text += f'; it is reached with probability {probability:.0%}'
  return Target(
    target, size, lo, hi, probability, limit, limit_lo, limit_hi, level, text
  )
