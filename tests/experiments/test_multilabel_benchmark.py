"""The benchmark of the head: its forms of labels are one loss, and what they ship."""

import jax
import numpy as np
import pytest

from experiments.benchmarks import multilabel
from scaling import losses


def test_dense_and_sparse_are_one_loss():
  labels = multilabel.draw_labels(32, 50)
  logits = np.random.default_rng(0).standard_normal((32, 50)).astype(np.float32)
  sparse, sparse_grad = jax.value_and_grad(lambda x: losses.sigmoid(x, labels).sum())(
    logits
  )
  for dtype in (np.float32, np.uint8):
    targets = multilabel.one_hot(labels, 50, dtype)
    dense, dense_grad = jax.value_and_grad(
      lambda x, t=targets: multilabel.dense_sigmoid(x, t).sum()
    )(logits)
    # Sums of 1,600 float32 terms in another order.
    assert float(dense) == pytest.approx(float(sparse), rel=1e-5)
    np.testing.assert_allclose(dense_grad, sparse_grad, atol=1e-6)


def test_labels_are_distinct_and_as_many_as_in_jft():
  labels = multilabel.draw_labels(4000, 40)
  for row in labels:
    ids = row[row >= 0]
    assert 0 < len(ids) == len(set(ids))
  # Four standard errors of the mean of 4,000 draws.
  assert (labels >= 0).sum(1).mean() == pytest.approx(1.26, abs=0.04)


def test_a_run_ends_in_one_loss_and_ships_what_it_says():
  results = multilabel.benchmark(batch=4, classes=100, rounds=2)
  shipped = {name: form['label_bytes'] for name, form in results.items()}
  assert shipped == {'sparse': 4 * 32, 'dense': 4 * 400, 'dense uint8': 4 * 100}
  first, *others = (form['loss'] for form in results.values())
  for other in others:
    # What is left of logits of some tens, rounded at 2e-6 each.
    assert other == pytest.approx(first, abs=2e-5)
  arguments = {
    name: form['peak_bytes'] - form['temporary_bytes'] for name, form in results.items()
  }
  # Ids, and one byte a number, against four bytes a number.
  assert arguments['dense'] - arguments['sparse'] == 4 * (400 - 32)
  text = multilabel.format_table({100: results}, batch=4)
  assert len(text.splitlines()) == 4
