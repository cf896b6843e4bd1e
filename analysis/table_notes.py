"""What is odd about the curves of a table, but no reason to refuse it."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from analysis import noise, words
from analysis.laws import Kind
from analysis.prediction import as_error
from analysis.tables import MEANINGS

_FEW_SIZES = 4  # fewer leave nothing to check a curve with a floor against
_STANDARD_ERRORS = 3  # that a rise must exceed to count
_SHARE_OF_RANGE = 1 / 20  # that it must exceed where the noise is unknown
_MIN_DOF = 3  # of a seed variance; one pair of repeats may agree by chance


def notes(table: pd.DataFrame, kind: Kind) -> list[str]:
  """What is odd about the curves of a table, but no reason to refuse it.

  Args:
    table: of `read_csv`; each combination of its group columns is a curve, or a family
      of curves where there is num_params.
    kind: what the values are.

  Returns:
    Sentences that begin with the curve, in the order of the curves: too few sizes, sizes
    below one image, and the flags of `shape_flags` (of each model size by itself), with
    the noise of the size means from the repeats or the standard errors, the larger where
    there are both.
  """
  group = [name for name in table if name not in MEANINGS]
  found = []
  for name, family in _named_curves(table, group):
    found += [f'{name or "the curve"}: {note}' for note in _size_notes(family)]
    models = ['num_params'] if 'num_params' in family else []
    for model, curve in _named_curves(family, models):
      named = ', '.join(part for part in (name, model) if part) or 'the curve'
      found += [f'{named}: {note}' for note in _shape_notes(curve, kind)]
  return found


def shape_flags(
  sizes: Sequence[float] | np.ndarray,
  means: Sequence[float] | np.ndarray,
  standard_errors: Sequence[float] | np.ndarray | None,
  kind: Kind,
) -> tuple[str, ...]:
  """Flags of a curve that does not simply get better with data.

  Args:
    sizes: [J] distinct, in any order.
    means: [J] values at the sizes, in the unit of `kind`.
    standard_errors: [J] of the means; None if unknown.
    kind: tells which direction is better.

  Returns:
    'not monotone' if the error at some size exceeds that at a smaller one by more than
    three standard errors of their difference, or by more than a twentieth of the range
    where these are unknown; and 'double descent' if after such a rise it falls below
    all that came before.
  """
  order = np.argsort(sizes)
  errors = as_error(kind, np.asarray(means, float)[order])
  spread = None if standard_errors is None else np.asarray(standard_errors)[order]
  peaks = np.flatnonzero(_rises(errors, spread).any(0))
  if not len(peaks):
    return ()
  if any(errors[peak:].min() < errors[:peak].min() for peak in peaks):
    return 'not monotone', 'double descent'
  return ('not monotone',)


def _named_curves(
  table: pd.DataFrame, keys: list[str]
) -> Iterator[tuple[str, pd.DataFrame]]:
  """Yields the name of each curve, such as 'depth=8, width=16', and its rows."""
  if not keys:
    yield '', table
    return
  for key, curve in table.groupby(keys, sort=True):
    yield (
      ', '.join(
        f'{k}={v:.10g}' if isinstance(v, float) else f'{k}={v}'
        for k, v in zip(keys, key, strict=True)
      ),
      curve,
    )


def _size_notes(family: pd.DataFrame) -> list[str]:
  sizes = np.unique(family['num_images'])
  found = []
  if len(sizes) < _FEW_SIZES:
    found.append(
      f'has results at {words.listed([words.images(size) for size in sizes])} images '
      f'only; to tell a floor from a slope takes {_FEW_SIZES} sizes'
    )
  if sizes[0] < 1:
    found.append(
      f'sizes begin at {sizes[0]:g}; they are numbers of images, not shares of a set or '
      'millions'
    )
  return found


def _shape_notes(curve: pd.DataFrame, kind: Kind) -> list[str]:
  sizes = curve['num_images'].to_numpy(float)
  points = noise.group(sizes, curve['value'].to_numpy(float))
  spread = _spread(curve, sizes, points)
  flags = shape_flags(points.sizes, points.means, spread, kind)
  if not flags:
    return []
  errors = as_error(kind, points.means)
  steps = np.where(_rises(errors, spread), errors - errors[:, None], 0)
  before, after = np.unravel_index(steps.argmax(), steps.shape)
  shown = [words.score(points.means[at], kind) for at in (before, after)]
  return [
    f'{" and shaped like a ".join(flags)}: {kind} goes from {shown[0]} at '
    f'{words.images(points.sizes[before])} images to {shown[1]} at '
    f'{words.images(points.sizes[after])}'
  ]


def _spread(
  curve: pd.DataFrame, sizes: np.ndarray, points: noise.Points
) -> np.ndarray | None:
  """Standard errors of the size means [J], or None if nothing tells them."""
  known = []
  v0, v1, dof = noise.seed_variance(points)
  if dof >= _MIN_DOF and v0 + v1 > 0:
    known.append(np.sqrt((v0 + v1 / points.sizes) / points.counts))
  if 'se' in curve and curve['se'].any():
    squares = curve['se'].to_numpy(float) ** 2
    sums = np.bincount(np.searchsorted(points.sizes, sizes), squares)
    known.append(np.sqrt(sums) / points.counts)
  return np.max(known, axis=0) if known else None


def _rises(errors: np.ndarray, spread: np.ndarray | None) -> np.ndarray:
  """[J, J]: whether the error at size j is clearly above that at the smaller size i."""
  if not len(errors):
    return np.zeros((0, 0), bool)
  if spread is None:
    margin = _SHARE_OF_RANGE * np.ptp(errors)
  else:
    margin = _STANDARD_ERRORS * np.hypot(spread, spread[:, None])
  # Equal values may differ by rounding once they are turned into errors.
  rounding = 1e-12 * np.abs(errors).max()
  return np.triu(errors - errors[:, None] > margin + rounding, 1)
