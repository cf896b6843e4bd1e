"""Exact test metrics: every image counts once, padding not at all."""

from collections.abc import Iterable
from typing import Any

import jax

from scaling.step import Program, State


def evaluate(
  program: Program, state: State, batches: Iterable[dict[str, Any]]
) -> dict[str, float]:
  """Returns the means over all test images, and how many there were.

  A metric that no image counts for is left out.

  Args:
    program: whose eval step to run.
    state: of the network.
    batches: of test images on the device, the last one padded and masked.
  """
  sums = program.zero_sums
  for batch in batches:
    before, sums = sums, program.eval_step(state, batch, sums)
    # One step runs while the next is prepared, no more: an unbounded queue fills a
    # device's memory, and on several CPU devices starves the threads that must meet.
    jax.block_until_ready(before)
  sums = jax.device_get(sums)
  means = {
    f'test/{name}': float(each.total) / float(each.count)
    for name, each in sums.items()
    if each.count
  }
  return {**means, 'test/num_images': int(sums['loss'].count)}
