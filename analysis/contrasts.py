"""Differences between arms of a study, with intervals from its repeated runs.

An arm is what a study compares: a protocol, a start, a share of wrong labels. Runs of
one seed have the same subset of images, so two arms are compared seed by seed. The
variance between seeds is pooled over the settings, for each has few; intervals are
Student's t. They speak of new runs on the same test images.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special

LEVEL = 0.9
Setting = tuple[Any, ...]


class Estimate(NamedTuple):
  """A number with its interval; infinite where no run was repeated.

  Attributes:
    value, lo, hi: in the unit of the data.
    num: runs, or pairs of runs, behind it.
  """

  value: float
  lo: float
  hi: float
  num: int


def with_arms(
  table: pd.DataFrame, metric: str, arm: Callable[[Mapping[str, Any]], str | None]
) -> pd.DataFrame:
  """Returns the rows of one metric with a column `arm`; rows without one are left out.

  Args:
    table: of `analysis.results`, or results.csv.
    metric: to keep.
    arm: from a row to the name of its arm, or None.
  """
  rows = table[table['metric'] == metric]
  arms = [arm(row) for row in rows.to_dict('records')]
  keep = np.array([each is not None for each in arms], bool)
  return rows.assign(arm=arms)[keep].reset_index(drop=True)


def together(*tables: pd.DataFrame) -> pd.DataFrame:
  """Returns the rows of all tables."""
  return pd.concat(tables, ignore_index=True)


def longest_best(table: pd.DataFrame) -> pd.DataFrame:
  """Returns of each size the rows of the number of steps with the highest mean.

  Args:
    table: of one arm, with columns num_images, steps and value.
  """
  by_length = table.groupby(['num_images', 'steps'])['value'].mean().reset_index()
  rows = by_length.loc[by_length.groupby('num_images')['value'].idxmax()]
  return table.merge(rows[['num_images', 'steps']], on=['num_images', 'steps'])


def last_gain(table: pd.DataFrame, column: str = 'num_images') -> Estimate | None:
  """Returns the gain from the second largest to the largest value of a column.

  The variance is pooled over the gains of all steps.
  """
  values = sorted(set(table[column]))
  return _gain(table, column, list(itertools.pairwise(values)))


def whole_gain(table: pd.DataFrame, column: str = 'num_images') -> Estimate | None:
  """Returns the gain from the smallest to the largest value of a column.

  The variance is pooled over the gains from the smallest to each other one.
  """
  values = sorted(set(table[column]))
  return _gain(table, column, [(values[0], value) for value in values[1:]])


def _gain(
  table: pd.DataFrame, column: str, steps: Sequence[tuple[Any, Any]]
) -> Estimate | None:
  """Returns the gain of the last of the steps."""
  by_seed = table.groupby([column, 'seed'])['value'].mean()
  samples = {
    (low, high): (by_seed[high] - by_seed[low]).dropna().to_numpy(float)
    for low, high in steps
  }
  found = _estimates({key: each for key, each in samples.items() if len(each)})
  return found.get(steps[-1]) if steps else None


def means(table: pd.DataFrame, over: Sequence[str]) -> dict[Setting, Estimate]:
  """Returns the mean of each setting of the columns `over`."""
  samples = {
    _setting(key): rows['value'].to_numpy(float)
    for key, rows in table.groupby(list(over), sort=True)
  }
  return _estimates(samples)


def differences(
  table: pd.DataFrame,
  first: Mapping[str, Any],
  second: Mapping[str, Any],
  over: Sequence[str] = (),
) -> dict[Setting, Estimate]:
  """Returns first minus second at each setting of the columns `over` that both have.

  Args:
    table: with columns value, seed and those named here.
    first: {column: value} of the one side.
    second: of the other.
    over: columns; the pairs agree in them and in the seed.
  """
  index = [*over, 'seed']
  sides = [
    _rows(table, side).groupby(index)['value'].mean() for side in (first, second)
  ]
  gap = (sides[0] - sides[1]).dropna().reset_index()
  samples: dict[Setting, np.ndarray] = {}
  if len(gap):
    groups = gap.groupby(list(over)) if over else [((), gap)]
    samples = {_setting(key): rows['value'].to_numpy(float) for key, rows in groups}
  return _estimates(samples)


def overall(
  table: pd.DataFrame,
  first: Mapping[str, Any],
  second: Mapping[str, Any],
  over: Sequence[str],
) -> Estimate:
  """Returns first minus second, averaged over the settings that both have."""
  found = differences(table, first, second, over)
  if not found:
    return Estimate(math.nan, -math.inf, math.inf, 0)
  value = float(np.mean([each.value for each in found.values()]))
  half = math.sqrt(sum((each.hi - each.value) ** 2 for each in found.values()))
  half /= len(found)
  return Estimate(
    value, value - half, value + half, sum(each.num for each in found.values())
  )


def trend(found: Mapping[Setting, Estimate]) -> Estimate | None:
  """Returns how a difference changes with each doubling of the size.

  By least squares in log2(size), weighted by the pairs of runs. None with fewer than two
  sizes; without repeats the interval is infinite.

  Args:
    found: of `differences` over one column, the size.
  """
  if len(found) < 2:
    return None
  x = np.log2([float(key[0]) for key in found])
  each = list(found.values())
  num = np.array([one.num for one in each], float)
  x = x - np.average(x, weights=num)
  square = float(num @ x**2)
  value = float(num * x @ [one.value for one in each]) / square
  # All intervals are one pooled t interval, over the root of the pairs.
  half = (each[0].hi - each[0].value) * math.sqrt(each[0].num / square)
  return Estimate(value, value - half, value + half, int(num.sum()))


class Bend(NamedTuple):
  """How a curve differs from a straight line in log(size).

  Attributes:
    gain: from the smallest to the largest size.
    middle: how far the curve lies above the line's ends in the middle, in the unit of
      the data; 0 for a straight one.
  """

  gain: Estimate
  middle: Estimate


def bend(table: pd.DataFrame) -> Bend | None:
  """Returns how an arm's curve bends, by a parabola in log(size).

  None with fewer than four sizes. Without repeats the interval is infinite.

  Args:
    table: of one arm, with columns num_images and value.
  """
  found = means(table, ['num_images'])
  if len(found) < 4:
    return None
  sizes = np.array([key[0] for key in found], float)
  values = np.array([each.value for each in found.values()])
  halves = np.array([each.hi - each.value for each in found.values()])
  x = np.log(sizes / sizes[0]) / np.log(sizes[-1] / sizes[0])  # from 0 to 1
  design = np.stack([1 - x, x, 4 * x * (1 - x)], axis=1)
  weights = 1 / halves if np.isfinite(halves).all() else np.ones(len(x))
  # The pooled t interval of each mean is carried through the least squares.
  solver = np.linalg.pinv(design * weights[:, None]) * weights
  middle = float(solver[2] @ values)
  half = (
    float(np.sqrt(np.square(solver[2] * halves).sum()))
    if np.isfinite(halves).all()
    else math.inf
  )
  num = sum(each.num for each in found.values())
  gain = whole_gain(table)
  if gain is None:
    return None
  return Bend(gain, Estimate(middle, middle - half, middle + half, num))


def _rows(table: pd.DataFrame, where: Mapping[str, Any]) -> pd.DataFrame:
  for name, value in where.items():
    table = table[table[name] == value]
  return table


def _setting(key: Any) -> Setting:
  values = key if isinstance(key, tuple) else (key,)
  return tuple(value.item() if hasattr(value, 'item') else value for value in values)


def _estimates(samples: Mapping[Setting, np.ndarray]) -> dict[Setting, Estimate]:
  dof = sum(len(values) - 1 for values in samples.values())
  square = sum(
    float(np.square(values - values.mean()).sum()) for values in samples.values()
  )
  found = {}
  for key, values in samples.items():
    value, half = float(values.mean()), math.inf
    if dof:
      quantile = float(special.stdtrit(dof, (1 + LEVEL) / 2))
      half = quantile * math.sqrt(square / dof / len(values))
    found[key] = Estimate(value, value - half, value + half, len(values))
  return found
