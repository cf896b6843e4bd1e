"""Losses over padded ids against optax's losses over dense targets."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling import losses

sigmoid, softmax = jax.jit(losses.sigmoid), jax.jit(losses.softmax)
dense_sigmoid = jax.jit(optax.sigmoid_binary_cross_entropy)
dense_softmax = jax.jit(optax.softmax_cross_entropy)


def dense(labels: np.ndarray, num_classes: int) -> np.ndarray:
  target = np.zeros((len(labels), num_classes), np.float32)
  for row, ids in zip(target, labels, strict=True):
    row[ids[ids >= 0]] = 1
  return target


@st.composite
def cases(draw, least=0):
  """Returns logits `[B, C]` and ids `[B, K]`, at least `least` an image, then -1."""
  # Few shapes, for each is compiled.
  shapes = [(1, 1, 1), (1, 2, 4), (4, 12, 1), (4, 12, 6), (3, 6, 6)]
  batch, classes, columns = draw(st.sampled_from(shapes))
  rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
  logits = rng.normal(0, draw(st.sampled_from([0.1, 3, 30])), (batch, classes))
  labels = np.full((batch, columns), -1, np.int32)
  for row in labels:
    num = rng.integers(min(least, classes), min(columns, classes) + 1)
    row[:num] = rng.permutation(classes)[:num]
  return logits.astype(np.float32), labels


# All sums here are of at most 18,291 float32 numbers of the size of the result, and
# XLA and numpy differ in their order only: some 1e-6 relative to the largest term.
@settings(max_examples=40)
@given(cases())
def test_sigmoid_is_that_over_dense_targets(case):
  logits, labels = case
  target = dense(labels, logits.shape[1])
  expected = dense_sigmoid(logits, target).sum(1)
  found = sigmoid(logits, labels)
  assert found.shape == (len(logits),)
  np.testing.assert_allclose(
    found, expected, rtol=2e-6, atol=2e-6 * (1 + np.abs(logits).sum())
  )


@settings(max_examples=40)
@given(cases(least=1), st.sampled_from([0.0, 0.1, 0.5]))
def test_softmax_is_that_over_dense_targets(case, smoothing):
  logits, labels = case
  classes = logits.shape[1]
  target = dense(labels, classes)
  target /= target.sum(1, keepdims=True)
  target = (1 - smoothing) * target + smoothing / classes
  expected = dense_softmax(logits, target)
  np.testing.assert_allclose(
    softmax(logits, labels, smoothing),
    expected,
    rtol=2e-6,
    atol=2e-6 * (1 + np.abs(logits).sum()),
  )


def test_padding_changes_no_bit():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(8, 10)).astype(np.float32)
  labels = rng.integers(0, 10, (8, 1)).astype(np.int32)
  padded = np.pad(labels, ((0, 0), (0, 3)), constant_values=-1)
  for loss in (softmax, sigmoid):
    np.testing.assert_array_equal(loss(logits, labels), loss(logits, padded))


def test_an_image_without_labels_is_negative_for_all_classes():
  logits = np.array([[0.0, 1.0, -2.0]], np.float32)
  found = sigmoid(logits, np.full((1, 4), -1, np.int32))
  # Three float32 terms.
  np.testing.assert_allclose(found, np.log1p(np.exp(logits)).sum(1), rtol=1e-6)


def test_large_logits_stay_finite():
  logits = np.array([[1e4, -1e4]], np.float32)
  for label, expected in ((0, 0.0), (1, 2e4)):
    labels = np.array([[label]], np.int32)
    for loss in (softmax, sigmoid):
      assert float(loss(logits, labels)[0]) == expected


def test_all_classes_of_jft():
  classes = 18_291
  rng = np.random.default_rng(1)
  logits = rng.normal(-10, 1, (4, classes)).astype(np.float32)
  labels = np.array(
    [[classes - 1, 0, -1], [5, -1, -1], [7, 8, 9], [-1, -1, -1]], np.int32
  )
  target = dense(labels, classes)
  # float64 says what is right; float32 sums of 18,291 terms keep five digits.
  wide = logits.astype(np.float64)
  expected = (np.logaddexp(0, wide) - wide * target).sum(1)
  np.testing.assert_allclose(sigmoid(logits, labels), expected, rtol=1e-5)


@pytest.mark.parametrize('loss', [losses.softmax, losses.sigmoid])
def test_gradient_is_prediction_minus_target(loss):
  rng = np.random.default_rng(2)
  logits = rng.normal(size=(4, 6)).astype(np.float32)
  labels = np.array([[0, -1], [5, -1], [2, -1], [3, -1]], np.int32)
  gradient = jax.jit(jax.grad(lambda x: loss(x, labels).sum()))(jnp.asarray(logits))
  predict = jax.nn.softmax if loss is losses.softmax else jax.nn.sigmoid
  # One subtraction of float32 numbers below 1.
  np.testing.assert_allclose(gradient, predict(logits) - dense(labels, 6), atol=3e-7)
