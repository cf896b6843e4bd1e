"""Metrics of several labels an image against a dense reference, image by image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clu.metrics import Average
from hypothesis import given
from hypothesis import strategies as st

from scaling import multilabel

pytestmark = pytest.mark.usefixtures('quick_compile')

CLASSES = 12
MAX_LABELS = 4


def dense_average_precision(scores, labels, k, weights):
  """Average precision at k of one image, or None without one, from a full ranking."""
  relevant = np.zeros(len(scores))
  relevant[[label for label in labels if label >= 0]] = 1
  order = np.argsort(-scores, kind='stable')[:k]
  reached = 0.0
  for place, one in enumerate(order, start=1):
    if relevant[one]:
      reached += weights[one] * relevant[order[:place]].sum() / place
  possible = np.sort(weights[relevant > 0])[::-1][:k].sum()
  return reached / possible if possible > 0 else None


@st.composite
def batches(draw):
  """Scores with many ties, labels with many empty rows, masks and weights."""
  size = draw(st.integers(1, 5))
  score = st.integers(-2, 2).map(float)
  row = st.lists(st.integers(0, CLASSES - 1), max_size=MAX_LABELS, unique=True)
  scores = draw(st.lists(score, min_size=size * CLASSES, max_size=size * CLASSES))
  labels = np.full((size, MAX_LABELS), -1, np.int32)
  for ids in labels:
    chosen = draw(row)
    ids[: len(chosen)] = chosen
  mask = draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=size, max_size=size))
  weight = st.sampled_from([0.0, 0.25, 1.0, 3.0])
  weights = draw(st.lists(weight, min_size=CLASSES, max_size=CLASSES))
  return (
    np.array(scores, np.float32).reshape(size, CLASSES),
    labels,
    np.array(mask, np.float32),
    np.array(weights, np.float32),
  )


@given(batches(), st.sampled_from([1, 3, 10, 100]), st.booleans())
def test_average_precision_is_the_dense_one(batch, k, weigh):
  logits, labels, mask, weights = batch
  total, count = multilabel.average_precision(
    jnp.asarray(logits),
    jnp.asarray(labels),
    jnp.asarray(mask),
    k,
    jnp.asarray(weights) if weigh else None,
  )
  weights = weights if weigh else np.ones(CLASSES)
  expected = [
    dense_average_precision(scores, ids, k, weights)
    for scores, ids, there in zip(logits, labels, mask, strict=True)
    if there
  ]
  expected = [value for value in expected if value is not None]
  assert count == len(expected)
  # Sums of at most a few tens of float32 numbers below 4.
  assert total == pytest.approx(sum(expected), rel=1e-5, abs=1e-6)


@given(batches(), st.sampled_from([1, 3, 100]))
def test_weighted_precision_is_the_dense_one(batch, k):
  logits, labels, mask, weights = batch
  right, predicted = multilabel.weighted_precision(
    *map(jnp.asarray, batch[:3]), k, weights
  )
  expected_right = expected_predicted = 0.0
  for scores, ids, there in zip(logits, labels, mask, strict=True):
    best = np.argsort(-scores, kind='stable')[:k]
    expected_predicted += there * weights[best].sum()
    expected_right += there * weights[best][np.isin(best, ids)].sum()
  assert right == pytest.approx(expected_right)
  assert predicted == pytest.approx(expected_predicted)


@given(batches(), st.integers(0, 5))
def test_batches_add_up(batch, cut):
  logits, labels, mask, weights = map(jnp.asarray, batch)

  def both(rows):
    return jnp.array(
      [
        multilabel.average_precision(
          logits[rows], labels[rows], mask[rows], 5, weights
        ),
        multilabel.weighted_precision(
          logits[rows], labels[rows], mask[rows], 5, weights
        ),
      ]
    )

  cut = min(cut, len(logits))
  parts = [both(rows) for rows in (slice(cut), slice(cut, None)) if len(logits[rows])]
  # Sums in another order.
  np.testing.assert_allclose(sum(parts), both(slice(None)), rtol=1e-6)


def test_by_hand():
  logits = jnp.array([[4.0, 3.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0], [9.0, 0.0, 0.0, 0.0]])
  labels = jnp.array([[0, 2], [3, -1], [-1, -1]])
  mask = jnp.ones(3)
  # 1 and 2/3 over two labels; the fourth of equal scores; no label.
  total, count = multilabel.average_precision(logits, labels, mask, 4)
  assert (float(total), float(count)) == pytest.approx(((1 + 2 / 3) / 2 + 1 / 4, 2))
  # At 1 a single label can be reached.
  total, count = multilabel.average_precision(logits, labels, mask, 1)
  assert (float(total), float(count)) == (1.0, 2.0)
  weights = jnp.array([2.0, 1.0, 1.0, 1.0])
  right, all_of_them = multilabel.weighted_precision(logits, labels, mask, 2, weights)
  assert (float(right), float(all_of_them)) == (2.0, 9.0)


def test_nothing_of_the_size_of_the_set_is_kept_and_outputs_that_are_no_class_lose():
  logits = jnp.array([[1.0, -1.0, -jnp.inf, -jnp.inf]])
  total, count = multilabel.average_precision(
    logits, jnp.array([[1, -1]]), jnp.ones(1), k=100
  )
  assert (float(total), float(count)) == (0.5, 1.0)
  assert total.shape == count.shape == ()


def test_sums_are_those_of_clu():
  batch = (jnp.eye(3), jnp.array([[0], [2], [-1]]), jnp.ones(3))
  total, count = jax.jit(multilabel.average_precision, static_argnames='k')(*batch, k=2)
  sums = Average.empty()
  for _ in range(2):
    sums = sums.merge(Average(total=total, count=count))  # pyright: ignore
  assert float(sums.compute()) == pytest.approx(0.5)
  assert float(sums.count) == 4
