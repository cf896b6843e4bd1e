"""How far one run may fall from the curve: seeds, the test set, and lack of fit.

Repeats at a size give the seed variance directly; it is pooled over sizes as
v0 + v1 / n, because small subsets differ more from each other (Hoiem et al. 2021,
section 3). Standard errors that come with the values take their place, and without
either the binomial variance of the test set is a lower bound. What the size means
scatter beyond that belongs to the curve, not to the seeds, and is a third component
that no number of repeats averages away. It is taken in proportion to the level of the
curve: between noise of equal size everywhere and noise in proportion to the error,
which both occur, and as a binomial count has it.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

# Standard errors and binomial variances are known but leave out some of the noise (other
# subsets, other seeds): trusted like a few repeats rather than fully.
_TRUSTED_DOF = 10.0


@dataclasses.dataclass(frozen=True)
class Points:
  """Runs grouped by size.

  Attributes:
    sizes: [J] distinct, ascending, in images.
    means: [J] of the values.
    counts: [J] runs.
    variances: [J] within a size, unbiased; 0 where there is one run.
  """

  sizes: np.ndarray
  means: np.ndarray
  counts: np.ndarray
  variances: np.ndarray


@dataclasses.dataclass(frozen=True)
class Noise:
  """Variance of one run at size n: v0 + v1 / n + misfit * level(n).

  Attributes:
    v0, v1: seed variance, in value^2 and value^2 * images; see `Known`.
    misfit: variance of size means about the curve beyond v0 + v1 / n, where the level
      is 1: at the geometric mean of the errors.
    levels: [J] of the curve at the sizes, relative.
    seed_dof: degrees of freedom behind v0 and v1; 0 without repeats.
    dof: behind the variance of a size mean as a whole, for Student's t.
  """

  v0: float
  v1: float
  misfit: float
  levels: np.ndarray
  seed_dof: float
  dof: float

  def run_variance(self, sizes: np.ndarray, points: Points) -> np.ndarray:
    """Variance of a new run about the curve. [S] -> [S]."""
    level = np.interp(np.log(sizes), np.log(points.sizes), self.levels)
    return self.v0 + self.v1 / sizes + self.misfit * level


def group(sizes: np.ndarray, values: np.ndarray) -> Points:
  """Groups runs [N] by size."""
  distinct, inverse, counts = np.unique(sizes, return_inverse=True, return_counts=True)
  means = np.bincount(inverse, values) / counts
  squares = np.bincount(inverse, (values - means[inverse]) ** 2)
  return Points(distinct, means, counts, squares / np.maximum(counts - 1, 1))


@dataclasses.dataclass(frozen=True)
class Known:
  """What is known of the noise before any curve is fitted.

  Attributes:
    v0, v1: variance of one run, v0 + v1 / n.
    means: [J] variance of each size mean; zeros where nothing is known.
    dof: behind them: of the repeats, or as many as standard errors and the test set
      are trusted for.
    source: 'repeats', 'standard errors', 'test set' or 'none'.
  """

  v0: float
  v1: float
  means: np.ndarray
  dof: float
  source: str

  @property
  def repeats(self) -> bool:
    """Whether it comes from repeats."""
    return self.source == 'repeats'


def known(
  points: Points, squares: np.ndarray | None = None, num_test: float | None = None
) -> Known:
  """From repeats, else from standard errors, else from the size of the test set.

  Args:
    points: the runs by size.
    squares: [J] mean squared standard error of the rows of each size, or None.
    num_test: images in the test set, for fractions.
  """
  if squares is not None and squares.any():
    # Their trend in the size is smoothed as that of seed variances is.
    rows = dataclasses.replace(
      points, counts=np.full(len(points.sizes), 4), variances=squares
    )
    v0, v1, _ = seed_variance(rows)
    return Known(v0, v1, squares / points.counts, _TRUSTED_DOF, 'standard errors')
  v0, v1, dof = seed_variance(points)
  if dof:
    means = (v0 + v1 / points.sizes) / points.counts
    return Known(v0, v1, means, dof, 'repeats')
  if num_test:
    p = np.clip(points.means, 0.5 / num_test, 1 - 0.5 / num_test)
    variance = p * (1 - p) / num_test
    return Known(
      float(variance.mean()), 0.0, variance / points.counts, _TRUSTED_DOF, 'test set'
    )
  return Known(0.0, 0.0, np.zeros(len(points.sizes)), 0.0, 'none')


def seed_variance(points: Points) -> tuple[float, float, int]:
  """Pools the within-size variances as v0 + v1 / n, both non-negative.

  Profiles the gamma likelihood of the sample variances over the share of v1 and
  averages over that share instead of taking its peak: with few repeats the peak often
  sits at an end, which would hand nearly all weight to one size.

  Returns:
    v0, v1 and their degrees of freedom (0 without repeats).
  """
  dof = points.counts - 1
  if not dof.sum():
    return 0.0, 0.0, 0
  inverse = 1 / points.sizes
  reference = inverse.mean()
  share = np.linspace(0, 1, 51)[:, None]
  profile = 1 - share + share * inverse / reference  # [51, J]
  scale = (dof * points.variances / profile).sum(1) / dof.sum()
  if not scale.all():
    return 0.0, 0.0, int(dof.sum())
  log_likelihood = -0.5 * ((dof * np.log(profile)).sum(1) + dof.sum() * np.log(scale))
  weight = np.exp(log_likelihood - log_likelihood.max())
  weight /= weight.sum()
  v1_share = share[:, 0]
  v0 = (weight * scale * (1 - v1_share)).sum()
  v1 = (weight * scale * v1_share).sum() / reference
  return float(v0), float(v1), int(dof.sum())


def estimate(
  points: Points,
  evidence: Known,
  num_parameters: int,
  fit_curve: Callable[[np.ndarray], np.ndarray],
) -> Noise:
  """Known variance, and the misfit that makes the residuals as large as they are.

  The misfit solves sum_j residual_j^2 / variance_j = J - P (Paule and Mandel 1982), or
  is 0 if what is known already explains the residuals.

  Args:
    points: the runs by size, as errors.
    evidence: see `known`.
    num_parameters: P of the curve.
    fit_curve: weights [J] -> fitted curve at the sizes [J].

  Returns:
    The noise, with degrees of freedom by Satterthwaite's rule.
  """
  residual_dof = max(len(points.sizes) - num_parameters, 1)
  levels = relative_levels(points.means)
  extra, dof = misfit(
    points.means,
    evidence.means,
    evidence.dof or residual_dof,
    residual_dof,
    fit_curve,
    levels,
  )
  seeds = evidence.dof if evidence.repeats else 0
  return Noise(evidence.v0, evidence.v1, float(extra), levels, seeds, float(dof))


def relative_levels(errors: np.ndarray) -> np.ndarray:
  """Level of a curve relative to its geometric mean, within a factor of 10 of it. [J]"""
  lowest = 0.1 * np.abs(errors).max() + 1e-300
  log = np.log(np.maximum(np.abs(errors), lowest))
  return np.exp(np.clip(log - log.mean(), -np.log(10), np.log(10)))


def negligible(values: np.ndarray) -> float:
  """A variance that does nothing but keep the weights of noiseless values finite."""
  return (1e-9 * np.abs(values).max() + 1e-60) ** 2


def misfit(
  means: np.ndarray,
  known: np.ndarray,
  known_dof: float,
  residual_dof: int,
  fit_curve: Callable[[np.ndarray], np.ndarray],
  levels: np.ndarray | float = 1.0,
) -> tuple[float, float]:
  """Variance to add to `known` so that the residuals of a fit are as large as expected.

  Args:
    means: [J] data.
    known: [J] variances of the means from other evidence.
    known_dof: degrees of freedom behind `known`.
    residual_dof: J less the parameters of the curve; at least 1.
    fit_curve: weights [J] -> fitted curve [J].
    levels: [J] to which the added variance is proportional.

  Returns:
    The variance where the level is 1, and the degrees of freedom of the sum by
    Satterthwaite's rule.
  """
  nothing = not known.any()
  known = known + negligible(means)
  # Weights and residuals depend on each other; the loop settles in a few rounds, or at
  # once where the shape of the weights is that of the levels whatever the variance.
  extra = float(np.var(means)) if nothing else 0.0
  for _ in range(1 if nothing else 6):
    squares = (means - fit_curve(1 / (known + extra * levels))) ** 2
    before, extra = extra, _solve_misfit(squares, known, residual_dof, levels)
    if abs(extra - before) <= 1e-2 * (extra + known.mean()):
      break
  share = extra / (extra + known.mean())
  return extra, 1 / ((1 - share) ** 2 / known_dof + share**2 / residual_dof)


def _solve_misfit(
  squares: np.ndarray, known: np.ndarray, dof: int, levels: np.ndarray | float
) -> float:
  if (squares / known).sum() <= dof:
    return 0.0
  low, high = 0.0, (squares / levels).sum() / dof
  for _ in range(60):
    middle = (low + high) / 2
    if (squares / (known + middle * levels)).sum() > dof:
      low = middle
    else:
      high = middle
  return (low + high) / 2
