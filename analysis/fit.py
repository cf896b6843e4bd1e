"""Fits a learning curve with every law and weighs them.

    found = fit(sizes, values)            # a Fit, or a Refusal with the reason
    found.predict([100_000]).value        # with both bands
    found.images_for(0.95)                # with an interval; may be "never"

What a fitted curve says is in `analysis.curve`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis import comparison, ensemble, rolling
from analysis import noise as noise_lib
from analysis.curve import Curve
from analysis.law_fit import LawFit, fit_law, refusal
from analysis.laws import KINDS, LAWS, Kind
from analysis.prediction import Refusal, as_error

MIN_SIZES = 4
# Laws that are always shown with their intervals, beside the one with the largest say:
# the claim of the 2017 study and the field's default.
SHOWN = ('log_linear', 'power_floor')
# Laws whose say is within this share of the largest are near equals; between them AICc,
# which sees the fit to all sizes, decides.
_TIE = 0.1


@dataclasses.dataclass(frozen=True)
class Fit(Curve):
  """A curve that can also be drawn, compared, and fitted again to fewer runs.

  Apart from `Curve`, because what is made of curves comes in here.

  Attributes:
    settings: what `fit` was told, for the audit and for `stopped_at`.
  """

  settings: Mapping[str, Any] = dataclasses.field(repr=False)

  def compare(
    self, other: Curve, sizes: Sequence[float] | np.ndarray | None = None
  ) -> comparison.Comparison:
    """Where this curve is better than `other`: see `analysis.comparison.compare`."""
    return comparison.compare(self, other, sizes)

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
    from analysis.curve_figures import curve_figure  # fitting needs no matplotlib

    return curve_figure(self, **options)


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
  weights = rolling.member_weights(rolled)
  shares = rolling.law_weights(rolled, weights)

  def fit_alone(law: str, draws: int) -> LawFit:
    skip = rolling.window(rolled, weights, law)
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
  held = rolling.held_out(rolled, weights, data, points.means, kind, level)
  error, num_held, error_by_law = rolling.misses(rolled, weights, data, held)
  stacked = ensemble.draw(
    rolled, weights, max(draws, 50), np.random.default_rng([*_list(rng), len(laws)])
  )
  best = fits[headline]
  assert isinstance(best, LawFit)
  return Fit(
    kind=kind,
    level=level,
    law=headline,
    laws=fits,
    weights=shares,
    scores=rolling.law_scores(rolled),
    window=best.window,
    points=points,
    num_points=len(values),
    flags=_curve_flags(points, evidence, kind) + _own_flags(points, best.flags),
    held=held,
    rolling_error=error,
    rolling_sizes=num_held,
    rolling_errors=error_by_law,
    evidence=evidence,
    spread=rolling.spread(held),
    data=data,
    draws=stacked,
    runs=(sizes, values, errors_of),
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
  )


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


def _drop(
  points: noise_lib.Points, evidence: noise_lib.Known, skip: int
) -> tuple[noise_lib.Points, noise_lib.Known]:
  kept = noise_lib.Points(*(column[skip:] for column in vars(points).values()))
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
