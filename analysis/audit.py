"""The record of a fit: all that someone needs to repeat or doubt it.

It answers the checklist of Li et al. 2025, "(Mis)Fitting" (arXiv 2502.18969): the data,
the equations, the weights, the optimiser, its starts and where each ended.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
import pandas as pd

from analysis.fit import Fit
from analysis.fit_table import Fits
from analysis.law_fit import LawFit
from analysis.laws import LAWS
from analysis.prediction import Refusal


def audit_json(table: pd.DataFrame, fits: Fits, group: Sequence[str]) -> str:
  """JSON with the hash of the data, versions, and every law tried on every curve."""
  curves = []
  for key, found in fits.items():
    name = dict(zip(group, key, strict=True))
    curves.append({'curve': name, **curve_record(found)})
  record = {
    'data': data_hash(table),
    'rows': len(table),
    'versions': versions(),
    'method': {
      'forecast': 'laws integrated over their grids of shapes, stacked by rolling-origin '
      'log score',
      'parameters': 'weighted least squares: variable projection on the grid, then '
      'Levenberg-Marquardt in log shapes with analytic derivatives',
      'intervals': 'profile likelihood (exponent, floor of one-shape laws), else '
      'parametric bootstrap with Student t noise',
    },
    'laws': {
      law.name: {
        'formula': law.formula,
        'domain': law.domain,
        'source': law.source,
        'grid': len(law.grid),
      }
      for law in LAWS.values()
    },
    'curves': curves,
  }
  return json.dumps(clean(record), indent=1) + '\n'


def data_hash(table: pd.DataFrame) -> str:
  """SHA-256 of the table as CSV, as the fit saw it."""
  text = table.to_csv(index=False, lineterminator='\n')
  return 'sha256:' + hashlib.sha256(text.encode()).hexdigest()


def versions() -> dict[str, str]:
  """Of the packages that compute."""
  found = {}
  for name in ('scaling', 'numpy', 'scipy', 'pandas'):
    try:
      found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      found[name] = 'not installed'
  return found


def curve_record(found: Fit | Refusal) -> dict[str, Any]:
  """All that was decided about one curve."""
  if isinstance(found, Refusal):
    return {'refused': found.reason}
  return {
    'law': found.law,
    'window': found.window,
    'flags': found.flags,
    'settings': dict(found.settings),
    'sizes': found.points.sizes,
    'means': found.points.means,
    'runs': found.points.counts,
    'noise': {
      'source': found.evidence.source,
      'v0': found.evidence.v0,
      'v1': found.evidence.v1,
      'variance_of_means': found.evidence.means,
    },
    'spread': found.spread,
    'say': dict(found.weights),
    'scores': dict(found.scores),
    'members': [
      {
        'law': draws.member.law,
        'first_size': found.points.sizes[draws.member.skip],
        'rho': draws.member.rho,
        'draws': len(draws.variance),
      }
      for draws in found.draws
    ],
    'rolling': [vars(held) for held in found.held],
    'laws': {law: _law_record(one) for law, one in found.laws.items()},
  }


def _law_record(one: LawFit | Refusal) -> dict[str, Any]:
  if isinstance(one, Refusal):
    return {'refused': one.reason}
  return {
    'parameters': one.params,
    'intervals': one.intervals,
    'covariance': one.covariance,
    'window': one.window,
    'weights': one.weights,
    'misfit': one.noise.misfit,
    'dof': one.noise.dof,
    'aicc': one.aicc,
    'flags': one.flags,
    'optimum': {
      'sum_squares': one.starts.sum_squares.min(),
      'gradient': one.starts.gradient,
      'starts': one.starts.shapes,
      'ended': one.starts.sum_squares,
      'agree': one.starts.agree,
    },
  }


def clean(value: Any) -> Any:
  """Plain JSON: arrays as lists, what is not finite as text."""
  if isinstance(value, dict):
    return {str(key): clean(item) for key, item in value.items()}
  if isinstance(value, np.ndarray):
    return clean(value.tolist())
  if isinstance(value, list | tuple):
    return [clean(item) for item in value]
  if isinstance(value, np.generic):
    return clean(value.item())
  if isinstance(value, float) and not math.isfinite(value):
    return str(value)
  return value
