"""Curves to forecast: three public sets, and simulated ones whose truth is known.

A curve is cut before it is fitted: nothing of its held-out part reaches a forecaster.
Except for Hoiem's, whose cut is the published one, training stops at a quarter of the
largest size, so that forecasts of up to four times the data are judged.
"""

import csv
import dataclasses
import itertools
import math
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

Kind = Literal['accuracy', 'error', 'loss']

HELD_OUT_FACTOR = 4  # the largest size over the largest that may be fitted
MIN_SIZES = 4  # a law with a floor has three parameters
CIFAR100_CLASSES = 100
CIFAR100_TEST_IMAGES = 10_000


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
  """One learning curve, cut in two.

  Attributes:
    name: unique within its set.
    group: what it shares with other curves: a data set, a setting, a law.
    kind: what the values are; fractions, or a loss in nats.
    sizes, values, seeds: [N] one run each, ascending in size; sizes may repeat.
    held_sizes, held_values: [S] held out, observed; distinct and ascending.
    held_truth: [S] without noise, or None where nobody knows it.
    num_test: images in the test set, or None.
    se: [N] standard errors of `values` where these are means, or None.
  """

  name: str
  group: str
  kind: Kind
  sizes: np.ndarray
  values: np.ndarray
  seeds: np.ndarray
  held_sizes: np.ndarray
  held_values: np.ndarray
  held_truth: np.ndarray | None = None
  num_test: float | None = None
  se: np.ndarray | None = None

  @property
  def factors(self) -> np.ndarray:
    """[S] how far each held-out size lies beyond the largest fitted one."""
    return self.held_sizes / self.sizes[-1]

  def as_error(self, values: np.ndarray) -> np.ndarray:
    """Between the unit of `values` and that of errors; its own inverse."""
    return 1 - values if self.kind == 'accuracy' else values


def lcdb(folder: pathlib.Path) -> list[Curve]:
  """One curve per data set and learner of LCDB 1.0 (Mohr et al. 2022).

  Values are means over 25 or so splits, `se` their standard errors. The column `n`
  counts these splits; the size is `size_train`.
  """
  path = folder / 'lcdb_1_0' / 'lcdb10_accuracy_mean_sd.csv'
  curves = []
  for (data, learner), rows in _grouped(
    path, lambda row: (int(row['openmlid']), row['learner'])
  ):
    rows.sort(key=lambda row: int(row['size_train']))
    sizes, values, sd, splits = (
      np.array([float(row[name] or 'nan') for row in rows])
      for name in ('size_train', 'acc_test_mean', 'acc_test_sd', 'n')
    )
    kept = sizes <= sizes[-1] / HELD_OUT_FACTOR
    if kept.sum() < MIN_SIZES or not np.isfinite([values, sd]).all():
      continue
    curves.append(
      Curve(
        name=f'{data}/{learner}',
        group=str(data),
        kind='accuracy',
        sizes=sizes[kept],
        values=values[kept],
        seeds=np.zeros(kept.sum(), int),
        held_sizes=sizes[~kept],
        held_values=values[~kept],
        num_test=float(rows[0]['size_test']),
        se=(sd / np.sqrt(splits))[kept],
      )
    )
  return curves


def hoiem(folder: pathlib.Path) -> list[Curve]:
  """CIFAR-100 with repeats, one curve per setting (Hoiem et al. 2021).

  Sizes are images, not images per class. The cut is theirs: 400 per class is asked
  for, which is only twice the largest size fitted.
  """
  path = folder / 'hoiem2021_learning_curve' / 'cifar100_error_vs_n.csv'
  curves = []
  for (setting,), rows in _grouped(path, lambda row: (row['setting'],)):
    rows.sort(key=lambda row: (int(row['train_samples_per_class']), int(row['repeat'])))
    sizes = np.array(
      [CIFAR100_CLASSES * float(row['train_samples_per_class']) for row in rows]
    )
    values = np.array([float(row['test_error_pct']) / 100 for row in rows])
    seeds = np.array([int(row['repeat']) for row in rows])
    kept = sizes <= 200 * CIFAR100_CLASSES
    held_sizes, held_values = _means(sizes[~kept], values[~kept])
    curves.append(
      Curve(
        name=setting,
        group=setting,
        kind='error',
        sizes=sizes[kept],
        values=values[kept],
        seeds=seeds[kept],
        held_sizes=held_sizes,
        held_values=held_values,
        num_test=CIFAR100_TEST_IMAGES,
      )
    )
  return curves


