"""What near-duplicates among the test images do to an accuracy."""

import statistics
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis import words

FEWEST = 10  # duplicates of which an accuracy says anything
_DRAWS = 10_000
_LEVEL = 0.9
# What others found, to stand beside: sets, overlap, and accuracy before and after.
PUBLISHED = (
  (
    'ImageNet validation, in JFT-300M',
    '10%',
    'no significant change',
    'Sun 2017, talk',
  ),
  ('PASCAL VOC test, in JFT-300M', '4%', 'no significant change', 'Sun 2017, talk'),
  ('ImageNet validation, in its training part', '1.8%', '', 'Sun 2017, talk'),
  ('CIFAR-10 test, in JFT-300M', '435 of 10,000', '99.4 to 99.3%', 'BiT, table 7'),
  ('CIFAR-10 test, in CIFAR-10', '3.3%', '', 'ciFAIR, 2019'),
)


class Share(NamedTuple):
  """A share of images with its interval.

  Attributes:
    hits: images.
    num: of how many.
    lo: lower end of the 90% interval.
    hi: upper end.
  """

  hits: int
  num: int
  lo: float
  hi: float

  @property
  def value(self) -> float:
    """The share; not a number of none."""
    return self.hits / self.num if self.num else float('nan')


@dataclass(frozen=True)
class Effect:
  """Accuracy with and without the duplicated test images.

  Attributes:
    whole: accuracy on all images.
    clean: on those without a duplicate.
    duplicated: on those with one.
    change: clean minus whole.
    lo: lower end of its 90% interval.
    hi: upper end.
    verdict: 'no significant change', 'changes by ...' or 'cannot say: ...'.
  """

  whole: Share
  clean: Share
  duplicated: Share
  change: float
  lo: float
  hi: float
  verdict: str


def share(hits: int, num: int) -> Share:
  """Returns a share with its Wilson interval, which also holds near 0 and 1.

  Args:
    hits: images.
    num: of how many; of none nothing is known.
  """
  if not num:
    return Share(hits, num, 0.0, 1.0)
  z = statistics.NormalDist().inv_cdf((1 + _LEVEL) / 2)
  rate, scale = hits / num, 1 + z**2 / num
  centre = (rate + z**2 / (2 * num)) / scale
  half = z / scale * (rate * (1 - rate) / num + z**2 / (4 * num**2)) ** 0.5
  lo = 0.0 if hits == 0 else centre - half
  hi = 1.0 if hits == num else centre + half
  return Share(hits, num, lo, hi)


def effect(
  correct: NDArray[np.bool_],
  duplicated: NDArray[np.bool_],
  margin: float = 0.005,
  seed: int = 0,
) -> Effect:
  """Returns what leaving out the duplicated test images does to the accuracy.

  The interval of the change is a bootstrap over test images: both accuracies are taken
  of the same resampled images, which they share, so it is much narrower than theirs.

  Args:
    correct: `[N]`, whether each test image was classified correctly.
    duplicated: `[N]`, whether it has a near-duplicate among the training images.
    margin: half a width of the interval, beyond which it is no evidence of no change.
    seed: of the bootstrap.

  Raises:
    ValueError: for arrays of different or no length, or not of booleans.
  """
  correct, duplicated = np.asarray(correct), np.asarray(duplicated)
  if correct.shape != duplicated.shape or correct.ndim != 1 or not correct.size:
    raise ValueError(
      f'correct {correct.shape} and duplicated {duplicated.shape} are not of one length'
    )
  if correct.dtype != bool or duplicated.dtype != bool:
    raise ValueError('correct and duplicated must be boolean')
  # Images with a duplicate or without, right or wrong.
  cells = np.bincount(2 * duplicated + correct, minlength=4)
  wrong, right, copied_wrong, copied_right = cells.tolist()
  whole = share(right + copied_right, len(correct))
  clean = share(right, wrong + right)
  copied = share(copied_right, copied_wrong + copied_right)
  if not clean.num or copied.num < FEWEST:
    few = 'no image is without a duplicate'
    if clean.num:
      few = f'{copied.num} duplicated images are too few, of {FEWEST} at least'
    nan = float('nan')
    change = clean.value - whole.value
    return Effect(whole, clean, copied, change, nan, nan, f'cannot say: {few}')
  change, lo, hi = change_of_mean(correct, duplicated, seed)
  span = words.interval(lo, hi, 'accuracy', signed=True)
  if lo > 0 or hi < 0:
    verdict = f'changes by {words.gain(change, "accuracy")} points ({span})'
  elif (hi - lo) / 2 > margin:
    verdict = f'cannot say: {span} points is wider than ±{100 * margin:g}'
  else:
    verdict = 'no significant change'
  return Effect(whole, clean, copied, change, lo, hi, verdict)


def change_of_mean(
  values: NDArray[Any], duplicated: NDArray[np.bool_], seed: int = 0
) -> tuple[float, float, float]:
  """Returns what leaving out duplicated images does to a mean, and its 90% interval.

  A bootstrap over images: both means are taken of the same resampled ones.

  Args:
    values: `[N]` of the images, of few different values: right or wrong, or how much
      more often right.
    duplicated: `[N]`.
    seed: of the bootstrap.
  """
  # All there is to resample is how often each value comes with and without a duplicate.
  kinds, counts = np.unique(
    np.stack([np.asarray(values, float), duplicated]), axis=1, return_counts=True
  )
  draws = np.random.default_rng(seed).multinomial(
    len(values), counts / len(values), _DRAWS
  )
  rows = np.concatenate([counts[None], draws])  # the images themselves, then the draws
  clean = rows * (kinds[1] == 0)
  changes = clean @ kinds[0] / np.maximum(clean.sum(1), 1)
  changes -= rows @ kinds[0] / len(values)
  lo, hi = np.quantile(changes[1:], [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]).tolist()
  return float(changes[0]), lo, hi
