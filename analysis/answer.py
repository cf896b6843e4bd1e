"""The question of a study and the sentences that its fits can answer for."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis import words
from analysis.document import Block, Paragraph
from analysis.fit import Fit
from analysis.fit_table import GROUP, METRICS, Fits
from analysis.forecast import forecasts
from analysis.groups import names_of
from analysis.interaction import Difference, Interaction
from analysis.laws import Kind
from analysis.results import Study


def answer_blocks(
  study: Study,
  table: pd.DataFrame,
  fits: Fits,
  kind: Kind,
  metric: str,
  compared: Mapping[int, Interaction],
) -> list[Block]:
  """The question and one or two sentences that the fits can answer for."""
  label = METRICS.get(metric, metric)
  question = (
    f'What would more training images, and more depth, buy in {label} on {study.name}?'
  )
  fitted = {key: found for key, found in fits.items() if isinstance(found, Fit)}
  keys, names = list(fitted), names_of(fits, GROUP)
  sentences = []
  for key in keys if len(keys) <= 2 else [keys[0], keys[-1]]:
    found = fitted[key]
    value, lo, hi = found.gain_per_doubling(found.points.sizes[-1])
    near = forecasts(found)[0]
    verb = 'cannot be told from zero' if lo <= 0 <= hi else f'grade {near.grade}'
    sentences.append(
      f'{words.gain(value, kind)}{words.points(kind)} at {names[key]} '
      f'({100 * found.level:.0f}% interval {words.interval(lo, hi, kind, True)}; {verb})'
    )
  blocks: list[Block] = [Paragraph(question)]
  if sentences:
    sizes = {float(found.points.sizes[-1]) for found in fitted.values()}
    start = (
      f'from {words.images(next(iter(sizes)))} images'
      if len(sizes) == 1
      else 'from the largest size measured'
    )
    blocks.append(
      Paragraph(
        f'Doubling the data {start} is forecast to bring {words.listed(sentences)}.',
        lead=True,
      )
    )
  else:
    blocks.append(
      Paragraph(
        'No curve has enough sizes for a fit, so nothing is forecast.', lead=True
      )
    )
  for width, found in compared.items():
    for difference in found.differences:
      if difference.where == 'window':
        at = f' at width {width}' if len(compared) > 1 else ''
        blocks.append(
          Paragraph(_difference_sentence(difference, kind) + at + '.', lead=True)
        )
  if table['depth'].nunique() == 1:
    blocks.append(
      Paragraph(
        f'The results so far have one depth ({table["depth"].iloc[0]:g}), so they say '
        'nothing about more depth.',
        lead=True,
      )
    )
  sentence = law_sentence(fits)
  if sentence:
    blocks.append(Paragraph(sentence, lead=True))
  if len(study.missing):
    blocks.append(
      Paragraph(
        f'{len(study.missing)} of {len(study.cells)} cells have no result; they are '
        'listed below.'
      )
    )
  return blocks


def _difference_sentence(found: Difference, kind: Kind) -> str:
  start = {
    'deeper gains more': 'Deeper gains more',
    'deeper gains less': 'Deeper gains less',
    'no difference can be shown': 'No difference between depths can be shown',
  }[found.words]
  direction = 'more' if found.value >= 0 else 'less'
  return (
    f'{start}: averaged over the sizes, depth {found.deep} gains '
    f'{words.gain(abs(found.value), kind, False)}{words.points(kind)} {direction} per '
    f'doubling than depth {found.shallow} (interval {words.interval(found.lo, found.hi, kind, True)})'
  )


def law_sentence(fits: Fits) -> str:
  """Returns how all laws and the log-linear one did at sizes they had not seen, or ''."""
  tested = [
    (found.rolling_error, found.rolling_errors['log_linear'], found.kind)
    for found in fits.values()
    if isinstance(found, Fit)
    and found.rolling_error is not None
    and 'log_linear' in found.rolling_errors
  ]
  if not tested:
    return ''
  kind = tested[0][2]
  ours = float(np.mean([error for error, _, _ in tested]))
  line = float(np.mean([error for _, error, _ in tested]))
  return (
    'Shown the smaller sizes only and asked for the largest, all laws together missed '
    f'by {words.gain(ours, kind, False)}{words.points(kind)} on average and the '
    f'log-linear law by {words.gain(line, kind, False)}{words.points(kind)}.'
  )
