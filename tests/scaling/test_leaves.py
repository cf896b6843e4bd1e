"""A state is put together again as it was, wherever the line between small and large is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import placed

from scaling import leaves, sharding

DTYPES = (jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint8, jnp.bool_)
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
arrays = st.builds(
  lambda shape, dtype, seed: (
    np.random.default_rng(seed).integers(0, 2, shape).astype(dtype)
  ),
  shapes,
  st.sampled_from(DTYPES),
  st.integers(0, 9),
)
trees = st.recursive(
  arrays, lambda inner: st.dictionaries(st.sampled_from('abc'), inner, max_size=3)
)


@settings(max_examples=200)
@given(trees, st.integers(0, 300))
def test_a_tree_comes_back(tree, limit):
  mesh = sharding.make_mesh()
  tree = jax.device_put(tree, sharding.replicated(mesh))
  described, large, small = leaves.split(tree, limit)
  assert all(leaf.nbytes >= limit for leaf in large.values())
  sizes = [leaf.nbytes for leaf in jax.tree.leaves(tree)]
  assert small.nbytes == sum(size for size in sizes if size < limit)
  like = placed(jax.eval_shape(lambda: tree), mesh)
  found = leaves.join(large, small, like)
  assert jax.tree.structure(found) == jax.tree.structure(tree)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(tree), strict=True):
    assert (a.dtype, a.shape, a.sharding) == (b.dtype, b.shape, b.sharding)
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
  assert leaves.describe(found) == described == leaves.describe(tree)
  shapes_alone = leaves.describe(like)
  assert {name: one[0] for name, one in described.items()} == {
    name: one[0] for name, one in shapes_alone.items()
  }


def test_too_few_bytes_are_an_error():
  mesh = sharding.make_mesh()
  tree = jax.device_put({'a': np.ones(3), 'b': np.ones(2)}, sharding.replicated(mesh))
  _, large, small = leaves.split(tree, 100)
  with pytest.raises(ValueError, match='buffer'):
    leaves.join(large, small[:-1], placed(jax.eval_shape(lambda: tree), mesh))
