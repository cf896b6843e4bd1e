"""Sweeps that get many lengths out of one run.

A run at a constant rate does not depend on where it will end, so each shorter length is
a branch of the longest: it takes over the state where its own cooldown begins, to the
bit, and lets the rate fall to zero from there (Zhai et al. 2022, section 3.5).
"""

from collections.abc import Sequence
from typing import Any


def cooldowns(
  lengths: Sequence[int], fraction: float = 0.2, **fields: Any
) -> list[dict[str, Any]]:
  """Returns a cell for each length and, first trained, the run that they branch off.

  Set optim.warmup_steps in the config, for a warm-up must not depend on the length.

  Args:
    lengths: steps of each branch, cooldown included.
    fraction: of each length that is cooldown.
    **fields: that the branches and the run share, such as `seed`.
  """
  begins = {steps: steps - round(fraction * steps) for steps in lengths}
  shared = {**fields, 'optim.schedule': 'constant'}
  trunk = {
    **shared,
    'train.steps': max(begins.values()),
    'checkpoint.keep_steps': tuple(sorted(set(begins.values()))),
  }
  return [
    {
      **shared,
      'train.steps': steps,
      'optim.cooldown_fraction': fraction,
      'init.cell': trunk,
      'init.part': 'state',
      'init.step': begins[steps],
    }
    for steps in lengths
  ]
