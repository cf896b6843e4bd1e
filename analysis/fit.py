"""Fits a learning curve with every law, weighs them, and answers for what they say.

    found = fit(sizes, values)            # a Fit, or a Refusal with the reason
    found.predict([100_000]).value        # with both bands
    found.images_for(0.95)                # with an interval; may be "never"

The forecast is that of all laws together (`analysis.ensemble`), each with the say that
its forecasts of larger sizes from smaller ones have earned. The parameters are those of
one law (`analysis.law_fit`), the one with the largest say, in the window of sizes where
it forecast best.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis import ensemble, targets
from analysis import noise as noise_lib
from analysis.law_fit import (
  Interval,
  LawFit,
  Prediction,
  Refusal,
  as_error,
  fit_law,
  normal_points,
  refusal,
)
from analysis.laws import KINDS, LAWS, Kind

MIN_SIZES = 4
# Laws that are always shown with their intervals, beside the one with the largest say:
# the claim of the 2017 study and the field's default.
SHOWN = ('log_linear', 'power_floor')
# Rolling scores of one curve are sums over origins that share their held-out sizes, so
# they count for about half of what as many independent ones would.
_TEMPERATURE = 0.5
# Votes of a band being as wide as it says, against one from each rolling origin.
_SPREAD_PRIOR = 4.0
_HYSTERESIS = 1.5
# A law says more than another only if its score is better by this much; else AICc, which
# sees the fit to all sizes, may decide.
_TIE = 0.1


@dataclasses.dataclass(frozen=True)
class Held:
  """One forecast of a size that was held out, and what was there.

  Attributes:
    origin: largest size seen, in images.
    size: asked for.
    value, lo, hi: what the laws together said.
    observed: the mean of the runs.
  """

  origin: float
  size: float
  value: float
  lo: float
  hi: float
  observed: float


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


@dataclasses.dataclass(frozen=True)
class Fit:
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
    settings: what `fit` was told, for the audit and for `stopped_at`.
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
  settings: Mapping[str, Any] = dataclasses.field(repr=False)
  runs: tuple[np.ndarray, np.ndarray, np.ndarray | None] = dataclasses.field(repr=False)

  @property
  def best(self) -> LawFit:
    """The fit of the law with the largest say."""
    found = self.laws[self.law]
    assert isinstance(found, LawFit)
    return found

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
    sizes = _sizes(sizes)
    value, curve_lo, curve_hi, lo, hi = np.empty((5, len(sizes)))
    # A member says nothing of sizes below its own first one.
    first = [self.points.sizes[draws.member.skip] for draws in self.draws]
    voices = np.searchsorted(np.unique(first), sizes, side='right')
    for voice in np.unique(voices):
      here = voices == voice
      limit = max(float(sizes[here].max()), min(first))
      speaking = [d for d, size in zip(self.draws, first, strict=True) if size <= limit]
      bands = self._bands(speaking, sizes[here])
      for into, band in zip((value, curve_lo, curve_hi, lo, hi), bands, strict=True):
        into[here] = band
    bands = [
      value,
      curve_lo,
      curve_hi,
      np.minimum(lo, curve_lo),
      np.maximum(hi, curve_hi),
    ]
    bands = [value + self.spread * (band - value) for band in bands]
    if self.kind == 'accuracy':
      value, curve_lo, curve_hi, lo, hi = (1 - band for band in bands)
      bands = [value, curve_hi, curve_lo, hi, lo]
    if self.kind != 'loss':
      bands = [np.clip(band, 0.0, 1.0) for band in bands]
    return Prediction(*bands)

  def _bands(
    self, speaking: Sequence[ensemble.Draws], sizes: np.ndarray
  ) -> tuple[np.ndarray, ...]:
    """Median, both ends for the curve, both ends for a run; as errors, [S] each."""
    curves, runs = [], []
    points = normal_points()[:, None]
    found = ensemble.paths(self.data, speaking, sizes)
    for draws, (mean, rest, run) in zip(speaking, found, strict=True):
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
    pair = _sizes([size, 2 * size])
    gains = []
    found = ensemble.paths(self.data, self.draws, pair)
    for draws, (mean, rest, _) in zip(self.draws, found, strict=True):
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

  def compare(
    self, other: 'Fit', sizes: Sequence[float] | np.ndarray | None = None
  ) -> Comparison:
    """Where this curve is better than `other`, and how surely.

    Args:
      other: of the same kind; taken as independent of this one.
      sizes: ascending, in images; default the common range and four times beyond.
    """
    if other.kind != self.kind:
      raise ValueError(
        f'cannot compare a curve of {self.kind} with one of {other.kind}'
      )
    if sizes is None:
      low = max(self.points.sizes[0], other.points.sizes[0])
      high = 4 * max(self.points.sizes[-1], other.points.sizes[-1])
      sizes = np.geomspace(low, high, 60)
    sizes = _sizes(np.asarray(sizes))
    mine, theirs = self._paths(sizes), other._paths(sizes)
    count = 4 * max(len(mine), len(theirs))
    generator = np.random.default_rng(0)
    gap = theirs[generator.integers(len(theirs), size=count)]
    gap = gap - mine[generator.integers(len(mine), size=count)]
    tail = (1 - self.level) / 2
    lo, middle, hi = np.quantile(gap, [tail, 0.5, 1 - tail], axis=0)
    # From where on the first stays better: after the last size where it is not.
    behind = gap <= 0
    last = len(sizes) - 1 - np.argmax(behind[:, ::-1], axis=1)
    start = np.where(behind.any(axis=1), last + 1, 0)
    crossing = np.where(
      start < len(sizes), sizes[np.minimum(start, len(sizes) - 1)], np.inf
    )
    cross_lo, cross, cross_hi = targets.quantile(crossing, [tail, 0.5, 1 - tail])
    probability = (gap > 0).mean(axis=0)
    return Comparison(
      sizes,
      middle,
      lo,
      hi,
      probability,
      cross,
      cross_lo,
      cross_hi,
      targets.crossing_words(cross, cross_lo, cross_hi, sizes, probability),
    )

  def stopped_at(self, largest: float) -> 'Fit | Refusal':
    """The same fit as if no run had more than `largest` images."""
    sizes, values, se = self.runs
    keep = sizes <= largest
    return fit(
      sizes[keep],
      values[keep],
      se=None if se is None else se[keep],
      **self.settings,
    )

  def figure(self, **options):
    """Points, the chosen law, both bands, the other laws faint, as a matplotlib Figure.

    Options are those of `analysis.curve_figures.curve_figure`.
    """
    from analysis.curve_figures import curve_figure

    return curve_figure(self, **options)

  @functools.cached_property
  def _horizon(self) -> tuple[np.ndarray, np.ndarray]:
    """Sizes [S] as far as any question goes, and possible curves [N, S] over them."""
    sizes = targets.horizon(self.points.sizes[0], self.points.sizes[-1])
    return sizes, self._paths(sizes)

  def _paths(self, sizes: np.ndarray) -> np.ndarray:
    """[N, S] possible curves as errors; each follows one law and one discrepancy."""
    curves = []
    measured = np.interp(np.log(sizes), np.log(self.points.sizes), self.data.errors)
    found = ensemble.paths(self.data, self.draws, sizes)
    for draws, (mean, rest, _) in zip(self.draws, found, strict=True):
      spread = np.sqrt(draws.variance[:, None] * np.maximum(np.diag(rest), 0.0))
      # Below a member's first size the data themselves speak.
      below = sizes < self.points.sizes[draws.member.skip]
      mean[:, below] = measured[below]
      spread[:, below] = 0.0
      for point in normal_points()[2::5]:
        curves.append(mean + point * spread)
    return np.concatenate(curves)


def fit(
  sizes: Sequence[float] | np.ndarray,
  values: Sequence[float] | np.ndarray,
  *,
  kind: Kind = 'accuracy',
  se: Sequence[float] | np.ndarray | None = None,
  num_test: float | None = None,
  chance: float | None = None,
  laws: Sequence[str] = tuple(LAWS),
  robust: bool = False,
  draws: int = 200,
  level: float = 0.9,
  rng: int | Sequence[int] = 0,
) -> Fit | Refusal:
  """Fits every law to runs of one curve.

  Args:
    sizes: [N] training images of each run; equal sizes are repeats.
    values: [N] its result: a fraction for 'accuracy' and 'error', any unit for 'loss'.
    kind: what the values are.
    se: [N] standard error of each value, if known.
    num_test: images in the test set, for the binomial variance where nothing else is
      known of the noise.
    chance: value of a guess, for the saturating law, in the unit of the data; None
      fits it.
    laws: keys in `LAWS`.
    robust: weigh outlying sizes down in the laws' own fits.
    draws: behind the intervals.
    level: nominal coverage of the intervals.
    rng: seed of the draws. Give curves that will be compared different seeds, or their
      draws share their noise.

  Returns:
    The fit, or a refusal that says what is missing.

  Raises:
    ValueError: the arguments are not usable data (shapes, ranges, names).
  """
  sizes, values = np.asarray(sizes, float), np.asarray(values, float)
  errors_of = None if se is None else np.asarray(se, float)
  _check(sizes, values, laws, kind, errors_of, num_test, chance, draws, level)
  num_sizes = len(np.unique(sizes))
  if num_sizes < MIN_SIZES:
    noun = 'size' if num_sizes == 1 else 'sizes'
    return Refusal(
      'all',
      f'{num_sizes} distinct {noun}; a curve needs at least {MIN_SIZES}, better 6 over '
      'two decades',
    )
  points = noise_lib.group(sizes, values)
  squares = None
  if errors_of is not None:
    squares = noise_lib.group(sizes, errors_of**2).means
  evidence = noise_lib.known(points, squares, num_test if kind != 'loss' else None)
  data = _data(points, evidence, kind, num_test, chance)
  reasons = {law: refusal(LAWS[law], kind, sizes, values) for law in laws}
  if all(reasons.values()):
    return Refusal('all', '; '.join(dict.fromkeys(map(str, reasons.values()))))
  rolled = ensemble.roll(data, laws)
  weights = _weights(rolled)
  shares = _by_law(rolled, weights)

  def fit_alone(law: str, draws: int) -> LawFit:
    skip = _skip(rolled, weights, law)
    skip = skip if num_sizes - skip >= LAWS[law].min_sizes else 0
    return fit_law(
      law,
      *_drop(points, evidence, skip),
      kind=kind,
      chance=data.chance,
      robust=robust,
      draws=draws,
      level=level,
      generator=np.random.default_rng([*_list(rng), list(LAWS).index(law)]),
    )

  fits: dict[str, LawFit | Refusal] = {
    law: Refusal(law, reason)
    if (reason := reasons[law])
    else fit_alone(law, draws if law in SHOWN else 0)
    for law in laws
  }
  fitted = [law for law in laws if isinstance(fits[law], LawFit)]
  headline = _headline(fitted, shares, fits)
  if draws and headline not in SHOWN:
    fits[headline] = fit_alone(headline, draws)
  held, error, held_sizes, by_law = _rolling(rolled, weights, data, points, kind, level)
  stacked = ensemble.draw(
    rolled, weights, max(draws, 50), np.random.default_rng([*_list(rng), len(laws)])
  )
  best = fits[headline]
  assert isinstance(best, LawFit)
  scores = {
    law: float(
      max(s for m, s in zip(rolled.members, rolled.scores, strict=True) if m.law == law)
      / max(len(rolled.origins), 1)
    )
    for law in shares
  }
  return Fit(
    kind=kind,
    level=level,
    law=headline,
    laws=fits,
    weights=shares,
    scores=scores,
    window=best.window,
    points=points,
    num_points=len(values),
    flags=_curve_flags(points, evidence, kind) + _own_flags(points, best.flags),
    held=held,
    rolling_error=error,
    rolling_sizes=held_sizes,
    rolling_errors=by_law,
    evidence=evidence,
    spread=_spread(held),
    data=data,
    draws=stacked,
    settings={
      'kind': kind,
      'num_test': num_test,
      'chance': chance,
      'laws': tuple(laws),
      'robust': robust,
      'draws': draws,
      'level': level,
      'rng': tuple(_list(rng)),
    },
    runs=(sizes, values, errors_of),
  )


def _sizes(sizes: Sequence[float] | np.ndarray | float) -> np.ndarray:
  sizes = np.atleast_1d(np.asarray(sizes, float))
  if not (np.isfinite(sizes).all() and (sizes > 0).all()):
    raise ValueError('sizes must be finite and positive numbers of images')
  return sizes


def _list(rng: int | Sequence[int]) -> list[int]:
  return [int(rng)] if isinstance(rng, int | np.integer) else [int(r) for r in rng]


def _data(
  points: noise_lib.Points,
  evidence: noise_lib.Known,
  kind: str,
  num_test: float | None,
  chance: float | None,
) -> ensemble.Data:
  errors = as_error(kind, points.means)
  smallest = 1e-6 * float(np.abs(errors).max()) + 1e-300
  if kind != 'loss':
    smallest = 0.5 / num_test if num_test else 5e-4
  return ensemble.Data(
    points.sizes,
    errors,
    # Rows that share a test set scatter less than its binomial variance, and rows that
    # are means less still, so there the scatter itself has the word.
    evidence.means if evidence.means.all() and evidence.source != 'test set' else None,
    evidence.dof,
    (evidence.v0, evidence.v1),
    smallest,
    kind != 'loss',
    None if chance is None else float(as_error(kind, np.float64(chance))),
  )


def _weights(rolled: ensemble.Rolled) -> np.ndarray:
  scores = _TEMPERATURE * rolled.scores
  weights = np.exp(scores - scores.max())
  return weights / weights.sum()


def _by_law(rolled: ensemble.Rolled, weights: np.ndarray) -> dict[str, float]:
  shares: dict[str, float] = {}
  for member, weight in zip(rolled.members, weights, strict=True):
    shares[member.law] = shares.get(member.law, 0.0) + float(weight)
  return shares


def _skip(rolled: ensemble.Rolled, weights: np.ndarray, law: str) -> int:
  """How many small sizes to leave out: the window in which the law forecast best."""
  share: dict[int, float] = {0: 0.0}
  for member, weight in zip(rolled.members, weights, strict=True):
    if member.law == law:
      share[member.skip] = share.get(member.skip, 0.0) + float(weight)
  # All sizes unless fewer did clearly better: one more run should not move the window.
  return max(share, key=lambda skip: share[skip] * (1.0 if skip else _HYSTERESIS))


def _drop(
  points: noise_lib.Points, evidence: noise_lib.Known, skip: int
) -> tuple[noise_lib.Points, noise_lib.Known]:
  kept = noise_lib.Points(
    points.sizes[skip:],
    points.means[skip:],
    points.counts[skip:],
    points.variances[skip:],
  )
  return kept, dataclasses.replace(evidence, means=evidence.means[skip:])


def _headline(
  fitted: list[str],
  shares: Mapping[str, float],
  fits: Mapping[str, LawFit | Refusal],
) -> str:
  """The law with the largest say; among near equals the one of lower AICc."""
  top = max(shares.get(law, 0.0) for law in fitted)
  near = [law for law in fitted if shares.get(law, 0.0) >= (1 - _TIE) * top]

  def order(law: str) -> tuple[float, float]:
    found = fits[law]
    assert isinstance(found, LawFit)
    return found.aicc, -shares.get(law, 0.0)

  return min(near, key=order)


def _rolling(
  rolled: ensemble.Rolled,
  weights: np.ndarray,
  data: ensemble.Data,
  points: noise_lib.Points,
  kind: str,
  level: float,
) -> tuple[tuple[Held, ...], float | None, int, dict[str, float]]:
  """Held-out forecasts; the miss of the largest sizes, in all and by law."""
  from scipy.special import stdtrit

  tail = (1 - level) / 2
  shares = (np.arange(21) + 0.5) / 21
  held: list[Held] = []
  for origin, sizes, mean, deviation, dof in zip(
    rolled.origins,
    rolled.targets,
    rolled.means,
    rolled.deviations,
    rolled.dof,
    strict=True,
  ):
    heavy = weights > 1e-3 * weights.max()
    t = stdtrit(dof[heavy][:, None], shares)  # [M, 21]
    values = mean[heavy][:, None] + deviation[heavy][:, None] * t[..., None]
    weight = np.repeat(weights[heavy] / len(shares), len(shares))
    flat = values.reshape(-1, len(sizes))
    for index, size in enumerate(sizes):
      order = np.argsort(flat[:, index])
      edges = np.cumsum(weight[order])
      ends = np.searchsorted(edges / edges[-1], [tail, 0.5, 1 - tail])
      found = flat[order[np.minimum(ends, len(order) - 1)], index]
      if data.bounded:
        found = np.clip(found, 0.0, 1.0)
      lo, value, hi = np.sort(as_error(kind, found))
      observed = float(points.means[origin + index])
      held.append(
        Held(float(data.sizes[origin - 1]), float(size), value, lo, hi, observed)
      )
  count = 2 if len(data.sizes) >= 6 else 1
  origin = len(data.sizes) - count
  if origin not in rolled.origins:
    return tuple(held), None, 0, {}
  seen = float(data.sizes[origin - 1])
  misses = [abs(h.value - h.observed) for h in held if h.origin == seen]
  mean = rolled.means[rolled.origins.index(origin)]
  by_law = {}
  for law in dict.fromkeys(member.law for member in rolled.members):
    mine = np.array([member.law == law for member in rolled.members])
    weight = weights[mine] + 1e-300
    value = weight @ mean[mine] / weight.sum()
    by_law[law] = float(np.abs(value - data.errors[origin:]).mean())
  return tuple(held), float(np.mean(misses)), count, by_law


def _spread(held: tuple[Held, ...]) -> float:
  """How wide the bands should have been to hold the held-out sizes, as a factor.

  The root of the mean squared miss in units of the band's own deviation, one vote an
  origin (its sizes share their error), held towards 1 by `_SPREAD_PRIOR` votes. Good forecasts narrow them little:
  real curves bend where they have not bent before.
  """
  votes: dict[float, list[float]] = {}
  for one in held:
    end = one.hi if one.observed > one.value else one.lo
    half = max(abs(end - one.value), 1e-12)
    # 1.645 deviations of a normal are half a 90% band; far outliers count as 3 bands.
    votes.setdefault(one.origin, []).append(
      min(1.645 * abs(one.observed - one.value) / half, 5.0) ** 2
    )
  means = [float(np.mean(vote)) for vote in votes.values()]
  square = (_SPREAD_PRIOR + sum(means)) / (_SPREAD_PRIOR + len(means))
  return float(np.clip(np.sqrt(square), 0.85, 2.0))


def _curve_flags(
  points: noise_lib.Points, evidence: noise_lib.Known, kind: str
) -> tuple[str, ...]:
  """Rises that the noise does not explain: the laws are monotone, the data need not."""
  errors = as_error(kind, points.means)
  lowest = np.minimum.accumulate(errors)
  deviation = np.sqrt(evidence.means)
  if not evidence.means.all():
    # Second differences of a smooth curve are small, so theirs is mostly noise.
    bend = errors[2:] - 2 * errors[1:-1] + errors[:-2]
    deviation = np.full(len(errors), np.median(np.abs(bend)) / 0.6745 / np.sqrt(6))
  rise = errors - lowest
  limit = 3 * np.sqrt(2) * deviation + 0.02 * np.ptp(errors)
  if not (rise > limit).any():
    return ()
  peak = int(np.argmax(rise))
  later = errors[peak:].min()
  return (
    ('double descent',) if later < lowest[peak] - limit[peak] else ('not monotone',)
  )


def _own_flags(points: noise_lib.Points, flags: tuple[str, ...]) -> tuple[str, ...]:
  """Those of the law that hold for the whole curve; its window may be narrower."""
  decade = points.sizes[-1] >= 10 * points.sizes[0]
  return tuple(f for f in flags if not (decade and f == 'less than one decade'))


def _check(
  sizes: np.ndarray,
  values: np.ndarray,
  laws: Sequence[str],
  kind: str,
  se: np.ndarray | None,
  num_test: float | None,
  chance: float | None,
  draws: int,
  level: float,
) -> None:
  for law in laws:
    if law not in LAWS:
      raise ValueError(f'law={law!r} is not one of {", ".join(LAWS)}')
  if not laws:
    raise ValueError(f'no law to fit; choose of {", ".join(LAWS)}')
  if kind not in KINDS:
    raise ValueError(f'kind={kind!r} is not one of {", ".join(KINDS)}')
  if sizes.ndim != 1 or sizes.shape != values.shape:
    raise ValueError(
      f'sizes and values must be two equally long lists, not of shape {sizes.shape} '
      f'and {values.shape}'
    )
  if se is not None and se.shape != sizes.shape:
    raise ValueError(f'{se.size} standard errors for {len(sizes)} sizes')
  if se is not None and not (np.isfinite(se).all() and (se >= 0).all()):
    raise ValueError('standard errors must be finite and not negative')
  if not (np.isfinite(sizes).all() and (sizes > 0).all()):
    raise ValueError('sizes must be finite and positive')
  if not np.isfinite(values).all():
    raise ValueError('values must be finite; leave out the runs that failed')
  if kind == 'loss' and (values <= 0).any():
    raise ValueError('a loss must be above 0')
  if kind != 'loss' and len(values) and not (0 <= values.min() <= values.max() <= 1):
    raise ValueError(
      f'{kind} must lie in [0, 1], not {values.min():g} to {values.max():g}; '
      'divide a percentage by 100'
    )
  if chance is not None and kind != 'loss' and not 0 <= chance <= 1:
    raise ValueError(f'chance={chance:g} is no {kind} in [0, 1]')
  if num_test is not None and not 0 < num_test < np.inf:
    raise ValueError(f'num_test={num_test:g} is no number of test images')
  if draws and draws < 50:
    raise ValueError(f'draws={draws} is too few for an interval; use 50 or more, or 0')
  if not 0 < level < 1:
    raise ValueError(f'level={level:g} must lie between 0 and 1, such as 0.9')
