"""Saves and restores a cell's state with its clock. The only home of orbax.

The position in the data is not saved: it is the step.
"""

import logging
import pathlib
from typing import Any

import jax
from jax.sharding import NamedSharding
from orbax.checkpoint import v1 as ocp

from scaling.step import State

LOG = logging.getLogger('scaling')


class Checkpoints:
  """The checkpoints of one cell, written behind the training and swapped in whole."""

  def __init__(self, folder: pathlib.Path, keep: int):
    self._pending = None
    keep_latest: Any = ocp.training.preservation_policies.LatestN(keep)
    # Whether to save is the training loop's decision.
    always: Any = ocp.training.save_decision_policies.FixedIntervalPolicy(1)
    self._checkpointer = ocp.training.Checkpointer(
      str(folder.absolute()),
      preservation_policy=keep_latest,
      save_decision_policy=always,
    )

  def save(self, state: State, seconds: dict[str, float]) -> None:
    """Starts a save; the state's buffers may be given away when this returns."""
    self.wait()
    self._pending = self._checkpointer.save_checkpointables_async(
      int(state.step), {'state': state, 'seconds': dict(seconds)}
    )
    if self._pending is None:
      raise OSError(f'a checkpoint newer than step {int(state.step)} is in the way')

  def wait(self) -> None:
    """Waits until what was started is on disk, and raises what went wrong there."""
    if self._pending is not None:
      pending, self._pending = self._pending, None
      pending.result()

  @property
  def latest_step(self) -> int | None:
    """The step of the newest whole checkpoint, or None."""
    self.wait()
    latest = self._checkpointer.latest
    return None if latest is None else latest.step

  def restore(
    self, like: State, sharding: NamedSharding
  ) -> tuple[State, dict[str, float]] | None:
    """Returns the newest state that can be read and its clock, or None.

    Args:
      like: a state of the same shapes, abstract or not.
      sharding: where the arrays shall live.
    """

    def place(leaf: Any) -> jax.ShapeDtypeStruct:
      return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    abstract = jax.tree.map(place, like)
    steps = sorted((c.step for c in self._checkpointer.checkpoints), reverse=True)
    for i, step in enumerate(steps):
      try:
        found = self._checkpointer.load_checkpointables(
          step, {'state': abstract, 'seconds': None}
        )
      except Exception as error:  # orbax raises whatever its storage raised
        if step == steps[-1]:
          raise
        LOG.warning('checkpoint %d cannot be read, trying older: %s', step, error)
      else:
        # Orbax saves nothing below the newest step that it finds; what is lost here
        # will be made again, equal.
        for broken in steps[:i]:
          self._checkpointer.delete(broken)
        return found['state'], found['seconds']
    return None

  def close(self) -> None:
    """Waits for what was started and lets go of the folder."""
    try:
      self.wait()
    finally:
      self._checkpointer.close()
