"""Metrics for several labels an image, as sums that grow batch by batch.

Each function takes a batch and returns `(total, count)`, two numbers to add to those of
the batches before; the metric is their quotient. So an evaluation holds two numbers a
metric, whatever the number of images and classes. `clu.metrics.Average` is such a pair.

Classes are ranked by score within an image; of equal scores the lower class comes
first, as `jax.lax.top_k` has it. Chollet (2017) follows training on JFT by MAP@100 on the
set FastEval14k, each class weighted by how often social media show it. Neither the
formula nor the weights are known to us: the definitions below are ours.
"""

import jax
import jax.numpy as jnp


def top_hits(
  logits: jax.Array, labels: jax.Array, k: int
) -> tuple[jax.Array, jax.Array]:
  """Returns the `k` classes of highest score and which of them are labels.

  Args:
    logits: `[B, C]`; -inf for outputs that are no class.
    labels: `[B, K]` distinct ids, padded with -1.
    k: how many; no more than there are classes.

  Returns:
    Classes int32 `[B, k]`, best first, and bool `[B, k]`.
  """
  _, best = jax.lax.top_k(logits, min(k, logits.shape[1]))
  return best, (best[:, :, None] == labels[:, None, :]).any(2)


def average_precision(
  logits: jax.Array,
  labels: jax.Array,
  mask: jax.Array,
  k: int = 100,
  class_weights: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Returns the sum over images of their average precision at k, and their number.

  The sum is float32 and the number int32.

  With c_1 ... c_k the classes ranked first, h_i whether c_i is a label, and w the class
  weights, the average precision of an image is

    sum_i w(c_i) h_i (h_1 + ... + h_i) / i   over   the sum of its labels' weights

  of which the min(k, number of labels) largest count, so that 1 is what a perfect
  ranking gets if all weights are equal. An image without labels has none and does not
  count; nor does one whose labels all weigh nothing.

  Args:
    logits: `[B, C]`.
    labels: `[B, K]` distinct ids, padded with -1.
    mask: `[B]`, 0 for rows of padding.
    k: length of the ranking.
    class_weights: `[C]`, not negative; None weighs all alike.
  """
  best, hits = top_hits(logits, labels, k)
  k = best.shape[1]
  there = labels >= 0
  if class_weights is None:
    gain, worth = jnp.ones(best.shape), there.astype(jnp.float32)
  else:
    gain = class_weights[best]
    worth = jnp.where(there, class_weights[jnp.maximum(labels, 0)], 0.0)
  precision = hits.cumsum(1) / jnp.arange(1, k + 1)
  reached = (gain * hits * precision).sum(1)
  possible = jax.lax.top_k(worth, min(k, worth.shape[1]))[0].sum(1)
  counts = (mask > 0) & (possible > 0)
  values = jnp.where(counts, reached / jnp.where(counts, possible, 1.0), 0.0)
  return values.sum(), counts.sum()


def weighted_precision(
  logits: jax.Array,
  labels: jax.Array,
  mask: jax.Array,
  k: int,
  class_weights: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Returns the weight of the right ones among the top k, and of all of them, float32.

  Over all images, sum_i w(c_i) h_i over sum_i w(c_i), in the terms of
  `average_precision`: precision at k in which a class counts as much as it weighs. An
  image without labels counts, for all that is predicted of it is wrong.

  Args:
    logits: `[B, C]`.
    labels: `[B, K]` distinct ids, padded with -1.
    mask: `[B]`, 0 for rows of padding.
    k: predictions an image.
    class_weights: `[C]`, not negative; 0 for outputs that are no class.
  """
  best, hits = top_hits(logits, labels, k)
  weights = jnp.where(mask[:, None] > 0, class_weights[best], 0.0)
  return (weights * hits).sum(), weights.sum()