def epoch(folder: pathlib.Path) -> list[Curve]:
  """Chinchilla's runs as read from its figure (Epoch AI 2024), a curve per model size.

  Sizes are tokens and values losses in nats. The five runs that Epoch leaves out are
  left out here. Model sizes differ by up to 1% within a curve, as they were drawn.
  """
  path = folder / 'epoch_chinchilla' / 'chinchilla_N_D_loss.csv'
  rows = [
    (float(row['N']), float(row['D']), float(row['loss']))
    for row in _read(path)
    if row['excluded_by_epoch'] == '0'
  ]
  params, tokens, losses = np.array(sorted(rows)).T
  starts = np.flatnonzero(np.diff(np.log(params)) > 0.01) + 1
  curves = []
  for part in np.split(np.arange(len(params)), starts):
    sizes, values = _means(tokens[part], losses[part])
    kept = sizes <= sizes[-1] / HELD_OUT_FACTOR
    if kept.sum() < MIN_SIZES:
      continue
    name = f'{params[part].mean() / 1e6:.0f}M'
    curves.append(
      Curve(
        name=name,
        group=name,
        kind='loss',
        sizes=sizes[kept],
        values=values[kept],
        seeds=np.zeros(kept.sum(), int),
        held_sizes=sizes[~kept],
        held_values=values[~kept],
      )
    )
  return curves


FAMILIES = (
  'constant',
  'log_linear',
  'logit_linear',
  'power',
  'power_floor',
  'shifted_power',
  'm4',
  'double_saturation',
  'exponential',
  'stretched_exponential',
  'smooth_break',
)
NUM_SIZES = (6, 8, 12)
DECADES = (1.5, 3.0)
RELATIVE_NOISE = (0.0, 0.05)  # sd of one run over its error
MAX_SEEDS = 3
TARGET_FACTORS = (2, 4, 10)
# Beyond these a curve is drawn anew: no study would report it, and a law such as the
# log-linear one would leave the errors.
ERROR_RANGE = (2e-3, 0.99)


def simulated(num: int, rng: np.random.Generator) -> list[Curve]:
  """`num` curves of error, the families of `FAMILIES` in turn.

  Each is known without noise at 2, 4 and 10 times its largest size (`held_truth`) and
  observed there in one new run. Sizes are 6, 8 or 12 over 1.5 to 3 decades, evenly on
  the log axis; each is trained once to three times; the noise of a run is normal, its
  sd a fixed 0 to 5% of the error.
  """
  width = len(str(max(num - 1, 0)))
  return [
    _simulate(
      FAMILIES[i % len(FAMILIES)], f'{FAMILIES[i % len(FAMILIES)]}-{i:0{width}}', rng
    )
    for i in range(num)
  ]


def _simulate(family: str, name: str, rng: np.random.Generator) -> Curve:
  num_sizes = int(rng.choice(NUM_SIZES))
  smallest = _log_uniform(rng, 50, 2000)
  decades = rng.uniform(*DECADES)
  sizes = np.round(smallest * np.logspace(0, decades, num_sizes))
  held_sizes = sizes[-1] * np.array(TARGET_FACTORS, float)
  every = np.concatenate([sizes, held_sizes])
  while True:
    truth = draw_law(family, sizes[0] / sizes[-1], rng)(every / sizes[-1])
    if (truth >= ERROR_RANGE[0]).all() and (truth <= ERROR_RANGE[1]).all():
      break
  sd = rng.uniform(*RELATIVE_NOISE)
  num_seeds = int(rng.integers(1, MAX_SEEDS + 1))

  def run(error: np.ndarray) -> np.ndarray:
    return np.clip(error * (1 + sd * rng.standard_normal(len(error))), 0, 1)

  at_sizes, held_truth = truth[:num_sizes], truth[num_sizes:]
  return Curve(
    name=name,
    group=family,
    kind='error',
    sizes=np.repeat(sizes, num_seeds),
    values=run(np.repeat(at_sizes, num_seeds)),
    seeds=np.tile(np.arange(num_seeds), num_sizes),
    held_sizes=held_sizes,
    held_values=run(held_truth),
    held_truth=held_truth,
  )


