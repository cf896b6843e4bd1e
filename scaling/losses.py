"""Losses over sparse labels: ids `[B, K]` padded with -1, never one-hot.

With 18,291 classes a one-hot row is 73 KB an image; eight ids are 32 bytes. The ids of
one image must be distinct, or an id would count twice.
"""

import jax
import jax.numpy as jnp


def _labelled(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the sum of the labels' logits `[B]` and the number of labels `[B]`."""
  there = labels >= 0
  taken = jnp.take_along_axis(logits, jnp.maximum(labels, 0), axis=1)
  return jnp.where(there, taken, 0).sum(1), there.sum(1)


def softmax(
  logits: jax.Array,
  labels: jax.Array,
  smoothing: float = 0.0,
  num_classes: int | None = None,
) -> jax.Array:
  """Returns the cross-entropy of each image in nats, `[B]`.

  Args:
    logits: `[B, C]`.
    labels: `[B, K]` ids; several share the target equally.
    smoothing: share of the target spread over all classes.
    num_classes: of the C outputs, if the last ones are padding.
  """
  total, count = _labelled(logits, labels)
  num_classes = num_classes or logits.shape[1]
  real = jnp.arange(logits.shape[1]) < num_classes
  mean = jnp.where(real, logits, 0).sum(1) / num_classes
  target = (1 - smoothing) * total / jnp.maximum(count, 1) + smoothing * mean
  return jax.nn.logsumexp(logits, axis=1) - target


def sigmoid(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns the logistic loss of each image in nats, summed over classes, `[B]`.

  Absent labels are negatives, as in training on JFT-300M (Zhai et al. 2022, following
  BiT).

  Args:
    logits: `[B, C]`.
    labels: `[B, K]` distinct ids.
  """
  total, _ = _labelled(logits, labels)
  return jax.nn.softplus(logits).sum(1) - total
