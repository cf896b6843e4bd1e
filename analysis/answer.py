"""The question of a study and the sentences that its fits can answer for."""

# pandas types most results as "frame or series or scalar", which no code can satisfy.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportReturnType=false, reportOperatorIssue=false, reportIndexIssue=false

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis import words
from analysis.document import Block, Heading, Paragraph
from analysis.figures import series_label
from analysis.fit import Fit, Kind
from analysis.fit_table import GROUP, METRICS, SHOWN_LAWS, Fits
from analysis.forecast import Difference, Interaction, forecasts
from analysis.laws import LAWS
from analysis.results import Study


def answer_blocks(
  study: Study,
  table: pd.DataFrame,
  fits: Fits,
  kind: Kind,
  metric: str,
  law: str,
  compared: Mapping[int, Interaction],
) -> list[Block]:
  """The question and one or two sentences that the fits can answer for."""
  label = METRICS.get(metric, metric)
  unit = '' if kind == 'loss' else ' points'
  question = (
    f'What would more training images, and more depth, buy in {label} on {study.name}?'
  )
  keys = [key for key, found in fits.items() if isinstance(found.get(law), Fit)]
  sentences = []
  for key in keys if len(keys) <= 2 else [keys[0], keys[-1]]:
    found = fits[key][law]
    assert isinstance(found, Fit)
    value, lo, hi = found.gain_per_doubling(found.window[1])
    near = forecasts(found)[0]
    verb = 'cannot be told from zero' if lo <= 0 <= hi else f'grade {near.grade}'
    sentences.append(
      f'{words.gain(value, kind)}{unit} at {series_label(key, GROUP, list(fits))} '
      f'({100 * found.level:.0f}% interval {words.interval(lo, hi, kind, True)}; {verb})'
    )
  blocks: list[Block] = [Paragraph(question)]
  if sentences:
    sizes = {fits[key][law].window[1] for key in keys}  # pyright: ignore
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
    blocks.append(Paragraph(sentence.replace('above', 'here'), lead=True))
  if len(study.missing):
    blocks.append(
      Paragraph(
        f'{len(study.missing)} of {len(study.cells)} cells have no result; they are '
        'listed below.',
        lead=False,
      )
    )
  return blocks


def _difference_sentence(found: Difference, kind: Kind) -> str:
  unit = '' if kind == 'loss' else ' points'
  start = {
    'deeper gains more': 'Deeper gains more',
    'deeper gains less': 'Deeper gains less',
    'no difference can be shown': 'No difference between depths can be shown',
  }[found.words]
  direction = 'more' if found.value >= 0 else 'less'
  return (
    f'{start}: averaged over the sizes, depth {found.deep} gains '
    f'{words.gain(abs(found.value), kind, False)}{unit} {direction} per doubling than '
    f'depth {found.shallow} (interval {words.interval(found.lo, found.hi, kind, True)})'
  )


def law_blocks(fits: Fits) -> list[Block]:
  """Returns which law predicted held-out sizes better, if that can be told."""
  sentence = law_sentence(fits)
  return [Heading('Which law'), Paragraph(sentence, lead=True)] if sentence else []


def law_sentence(fits: Fits) -> str:
  """Returns how the laws did when asked for sizes they had not seen, or ''."""
  held = _held_out(fits)
  kind = next(
    (f.kind for found in fits.values() for f in found.values() if isinstance(f, Fit)),
    'accuracy',
  )
  if not held:
    return ''
  unit = '' if kind == 'loss' else ' points'
  best = headline_law(fits)
  other = next(law for law in SHOWN_LAWS if law != best)
  return (
    'Fitted to the smaller sizes only and asked for the largest, the '
    f'{LAWS[best].title} law missed by {words.gain(held[best], kind, False)}{unit} on '
    f'average and the {LAWS[other].title} law by '
    f'{words.gain(held[other], kind, False)}{unit}; the forecasts above are those of '
    f'the {LAWS[best].title} law.'
  )


def headline_law(fits: Fits) -> str:
  """The law that better predicted held-out larger sizes; else the richest fitted."""
  held = _held_out(fits)
  if held:
    return min(reversed(SHOWN_LAWS), key=lambda law: held[law])
  if any(isinstance(found['power_floor'], Fit) for found in fits.values()):
    return 'power_floor'
  return 'log_linear'


def _held_out(fits: Fits) -> dict[str, float]:
  """Mean held-out error by law, over the curves where both laws have one."""
  errors: dict[str, list[float]] = {law: [] for law in SHOWN_LAWS}
  for found in fits.values():
    pair = [found[law] for law in SHOWN_LAWS]
    scores = [f.rolling_error for f in pair if isinstance(f, Fit)]
    held = {f.rolling_sizes for f in pair if isinstance(f, Fit)}
    if len(scores) == 2 and None not in scores and len(held) == 1:
      for law, value in zip(SHOWN_LAWS, scores, strict=True):
        errors[law].append(value)  # pyright: ignore[reportArgumentType]
  return {law: float(np.mean(v)) for law, v in errors.items() if v}
