"""Updates of several cells at once, in one program, where a device is idle otherwise.

A small network leaves an accelerator waiting between its operations. Cells of one
program, each trained by a thread of its own, meet here for every update; input, tests,
rows and checkpoints stay each cell's own.

The program always has the same number of places. One that nobody takes is filled with a
copy, so what becomes of a cell does not depend on how many are trained beside it.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import jax
import jax.numpy as jnp

from scaling.step import Program, State

LOG = logging.getLogger('scaling')
WORTH = 1.1  # times as many updates in a second, from which on cells are packed
_ROUNDS, _UPDATES = 4, 10  # that are timed, the first to warm up

# A state, a batch, a key and a schedule: what `Program.train_step` takes.
Update = tuple[State, dict[str, jax.Array], jax.Array, Any]
Updated = tuple[State, dict[str, jax.Array]]


class Pack:
  """Where the cells of a worker meet.

  Args:
    size: cells in a program, and the most that may take part at a time.
    gain: asked once for each program, before its first update, how many times as fast
      so many cells are together; it is given the program's key and a function that
      measures it. None packs without asking.
  """

  def __init__(
    self, size: int, gain: Callable[[str, Callable[[], float]], float] | None = None
  ):
    self.size = size
    self._gain = gain
    self._lock = threading.Lock()
    self._meetings: dict[str, _Meeting] = {}

  def join(self, program: Program, make_update: Callable[[], Update]) -> '_Meeting':
    """Returns where one more cell of a program makes its updates, until it leaves.

    The first one of a program compiles that of all, and finds out what it gains.

    Args:
      program: of the cell.
      make_update: makes an update like the cell's own, to try with.
    """
    with self._lock:
      if program.key not in self._meetings:
        self._meetings[program.key] = _Meeting(program, self.size)
      meeting = self._meetings[program.key]
    meeting.join(make_update, self._gain)
    return meeting


class _Meeting:
  """The cells of one program."""

  def __init__(self, program: Program, size: int):
    self._program, self._size = program, size
    self._lock = threading.Lock()
    self._members = 0
    self._waiting: list[tuple[Update, Future[Updated]]] = []
    self._fillers: list[State] = []
    self._ready = self._apart = False

  def join(
    self,
    make_update: Callable[[], Update],
    gain: Callable[[str, Callable[[], float]], float] | None,
  ) -> None:
    """Has all others wait for one more."""
    with self._lock:
      if not self._ready:
        self._prepare(make_update, gain)
      self._members += 1

  def _prepare(
    self,
    make_update: Callable[[], Update],
    gain: Callable[[str, Callable[[], float]], float] | None,
  ) -> None:
    """Compiles, and decides whether to go together: before there is any update, or it
    would depend on who came when.
    """
    if gain is None:
      self._program.packed(self._size)
    else:
      found = gain(self._program.key, lambda: self._try(make_update()))
      self._apart = found < WORTH
      how = 'one by one' if self._apart else 'together'
      LOG.info('%d cells are %.2f times as fast together: %s', self._size, found, how)
    self._ready = True

  def _try(self, update: Update) -> float:
    """Returns how many times as fast cells are together; 0 if they cannot be."""
    try:
      return times_as_fast(self._program, [update] * self._size)
    except Exception as error:  # XLA's, of memory most of all
      reason = (str(error).splitlines() or [''])[0]
      LOG.warning('%d cells cannot be trained together: %s', self._size, reason)
      return 0.0

  def leave(self) -> None:
    """Has nobody wait for one of them any more."""
    with self._lock:
      self._members -= 1
      self._go_on()

  def update(self, *update: Any) -> Updated:
    """Makes an update as `Program.train_step` does, when all others make theirs."""
    if self._apart:
      return self._program.train_step(*update)
    made: Future[Updated] = Future()
    with self._lock:
      self._waiting.append((update, made))  # pyright: ignore
      self._go_on()
    return made.result()

  def _go_on(self) -> None:
    """Makes the updates that are waited for, if nobody is missing."""
    if not self._waiting or len(self._waiting) < self._members:
      return
    updates, futures = zip(*self._waiting, strict=True)
    self._waiting = []
    try:
      made = self._make(updates)
    except Exception as error:  # of a program that all share
      for future in futures:
        future.set_exception(error)
      return
    for future, one in zip(futures, made, strict=True):
      future.set_result(one)

  def _make(self, updates: Sequence[Update]) -> Sequence[Updated]:
    missing = self._size - len(updates)
    while len(self._fillers) < missing:
      self._fillers.append(_copy(updates[0][0]))
    rest = [(state, *updates[0][1:]) for state in self._fillers[:missing]]
    made = self._program.packed(self._size)(*zip(*updates, *rest, strict=True))
    self._fillers[:missing] = [state for state, _ in made[len(updates) :]]
    return made[: len(updates)]


def _copy(state: State) -> State:
  return jax.tree.map(jnp.copy, state)


def times_as_fast(
  program: Program, updates: Sequence[Update], rounds: int = _ROUNDS
) -> float:
  """Returns how many times as many updates a second cells make together.

  The best of a few rounds of each form, in turns, on copies.

  Args:
    program: of the cells.
    updates: of each of them.
    rounds: turns.
  """
  states = [_copy(update[0]) for update in updates]
  rest = [update[1:] for update in updates]
  packed = program.packed(len(updates))

  def apart() -> None:
    for i, others in enumerate(rest):
      states[i], _ = program.train_step(states[i], *others)

  def together() -> None:
    made = packed(tuple(states), *zip(*rest, strict=True))
    states[:] = [state for state, _ in made]

  def seconds(form: Callable[[], None]) -> float:
    began = time.perf_counter()
    for _ in range(_UPDATES):
      form()
    jax.block_until_ready(states)
    return time.perf_counter() - began

  best = [float('inf'), float('inf')]
  for _ in range(rounds):
    best = [
      min(b, seconds(form)) for b, form in zip(best, (apart, together), strict=True)
    ]
  return best[0] / best[1]