def draw_law(
  family: str, smallest: float, rng: np.random.Generator
) -> Callable[[np.ndarray], np.ndarray]:
  """A law of a family with parameters drawn at random: x [J] -> errors [J].

  x is the size over the largest size fitted, so that bends and breaks fall where they
  matter. The error at x = 1 is log-uniform in 0.03 to 0.5 and the floor 0 to 95% of it.

  Args:
    family: one of `FAMILIES`.
    smallest: x of the smallest size.
    rng: source of the parameters.
  """
  level = _log_uniform(rng, 0.03, 0.5)
  floor = rng.uniform(0, 0.95) * level
  match family:
    case 'constant':
      return lambda x: np.full(len(x), level)
    case 'log_linear':
      slope = rng.uniform(0.01, 0.2)  # accuracy per decade
      return lambda x: level - slope * np.log10(x)
    case 'logit_linear':
      slope = rng.uniform(0.2, 1.5)  # logit per decade
      return lambda x: 1 / (1 + (1 / level - 1) * x ** (slope / math.log(10)))
    case 'm4':
      return _draw_m4(level, floor, rng)
    case 'power':
      exponent = rng.uniform(0.05, 0.7)
      return _through(level, 0.0, lambda x: x**-exponent)
    case 'power_floor':
      exponent = rng.uniform(0.1, 1.0)
      return _through(level, floor, lambda x: x**-exponent)
    case 'shifted_power':
      exponent, shift = rng.uniform(0.1, 1.0), _log_uniform(rng, 0.1, 10)
      return _through(level, 0.0, lambda x: (1 / x + shift) ** exponent)
    case 'double_saturation':
      exponent = rng.uniform(0.1, 1.0)
      shift = smallest * _log_uniform(rng, 0.3, 10)
      return _through(level, floor, lambda x: (x + shift) ** -exponent)
    case 'exponential':
      scale = _log_uniform(rng, 0.1, 3)
      return _through(level, floor, lambda x: np.exp(-x / scale))
    case 'stretched_exponential':
      scale, exponent = _log_uniform(rng, 0.03, 3), rng.uniform(0.2, 0.7)
      return _through(level, floor, lambda x: np.exp(-((x / scale) ** exponent)))
    case 'smooth_break':
      # Caballero et al. 2023 (arXiv 2210.14891) with one break, which may lie beyond
      # the sizes fitted, where no one can foresee it.
      before, after = rng.uniform(0.02, 0.6, 2)
      place, sharpness = _log_uniform(rng, smallest, 4), rng.uniform(0.1, 0.6)
      bend = (after - before) * sharpness
      return _through(
        level,
        floor,
        lambda x: x**-before * (1 + (x / place) ** (1 / sharpness)) ** -bend,
      )
  raise ValueError(f'family={family!r} is not one of {", ".join(FAMILIES)}')


def _through(
  level: float, floor: float, shape: Callable[[np.ndarray], np.ndarray]
) -> Callable[[np.ndarray], np.ndarray]:
  """floor + a shape(x), with the a that gives the level at x = 1."""
  amplitude = (level - floor) / shape(np.ones(1))
  return lambda x: floor + amplitude * shape(x)


def _draw_m4(
  level: float, floor: float, rng: np.random.Generator
) -> Callable[[np.ndarray], np.ndarray]:
  """(e - e_inf) / (e_0 - e)^alpha = beta x^c of Alabdulmohsin et al. 2022."""
  start = rng.uniform(max(0.6, level + 0.05), 1.0)  # e_0
  alpha, exponent = rng.uniform(0.3, 1.5), rng.uniform(0.1, 1.0)
  beta = (level - floor) / (start - level) ** alpha

  def law(x: np.ndarray) -> np.ndarray:
    low, high = np.full(len(x), floor), np.full(len(x), start)
    for _ in range(60):
      middle = (low + high) / 2
      above = middle - floor > beta * x**-exponent * (start - middle) ** alpha
      low, high = np.where(above, low, middle), np.where(above, middle, high)
    return (low + high) / 2

  return law


def choose(curves: Sequence[Curve], num: int | None, seed: int = 0) -> list[Curve]:
  """`num` curves at random, in their order; a smaller choice is part of a larger one."""
  if num is None or num >= len(curves):
    return list(curves)
  order = np.random.default_rng(seed).permutation(len(curves))
  return [curves[i] for i in sorted(order[:num])]


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
  return math.exp(rng.uniform(math.log(low), math.log(high)))


def _means(sizes: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  distinct, where = np.unique(sizes, return_inverse=True)
  return distinct, np.bincount(where, values) / np.bincount(where)


def _read(path: pathlib.Path) -> Iterator[dict[str, str]]:
  with path.open(newline='', encoding='utf-8') as file:
    yield from csv.DictReader(file)


def _grouped(
  path: pathlib.Path, key: Callable[[dict[str, str]], tuple]
) -> Iterator[tuple[tuple, list[dict[str, str]]]]:
  for name, rows in itertools.groupby(sorted(_read(path), key=key), key):
    yield name, list(rows)
