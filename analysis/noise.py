"""How far one run may fall from the curve: seeds, the test set, and lack of fit.

Repeats at a size give the seed variance directly; it is pooled over sizes as
v0 + v1 / n, because small subsets differ more from each other (Hoiem et al. 2021,
section 3). What the size means scatter beyond that belongs to the curve, not to the
seeds, and is a third component that no number of repeats averages away.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

_BINOMIAL_DOF = 10


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
  """Variance of one run at size n: v0 + v1 / n + misfit.

  Attributes:
    v0, v1: seed variance, in value^2 and value^2 * images; without repeats v0 is the
      binomial variance of the test set (a lower bound), or 0 if that is unknown.
    misfit: variance of size means about the curve beyond v0 + v1 / n.
    seed_dof: degrees of freedom behind v0 and v1; 0 without repeats.
    dof: behind the variance of a size mean as a whole, for Student's t.
  """

  v0: float
  v1: float
  misfit: float
  seed_dof: int
  dof: float

  def run_variance(self, sizes: np.ndarray) -> np.ndarray:
    """Variance of a new run about the curve. [S] -> [S]."""
    return self.v0 + self.v1 / sizes + self.misfit

  def mean_variance(self, points: Points) -> np.ndarray:
    """Variance of each size mean about the curve, [J]."""
    return (self.v0 + self.v1 / points.sizes) / points.counts + self.misfit


def group(sizes: np.ndarray, values: np.ndarray) -> Points:
  """Groups runs [N] by size."""
  distinct, inverse, counts = np.unique(sizes, return_inverse=True, return_counts=True)
  means = np.bincount(inverse, values) / counts
  squares = np.bincount(inverse, (values - means[inverse]) ** 2)
  return Points(distinct, means, counts, squares / np.maximum(counts - 1, 1))


def seed_variance(points: Points, num_test: float | None) -> tuple[float, float, int]:
  """Pools the within-size variances as v0 + v1 / n, both non-negative.

  Profiles the gamma likelihood of the sample variances over the share of v1 and
  averages over that share instead of taking its peak: with few repeats the peak often
  sits at an end, which would hand nearly all weight to one size.

  Args:
    points: the runs by size.
    num_test: images in the test set; without repeats, and for fractions, gives the
      binomial variance. None: unknown.

  Returns:
    v0, v1 and their degrees of freedom (0 without repeats).
  """
  dof = points.counts - 1
  if not dof.sum():
    if num_test:
      p = np.clip(points.means, 0.5 / num_test, 1 - 0.5 / num_test)
      return float(np.mean(p * (1 - p)) / num_test), 0.0, 0
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
  num_parameters: int,
  num_test: float | None,
  fit_curve: Callable[[np.ndarray], np.ndarray],
) -> Noise:
  """Seed variance, and the misfit that makes the residuals as large as they are.

  The misfit solves sum_j residual_j^2 / variance_j = J - P (Paule and Mandel 1982), or
  is 0 if the seeds already explain the residuals.

  Args:
    points: the runs by size.
    num_parameters: P of the curve.
    num_test: see `seed_variance`.
    fit_curve: weights [J] -> fitted curve at the sizes [J].

  Returns:
    The noise, with degrees of freedom by Satterthwaite's rule.
  """
  v0, v1, seed_dof = seed_variance(points, num_test)
  known = (v0 + v1 / points.sizes) / points.counts
  residual_dof = len(points.sizes) - num_parameters
  # A binomial variance is known but is only a lower bound of the noise, hence trusted
  # like a few repeats rather than fully.
  known_dof = seed_dof or (_BINOMIAL_DOF if v0 else residual_dof)
  extra, dof = misfit(points.means, known, known_dof, residual_dof, fit_curve)
  return Noise(v0, v1, float(extra), seed_dof, float(dof))


def misfit(
  means: np.ndarray,
  known: np.ndarray,
  known_dof: float,
  residual_dof: int,
  fit_curve: Callable[[np.ndarray], np.ndarray],
) -> tuple[float, float]:
  """Variance to add to `known` so that the residuals of a fit are as large as expected.

  Args:
    means: [J] data.
    known: [J] variances of the means from other evidence.
    known_dof: degrees of freedom behind `known`.
    residual_dof: J less the parameters of the curve; at least 1.
    fit_curve: weights [J] -> fitted curve [J].

  Returns:
    The variance, and the degrees of freedom of the sum by Satterthwaite's rule.
  """
  known = known + (1e-9 * np.abs(means).max() + 1e-300) ** 2
  extra = 0.0
  # Weights and residuals depend on each other; the loop settles in a few rounds.
  for _ in range(10):
    squares = (means - fit_curve(1 / (known + extra))) ** 2
    before, extra = extra, _solve_misfit(squares, known, residual_dof)
    if abs(extra - before) <= 1e-3 * (extra + known.mean()):
      break
  share = extra / (extra + known.mean())
  return extra, 1 / ((1 - share) ** 2 / known_dof + share**2 / residual_dof)


def _solve_misfit(squares: np.ndarray, known: np.ndarray, dof: int) -> float:
  if (squares / known).sum() <= dof:
    return 0.0
  low, high = 0.0, squares.sum() / dof
  for _ in range(60):
    middle = (low + high) / 2
    if (squares / (known + middle)).sum() > dof:
      low = middle
    else:
      high = middle
  return (low + high) / 2
