"""Curves of several depths together: what they share, and where one beats another.

One curve of few sizes says little about its exponent, because the floor makes up for
it; curves of one family say more together. Each gives the likelihood of its exponent
with floor and amplitude fitted, in Student's t form for its own degrees of freedom. From
these come one exponent for all, a test whether there is one, and partial pooling: each
curve's own exponent, drawn towards the others as far as they turn out to be alike
(Gelman and Hill 2007, chapter 12). All by sums over a grid; nothing is sampled by chain.

Floors are always each curve's own. The curves are taken as independent given their
exponents; runs that share a subset of the images are positively correlated, so intervals
of differences err on the wide side.
"""

import dataclasses
import itertools
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from analysis import profile, words
from analysis.comparison import Comparison
from analysis.fit import Fit
from analysis.law_fit import LawFit
from analysis.laws import LAWS, Kind
from analysis.plateau import LAW, Scaled, scaled
from analysis.prediction import Refusal

# Standard deviation of the half-normal prior of tau: exponents of one family that differ
# by more than a factor e are rare (published ones of vision lie in 0.2 to 0.6).
_TAU_SCALE = 0.5
_NUM_TAUS = 24
_NUM_DRAWS = 2000
# Cells of log c in all, and how many of them share one value of mu.
_CELLS = 240
_COARSE = 3


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A value with its interval."""

  value: float
  lo: float
  hi: float


@dataclasses.dataclass(frozen=True)
class Pooled:
  """One curve as the others leave it.

  Attributes:
    alone: its exponent without the others (profile likelihood).
    exponent: c, drawn towards the others.
    floor: e, error with unlimited data.
    amplitude: b, reducible error at one image.
    gain: of the next doubling from the common size, in the unit of the data, by the
      power law with a floor; positive is better.
  """

  alone: Estimate
  exponent: Estimate
  floor: Estimate
  amplitude: Estimate
  gain: Estimate


@dataclasses.dataclass(frozen=True)
class Contrast:
  """Last curve (the deepest) less the first (the shallowest).

  Attributes:
    first, last: keys.
    size: images, the largest that every curve has reached; gains are from it to twice
      it.
    gain: difference of the gains of that doubling, in the unit of the data.
    exponent: difference of the exponents.
    words: in a sentence.
  """

  first: Hashable
  last: Hashable
  size: float
  gain: Estimate
  exponent: Estimate
  words: str


@dataclasses.dataclass(frozen=True)
class Together:
  """Curves of one family together.

  Attributes:
    kind: what the values are.
    level: nominal coverage of the intervals.
    keys: of the curves used; ascending if they are numbers, else as given.
    refused: the others, and why.
    shared: one exponent for all curves.
    p_equal: p-value of "all exponents are equal".
    statistic: of that test, about chi-square of len(keys) - 1 degrees of freedom.
    typical: exp(mu), exponent of a typical curve of the family.
    tau: standard deviation of log exponents between curves.
    pooled: each curve, drawn towards the others.
    contrast: does depth change what more data buys?
    words: in sentences.
  """

  kind: Kind
  level: float
  keys: tuple[Hashable, ...]
  refused: Mapping[Hashable, Refusal]
  shared: Estimate
  p_equal: float
  statistic: float
  typical: Estimate
  tau: Estimate
  pooled: Mapping[Hashable, Pooled]
  contrast: Contrast
  words: str


@dataclasses.dataclass(frozen=True)
class Exponents:
  """What K curves say of their exponents together.

  Attributes:
    shared: one exponent for all curves.
    statistic, p_equal: of the test that there is one.
    mu, tau: [D] draws of mean and standard deviation of the log exponents.
    each: [D, K] draws of the exponents, with `mu` and `tau` of the same row.
  """

  shared: Estimate
  statistic: float
  p_equal: float
  mu: np.ndarray
  tau: np.ndarray
  each: np.ndarray


@dataclasses.dataclass(frozen=True)
class Crossing:
  """Which of two curves is better, and from where on.

  Attributes:
    better, worse: keys; better at the largest size compared.
    comparison: of `better` with `worse`.
    words: in a sentence.
  """

  better: Hashable
  worse: Hashable
  comparison: Comparison
  words: str


def together(
  fits: Mapping[Hashable, Fit | Refusal], rng: int = 0
) -> Together | Refusal:
  """Fits the exponents of several curves together, each with its own floor.

  Args:
    fits: by depth, or by any other key of a family.
    rng: seed of the draws behind floors, amplitudes and gains.

  Returns:
    The joint fit, or a refusal if fewer than two curves carry a power law with a floor.

  Raises:
    ValueError: curves of different kinds or levels.
  """
  fits = _ordered(fits)
  used: dict[Hashable, tuple[Fit, LawFit]] = {}
  refused: dict[Hashable, Refusal] = {}
  for key, fit in fits.items():
    found = fit.law_alone(LAW) if isinstance(fit, Fit) else fit
    if isinstance(fit, Fit) and isinstance(found, LawFit):
      used[key] = fit, found
    else:
      assert isinstance(found, Refusal)
      refused[key] = found
  if len({(fit.kind, fit.level) for fit, _ in used.values()}) > 1:
    raise ValueError('curves that are fitted together must be of one kind and level')
  left_out = ''.join(f'; {key}: {why.reason}' for key, why in refused.items())
  if len(used) < 2:
    noun = 'curve' if len(used) == 1 else 'curves'
    return Refusal(
      'together', f'{len(used)} usable {noun}; pooling needs at least 2{left_out}'
    )
  curves = [scaled(found, fit.evidence) for fit, found in used.values()]
  keys = tuple(used)
  first_fit = next(iter(used.values()))[0]
  kind, level = first_fit.kind, first_fit.level
  size = min(float(found.window[1]) for _, found in used.values())
  joint = exponents(curves, level, rng)
  pooled, gains = {}, []
  for index, (key, curve) in enumerate(zip(keys, curves, strict=True)):
    c = joint.each[:, index]
    floor, amplitude = floors(curve, c, np.random.default_rng([rng, index]))
    gain = amplitude * (size / curve.scale) ** -c * -np.expm1(-c * np.log(2))
    gains.append(gain)
    with np.errstate(over='ignore'):
      natural = amplitude * curve.scale**c
    pooled[key] = Pooled(
      _alone(curve),
      *(_estimate(draws, level) for draws in (c, floor, natural, gain)),
    )
  contrast = Contrast(
    keys[0],
    keys[-1],
    size,
    _estimate(gains[-1] - gains[0], level),
    _estimate(joint.each[:, -1] - joint.each[:, 0], level),
    '',
  )
  contrast = dataclasses.replace(contrast, words=_contrast_words(contrast, kind))
  answer = Together(
    kind=kind,
    level=level,
    keys=keys,
    refused=refused,
    shared=joint.shared,
    p_equal=joint.p_equal,
    statistic=joint.statistic,
    typical=_estimate(np.exp(joint.mu), level),
    tau=_estimate(joint.tau, level),
    pooled=pooled,
    contrast=contrast,
    words='',
  )
  return dataclasses.replace(answer, words=_words(answer) + left_out)


def crossings(
  fits: Mapping[Hashable, Fit | Refusal],
  sizes: Sequence[float] | np.ndarray | None = None,
) -> tuple[Crossing, ...]:
  """Compares neighbouring curves, and the last with the first. Refused ones are skipped.

  Args:
    fits: by depth, or by any other key.
    sizes: of `Fit.compare`, ascending, in images; default the common range and four
      times beyond.
  """
  usable = {k: fit for k, fit in _ordered(fits).items() if isinstance(fit, Fit)}
  pairs = list(itertools.pairwise(usable))
  if len(usable) > 2:
    pairs.append((next(iter(usable)), list(usable)[-1]))
  found = []
  for small, large in pairs:
    better, worse = large, small
    comparison = usable[better].compare(usable[worse], sizes)
    if comparison.probability[-1] < 0.5:
      better, worse = small, large
      comparison = usable[better].compare(usable[worse], sizes)
    text = _crossing_words(better, worse, comparison)
    found.append(Crossing(better, worse, comparison, text))
  return tuple(found)


def exponents(curves: Sequence[Scaled], level: float, rng: int = 0) -> Exponents:
  """Pools the exponents of at least two curves, wholly and partially.

  The shared exponent has the least sum of squared normal scores of the curves' profile
  likelihoods. Its interval is every exponent whose sum exceeds that by at most a
  quantile of chi-square of one degree of freedom, and the least sum itself is the test
  of equality.
  """
  from scipy.special import chdtrc, chdtri

  edges, excess = _profiles(curves)
  dofs = np.array([curve.dof for curve in curves])
  centers = (edges[1:] + edges[:-1]) / 2
  total = normal_squares(excess, dofs[:, None]).sum(axis=0)
  best = int(np.argmin(total))
  statistic, value = float(total[best]), centers[best]
  lo, hi = profile.inside(centers, total, statistic, float(chdtri(1, 1 - level)))
  value, lo, hi = np.exp([value, min(lo, value), max(hi, value)])
  # Squared t with an estimated variance; exp(-excess / 2) would be too sure.
  log_likelihood = -(dofs + 1)[:, None] / 2 * np.log1p(excess / dofs[:, None])
  mu, tau, each = _posterior(edges, log_likelihood, np.random.default_rng(rng))
  return Exponents(
    Estimate(float(value), float(lo), float(hi)),
    statistic,
    float(chdtrc(len(curves) - 1, statistic)),
    mu,
    tau,
    each,
  )


def normal_squares(excess: np.ndarray, dof: np.ndarray) -> np.ndarray:
  """Squared normal of the same p-value as a squared Student t (Alexander, Govern 1994).

  Curves of few degrees of freedom are brought to one footing before they are added;
  added as they are, they would reject far too often.
  """
  from scipy.special import ndtri, stdtr

  tail = stdtr(dof, -np.sqrt(np.maximum(excess, 0.0)))
  return ndtri(np.maximum(tail, 1e-300)) ** 2


def floors(
  curve: Scaled, c: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Draws of floor and amplitude (at the curve's scale) for draws of its exponent [D].

  Given the exponent they are linear: bivariate t about least squares, whose variance
  knows how badly the exponent fits, cut off at 0.
  """
  power = np.exp(-c[:, None] * np.log(curve.x))
  w, y = curve.weights, curve.y
  total, sp, spp = w.sum(), power @ w, (power * power) @ w
  sy, spy = float(w @ y), power @ (w * y)
  determinant = total * spp - sp**2
  # Where the two columns cannot be told apart, the floor is anything up to the data.
  determinant = np.maximum(determinant, 1e-13 * total * spp)
  free = (spp * sy - sp * spy) / determinant
  excess = np.maximum(_squares(curve, np.log(c)) - curve.squares, 0.0)
  dof = curve.dof + 1
  scale = np.sqrt((curve.dof + excess) / generator.chisquare(dof, len(c)))
  z = generator.standard_normal((2, len(c)))
  floor = free + scale * np.sqrt(spp / determinant) * z[0]
  floor = np.clip(floor, 0.0, float(y.max()))
  amplitude = (spy - floor * sp) / spp + scale / np.sqrt(spp) * z[1]
  return floor, np.maximum(amplitude, 0.0)


