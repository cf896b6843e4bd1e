"""Fits every curve of a table, one at a time, and lays the results out as tables.

A curve is one combination of the group columns and one metric. A curve that is too
short is refused by itself and the others are fitted all the same. No curve knows of
another, so adding one changes none.
"""

import dataclasses
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.fit import Fit, fit
from analysis.forecast import forecasts
from analysis.groups import Key, curves_of, text_of
from analysis.laws import LAWS, Kind
from analysis.prediction import Prediction, Refusal

Fits = Mapping[Key, Fit | Refusal]

GROUP = ('depth', 'width')  # what tells the curves of a study apart
METRICS = {
  'test/top1': 'test top-1 accuracy',
  'test/top5': 'test top-5 accuracy',
  'test/map100': 'test mAP at 100',
  'test/weighted_map100': 'weighted test mAP at 100',
  'test/weighted_precision1': 'weighted test precision at 1',
  'test/loss': 'test loss (nats)',
}

_BANDS = ('', '_lo', '_hi')
_PARAMETERS = tuple(
  dict.fromkeys(p.name for law in LAWS.values() for p in law.parameters)
)


@dataclasses.dataclass(frozen=True)
class FitTable:
  """Fits of one table.

  Attributes:
    group: columns that tell curves apart.
    fits: metric -> group values -> fit.
    kinds: metric -> what its values are.
    frame: one row per curve, the columns of fits.csv.
    predictions: one row per fitted curve and size (observed, 2x and 10x).
  """

  group: tuple[str, ...]
  fits: dict[str, dict[Key, Fit | Refusal]]
  kinds: dict[str, Kind]
  frame: pd.DataFrame
  predictions: pd.DataFrame


def kind_of(metric: str) -> Kind:
  """What the values of a metric are, by its name."""
  name = metric.lower()
  if 'loss' in name or 'nll' in name or 'perplexity' in name:
    return 'loss'
  return 'error' if 'err' in name else 'accuracy'


def fit_table(
  table: pd.DataFrame,
  *,
  group: Sequence[str] = GROUP,
  laws: Sequence[str] = tuple(LAWS),
  kinds: Mapping[str, Kind] | None = None,
  num_test: float | None = None,
  chance: float | None = None,
  robust: bool = False,
  draws: int = 200,
  level: float = 0.9,
  rng: int = 0,
  progress: Callable[[int, int], None] | None = None,
) -> FitTable:
  """Fits each curve of a table.

  Args:
    table: columns num_images, value, the group columns, and optionally metric, se and
      num_test; of `analysis.results.read_study` or `analysis.tables.read_csv`.
    group: columns that tell curves apart; may be empty.
    laws: keys in `LAWS`.
    kinds: of each metric; default by name (`kind_of`).
    num_test: images in the test set, where the table does not say.
    chance, robust, draws, level, rng: see `analysis.fit.fit`. Each curve gets its own
      stream, so that curves have independent draws and adding one changes no other.
    progress: called with curves done and curves in all.
  """
  if 'metric' not in table:
    table = table.assign(metric='value')
  known: dict[str, Kind] = dict(kinds or {})
  fits: dict[str, dict[Key, Fit | Refusal]] = {}
  used_kinds: dict[str, Kind] = {}
  rows: list[dict[str, Any]] = []
  predictions: list[dict[str, Any]] = []
  curves = curves_of(table, ['metric', *group])
  for done, ((name, *values), curve) in enumerate(curves.items()):
    if progress:
      progress(done, len(curves))
    metric, key = str(name), tuple(values)
    kind = used_kinds[metric] = known.get(metric) or kind_of(metric)
    tests = (
      curve['num_test'].dropna() if 'num_test' in curve else pd.Series(dtype=float)
    )
    found = fit(
      curve['num_images'].to_numpy(float),
      curve['value'].to_numpy(float),
      kind=kind,
      se=curve['se'].to_numpy(float) if 'se' in curve else None,
      num_test=float(tests.min()) if len(tests) else num_test,
      chance=chance,
      laws=laws,
      robust=robust,
      draws=draws,
      level=level,
      rng=[rng, zlib.crc32(repr((metric, key)).encode())],
    )
    fits.setdefault(metric, {})[key] = found
    names = {**dict(zip(group, key, strict=True)), 'metric': metric}
    rows.append({**_beside(_row(found, curve), group), **names})
    if isinstance(found, Fit):
      largest = found.points.sizes[-1]
      sizes = np.append(found.points.sizes, [2 * largest, 10 * largest])
      observed = np.append(found.points.means, [math.nan, math.nan])
      for size, seen, row in zip(
        sizes, observed, prediction_rows(found.predict(sizes)), strict=True
      ):
        row = {'num_images': size, 'observed': seen, **row}
        predictions.append({**_beside(row, group), **names})
  if progress:
    progress(len(curves), len(curves))
  columns = ['num_images', 'observed', *Prediction._fields]
  columns = [*group, 'metric', *_beside(dict.fromkeys(columns), group)]
  return FitTable(
    group=tuple(group),
    fits=fits,
    kinds=used_kinds,
    frame=pd.DataFrame(rows, columns=pd.Index(_fit_columns(group))),
    predictions=pd.DataFrame(predictions, columns=pd.Index(columns)),
  )


