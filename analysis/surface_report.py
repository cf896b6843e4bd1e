"""Fits surfaces of data size and model size to a table, and writes what they say."""

import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import words
from analysis.audit import clean, data_hash, versions
from analysis.document import Block, Heading, Report, Table, to_markdown, to_text
from analysis.files import write_csv, write_text
from analysis.groups import Key, curves_of, text_of
from analysis.law_fit import aicc
from analysis.laws import Kind
from analysis.prediction import Prediction, Refusal
from analysis.surface import SurfaceFit, fit_surface
from analysis.surface_laws import SURFACE_LAWS

Surfaces = dict[Key, dict[str, SurfaceFit | Refusal]]


def fit_surfaces(
  table: pd.DataFrame,
  *,
  group: Sequence[str] = (),
  kind: Kind = 'loss',
  chance: float | None = None,
) -> Surfaces:
  """Fits every law of two sizes to each group.

  Args:
    table: columns num_images, num_params, value and `group`.
    group: columns that tell surfaces apart.
    kind: what the values are.
    chance: value of a guess, for the law that has one.
  """
  return {
    key: {
      name: fit_surface(
        rows['num_images'].to_numpy(float),
        rows['num_params'].to_numpy(float),
        rows['value'].to_numpy(float),
        law=name,
        kind=kind,
        # Losses of single runs go wrong now and then; a fraction's noise does not.
        loss='huber' if kind == 'loss' else 'squares',
        chance=None if law.ceiling is None else chance,
      )
      for name, law in SURFACE_LAWS.items()
    }
    for key, rows in curves_of(table, group).items()
  }


def chosen(found: dict[str, SurfaceFit | Refusal]) -> SurfaceFit | Refusal:
  """The law of lower AICc among those whose parameters the data can tell."""
  fitted = [one for one in found.values() if isinstance(one, SurfaceFit)]
  told = [one for one in fitted if not any('unidentified' in f for f in one.flags)]
  return min(told or fitted, key=_aicc) if fitted else next(iter(found.values()))


def write_surface_report(
  out: str | os.PathLike[str],
  table: pd.DataFrame,
  *,
  group: Sequence[str] = (),
  kind: Kind = 'loss',
  metric: str = 'value',
  sizes: pd.DataFrame | None = None,
  chance: float | None = None,
) -> Report:
  """Writes surfaces.csv, predictions.csv (if `sizes` are given), audit.json, surface.md.

  Args:
    out: folder for the files.
    table: of `analysis.tables.read_csv` with a model size.
    group: columns that tell surfaces apart.
    kind: what the values are.
    metric: what the values are called.
    sizes: of `analysis.tables.read_sizes` with a model size.
    chance: see `fit_surfaces`.
  """
  folder = pathlib.Path(out)
  folder.mkdir(parents=True, exist_ok=True)
  found = fit_surfaces(table, group=group, kind=kind, chance=chance)
  rows = [
    {**dict(zip(group, key, strict=True)), **_row(law, one, one is chosen(laws))}
    for key, laws in found.items()
    for law, one in laws.items()
  ]
  record = {
    'data': data_hash(table),
    'rows': len(table),
    'versions': versions(),
    'surfaces': [
      {
        'group': dict(zip(group, key, strict=True)),
        'laws': {law: _record(one) for law, one in laws.items()},
      }
      for key, laws in found.items()
    ],
  }
  blocks = _blocks(found, group, metric)
  paths = [
    write_csv(folder / 'surfaces.csv', pd.DataFrame(rows)),
    write_text(folder / 'audit.json', json.dumps(clean(record), indent=1) + '\n'),
    write_text(folder / 'surface.md', to_markdown('Surfaces', blocks)),
  ]
  if sizes is not None:
    answer = _predictions(found, sizes, group)
    paths.append(write_csv(folder / 'predictions.csv', answer))
  return Report(folder, tuple(paths), to_text('Surfaces', blocks))


def _aicc(one: SurfaceFit) -> float:
  return aicc(one.num_points, len(one.params), float(np.mean(one.residuals**2)))


def _row(law: str, one: SurfaceFit | Refusal, best: bool) -> dict[str, Any]:
  if isinstance(one, Refusal):
    return {'law': law, 'status': 'refused', 'reason': one.reason}
  row: dict[str, Any] = {
    'law': law,
    'status': 'chosen' if best else 'fitted',
    'reason': '',
    'objective': one.objective,
    'flags': '; '.join(one.flags),
    'num_points': one.num_points,
  }
  for name, value in one.params.items():
    lo, hi = one.intervals[name]
    row |= {name: value, f'{name}_lo': lo, f'{name}_hi': hi}
    row[f'{name}_se'] = one.standard_errors[name]
  return row


def _record(one: SurfaceFit | Refusal) -> dict[str, Any]:
  if isinstance(one, Refusal):
    return {'refused': one.reason}
  names = (
    'params intervals standard_errors covariance condition objective residual loss'
  )
  record = {name: getattr(one, name) for name in names.split()}
  record |= {'delta': one.delta, 'flags': one.flags, 'starts': vars(one.starts)}
  return record | {
    'formula': SURFACE_LAWS[one.law].formula,
    'window_images': one.window_images,
    'window_params': one.window_params,
  }


def _predictions(
  found: Surfaces, sizes: pd.DataFrame, group: Sequence[str]
) -> pd.DataFrame:
  rows = []
  by_name = {text_of(key): laws for key, laws in found.items()}
  for row in sizes.to_dict('records'):
    laws = by_name.get(text_of(row[column] for column in group))
    one = chosen(laws) if laws else Refusal('all', 'no such group in the table')
    if isinstance(one, SurfaceFit):
      bands = one.predict(row['num_images'], row['num_params'])
      values = {
        name: float(band[0]) for name, band in zip(bands._fields, bands, strict=True)
      }
      rows.append({**row, **values, 'law': one.law, 'reason': ''})
    else:
      empty = dict.fromkeys(Prediction._fields, math.nan)
      rows.append({**row, **empty, 'law': '', 'reason': one.reason})
  table = pd.DataFrame(rows)
  return table.rename(columns={'num_images': 'size', 'num_params': 'model_size'})


def _blocks(found: Surfaces, group: Sequence[str], metric: str) -> list[Block]:
  rows, refused = [], []
  for key, laws in found.items():
    name = ', '.join(map(str, key)) if group else metric
    best = chosen(laws)
    for law, one in laws.items():
      title = SURFACE_LAWS[law].title + (' *' if one is best else '')
      if isinstance(one, Refusal):
        refused.append([name, title, one.reason])
        continue
      values = '; '.join(
        f'{p} {words.estimate(v, *one.intervals[p])}' for p, v in one.params.items()
      )
      rows.append([name, title, values, ', '.join(one.flags) or '—'])
  blocks: list[Block] = [Heading('Fitted surfaces')]
  formulas = '; '.join(f'{law.title}: {law.formula}' for law in SURFACE_LAWS.values())
  note = f'* chosen: lower AICc, parameters identified. 90% intervals by pairs bootstrap. {formulas}.'
  if rows:
    blocks.append(Table(['', 'law', 'parameters', 'flags'], rows, note))
  if refused:
    blocks.append(Table(['', 'refused', 'why'], refused))
  return blocks