def _ordered(fits: Mapping[Hashable, Fit | Refusal]) -> dict:
  numbers = all(isinstance(key, int | float) for key in fits)
  return dict(sorted(fits.items())) if numbers else dict(fits)  # type: ignore


def _squares(curve: Scaled, log_c: np.ndarray) -> np.ndarray:
  """Least sum of squares at each exponent, floor and amplitude fitted. [G]"""
  law = LAWS[LAW]
  return profile.of_shape(law, curve.x, curve.y, curve.weights, np.exp(log_c), None)


def _bounds() -> tuple[float, float]:
  low, high = LAWS[LAW].bounds()
  return float(np.log(low[0])), float(np.log(high[0]))


def _profiles(curves: Sequence[Scaled]) -> tuple[np.ndarray, np.ndarray]:
  """Edges of cells of log c [G + 1], and each curve's excess squares there [K, G].

  Cells are narrowest around each curve's optimum, so that a curve of any precision is
  resolved.
  """
  ends = _bounds()
  count = 2 * max(_CELLS // (2 * len(curves)), 20) + 1
  best = [float(np.clip(np.log(curve.best.shape[0, 0]), *ends)) for curve in curves]
  edges = np.unique(np.concatenate([profile.around(at, *ends, count) for at in best]))
  # Of two optima that agree to rounding, cells without width are left.
  edges = edges[np.append(True, np.diff(edges) > 1e-9)]
  centers = (edges[1:] + edges[:-1]) / 2
  rows = [_squares(curve, centers) - curve.squares for curve in curves]
  return edges, np.maximum(rows, 0.0)


def _alone(curve: Scaled) -> Estimate:
  ends = _bounds()
  best = float(np.clip(np.log(curve.best.shape[0, 0]), *ends))
  values = profile.around(best, *ends)
  lo, hi = profile.inside(values, _squares(curve, values), curve.squares, curve.limit)
  value, lo, hi = (float(np.exp(v)) for v in (best, min(lo, best), max(hi, best)))
  return Estimate(value, lo, hi)


def _posterior(
  edges: np.ndarray, log_likelihood: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Draws of mu [D], tau [D] and the curves' exponents [D, K].

  log c_k ~ Normal(mu, tau^2) within the bounds of the exponent, mu uniform between them,
  tau half-normal. mu and tau are on a grid, with each log c_k summed over its cells; a
  draw is a cell of (mu, tau) and then, given it, one of each log c_k.
  """
  from scipy.special import ndtr, ndtri

  levels = 0.5 + (np.arange(_NUM_TAUS) + 0.5) / (2 * _NUM_TAUS)
  taus = _TAU_SCALE * ndtri(levels)
  widths = np.diff(edges)
  mu_edges = np.append(edges[:-1:_COARSE], edges[-1])
  centers = (mu_edges[1:] + mu_edges[:-1]) / 2
  likelihood = np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True))

  def shares(mu: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """[M, G] of the normal in each cell."""
    share = np.diff(ndtr((edges - mu[:, None]) / tau[:, None]), axis=1)
    return share / share.sum(axis=1, keepdims=True)

  log_weight = np.empty((_NUM_TAUS, len(centers)))
  with np.errstate(divide='ignore'):
    for index, tau in enumerate(taus):
      evidence = shares(centers, np.full(len(centers), tau)) @ likelihood.T  # [M, K]
      log_weight[index] = np.log(evidence).sum(axis=1) + np.log(np.diff(mu_edges))
  weight = np.exp(log_weight - log_weight.max()).ravel()
  drawn = _systematic(weight, _NUM_DRAWS, generator)
  row, column = drawn // len(centers), drawn % len(centers)
  prior = shares(centers[column], taus[row])  # [D, G]
  exponents = np.empty((_NUM_DRAWS, len(likelihood)))
  for k, of_curve in enumerate(likelihood):
    below = np.cumsum(prior * of_curve, axis=1)
    mark = generator.random(_NUM_DRAWS) * below[:, -1]
    cell = np.minimum((below < mark[:, None]).sum(axis=1), len(widths) - 1)
    exponents[:, k] = edges[cell] + widths[cell] * generator.random(_NUM_DRAWS)
  # Draws fill the steps of their grids, so that quantiles are not those of the grids.
  step = generator.random((2, _NUM_DRAWS)) - 0.5
  mu = centers[column] + np.diff(mu_edges)[column] * step[0]
  tau = _TAU_SCALE * ndtri(levels[row] + step[1] / (2 * _NUM_TAUS))
  return mu, np.maximum(tau, 0.0), np.exp(exponents)


def _systematic(
  weight: np.ndarray, num: int, generator: np.random.Generator
) -> np.ndarray:
  """Indices drawn by weight, each as often as its weight says to within one, shuffled."""
  marks = (np.arange(num) + generator.random()) / num
  below = np.cumsum(weight)
  index = np.searchsorted(below / below[-1], marks)
  return generator.permutation(np.minimum(index, len(weight) - 1))


def _estimate(draws: np.ndarray, level: float) -> Estimate:
  tail = (1 - level) / 2
  lo, value, hi = np.quantile(draws, [tail, 0.5, 1 - tail])
  return Estimate(float(value), float(lo), float(hi))


def _contrast_words(found: Contrast, kind: Kind) -> str:
  size, gain = words.images(found.size), found.gain
  ends = words.interval(gain.lo, gain.hi, kind, signed=True)
  if gain.lo > 0:
    what = f'{found.last} gains more than {found.first}'
  elif gain.hi < 0:
    what = f'{found.last} gains less than {found.first}'
  else:
    what = f'no difference between {found.last} and {found.first} can be shown'
  return (
    f'from the doubling of {size} images {what}: {words.gain(gain.value, kind)}'
    f'{words.points(kind)} ({ends})'
  )


def _words(found: Together) -> str:
  shared, tau = found.shared, found.tau
  verdict = 'differ' if found.p_equal < 0.05 else 'can be one'
  return (
    f'the exponents of {words.listed([str(key) for key in found.keys])} {verdict} '
    f'(p {words.p_value(found.p_equal)}): {shared.value:.2f} ({shared.lo:.2f} to {shared.hi:.2f}) for all; '
    f'between curves they vary by {100 * tau.value:.0f}% ({100 * tau.lo:.0f} to '
    f'{100 * tau.hi:.0f}%); {found.contrast.words}'
  )


def _crossing_words(better: Hashable, worse: Hashable, found: Comparison) -> str:
  last = words.images(round(float(found.sizes[-1])))
  chance = f'with probability {found.probability[-1]:.0%} at {last}'
  if np.isinf(found.crossing):
    return f'neither of {better} and {worse} is clearly better up to {last} images'
  start = words.count(found.crossing)
  if found.crossing == found.sizes[0]:
    return f'{better} beats {worse} from the smallest size on, {chance}'
  hi = found.crossing_hi
  end = f'beyond {last}' if np.isinf(hi) else words.count(hi)
  return (
    f'{better} beats {worse} from {start} images on '
    f'({words.count(found.crossing_lo)} to {end}), {chance}'
  )