def predict_rows(fits: Fits, sizes: pd.DataFrame, group: Sequence[str]) -> pd.DataFrame:
  """Answers each row of `sizes` (group columns, num_images) in its order.

  Rows whose curve was refused, or is not among the fits, have empty numbers and the
  reason.
  """
  answer = sizes[[*group, 'num_images']].reset_index(drop=True).copy()
  fields = list(_beside(dict.fromkeys(Prediction._fields), group))
  why = next(iter(_beside({'reason': None}, group)))
  for name in fields:
    answer[name] = math.nan
  answer[why] = ''
  by_name = {text_of(key): found for key, found in fits.items()}
  keys = [text_of(row) for row in answer[list(group)].itertuples(index=False)]
  for key in dict.fromkeys(keys):
    rows = [i for i, other in enumerate(keys) if other == key]
    found = by_name.get(key)
    if isinstance(found, Fit):
      bands = found.predict(answer['num_images'].to_numpy(float)[rows])
      for name, values in zip(fields, bands, strict=True):
        answer.loc[rows, name] = values
    else:
      reason = found.reason if found else 'no such curve in the table'
      answer.loc[rows, why] = reason
  return answer


def prediction_rows(bands: Prediction) -> list[dict[str, float]]:
  """One dict per size."""
  return [
    dict(zip(Prediction._fields, row, strict=True)) for row in zip(*bands, strict=True)
  ]


def _beside(row: dict[str, Any], group: Sequence[str]) -> dict[str, Any]:
  """The row with every name that a group column has already turned into fit_NAME."""
  return {f'fit_{name}' if name in group else name: row[name] for name in row}


def _row(found: Fit | Refusal, curve: pd.DataFrame) -> dict[str, Any]:
  sizes = curve['num_images']
  row: dict[str, Any] = {
    'status': 'refused' if isinstance(found, Refusal) else 'fitted',
    'reason': found.reason if isinstance(found, Refusal) else '',
    'num_sizes': sizes.nunique(),
    'num_points': len(curve),
    'min_size': sizes.min(),
    'max_size': sizes.max(),
  }
  if isinstance(found, Refusal):
    return row
  for name, value in found.params.items():
    ends = found.intervals.get(name, (math.nan, math.nan))
    row |= {name: value, f'{name}_lo': ends[0], f'{name}_hi': ends[1]}
  near, far = forecasts(found)
  row |= {
    'law': found.law,
    'say': found.weights.get(found.law, 0.0),
    'window_lo': found.window[0],
    'window_hi': found.window[1],
    'rolling_error': math.nan if found.rolling_error is None else found.rolling_error,
    'rolling_sizes': found.rolling_sizes,
    'residual_sd': found.best.residual_sd,
    'flags': '; '.join(found.flags),
    'grade': near.grade,
    'grade_reason': near.grade_reason,
    'grade_10x': far.grade,
    'grade_10x_reason': far.grade_reason,
    'level': found.level,
  }
  for name, forecast in (('predict_2x', near), ('predict_10x', far)):
    row |= {name: forecast.value, f'{name}_lo': forecast.lo, f'{name}_hi': forecast.hi}
  gain = found.gain_per_doubling(found.points.sizes[-1])
  return row | {f'gain_per_doubling{b}': g for b, g in zip(_BANDS, gain, strict=True)}


def _fit_columns(group: Sequence[str]) -> list[str]:
  def banded(name: str) -> list[str]:
    return [name + band for band in _BANDS]

  columns = [
    *('status', 'reason', 'law', 'say', 'window_lo', 'window_hi'),
    *('grade', 'grade_reason', 'grade_10x', 'grade_10x_reason', 'flags'),
    *(column for name in _PARAMETERS for column in banded(name)),
    *banded('predict_2x'),
    *banded('predict_10x'),
    *banded('gain_per_doubling'),
    *('rolling_error', 'rolling_sizes', 'residual_sd'),
    *('num_sizes', 'num_points', 'min_size', 'max_size', 'level'),
  ]
  return [*group, 'metric', *_beside(dict.fromkeys(columns), group)]
