"""What the tests of operations share: random inputs, and derivatives by differences."""

import jax
import jax.numpy as jnp
import numpy as np


def draw(seed, *shapes, dtype='float64'):
  """Returns a random array of each shape."""
  rng = np.random.default_rng(seed)
  return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def assert_close(actual, expected, tolerance, floor=0.0):
  """Compares norms: an element near zero carries the rounding of its neighbours."""
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    a, b = np.asarray(a, 'float64'), np.asarray(b, 'float64')
    assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b) + floor


def differentiable(ops, relu):
  """Returns functions of `ops` with the shapes of what they take.

  Args:
    ops: a form of the operations.
    relu: whether the norm ends in one, whose bend a long step may meet.
  """
  return [
    (lambda x, w: ops.conv(x, w, 1), [(2, 4, 3, 8), (3, 3, 8, 2)]),
    (lambda x, w: ops.conv(x, w, 2), [(2, 5, 4, 2), (3, 3, 2, 2)]),
    (lambda x, w: ops.conv(x, w, 2), [(2, 5, 4, 3), (1, 1, 3, 2)]),
    (
      lambda x, s, b, r: ops.batch_norm(x, s, b, r, relu, 1e-5),
      [(3, 2, 3, 2), (2,), (2,), (3, 2, 3, 2)],
    ),
    (ops.max_pool, [(2, 5, 4, 2)]),
  ]


def derivatives(function, shapes, dtype, step):
  """Returns how a random sum of what a function returns changes along a random direction.

  By central differences of that step, and by its gradient multiplied out: hand-written
  gradients have no forward derivative.
  """
  inputs, directions = draw(5, *shapes, dtype=dtype), draw(6, *shapes, dtype=dtype)
  outputs, pull = jax.vjp(function, *inputs)
  leaves, tree = jax.tree.flatten(outputs)
  weights = draw(7, *(leaf.shape for leaf in leaves), dtype=dtype)

  def dot(some, others):
    pairs = zip(some, others, strict=True)
    return sum(np.vdot(np.asarray(a, 'float64'), b) for a, b in pairs)

  def along(t):
    moved = function(*(x + t * d for x, d in zip(inputs, directions, strict=True)))
    return dot(jax.tree.leaves(moved), weights)

  measured = (along(step) - along(-step)) / (2 * step)
  return measured, dot(pull(jax.tree.unflatten(tree, weights)), directions)
