"""Ridge regression to classes in closed form, for every penalty at once.

The few-shot classifier of Dosovitskiy et al. (2021, section 4.1): least squares from
frozen features to targets of 1 for the class and -1 for all others. One decomposition
gives the solution and the leave-one-out error of each penalty, so the penalty is chosen
on the few images themselves and never on test images.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Relative to the mean square of the singular values; from as good as none to the means.
PENALTIES = np.logspace(-6, 2, 25)

Floats = NDArray[np.floating]


class Classifier(NamedTuple):
  """A linear classifier of features.

  Attributes:
    centre: `[F]`, taken off the features.
    weights: `[F, C]`.
    bias: `[C]`.
    penalty: that was chosen, of `PENALTIES`.
  """

  centre: Floats
  weights: Floats
  bias: Floats
  penalty: float

  def __call__(self, features: Floats) -> Floats:
    """Returns scores `[B, C]` of features `[B, F]`."""
    return (features - self.centre) @ self.weights + self.bias


def fit(
  features: Floats,
  labels: NDArray[np.integer],
  num_classes: int,
  penalties: Floats = PENALTIES,
) -> Classifier:
  """Returns the classifier whose penalty has the least leave-one-out squared error.

  The bias is not penalised.

  Args:
    features: `[N, F]`, of two images at least.
    labels: `[N]`.
    num_classes: C.
    penalties: to choose from.
  """
  x = np.asarray(features, np.float64)
  centre = x.mean(0)
  x = x - centre
  y = np.where(labels[:, None] == np.arange(num_classes), 1.0, -1.0)
  bias = y.mean(0)
  left, values, right = np.linalg.svd(x, full_matrices=False)
  energy, projected = values**2, left.T @ (y - bias)
  scale = max(energy.mean(), np.finfo(float).tiny)
  errors = []
  for penalty in penalties:
    shrink = energy / (energy + penalty * scale)
    residual = y - bias - left @ (shrink[:, None] * projected)
    # An image has a share in its own prediction, by the weights and by the bias.
    own = (left**2) @ shrink + 1 / len(x)
    errors.append(np.square(residual / np.maximum(1 - own, 1e-9)[:, None]).sum())
  penalty = float(penalties[int(np.argmin(errors))])
  inverse = values / (energy + penalty * scale)
  return Classifier(centre, right.T @ (inverse[:, None] * projected), bias, penalty)
