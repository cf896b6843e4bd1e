"""A word to the compiler on what it should not compute again."""

import jax
import jax.numpy as jnp


def once(x: jax.Array) -> jax.Array:
  """Keeps XLA:CPU from computing `x` again wherever it is read.

  It repeats cheap operations in each consumer's loop: a block of a ResNet then computes
  the sum of all shortcuts of its stage again, and an image its hash for each pixel. An
  optimization barrier does not reach that far. Divisions it takes for expensive, so it
  keeps this one's result; the divisor is exactly 1 (NaN for NaN), which it does not know.
  """
  return x / jnp.where(x == x, jnp.ones((), x.dtype), x)
