"""Two fitted curves: where one is better than the other, and how surely."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from analysis import targets, words
from analysis.curve import Curve, positive_sizes


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Two curves at some sizes.

  Attributes:
    sizes: [S] images.
    difference, lo, hi: [S] of the first less the second, positive if the first is
      better, in the unit of the data.
    probability: [S] that the first is better.
    crossing, crossing_lo, crossing_hi: from how many images on the first is better, up
      to the largest of `sizes`; inf where it is not.
    words: in a sentence.
  """

  sizes: np.ndarray
  difference: np.ndarray
  lo: np.ndarray
  hi: np.ndarray
  probability: np.ndarray
  crossing: float
  crossing_lo: float
  crossing_hi: float
  words: str


def compare(
  first: Curve, second: Curve, sizes: Sequence[float] | np.ndarray | None = None
) -> Comparison:
  """Where the first curve is better than the second, and how surely.

  Args:
    first, second: of the same kind; taken as independent of each other.
    sizes: ascending, in images; default the common range and four times beyond.

  Raises:
    ValueError: curves of different kinds.
  """
  if second.kind != first.kind:
    raise ValueError(
      f'cannot compare a curve of {first.kind} with one of {second.kind}'
    )
  if sizes is None:
    low = max(first.points.sizes[0], second.points.sizes[0])
    high = 4 * max(first.points.sizes[-1], second.points.sizes[-1])
    sizes = np.geomspace(low, high, 60)
  sizes = positive_sizes(np.asarray(sizes))
  mine, theirs = first.paths(sizes), second.paths(sizes)
  count = 4 * max(len(mine), len(theirs))
  generator = np.random.default_rng(0)
  gap = theirs[generator.integers(len(theirs), size=count)]
  gap = gap - mine[generator.integers(len(mine), size=count)]
  tail = (1 - first.level) / 2
  shares = [tail, 0.5, 1 - tail]
  lo, middle, hi = np.quantile(gap, shares, axis=0)
  # From where on the first stays better: after the last size where it is not.
  behind = gap <= 0
  last = len(sizes) - 1 - np.argmax(behind[:, ::-1], axis=1)
  start = np.where(behind.any(axis=1), last + 1, 0)
  crossings = np.append(sizes, np.inf)[start]
  cross_lo, crossing, cross_hi = targets.quantile(crossings, shares)
  probability = (gap > 0).mean(axis=0)
  text = _words(crossing, cross_lo, cross_hi, sizes, probability)
  return Comparison(
    sizes, middle, lo, hi, probability, crossing, cross_lo, cross_hi, text
  )


def _words(
  crossing: float, lo: float, hi: float, sizes: np.ndarray, probability: np.ndarray
) -> str:
  last = f'at {words.images(sizes[-1])} images it is better with probability'
  end = f'{last} {probability[-1]:.0%}'
  if np.isinf(crossing):
    return f'no size up to {words.images(sizes[-1])} images makes it better; {end}'
  if crossing == sizes[0]:
    return f'better from the smallest size on; {end}'
  ends = f'{words.needed(lo)} to {words.needed(hi)}'
  return f'better from {words.needed(crossing)} images on ({ends}); {end}'
