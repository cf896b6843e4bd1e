"""Forecasts public and simulated curves with our fits and with those of others.

  python -m experiments.benchmarks.fit_curves --curves=FOLDER --set=lcdb --num_curves=200

All methods see the same runs in the same process, one after the other. Each is scored
on the sizes held out, near and far ones apart, and timed in CPU seconds.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from analysis.fit import Fit, fit
from analysis.laws import LAWS
from experiments.benchmarks import curve_sets
from experiments.benchmarks.curve_sets import Curve
from experiments.benchmarks.peers import SHORT, Schedule, forecast, last_value, peers

LEVEL = 0.9
FLOOR = 1e-4  # of predictions and truths whose logarithm is taken
# Upper ends in units of the largest size fitted; midway between the factors of sqrt(2),
# 2, 4 and 10 that occur, so that rounded sizes stay together.
BINS = {'to 1.7x': 1.7, '1.7-3x': 3.0, '3-6x': 6.0, 'over 6x': math.inf}
EVERYWHERE = 'all'

SETS = ('lcdb', 'hoiem', 'epoch', 'simulated')
NUM_SIMULATED = 220
CURVES_AT_ONCE = 25  # of ours, between two looks at the clock
PROGRESS_SECONDS = 5.0


@dataclasses.dataclass
class Forecasts:
  """What one method says of every curve of a set, in errors.

  Attributes:
    values: one [S] for each curve.
    lo, hi: ends of the prediction band, or None for a method without one.
    failed: curves for which the last value stands in.
    seconds: CPU time of all curves.
  """

  values: list[np.ndarray]
  lo: list[np.ndarray] | None
  hi: list[np.ndarray] | None
  failed: int
  seconds: float


def ours(
  curves: Sequence[Curve], laws: Sequence[str] = tuple(LAWS)
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
  """Our forecasts of the held-out sizes: the one place that calls our fitter.

  Args:
    curves: what to fit; their held-out values are not looked at.
    laws: keys in `analysis.laws.LAWS`, stacked.

  Returns:
    Predictions and both ends of the 90% band of a new run, one [S] for each curve, in
    errors. NaN where nothing can be fitted.
  """
  values, lows, highs = [], [], []
  for i, curve in enumerate(curves):
    value = lo = hi = np.full(len(curve.held_sizes), math.nan)
    names = [law for law in laws if curve.kind in LAWS[law].kinds]
    found = None
    if names:
      found = fit(
        curve.sizes,
        curve.values,
        kind=curve.kind,
        se=curve.se,
        num_test=curve.num_test,
        laws=names,
        level=LEVEL,
        rng=i,
      )
    if isinstance(found, Fit):
      value, _, _, lo, hi = map(curve.as_error, found.predict(curve.held_sizes))
    values.append(value)
    lows.append(np.minimum(lo, hi))  # an accuracy's upper end is an error's lower one
    highs.append(np.maximum(lo, hi))
  return values, lows, highs


class _Progress:
  """A line on standard error every few seconds."""

  def __init__(self, text: str, total: int):
    self._text, self._total = text, total
    self._start = self._said = time.monotonic()

  def at(self, done: int) -> None:
    now = time.monotonic()
    if now - self._said >= PROGRESS_SECONDS:
      self._said = now
      print(
        f'{self._text}: {done}/{self._total} curves, {now - self._start:.0f} s',
        file=sys.stderr,
        flush=True,
      )


def run_ours(curves: Sequence[Curve], name: str, **options: Any) -> Forecasts:
  """Runs `ours` on a few curves at a time; options are its."""
  parts: list[list[np.ndarray]] = [[], [], []]
  progress, start = _Progress(name, len(curves)), time.process_time()
  for i in range(0, len(curves), CURVES_AT_ONCE):
    answer = ours(curves[i : i + CURVES_AT_ONCE], **options)
    for part, new in zip(parts, answer, strict=True):
      part.extend(new)
    progress.at(len(parts[0]))
  seconds, failed = time.process_time() - start, 0
  values, lo, hi = parts
  for i, curve in enumerate(curves):
    if not np.isfinite(values[i]).all():
      failed += 1
      values[i] = last_value(curve.sizes, curve.as_error(curve.values), values[i])
  return Forecasts(values, lo, hi, failed, seconds)


def run_peers(
  curves: Sequence[Curve], name: str, schedule: Schedule
) -> Iterator[tuple[str, Forecasts]]:
  """Runs each peer on all curves."""
  for peer_name, peer in peers(schedule).items():
    values, failed = [], 0
    progress = _Progress(f'{name}: {peer_name}', len(curves))
    start = time.process_time()
    for curve in curves:
      value, bad = forecast(
        peer, curve.sizes, curve.as_error(curve.values), curve.held_sizes
      )
      values.append(value)
      failed += bad
      progress.at(len(values))
    yield (
      peer_name,
      Forecasts(values, None, None, failed, time.process_time() - start),
    )


def run(curves: Sequence[Curve], name: str, schedule: Schedule) -> dict[str, Forecasts]:
  """Runs every method: ours, each of our laws alone, and the peers."""
  methods = {'ours': run_ours(curves, f'{name}: ours')}
  for law in LAWS:
    methods[f'law:{law}'] = run_ours(curves, f'{name}: law:{law}', laws=(law,))
  return methods | dict(run_peers(curves, name, schedule))


def score(
  curves: Sequence[Curve], forecasts: Forecasts
) -> dict[str, dict[str, float | None]]:
  """Scores by bin of the extrapolation factor, and over all of them.

  Errors are against the truth where it is known and the observation elsewhere; coverage
  is always of the observation, a new run. Every forecast of a fraction is kept within
  [0, 1]. All held-out sizes count alike.

  Returns:
    For each bin with points: num_points, mean_abs and median_abs (points, that is
    hundredths), mean_abs_log, coverage and mean_width (points); the last two are None
    for a method without a band.
  """

  def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(
      [
        part if curve.kind == 'loss' else np.clip(part, 0, 1)
        for curve, part in zip(curves, parts, strict=True)
      ]
    )

  observed = np.concatenate([curve.as_error(curve.held_values) for curve in curves])
  truth = np.concatenate([_truth(curve) for curve in curves])
  factors = np.concatenate([curve.factors for curve in curves])
  predicted = joined(forecasts.values)
  wrong = 100 * np.abs(predicted - truth)
  logs = np.abs(np.log(np.maximum(predicted, FLOOR) / np.maximum(truth, FLOOR)))
  covered = width = None
  if forecasts.lo is not None and forecasts.hi is not None:
    lo, hi = joined(forecasts.lo), joined(forecasts.hi)
    # Without a band nothing is covered, and there is no width to average.
    covered, width = (lo <= observed) & (observed <= hi), 100 * (hi - lo)
  scores = {}
  for label, inside in _bins(factors).items():
    scores[label] = {
      'num_points': int(inside.sum()),
      'mean_abs': float(wrong[inside].mean()),
      'median_abs': float(np.median(wrong[inside])),
      'mean_abs_log': float(logs[inside].mean()),
      'coverage': None if covered is None else float(covered[inside].mean()),
      'mean_width': None if width is None else _finite_mean(width[inside]),
    }
  return scores


def _bins(factors: np.ndarray) -> dict[str, np.ndarray]:
  place = np.searchsorted(list(BINS.values()), factors)
  masks = {label: place == i for i, label in enumerate(BINS)}
  every = {EVERYWHERE: np.ones(len(factors), bool)}
  return every | {label: mask for label, mask in masks.items() if mask.any()}


def _truth(curve: Curve) -> np.ndarray:
  known = curve.held_values if curve.held_truth is None else curve.held_truth
  return curve.as_error(known)


def _finite_mean(values: np.ndarray) -> float | None:
  values = values[np.isfinite(values)]
  return float(values.mean()) if len(values) else None


def benchmark(
  sets: Mapping[str, Sequence[Curve]], schedule: Schedule = SHORT
) -> dict[str, Any]:
  """Runs and scores every method on every set.

  Returns:
    What `--out` holds: `settings`, and for each set `num_curves`, `methods` (name ->
    `seconds_per_curve`, `failures`, `scores` of `score`) and `points`, in parallel
    lists one entry for each held-out size: `curve`, `group`, `size`, `factor`,
    `observed`, `truth` (errors), and `predicted` by method, not kept within [0, 1].
  """
  results = {}
  for name, curves in sets.items():
    methods = run(curves, name, schedule)
    results[name] = {
      'num_curves': len(curves),
      'methods': {
        method: {
          'seconds_per_curve': found.seconds / len(curves),
          'failures': found.failed,
          'scores': score(curves, found),
        }
        for method, found in methods.items()
      },
      'points': _points(curves, methods),
    }
  settings = {
    'level': LEVEL,
    'floor': FLOOR,
    'bins': list(BINS),
    'schedule': dataclasses.asdict(schedule),
  }
  return {'settings': settings, 'sets': results}


def _points(
  curves: Sequence[Curve], methods: Mapping[str, Forecasts]
) -> dict[str, Any]:
  def column(parts: Sequence[np.ndarray]) -> list[float]:
    return [float(f'{value:.6g}') for value in np.concatenate(parts)]

  return {
    'curve': [curve.name for curve in curves for _ in curve.held_sizes],
    'group': [curve.group for curve in curves for _ in curve.held_sizes],
    'size': column([curve.held_sizes for curve in curves]),
    'factor': column([curve.factors for curve in curves]),
    'observed': column([curve.as_error(curve.held_values) for curve in curves]),
    'truth': column([_truth(curve) for curve in curves]),
    'predicted': {name: column(found.values) for name, found in methods.items()},
  }


def format_table(name: str, result: Mapping[str, Any]) -> str:
  """One set's results as an aligned table: all points, then the mean error by bin."""
  methods = result['methods']
  everywhere = next(iter(methods.values()))['scores']
  bins = [label for label in everywhere if label != EVERYWHERE]
  head = ['method', 'mean', 'median', 'log', 'cover', 'width', *bins]
  rows = [[*head, 'ms', 'failed']]
  for method, found in methods.items():
    total = found['scores'][EVERYWHERE]
    cover = total['coverage']
    rows.append(
      [
        method,
        _number(total['mean_abs']),
        _number(total['median_abs']),
        _number(total['mean_abs_log'], 3),
        '-' if cover is None else f'{100 * cover:.0f}%',
        _number(total['mean_width']),
        *(_number(found['scores'][label]['mean_abs']) for label in bins),
        _number(1000 * found['seconds_per_curve'], 1),
        str(found['failures']),
      ]
    )
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = [
    '  '.join(
      cell.ljust(width) if i == 0 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    for row in rows
  ]
  counts = ', '.join(
    f'{everywhere[label]["num_points"]} {label}' for label in (EVERYWHERE, *bins)
  )
  title = (
    f'{name}: {result["num_curves"]} curves; held-out sizes: {counts}\n'
    'absolute error in points (0.01): mean, median, and mean by extrapolation factor; '
    f'log = mean |log ratio|; cover, width = of the {LEVEL:.0%} band; CPU ms per curve'
  )
  return '\n'.join([title, *lines])


def _number(value: float | None, digits: int = 2) -> str:
  return '-' if value is None else f'{value:.{digits}f}'


def read_sets(
  folder: pathlib.Path | None, chosen: str, num_curves: int | None, seed: int = 0
) -> dict[str, list[Curve]]:
  """The sets of `--set`, each with at most `num_curves` curves."""
  names = SETS if chosen == 'all' else (chosen,)
  readers = {
    'lcdb': curve_sets.lcdb,
    'hoiem': curve_sets.hoiem,
    'epoch': curve_sets.epoch,
  }
  sets = {}
  for name in names:
    if name == 'simulated':
      num = NUM_SIMULATED if num_curves is None else num_curves
      sets[name] = curve_sets.simulated(num, np.random.default_rng(seed))
    elif folder is None:
      raise ValueError(f'--set={name} reads curves from disk; say where by --curves')
    else:
      sets[name] = curve_sets.choose(readers[name](folder), num_curves, seed)
  return sets


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  parser = argparse.ArgumentParser(prog='fit_curves', description=__doc__)
  parser.add_argument(
    '--curves', type=pathlib.Path, help='folder that holds lcdb_1_0 and the others'
  )
  parser.add_argument('--set', default='all', choices=(*SETS, 'all'))
  parser.add_argument('--num_curves', type=int, help='of each set, at random')
  parser.add_argument('--out', type=pathlib.Path, help='JSON file to write')
  parser.add_argument(
    '--rounds',
    type=int,
    default=SHORT.rounds,
    help='limit of M2, M3 and M4 (published: 10000)',
  )
  args = parser.parse_args(argv)
  if args.num_curves is not None and args.num_curves < 1:
    parser.error(f'--num_curves={args.num_curves} must be at least 1')
  try:
    sets = read_sets(args.curves, args.set, args.num_curves)
  except (FileNotFoundError, ValueError) as error:
    parser.error(str(error))
  results = benchmark(sets, dataclasses.replace(SHORT, rounds=args.rounds))
  print('\n\n'.join(format_table(*item) for item in results['sets'].items()))
  if args.out:
    args.out.write_text(json.dumps(results) + '\n', encoding='utf-8')
  return 0


if __name__ == '__main__':
  sys.exit(main())
