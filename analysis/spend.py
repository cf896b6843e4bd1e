"""Where to spend the next runs: at which size, and how many seeds.

Preposterior analysis (Raiffa and Schlaifer 1961): from draws of what the curve may be,
how much would runs at a size tell of the goal? The draws of goal and curve are taken as
jointly normal, so that runs narrow the goal by a known amount whatever they turn out to
be:

    variance after = variance - k' (K + N)^-1 k

with K the covariance of the curve at the candidate sizes, k that with the goal, and N
the variance of the means of the new runs.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np

from analysis import ensemble, words
from analysis.fit import Fit
from analysis.law_fit import LawFit
from analysis.laws import LAWS, Kind
from analysis.plateau import LAW
from analysis.prediction import Refusal

Goal = Literal['exponent', 'floor'] | tuple[Literal['forecast'], float]
Unit = Literal['images', 'flops']
_NAMES = {'exponent': 'c', 'floor': 'e'}
# Draws beyond these quantiles are moved to them: the tails of exponents and forecasts
# are so long that a few draws would otherwise decide the covariance.
_TAIL = 0.01


@dataclasses.dataclass(frozen=True)
class Runs:
  """`seeds` new runs at `size` images."""

  size: float
  seeds: int


@dataclasses.dataclass(frozen=True)
class Option:
  """What some runs would tell of the goal, in its unit.

  Attributes:
    runs: at one size or at two.
    goal: what was asked for.
    cost: in `unit`; at most the budget.
    unit: 'images' or 'flops'.
    before, after: half the width of the interval of the goal, now and expected, at the
      level of the fit.
    sd_before, sd_after: standard deviation of the goal's draws, without their extreme
      tails.
    ratio: after / before, at most 1.
    words: in a sentence.
  """

  runs: tuple[Runs, ...]
  goal: Goal
  cost: float
  unit: Unit
  before: float
  after: float
  sd_before: float
  sd_after: float
  ratio: float
  words: str


@dataclasses.dataclass(frozen=True)
class _Beliefs:
  """Draws of the goal [N] and of the curve at the sizes [N, S], and the noise of runs.

  Attributes:
    goal, curves: draws.
    half: of the goal's interval now.
    seed: [S] variance of a run that repeats average away.
    size: [S] variance of all runs of a size together, which they do not.
  """

  goal: np.ndarray
  curves: np.ndarray
  half: float
  seed: np.ndarray
  size: np.ndarray


def next_runs(
  fit: Fit,
  goal: Goal,
  budget: float,
  *,
  unit: Unit = 'images',
  flops_per_image: float | None = None,
  candidates: Sequence[float] | None = None,
  max_seeds: int = 10,
  mixtures: bool = True,
) -> tuple[Option, ...] | Refusal:
  """Every way to spend the budget, the one that narrows the goal most first.

  Options whose cost is lower come first among equals. The approximation is good where
  the goal is already known within a factor, and it has limits. Draws of floors and
  exponents are skewed, so widths after are right in order more than in size. That new
  runs also teach about the noise, and may move the window or the laws' weights, is left
  out; a window that moves to fewer sizes widens what was to be narrowed. And an interval
  narrows by different amounts for different outcomes, of which this is the average.

  Args:
    fit: of one curve.
    goal: 'exponent' or 'floor' of the power law with a floor, or ('forecast', images):
      the curve at that size by all laws together.
    budget: to spend on new runs, in `unit`.
    unit: 'images' counts training images over all runs; 'flops' training FLOPs.
    flops_per_image: training FLOPs per image of the training set, all epochs together;
      needed for 'flops'.
    candidates: sizes to consider, in images; default the sizes in the fit's window and
      2 and 4 times the largest.
    max_seeds: runs at one size at most.
    mixtures: also consider half of the budget at each of two sizes.

  Raises:
    ValueError: arguments that name no goal, no budget or no size.
  """
  _check(goal, budget, unit, flops_per_image, candidates, max_seeds)
  if isinstance(goal, str):
    found = fit.law_alone(LAW)
    if isinstance(found, Refusal):
      return found
    if not len(found.draws):
      return Refusal(LAW, 'fitted without draws, so that nothing is known of its width')
    sizes = _candidates(candidates, found.window[0], fit.points.sizes)
    beliefs = _of_parameter(fit, found, _NAMES[goal], sizes)
  else:
    sizes = _candidates(candidates, fit.window[0], fit.points.sizes)
    beliefs = _of_forecast(fit, float(goal[1]), sizes)
  price = 1.0 if unit == 'images' else float(flops_per_image or 1.0)
  plans = _plans(sizes, budget / price, max_seeds, mixtures)
  if not plans:
    return Refusal(
      'all',
      f'the budget buys no run: the cheapest, of {words.images(sizes[0])} images, costs '
      f'{_cost(price * sizes[0], unit)} of a budget of {_cost(budget, unit)}',
    )
  joint = np.cov(_winsorised(np.column_stack([beliefs.curves, beliefs.goal])).T)
  counts = np.array([_count(fit, size) for size in sizes])
  options = []
  for plan in plans:
    index = np.array([i for i, _ in plan])
    seeds = np.array([n for _, n in plan])
    noise = _noise(beliefs.seed[index], beliefs.size[index], counts[index], seeds)
    before = float(joint[-1, -1])
    after = variance_after(before, joint[index, -1], joint[np.ix_(index, index)], noise)
    ratio = float(np.sqrt(after / before)) if before > 0 else 1.0
    runs = tuple(Runs(float(sizes[i]), n) for i, n in plan)
    option = Option(
      runs=runs,
      goal=goal,
      cost=price * sum(run.size * run.seeds for run in runs),
      unit=unit,
      before=beliefs.half,
      after=ratio * beliefs.half,
      sd_before=float(np.sqrt(before)),
      sd_after=float(np.sqrt(after)),
      ratio=ratio,
      words='',
    )
    options.append(dataclasses.replace(option, words=_words(option, fit.kind)))
  return tuple(sorted(options, key=lambda option: (option.after, option.cost)))


def curves(
  fit: Fit, sizes: Sequence[float] | np.ndarray, num: int = 4000, rng: int = 0
) -> tuple[np.ndarray, np.ndarray]:
  """Possible curves of the stack as errors, each at all sizes [S] together.

  Returns:
    About `num` draws [N, S], and the variance [S] of one new run about the curve: the
    median over the draws, because its mean need not exist.
  """
  sizes = np.asarray(sizes, float)
  generator = np.random.default_rng(rng)
  repeats = max(1, round(num / sum(len(draws.variance) for draws in fit.draws)))
  found, runs = [], []
  paths = ensemble.paths(fit.data, fit.draws, sizes)
  for draws, (mean, rest, run) in zip(fit.draws, paths, strict=True):
    values, vectors = np.linalg.eigh((rest + rest.T) / 2)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    noise = generator.standard_normal((len(mean), repeats, len(sizes))) @ root.T
    spread = np.sqrt(draws.variance)[:, None, None] * noise
    found.append((mean[:, None] + spread).reshape(-1, len(sizes)))
    runs.append(draws.variance[:, None] * run)
  return np.concatenate(found), np.median(np.concatenate(runs), axis=0)


def variance_after(
  before: float, with_goal: np.ndarray, between: np.ndarray, noise: np.ndarray
) -> float:
  """Variance of the goal once noisy values of the curve are known.

  Args:
    before: variance of the goal now.
    with_goal: [S] covariance of the curve at the sizes of the new runs with the goal.
    between: [S, S] covariance of the curve among these sizes.
    noise: [S] variance of the means of the new runs; inf where they tell nothing new.
  """
  told = np.isfinite(noise)
  if not told.any() or before <= 0:
    return before
  between, with_goal = between[np.ix_(told, told)], with_goal[told]
  # A curve that is known exactly has no variance to learn from.
  ridge = 1e-12 * max(float(np.trace(between)), 1e-300)
  matrix = between + np.diag(noise[told] + ridge)
  return float(
    np.clip(before - with_goal @ np.linalg.solve(matrix, with_goal), 0, before)
  )


def _of_forecast(fit: Fit, goal: float, sizes: np.ndarray) -> _Beliefs:
  draws, run = curves(fit, [*sizes, goal])
  bands = fit.predict(goal)
  half = float(bands.curve_hi[0] - bands.curve_lo[0]) / 2
  return _Beliefs(draws[:, -1], draws[:, :-1], half, run[:-1], np.zeros(len(sizes)))


def _of_parameter(fit: Fit, found: LawFit, name: str, sizes: np.ndarray) -> _Beliefs:
  at = list(found.params).index(name)
  lo, hi = found.intervals[name]
  noise = found.noise
  seed = noise.v0 + noise.v1 / sizes
  level = np.interp(np.log(sizes), np.log(found.points.sizes), noise.levels)
  misfit = noise.misfit * level
  if not fit.evidence.dof:
    # Nothing tells seeds from misfit; without repeats all of it may be seeds.
    seed, misfit = seed + misfit, 0 * misfit
  draws = LAWS[LAW].curve(sizes, found.draws)
  return _Beliefs(found.draws[:, at], draws, (hi - lo) / 2, seed, misfit)


def _noise(
  seed: np.ndarray, size: np.ndarray, counts: np.ndarray, new: np.ndarray
) -> np.ndarray:
  """Variance of an independent observation worth as much as `new` runs. [S]

  At a size that has runs the new ones share what is wrong with the size itself, so they
  are worth the precision that they add to its mean.
  """
  with np.errstate(divide='ignore', invalid='ignore'):
    mean = 1 / (seed / (counts + new) + size)
    already = np.where(counts > 0, 1 / (seed / np.maximum(counts, 1) + size), 0.0)
    gained = np.where(np.isfinite(mean), np.maximum(mean - already, 0.0), np.inf)
    # Runs without any noise: a size that has one is known, another is known then.
    gained = np.where(~np.isfinite(mean) & (counts > 0), 0.0, gained)
    return 1 / gained


def _winsorised(draws: np.ndarray) -> np.ndarray:
  return np.clip(draws, *np.quantile(draws, [_TAIL, 1 - _TAIL], axis=0))


def _candidates(
  candidates: Sequence[float] | None, start: float, sizes: np.ndarray
) -> np.ndarray:
  if candidates is not None:
    return np.unique(np.asarray(candidates, float))
  # The law does not look at sizes below its window, so runs there tell it nothing.
  return np.append(sizes[sizes >= start], sizes[-1] * np.array([2.0, 4.0]))


def _count(fit: Fit, size: float) -> int:
  same = np.isclose(fit.points.sizes, size, rtol=1e-9)
  return int(fit.points.counts[same].sum())


def _plans(
  sizes: np.ndarray, images: float, max_seeds: int, mixtures: bool
) -> list[tuple[tuple[int, int], ...]]:
  """Indices of sizes and seeds that cost at most `images`."""

  def seeds(size: float, images: float) -> int:
    # 30 runs of 0.1 must fit into a budget of 3 in spite of rounding.
    return min(int(images / size * (1 + 1e-9)), max_seeds)

  plans: list[tuple[tuple[int, int], ...]] = [
    ((i, seeds(size, images)),) for i, size in enumerate(sizes)
  ]
  if mixtures:
    for i, j in itertools.combinations(range(len(sizes)), 2):
      plans.append(((i, seeds(sizes[i], images / 2)), (j, seeds(sizes[j], images / 2))))
  return [plan for plan in plans if all(n > 0 for _, n in plan)]


def _words(option: Option, kind: Kind) -> str:
  parts = []
  for run in option.runs:
    noun = 'run' if run.seeds == 1 else 'runs'
    parts.append(f'{run.seeds} more {noun} at {words.images(round(run.size))} images')
  what = option.goal
  if isinstance(what, tuple):
    name = f'forecast at {words.images(what[1])} images'
  else:
    name = what
  if what == 'exponent':
    ends = f'±{option.before:.2g} to ±{option.after:.2g}'
  else:
    before, after = (
      words.gain(half, kind, signed=False) for half in (option.before, option.after)
    )
    ends = f'±{before} to ±{after}' + words.points(kind)
  return f'{words.listed(parts)} would narrow the {name} from {ends}'


def _cost(value: float, unit: Unit) -> str:
  return words.flops(value) if unit == 'flops' else f'{words.images(value)} images'


def _check(
  goal: Goal,
  budget: float,
  unit: str,
  flops_per_image: float | None,
  candidates: Sequence[float] | None,
  max_seeds: int,
) -> None:
  forecast = isinstance(goal, tuple) and len(goal) == 2 and goal[0] == 'forecast'
  if not forecast and goal not in _NAMES:
    raise ValueError(
      f"goal={goal!r} is none of 'exponent', 'floor' and ('forecast', images)"
    )
  if forecast and not (np.isfinite(goal[1]) and float(goal[1]) > 0):
    raise ValueError(f'goal={goal!r} must ask for a positive number of images')
  if not (np.isfinite(budget) and budget > 0):
    raise ValueError(f'budget={budget:g} must be above 0')
  if unit not in ('images', 'flops'):
    raise ValueError(f"unit={unit!r} is neither 'images' nor 'flops'")
  if unit == 'flops' and not (flops_per_image and flops_per_image > 0):
    raise ValueError("unit='flops' needs flops_per_image, the training FLOPs per image")
  if candidates is not None:
    sizes = np.asarray(candidates, float)
    if not (sizes.size and np.isfinite(sizes).all() and (sizes > 0).all()):
      raise ValueError('candidates must be positive numbers of images')
  if max_seeds < 1:
    raise ValueError(f'max_seeds={max_seeds} must be at least 1')
