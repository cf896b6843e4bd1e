"""The few-shot classifier against what it abbreviates."""

import numpy as np
import pytest

from scaling.evals import ridge


def set_of(num, num_features, num_classes=3, seed=0):
  rng = np.random.default_rng(seed)
  labels = rng.integers(num_classes, size=num)
  means = rng.normal(size=(num_classes, num_features))
  return means[labels] + rng.normal(size=(num, num_features)), labels


def solved(x, y, penalty):
  """Ridge regression with a free intercept, by its normal equations."""
  centre, bias = x.mean(0), y.mean(0)
  gram = (x - centre).T @ (x - centre) + penalty * np.eye(x.shape[1])
  weights = np.linalg.solve(gram, (x - centre).T @ (y - bias))
  return lambda z: (z - centre) @ weights + bias


def scale_of(x):
  return (np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2).mean()


@pytest.mark.parametrize(('num', 'num_features'), [(30, 7), (12, 40)])
def test_solution_is_that_of_the_normal_equations(num, num_features):
  x, labels = set_of(num, num_features)
  unseen, _ = set_of(9, num_features, seed=1)
  found = ridge.fit(x, labels, 3, np.array([0.3]))
  y = np.where(labels[:, None] == np.arange(3), 1.0, -1.0)
  expected = solved(x, y, 0.3 * scale_of(x))(unseen)
  np.testing.assert_allclose(found(unseen), expected, rtol=1e-9)


@pytest.mark.parametrize(('num', 'num_features'), [(30, 7), (12, 40)])
def test_penalty_is_that_of_leaving_each_image_out(num, num_features):
  x, labels = set_of(num, num_features, seed=2)
  y = np.where(labels[:, None] == np.arange(3), 1.0, -1.0)
  errors = []
  for penalty in ridge.PENALTIES:
    error = 0.0
    for i in range(num):
      rest = np.arange(num) != i
      left_out = solved(x[rest], y[rest], penalty * scale_of(x))(x[i : i + 1])
      error += float(np.square(left_out - y[i]).sum())
    errors.append(error)
  assert ridge.fit(x, labels, 3).penalty == ridge.PENALTIES[int(np.argmin(errors))]


def test_one_image_a_class_is_the_nearest_mean():
  x, labels = np.eye(4, 6), np.arange(4)
  found = ridge.fit(x, labels, 4)
  assert (found(x + 0.1).argmax(1) == labels).all()


def test_features_that_tell_nothing_do_no_harm():
  found = ridge.fit(np.ones((6, 3)), np.array([0, 0, 0, 0, 1, 1]), 2)
  assert np.isfinite(found(np.ones((1, 3)))).all()
  assert found(np.ones((1, 3))).argmax() == 0
