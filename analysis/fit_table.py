"""Fits every law to every curve of a table, one curve at a time.

A curve is one combination of the group columns and one metric. A curve that is too
short is refused by itself and the others are fitted all the same; the result is both
the fits, for figures and comparisons, and the rows of fits.csv.
"""

# pandas types most results as "frame or series or scalar", which no code can satisfy.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportReturnType=false, reportOperatorIssue=false, reportIndexIssue=false

import dataclasses
import math
import zlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.fit import Fit, Kind, Refusal, fit
from analysis.forecast import forecasts
from analysis.laws import LAWS

Key = tuple[Hashable, ...]
Fits = Mapping[Key, Mapping[str, Fit | Refusal]]

GROUP = ('depth', 'width')  # what tells the curves of a study apart
SHOWN_LAWS = ('log_linear', 'power_floor')  # in texts; fits.csv has them all
METRICS = {
  'test/top1': 'test top-1 accuracy',
  'test/top5': 'test top-5 accuracy',
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
    fits: metric -> group values -> law -> fit.
    kinds: metric -> what its values are.
    frame: one row per curve and law, the columns of fits.csv.
    predictions: one row per fitted curve, law and size (observed, 2x and 10x).
  """

  group: tuple[str, ...]
  fits: dict[str, dict[Key, dict[str, Fit | Refusal]]]
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
  group: Sequence[str] = ('depth', 'width'),
  laws: Sequence[str] = tuple(LAWS),
  kinds: Mapping[str, Kind] | None = None,
  num_test: float | None = None,
  draws: int = 200,
  level: float = 0.9,
  rng: int = 0,
) -> FitTable:
  """Fits `laws` to each curve of a table.

  Args:
    table: columns num_images, value, seed, the group columns, and optionally metric
      and num_test; of `analysis.results.read_study` or `read_csv`.
    group: columns that tell curves apart; may be empty.
    laws: keys in `LAWS`.
    kinds: of each metric; default by name (`kind_of`).
    num_test: images in the test set, where the table does not say.
    draws, level, rng: see `analysis.fit.fit`. Each curve gets its own stream, so that
      curves have independent draws and adding one changes no other.
  """
  if 'metric' not in table:
    table = table.assign(metric='value')
  known: dict[str, Kind] = dict(kinds or {})
  fits: dict[str, dict[Key, dict[str, Fit | Refusal]]] = {}
  used_kinds: dict[str, Kind] = {}
  rows: list[dict[str, Any]] = []
  predictions: list[dict[str, Any]] = []
  columns = ['metric', *group]
  for raw_key, curve in table.groupby(columns, sort=True):
    metric, *values = raw_key if isinstance(raw_key, tuple) else (raw_key,)
    metric, key = str(metric), tuple(_plain(value) for value in values)
    kind = used_kinds[metric] = known.get(metric) or kind_of(metric)
    tests = (
      curve['num_test'].dropna() if 'num_test' in curve else pd.Series(dtype=float)
    )
    for law in laws:
      found = fit(
        curve['num_images'].to_numpy(float),
        curve['value'].to_numpy(float),
        law=law,
        kind=kind,
        seeds=curve['seed'].to_numpy() if 'seed' in curve else None,
        num_test=float(tests.min()) if len(tests) else num_test,
        draws=draws,
        level=level,
        rng=[rng, zlib.crc32(repr((metric, key, law)).encode())],
      )
      fits.setdefault(metric, {}).setdefault(key, {})[law] = found
      names = {**dict(zip(group, key, strict=True)), 'metric': metric, 'law': law}
      rows.append({**names, **_row(found, curve)})
      if isinstance(found, Fit):
        predictions += [{**names, **row} for row in _predictions(found)]
  return FitTable(
    group=tuple(group),
    fits=fits,
    kinds=used_kinds,
    frame=pd.DataFrame(rows, columns=pd.Index(_fit_columns(group))),
    predictions=pd.DataFrame(predictions, columns=pd.Index(_prediction_columns(group))),
  )


def _plain(value: Any) -> Hashable:
  """numpy scalars as Python's, whole floats as int: they are names here."""
  value = value.item() if isinstance(value, np.generic) else value
  return int(value) if isinstance(value, float) and value.is_integer() else value


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
    row |= dict(
      zip(
        (name, f'{name}_lo', f'{name}_hi'), (value, *found.intervals[name]), strict=True
      )
    )
  near, far = forecasts(found)
  row |= {
    'rolling_error': math.nan if found.rolling_error is None else found.rolling_error,
    'rolling_sizes': found.rolling_sizes,
    'residual_sd': found.residual_sd,
    'flags': '; '.join(found.flags),
    'grade': near.grade,
    'grade_reason': near.grade_reason,
    'grade_10x': far.grade,
    'grade_10x_reason': far.grade_reason,
    'level': found.level,
  }
  for name, forecast in (('predict_2x', near), ('predict_10x', far)):
    row |= {name: forecast.value, f'{name}_lo': forecast.lo, f'{name}_hi': forecast.hi}
  gain = found.gain_per_doubling(found.window[1])
  return row | {f'gain_per_doubling{b}': g for b, g in zip(_BANDS, gain, strict=True)}


def _fit_columns(group: Sequence[str]) -> list[str]:
  def banded(name: str) -> list[str]:
    return [name + band for band in _BANDS]

  return [
    *group,
    *('metric', 'law', 'status', 'reason'),
    *(column for name in _PARAMETERS for column in banded(name)),
    *('num_sizes', 'num_points', 'min_size', 'max_size'),
    *('rolling_error', 'rolling_sizes', 'residual_sd'),
    *banded('predict_2x'),
    *banded('predict_10x'),
    *banded('gain_per_doubling'),
    *('flags', 'grade', 'grade_reason', 'grade_10x', 'grade_10x_reason', 'level'),
  ]


def _prediction_columns(group: Sequence[str]) -> list[str]:
  columns = [
    'metric',
    'law',
    'num_images',
    'observed',
    'value',
    'curve_lo',
    'curve_hi',
    'lo',
    'hi',
  ]
  return [*group, *columns]


def _predictions(found: Fit) -> list[dict[str, Any]]:
  largest = found.window[1]
  sizes = np.append(found.points.sizes, [2 * largest, 10 * largest])
  observed = np.append(found.points.means, [math.nan, math.nan])
  bands = found.predict(sizes)
  return [
    {
      'num_images': size,
      'observed': seen,
      'value': value,
      'curve_lo': curve_lo,
      'curve_hi': curve_hi,
      'lo': lo,
      'hi': hi,
    }
    for size, seen, value, curve_lo, curve_hi, lo, hi in zip(
      sizes, observed, *bands, strict=True
    )
  ]
