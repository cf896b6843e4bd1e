"""What a fit says about more data, and how far that may be trusted.

A forecast is a number with two intervals and a grade. The grade is the worst of a few
plain limits (how many sizes, how many decades, how far beyond them, whether the curve
is identified, whether it predicted its own largest sizes), and the limit that set it is
given as a sentence, so that a reader can disagree with it.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from analysis.fit import Fit

FACTORS = (2.0, 10.0)
GRADES = 'ABCD'


@dataclasses.dataclass(frozen=True)
class Forecast:
  """The curve at `factor` times the largest size, in the unit of the data.

  Attributes:
    factor: times the largest size.
    size: images.
    value: of the curve.
    curve_lo, curve_hi: confidence interval of the curve.
    lo, hi: prediction interval of one new run.
    grade: A (as good as measured) to D (do not rely on it).
    grade_reason: one sentence, the limit that set the grade.
  """

  factor: float
  size: float
  value: float
  curve_lo: float
  curve_hi: float
  lo: float
  hi: float
  grade: str
  grade_reason: str


def forecasts(fit: Fit) -> tuple[Forecast, ...]:
  """Forecasts at 2 and 10 times the largest size measured."""
  largest = float(fit.points.sizes[-1])
  rows = []
  for factor in FACTORS:
    size = factor * largest
    value, curve_lo, curve_hi, lo, hi = (float(band[0]) for band in fit.predict(size))
    grade_letter, reason = grade(fit, size)
    rows.append(
      Forecast(factor, size, value, curve_lo, curve_hi, lo, hi, grade_letter, reason)
    )
  return tuple(rows)


def grade(fit: Fit, size: float) -> tuple[str, str]:
  """Grade of the fit at `size` images, and the sentence for it."""
  limits = [*_limits_of_sizes(fit, size), *_limits_of_fit(fit, size)]
  if not limits:
    return GRADES[0], 'many sizes, a short step ahead, and a tested curve'
  worst, sentence = max(limits, key=lambda pair: pair[0])
  return GRADES[worst], sentence


def _limits_of_sizes(fit: Fit, size: float) -> Iterator[tuple[int, str]]:
  """Yields the best grade that the sizes allow, by its index, and why."""
  largest = float(fit.points.sizes[-1])
  decades = np.log10(largest / fit.points.sizes[0])
  factor = size / largest
  ahead = np.log10(factor)
  times = f'{factor:.3g} times the largest size'
  if ahead > 0 and ahead > 0.5 * decades + 1e-9:
    yield (
      3,
      f'{times} is {ahead:.1f} decades ahead of only {decades:.1f} decades of sizes',
    )
  elif ahead > 0.35 * decades:
    yield 2, f'{times} is far beyond {decades:.1f} decades of sizes'
  elif ahead > 0.16 * decades:
    yield 1, f'{times} is a fair step beyond {decades:.1f} decades of sizes'
  if factor > 4:
    yield 1, f'{times} is beyond the 4 times that curves usually hold'
  if decades < 1:
    yield 2, f'the sizes span {decades:.1f} decades, less than one'
  if fit.num_sizes <= 6:
    yield 2 if fit.num_sizes == 4 else 1, f'only {fit.num_sizes} sizes were fitted'


def _limits_of_fit(fit: Fit, size: float) -> Iterator[tuple[int, str]]:
  """Yields the best grade that the curve allows, by its index, and why."""
  largest = float(fit.points.sizes[-1])
  unidentified = [
    flag
    for flag in fit.flags
    if flag in ('exponent at bound', 'exponent unidentified', 'floor unidentified')
  ]
  if unidentified:
    yield 2 if size > 4 * largest else 1, f'{unidentified[0]} in this window'
  for flag, worst, sentence in (
    (
      'lack of fit',
      2,
      'the size means scatter about the curve more than the seeds explain',
    ),
    ('not monotone', 2, 'the curve is not monotone'),
    ('double descent', 2, 'the curve has a double descent'),
    (
      'no repeats',
      1,
      'without repeats the noise is known from the scatter about the curve only',
    ),
    ('no trend', 2, 'no trend can be told from the noise'),
  ):
    if flag in fit.flags:
      yield worst, sentence
  if fit.rolling_error is None:
    yield 1, 'too few sizes to test it on held-out larger ones'
  else:
    share = fit.rolling_error / max(np.ptp(fit.points.means), 1e-12)
    if share > 0.025:
      missed = (
        f'{fit.rolling_error:.2g}'
        if fit.kind == 'loss'
        else f'{100 * fit.rolling_error:.1f} points'
      )
      yield (
        3 if share > 0.1 else 2 if share > 0.05 else 1,
        f'fitted to the smaller sizes only, it missed the largest by {missed}',
      )
  bands = fit.predict([size, largest])
  gain = abs(bands.value[0] - bands.value[1])
  half = float(bands.curve_hi[0] - bands.curve_lo[0]) / 2
  if half > gain and size > largest:
    yield 2, 'the interval is wider than the change it forecasts'
