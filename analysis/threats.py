"""What could make the numbers of a study mean something else, found in its own table."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis import words
from analysis.contrasts import means

_SATURATED = 0.99
_DECAYS_TO_ZERO = ('cosine', 'linear')


def threats(
  table: pd.DataFrame, *, schedule: str, cooldown: float, missing: int = 0
) -> list[str]:
  """Returns the threats to validity, a sentence each.

  Args:
    table: rows of one metric with columns num_images, steps, epochs, seed and arm.
    schedule: `optim.schedule` of the study.
    cooldown: `optim.cooldown_fraction`.
    missing: listed cells without a result.
  """
  found = []
  if missing:
    found.append(f'{missing} cells have no result; whatever rests on them may change.')
  repeats = table.groupby(['arm', *_settings(table)])['seed'].nunique()
  if (repeats < 2).any():
    alone = int((repeats < 2).sum())
    found.append(
      f'{alone} of {len(repeats)} settings were run with one seed; their intervals rest '
      'on the variance between the seeds of the others.'
    )
  for arm, rows in table.groupby('arm'):
    found += _of_arm(str(arm), rows)
  if schedule not in _DECAYS_TO_ZERO and not cooldown:
    found.append(
      f'The learning rate ({schedule}) does not end at zero, and runs of different '
      'lengths stop at different rates: length and annealing grow together.'
    )
  highest = float(table['value'].max())
  if highest > _SATURATED:
    found.append(
      f'The metric is nearly saturated ({words.score(highest, "accuracy")} at best): '
      'what is left to gain is small, whatever the data.'
    )
  return found


def _settings(table: pd.DataFrame) -> Sequence[str]:
  return [name for name in ('num_images', 'depth', 'width', 'steps') if name in table]


def _of_arm(arm: str, rows: pd.DataFrame) -> list[str]:
  if rows['num_images'].nunique() < 2:
    return []
  by_size = rows.groupby('num_images')
  steps, epochs = by_size['steps'].mean(), by_size['epochs'].mean()
  found = []
  if steps.is_monotonic_increasing and steps.iloc[-1] > 1.05 * steps.iloc[0]:
    found.append(
      f'{arm}: larger subsets were also trained longer ({steps.iloc[0]:,.0f} to '
      f'{steps.iloc[-1]:,.0f} steps), so data and compute grow together.'
    )
  elif epochs.iloc[0] > 1.05 * epochs.iloc[-1]:
    found.append(
      f'{arm}: smaller subsets were passed over more often ({epochs.iloc[-1]:,.3g} to '
      f'{epochs.iloc[0]:,.3g} epochs), so they may be overfitted rather than small.'
    )
  middle = np.array([each.value for each in means(rows, ['num_images']).values()])
  if (np.diff(middle) < 0).any():
    found.append(f'{arm}: the curve does not rise everywhere.')
  return found
