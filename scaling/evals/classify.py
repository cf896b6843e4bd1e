"""Exact test metrics: every image counts once, padding not at all."""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling import sharding
from scaling.step import Program, State

# Training images of the classes in a long tail (Liu et al. 2019, section 4.1): more than
# the first, fewer than the second, or between the two.
_MANY, _FEW = 100, 20


def evaluate(
  program: Program,
  state: State,
  batches: Iterable[dict[str, Any]],
  train_counts: NDArray[np.integer] | None = None,
  class_weights: ArrayLike | None = None,
) -> dict[str, float]:
  """Returns the means over all test images, and how many there were.

  A metric that no image counts for is left out. With one label an image there are also
  `test/class_top1`, the mean over the classes, and `test/ece`, the expected calibration
  error in 15 bins (Guo et al. 2017, equation 3).

  Args:
    program: whose eval step to run.
    state: of the network.
    batches: of test images on the device, the last one padded and masked.
    train_counts: `[num_classes]`, training images of each: adds `test/top1_many`,
      `_medium` and `_few`, the means over classes with more than 100, 20 to 100 and
      fewer than 20, where they differ in that.
    class_weights: `[num_classes]`, where the config names them: adds the weighted
      metrics of several labels an image.
  """
  if class_weights is not None:
    class_weights = jax.device_put(class_weights, sharding.replicated(program.mesh))
  sums = program.zero_sums
  for batch in batches:
    before, sums = sums, program.eval_step(state, batch, sums, class_weights)
    # One step runs while the next is prepared, no more: an unbounded queue fills a
    # device's memory, and on several CPU devices starves the threads that must meet.
    jax.block_until_ready(before)
  sums = jax.device_get(sums)
  by_class, by_confidence = sums.pop('by_class'), sums.pop('by_confidence')
  found = {
    f'test/{name}': float(each.total) / float(each.count)
    for name, each in sums.items()
    if each.count
  }
  if by_class.count.any():
    found |= class_means(by_class.total, by_class.count, train_counts)
    error = np.abs(by_confidence.total).sum(dtype=float)
    found['test/ece'] = float(error / by_confidence.count.sum(dtype=float))
  return {**found, 'test/num_images': int(sums['loss'].count)}


def class_means(
  hits: NDArray[np.floating],
  counts: NDArray[np.floating],
  train_counts: NDArray[np.integer] | None,
) -> dict[str, float]:
  """Returns the mean accuracy over classes that have test images, all and by frequency.

  Args:
    hits, counts: `[num_classes]`, test images that were right, and all.
    train_counts: `[num_classes]`, of training images.
  """
  tested = counts > 0
  accuracy = hits[tested] / counts[tested]
  found = {'test/class_top1': float(accuracy.mean(dtype=float))}
  if train_counts is None:
    return found
  seen = train_counts[tested]
  groups = {
    'many': seen > _MANY,
    'medium': (seen >= _FEW) & (seen <= _MANY),
    'few': seen < _FEW,
  }
  if sum(group.any() for group in groups.values()) > 1:
    found |= {
      f'test/top1_{name}': float(accuracy[group].mean(dtype=float))
      for name, group in groups.items()
      if group.any()
    }
  return found
