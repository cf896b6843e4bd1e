"""Saves, verifies and restores a cell's state with its clock. The only home of orbax.

The position in the data is not saved: it is the step. Array data comes back from the
storage unchecked (of 24 single bits flipped in a file of it, 22 made a state that was
silently another), so each checkpoint carries a checksum of every leaf.
"""

import contextlib
import json
import logging
import math
import pathlib
import shutil
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orbax.checkpoint import v1 as ocp

from scaling import leaves, processes
from scaling.errors import StorageError, UserError
from scaling.step import State

LOG = logging.getLogger('scaling')


class Checkpoints:
  """The checkpoints of one cell, written behind the training and swapped in whole.

  Args:
    folder: theirs alone.
    keep: how many of the newest stay.
    keep_every_steps: checkpoints of whole multiples stay too; 0: none.
    keep_steps: and these.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    keep: int,
    keep_every_steps: int = 0,
    keep_steps: Sequence[int] = (),
  ):
    self._folder = folder.absolute()
    self._policy = _Policy(keep, keep_every_steps, keep_steps)
    self._pending: tuple[int, Any] | None = None
    self._failure: UserError | None = None
    with _alone():
      self._open()

  def _open(self) -> None:
    keep: Any = self._policy
    # Whether to save is the training loop's decision.
    always: Any = ocp.training.save_decision_policies.FixedIntervalPolicy(1)
    self._checkpointer = ocp.training.Checkpointer(
      str(self._folder),
      preservation_policy=keep,
      save_decision_policy=always,
      cleanup_tmp_directories=True,
    )

  def save(
    self,
    state: State,
    seconds: Mapping[str, float],
    scores: Mapping[int, float] | None = None,
  ) -> None:
    """Starts a save; the state's buffers may be given away when this returns.

    A save that fails, as on a full disk, leaves the earlier ones and a warning; `wait`
    raises it.

    Args:
      state: of the cell.
      seconds: of its clock.
      scores: {step: score}; the checkpoint with the highest one above -inf stays.
    """
    self._policy.scores = dict(scores or {})
    step = int(state.step)
    described, large, small = leaves.split(state, leaves.SMALL_BYTES)
    about: dict[str, Any] = {
      'seconds': dict(seconds),
      'leaves': described,
      'small_bytes': leaves.SMALL_BYTES,
    }
    about['crc32'] = _checksum_text(about)
    stored = {'large': large, 'small': small}
    with _alone():
      try:
        pending = self._checkpointer.save_checkpointables_async(
          step, {'state': stored}, custom_metadata=about
        )
      except Exception as error:  # orbax raises whatever its storage raised
        self._fail(step, error)
        return
      if pending is None:
        raise OSError(f'a checkpoint newer than step {step} is in the way')
      self._pending = step, pending
      _SAVING.append(self)

  def wait(self) -> None:
    """Waits until the newest save is on disk.

    Raises:
      StorageError: if it could not be written, saying what to do.
    """
    with _alone():
      if self._failure is not None:
        raise self._failure

  def settle(self) -> None:
    """Waits for the save that was started, if there is one."""
    if self._pending is None:
      return
    (step, pending), self._pending = self._pending, None
    try:
      pending.result()
    except Exception as error:  # orbax raises whatever its storage raised
      self._fail(step, error)
    else:
      self._failure = None

  def _fail(self, step: int, error: Exception) -> None:
    # A checkpointer would raise this error again at its next save, and what was
    # written in part takes up space.
    with contextlib.suppress(Exception):
      self._checkpointer.close()
    self._open()
    newest = max(_steps(self._folder), default=None)
    free = shutil.disk_usage(self._folder).free
    said = (
      f'checkpoint {step} could not be saved ({_reason(error)}); {self._folder} has '
      f'{free / 1e6:.0f} MB free, and its newest checkpoint is '
      f'{"none" if newest is None else f"step {newest}"}'
    )
    LOG.warning('%s; training goes on to the next save', said)
    self._failure = StorageError(
      f'{said}; free some space there and run the same command again'
    )

  @property
  def latest_step(self) -> int | None:
    """The step of the newest whole checkpoint, or None."""
    with _alone():
      latest = self._checkpointer.latest
      return None if latest is None else latest.step

  def restore(self, like: State) -> tuple[State, dict[str, float]] | None:
    """Returns the newest state that can be read whole and its clock, or None.

    Args:
      like: shapes of a state, and where its arrays shall live.

    Raises:
      UserError: for the checkpoints of another network, naming the first leaf that
        differs, and when there are checkpoints but none can be read.
    """
    with _alone():
      return self._restore(like)

  def _restore(self, like: State) -> tuple[State, dict[str, float]] | None:
    steps = _steps(self._folder)
    reason = ''
    for i, step in enumerate(steps):
      found, reason = None, 'another process cannot read it'
      try:
        found = _load(self._folder, step, like)
      except UserError:
        raise
      except Exception as error:  # orbax raises whatever its storage raised
        reason = _reason(error)
      if processes.all_true(found is not None):
        # Orbax saves nothing below the newest step that it finds; what is lost here
        # will be made again, equal.
        for broken in steps[:i]:
          self._checkpointer.delete(broken, missing_ok=True)
        return found
      LOG.warning('checkpoint %d cannot be read, trying older: %s', step, reason)
    if steps:
      raise UserError(
        f'none of the checkpoints {", ".join(map(str, steps))} in {self._folder} can be '
        f'read ({reason}); delete that folder to start over'
      )
    return None

  def close(self) -> None:
    """Waits for what was started and lets go of the folder."""
    with _alone():
      self._checkpointer.close()


# Orbax keeps track of a process's saves in one place, and loses it where two overlap: of
# cells that are trained side by side, in threads, one at a time saves or reads.
_LOCK = threading.RLock()
_SAVING: list[Checkpoints] = []  # one, or none


@contextlib.contextmanager
def _alone() -> Iterator[None]:
  with _LOCK:
    while _SAVING:
      _SAVING.pop().settle()
    yield


def read(folder: pathlib.Path, like: State, step: int = 0) -> State:
  """Returns a saved state, and changes nothing: the run may be going on.

  Args:
    folder: of the checkpoints.
    like: shapes of the state, and where its arrays shall live.
    step: which; 0: the newest that can be read whole.

  Raises:
    UserError: if there is none, or for the checkpoints of another network.
  """
  with _alone():
    return _read(folder.absolute(), like, step)


def _read(folder: pathlib.Path, like: State, step: int) -> State:
  reason = ''
  there = _steps(folder) if folder.is_dir() else []
  for found in there:
    if step not in (0, found):
      continue
    try:
      return _load(folder, found, like)[0]
    except UserError:
      raise
    except Exception as error:  # orbax raises whatever its storage raised
      reason = f'checkpoint {found} cannot be read ({_reason(error)})'
      LOG.warning('%s', reason)
  if reason:
    raise UserError(f'{folder}: {reason}, and there is no other to take')
  if there:
    raise UserError(
      f'{folder} has no checkpoint {step}; use {", ".join(map(str, there))}'
    )
  raise UserError(f'{folder} has no checkpoint yet; train the cell first')


def broken(folder: pathlib.Path, like: State) -> dict[int, str]:
  """Returns {step: what is wrong} of the checkpoints that cannot be read whole.

  Args:
    folder: of the checkpoints.
    like: shapes of a state, and where its arrays shall live.
  """
  found = {}
  with _alone():
    for step in _steps(folder) if folder.is_dir() else []:
      try:
        _load(folder.absolute(), step, like)
      except Exception as error:  # orbax raises whatever its storage raised
        found[step] = _reason(error)
  return found


def _steps(folder: pathlib.Path) -> list[int]:
  # By name, so that what a deletion left of a checkpoint is seen too.
  names = (path.name for path in folder.iterdir())
  return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def _load(
  folder: pathlib.Path, step: int, like: State
) -> tuple[State, dict[str, float]]:
  path = str(folder / str(step))
  about: Any = ocp.checkpointables_metadata(path).custom_metadata
  if not about or about.pop('crc32', None) != _checksum_text(about):
    raise ValueError('its description is missing or damaged')
  difference = _first_difference(about['leaves'], leaves.describe(like))
  if difference is not None:
    raise UserError(
      f'checkpoint {step} in {folder} holds another network: {difference}; go on '
      'with the config and code that made it, or use another --workdir'
    )
  limit = about.get('small_bytes', 0)  # older ones have no leaves together
  _, large, small = leaves.split(like, limit)
  stored = {'large': large, 'small': small} if limit else like
  stored = ocp.load_checkpointables(path, {'state': stored})['state']
  state = leaves.join(stored['large'], stored['small'], like) if limit else stored
  for name, leaf in leaves.describe(state).items():
    if leaf != about['leaves'][name]:
      raise ValueError(f'{name} is not what was saved')
  return state, about['seconds']


class _Policy:
  """Which checkpoints stay: the newest, multiples, those named, and the best."""

  def __init__(self, newest: int, every_steps: int, named: Sequence[int]):
    self._newest = newest
    self._named = set(named)
    self._every_steps = every_steps
    self.scores: dict[int, float] = {}

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
    """Answers orbax, for each checkpoint."""
    del context
    steps = sorted(checkpoint.step for checkpoint in checkpoints)
    stay = set(steps[-self._newest :]) | self._named.intersection(steps)
    if self._every_steps:
      stay |= {step for step in steps if step % self._every_steps == 0}
    scored = [step for step in steps if self.scores.get(step, -math.inf) > -math.inf]
    if scored:
      stay.add(max(scored, key=self.scores.__getitem__))  # of equals the first
    return [checkpoint.step in stay for checkpoint in checkpoints]


def _checksum_text(about: Mapping[str, Any]) -> int:
  return zlib.crc32(json.dumps(about, sort_keys=True).encode())


def _first_difference(
  there: Mapping[str, list[Any]], here: Mapping[str, list[Any]]
) -> str | None:
  for path in dict.fromkeys([*here, *there]):
    old, new = (leaves.get(path, ['absent'])[0] for leaves in (there, here))
    if old != new:
      return f'{path} is {old} there and {new} here'
  return None


def _reason(error: BaseException) -> str:
  """Returns what was behind an error, in a line."""
  while error.__cause__ is not None:
    error = error.__cause__
  lines = str(error).splitlines() or [type(error).__name__]
  return lines[0][:300]
