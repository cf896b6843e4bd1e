"""A fitted learning curve: what all laws together say of any size, and why.

The forecast is that of all laws together (`analysis.ensemble`), each with the say that
its forecasts of larger sizes from smaller ones have earned. The parameters are those of
one law (`analysis.law_fit`), the one with the largest say, in the window of sizes where
it forecast best.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from analysis import ensemble, targets
from analysis import noise as noise_lib
from analysis.law_fit import LawFit
from analysis.laws import Kind
from analysis.prediction import (
  Interval,
  Prediction,
  Refusal,
  as_error,
  as_prediction,
  normal_points,
)
from analysis.rolling import Held


@dataclasses.dataclass(frozen=True)
class Curve:
  """A fitted curve. Values and gains are in the unit of the data: 0.01 is one point.

  Attributes:
    kind: what the values are; tells which direction is better.
    level: nominal coverage of every interval.
    law: the law with the largest say.
    laws: every law tried, fitted alone in the window where it forecast best.
    weights: each law's say in the forecast; they add to 1.
    scores: each law's rolling-origin score, mean log density per origin.
    window: of `law`: smallest and largest size used, in images.
    points: the data, by size.
    num_points: runs.
    flags: what limits the use of the numbers, in words.
    held: the forecasts of held-out sizes, by origin.
    rolling_error: mean absolute miss of the largest held-out sizes, None if too few.
    rolling_sizes: how many sizes that were.
    rolling_errors: the same by law.
    evidence: what is known of the noise.
    spread: factor on the width of the bands, from how the rolling forecasts did.
    data: the curve as errors.
    draws: of the stack, by member.
    runs: sizes, values and standard errors as given.
  """

  kind: Kind
  level: float
  law: str
  laws: Mapping[str, LawFit | Refusal]
  weights: Mapping[str, float]
  scores: Mapping[str, float]
  window: tuple[float, float]
  points: noise_lib.Points
  num_points: int
  flags: tuple[str, ...]
  held: tuple[Held, ...]
  rolling_error: float | None
  rolling_sizes: int
  rolling_errors: Mapping[str, float]
  evidence: noise_lib.Known
  spread: float
  data: ensemble.Data = dataclasses.field(repr=False)
  draws: tuple[ensemble.Draws, ...] = dataclasses.field(repr=False)
  runs: tuple[np.ndarray, np.ndarray, np.ndarray | None] = dataclasses.field(repr=False)

  @property
  def best(self) -> LawFit:
    """The fit of the law with the largest say."""
    found = self.laws[self.law]
    assert isinstance(found, LawFit)
    return found

  def law_alone(self, law: str) -> LawFit | Refusal:
    """The fit of one law by itself, or why there is none."""
    return self.laws.get(law, Refusal(law, f'the fit was told to leave out {law}'))

  @property
  def params(self) -> dict[str, float]:
    """Parameters of `law`, natural units, full precision."""
    return self.best.params

  @property
  def intervals(self) -> dict[str, Interval]:
    """Intervals of `params`."""
    return self.best.intervals

  @property
  def num_sizes(self) -> int:
    """Distinct sizes."""
    return len(self.points.sizes)

  @functools.cached_property
  def follows(self) -> float:
    """The size from which on the curve follows the measured means, in images.

    Laws are weighed by what they say of large sizes. Where small ones are another
    regime, such as near chance, the curve passes them by, and is not drawn there.
    """
    sizes, means = self.points.sizes, self.points.means
    deviation = np.sqrt(self.evidence.means)
    if not self.evidence.means.all():
      deviation = np.full(len(sizes), self.best.residual_sd)
    miss = np.abs(self.predict(sizes).value - means)
    off = np.flatnonzero(miss > 3 * deviation + 0.03 * np.ptp(means))
    start = int(off[-1]) + 1 if len(off) else 0
    return float(sizes[min(start, len(sizes) - 2)])

  def predict(self, sizes: Sequence[float] | np.ndarray | float) -> Prediction:
    """The curve with both bands at sizes [S] (images); fractions stay in [0, 1]."""
    sizes = positive_sizes(sizes)
    bands = np.empty((5, len(sizes)))
    # A member says nothing of sizes below its own first one.
    first = [self.points.sizes[draws.member.skip] for draws in self.draws]
    voices = np.searchsorted(np.unique(first), sizes, side='right')
    for voice in np.unique(voices):
      here = voices == voice
      limit = max(float(sizes[here].max()), min(first))
      speaking = [d for d, size in zip(self.draws, first, strict=True) if size <= limit]
      bands[:, here] = self._bands(speaking, sizes[here])
    return as_prediction(self.kind, *(bands[0] + self.spread * (bands - bands[0])))

  def _bands(
    self, speaking: Sequence[ensemble.Draws], sizes: np.ndarray
  ) -> tuple[np.ndarray, ...]:
    """Median, both ends for the curve, both ends for a run; as errors, [S] each."""
    curves, runs = [], []
    points = normal_points()[:, None]
    paths = ensemble.paths(self.data, speaking, sizes)
    for draws, (mean, rest, run) in zip(speaking, paths, strict=True):
      scale = draws.variance[:, None]
      own = np.maximum(np.diag(rest), 0.0)
      for into, variance in ((curves, own), (runs, own + run)):
        spread = np.sqrt(scale * variance)[:, None] * points
        into.append((mean[:, None] + spread).reshape(-1, len(sizes)))
    tail = (1 - self.level) / 2
    shares = [tail, 0.5, 1 - tail]
    curve_lo, value, curve_hi = np.quantile(np.concatenate(curves), shares, axis=0)
    lo, hi = np.quantile(np.concatenate(runs), [tail, 1 - tail], axis=0)
    return value, curve_lo, curve_hi, lo, hi

  def curve(self, sizes: Sequence[float] | np.ndarray | float) -> np.ndarray:
    """The curve at sizes [S]: the median of what the laws say."""
    return self.predict(sizes).value

  def gain_per_doubling(self, size: float) -> tuple[float, float, float]:
    """What going from `size` to twice `size` images buys; positive is better.

    Returns:
      Value, lower and upper end of its interval, in the unit of the data.
    """
    pair = positive_sizes([size, 2 * size])
    gains = []
    paths = ensemble.paths(self.data, self.draws, pair)
    for draws, (mean, rest, _) in zip(self.draws, paths, strict=True):
      variance = max(rest[0, 0] + rest[1, 1] - 2 * rest[0, 1], 0.0)
      spread = np.sqrt(draws.variance * variance)[:, None] * normal_points()
      gains.append((mean[:, :1] - mean[:, 1:] + spread).ravel())
    tail = (1 - self.level) / 2
    lo, value, hi = np.quantile(np.concatenate(gains), [tail, 0.5, 1 - tail])
    lo, hi = (value + self.spread * (end - value) for end in (lo, hi))
    return float(value), float(lo), float(hi)

  def images_for(self, target: float) -> targets.Target:
    """How many images the curve needs to reach `target`, in the unit of the data.

    Raises:
      ValueError: a fraction outside [0, 1].
    """
    if not np.isfinite(target) or (self.kind != 'loss' and not 0 <= target <= 1):
      raise ValueError(
        f'target={target:g} is no {self.kind}; it lies in [0, 1] '
        '(divide a percentage by 100)'
      )
    sizes, paths = self._horizon
    needed = targets.first_at_or_below(paths, sizes, as_error(self.kind, target))
    tail = (1 - self.level) / 2
    lo, size, hi = targets.quantile(needed, [tail, 0.5, 1 - tail])
    limits = as_error(self.kind, np.quantile(paths[:, -1], [tail, 0.5, 1 - tail]))
    if self.kind != 'loss':
      limits = np.clip(limits, 0.0, 1.0)
    limit_lo, limit, limit_hi = np.sort(limits)
    return targets.answer(
      target,
      (size, lo, hi),
      float(np.isfinite(needed).mean()),
      (float(limit), float(limit_lo), float(limit_hi)),
      self.kind,
      self.level,
    )

  @functools.cached_property
  def _horizon(self) -> tuple[np.ndarray, np.ndarray]:
    """Sizes [S] as far as any question goes, and possible curves [N, S] over them."""
    sizes = targets.horizon(self.points.sizes[0], self.points.sizes[-1])
    return sizes, self.paths(sizes)

  def paths(self, sizes: np.ndarray) -> np.ndarray:
    """[N, S] possible curves as errors; each follows one law and one discrepancy."""
    found = []
    measured = np.interp(np.log(sizes), np.log(self.points.sizes), self.data.errors)
    paths = ensemble.paths(self.data, self.draws, sizes)
    for draws, (mean, rest, _) in zip(self.draws, paths, strict=True):
      spread = np.sqrt(draws.variance[:, None] * np.maximum(np.diag(rest), 0.0))
      # Below a member's first size the data themselves speak.
      below = sizes < self.points.sizes[draws.member.skip]
      mean[:, below] = measured[below]
      spread[:, below] = 0.0
      for point in normal_points()[2::5]:
        found.append(mean + point * spread)
    curves = np.concatenate(found)
    # As wide as the bands of `predict`, but never narrower than they were drawn: the
    # spread is known for bands, and not for where curves cross.
    middle = np.median(curves, axis=0)
    return middle + max(self.spread, 1.0) * (curves - middle)


def positive_sizes(sizes: Sequence[float] | np.ndarray | float) -> np.ndarray:
  """Sizes [S] as an array.

  Raises:
    ValueError: a size that is no finite positive number.
  """
  sizes = np.atleast_1d(np.asarray(sizes, float))
  if not (np.isfinite(sizes).all() and (sizes > 0).all()):
    raise ValueError('sizes must be finite and positive numbers of images')
  return sizes
