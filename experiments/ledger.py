"""Who works on which cell, in each cell's status.json.

Every change is a compare-and-swap, so that of two workers that want a cell one gets it,
wherever they are. A worker holds a cell under a lease that it renews; a lease whose
process is gone, or that was not renewed in time, is taken over. The file is the only
truth: nothing else remembers what was run. Since it also counts failures and
interruptions, who wins a claim has checked the budgets with it. A cell is a folder of a
disk, or a URL of an object store.
"""

import dataclasses
import functools
import json
import os
import pathlib
import platform
import tempfile
import threading
import time
from collections.abc import Container
from typing import Any

from experiments import store
from experiments.store import Folder
from scaling import metrics
from scaling.errors import StorageError, UserError

# What a status.json says. 'stale' is no state of its own: running, but its worker is gone.
STATES = (
  'pending',
  'running',
  'preempted',  # saved and left; to go on
  'retryable',  # failed, and may be tried again
  'failed',
  'done',
  'cancelled',
)
WAITING = ('pending', 'preempted', 'retryable')
ENDED = ('done', 'failed', 'cancelled')
RENEW_SECONDS = 30.0
WATCH_SECONDS = 5.0  # between looks at whether somebody cancelled it
STALE_SECONDS = 120.0
READ_AGAIN_SECONDS = 1.0, 5.0, 15.0  # after which a disk that faltered may be back
MAX_FAILURES = 2
MAX_PREEMPTIONS = 100
# Workers in a row that may die over a cell without getting further with it, before the
# cell is to blame: what fills the memory dies without a word.
MAX_VANISHED = 5
NAME = 'status.json'


@dataclasses.dataclass(frozen=True)
class Status:
  """The content of a status.json.

  Attributes:
    state: one of STATES.
    reason: why it failed or stopped, in one line.
    attempts: how often it was claimed.
    failures: how many of those ended in an error.
    preemptions: how many were interrupted, with a word or without.
    vanished: how many of the last ones ended without a word, at the same step.
    step: the last on record when it was claimed.
    lease: host, pid and start of the process that works on it, while running; of a cell
      that was cancelled, until it has left.
  """

  state: str = 'pending'
  reason: str | None = None
  attempts: int = 0
  failures: int = 0
  preemptions: int = 0
  vanished: int = 0
  step: int = -1
  lease: dict[str, Any] | None = None


class LeaseLostError(Exception):
  """Another worker has taken the cell over."""


def read_status(cell: Folder) -> Status:
  """Returns the status of a cell; one without a file is pending."""
  if isinstance(cell, str):
    return _read(cell)[0]
  try:
    return _parse((cell / NAME).read_bytes(), cell)
  except FileNotFoundError:
    return Status()


def is_stale(cell: Folder, status: Status) -> bool:
  """Returns whether a running cell's worker is gone."""
  return status.state == 'running' and _is_gone(cell, status, _read(cell)[1])


def _is_gone(cell: Folder, status: Status, generation: bytes) -> bool:
  if status.lease is None:
    return False
  if status.lease['host'] == _host():
    return _process_start(status.lease['pid']) != status.lease['start']
  return store.age(cell, NAME, generation) > STALE_SECONDS


def claim(cell: Folder) -> 'Lease | None':
  """Takes a cell that waits or whose worker is gone; None if there is nothing to take.

  A cell that was interrupted too often is marked as failed instead.
  """
  status, generation = _read(cell)
  if status.state in ENDED:
    return None
  # One that waits has a lease if it was cancelled, until whoever had it has saved.
  held = status.state == 'running' or status.lease
  if held and not _is_gone(cell, status, generation):
    return None
  step = _last_step(cell)
  if status.state == 'running':
    status = _vanish(status, step)
    if status.state == 'failed':
      _write(cell, status, generation)
      return None
  elif step > status.step:  # it got further, and was stopped in good order
    status = dataclasses.replace(status, vanished=0)
  new = dataclasses.replace(
    status,
    state='running',
    reason=None,
    attempts=status.attempts + 1,
    step=step,
    lease={'host': _host(), 'pid': os.getpid(), 'start': _process_start(os.getpid())},
  )
  generation = _write(cell, new, generation)
  return Lease(cell, new, generation) if generation else None


def _last_step(cell: Folder) -> int:
  if isinstance(cell, str):
    rows = (store.read(cell, 'metrics.jsonl')[0] or b'').splitlines()
    return json.loads(rows[-1])['step'] if rows else -1
  return metrics.last_row(cell / 'metrics.jsonl').get('step', -1)


def _vanish(status: Status, step: int) -> Status:
  """Returns what becomes of a cell whose worker is gone; it waits, or has failed."""
  vanished = 1 if step > status.step else status.vanished + 1
  status = dataclasses.replace(status, vanished=vanished, lease=None)
  if vanished < MAX_VANISHED:
    return _preempt(status, None)
  where = 'before its first row' if step < 0 else f'at step {step}'
  reason = f'{vanished} workers vanished over it {where} (killed, or out of memory?)'
  return dataclasses.replace(status, state='failed', reason=reason)


def _preempt(status: Status, reason: str | None) -> Status:
  preemptions = status.preemptions + 1
  state = 'preempted'
  if preemptions >= MAX_PREEMPTIONS:
    state, reason = 'failed', f'interrupted {preemptions} times'
  return dataclasses.replace(
    status, state=state, reason=reason, preemptions=preemptions, lease=None
  )


def _fail(status: Status, reason: str | None, final: bool) -> Status:
  failures = status.failures + 1
  state = 'failed' if final or failures >= MAX_FAILURES else 'retryable'
  return dataclasses.replace(
    status, state=state, reason=reason, failures=failures, lease=None
  )


def reopen(cell: Folder, states: Container[str]) -> bool:
  """Makes a cell of these states wait again, its budgets whole; returns whether it was."""
  if read_status(cell).state not in states:  # a fifth of the time of the other look
    return False
  status, generation = _read(cell)
  if status.state not in states:
    return False
  whole = Status(attempts=status.attempts, lease=status.lease)
  return bool(_write(cell, whole, generation))


def cancel(cell: Folder) -> bool:
  """Ends a cell for now, whoever works on it; returns whether there was one to end."""
  while True:
    status, generation = _read(cell)
    if status.state in ENDED:
      return False
    new = dataclasses.replace(status, state='cancelled', reason=None)
    if _write(cell, new, generation):  # else its worker has just renewed it
      return True


class Lease:
  """A claimed cell. Renewed from a thread of its own until it is ended.

  Attributes:
    lost: set when another worker has the cell: nothing more is to be written.
    cancelled: set when somebody cancelled the cell: it may be saved, and left.
  """

  def __init__(self, cell: Folder, status: Status, generation: bytes):
    self.cell = cell
    self._status, self._generation = status, generation
    self._lock = threading.Lock()
    self._ended = threading.Event()
    self.lost = threading.Event()
    self.cancelled = threading.Event()
    self._thread = threading.Thread(target=self._renew, daemon=True)
    self._thread.start()

  def confirm(self) -> None:
    """Returns if the cell is still this worker's, whether or not somebody cancelled it.

    A worker may have stood still for longer than its lease lasts, and must look before it
    writes anything.

    Raises:
      LeaseLostError: if another worker holds it.
      StorageError: if that cannot be found out.
    """
    for wait in (*READ_AGAIN_SECONDS, None):
      try:
        with self._lock:
          if store.read(self.cell, NAME)[1] != self._generation:
            self._give_up()
        break
      except (OSError, ValueError) as error:
        if wait is None:
          raise StorageError(f'{self.cell}/{NAME} cannot be read: {error}') from error
        time.sleep(wait)
    if self.lost.is_set():
      raise LeaseLostError(f'{self.cell} is held by another worker')

  def done(self) -> None:
    """Publishes that the cell is done.

    Raises:
      LeaseLostError: if another worker holds the cell, here and below; nothing is
        written then.
    """
    self._end(dataclasses.replace(self._status, state='done', lease=None))

  def preempted(self, reason: str) -> None:
    """Publishes that the cell was saved and is to go on."""
    self._end(_preempt(self._status, reason))

  def failed(self, reason: str, final: bool = False) -> None:
    """Publishes an error; `final` when another try would end alike."""
    self._end(_fail(self._status, reason, final))

  def vanished(self) -> None:
    """Publishes that another process of this worker is gone, as if all of it were."""
    self._end(_vanish(self._status, _last_step(self.cell)))

  def leave(self) -> None:
    """Lets others have the cell, which was cancelled; nothing is written any more."""
    self._ended.set()
    self._thread.join()
    while True:
      status, generation = _read(self.cell)
      if status.lease != self._status.lease or status.state == 'running':
        return
      if _write(self.cell, dataclasses.replace(status, lease=None), generation):
        return

  def _end(self, status: Status) -> None:
    self._ended.set()
    self._thread.join()
    self._replace(status)

  def _renew(self) -> None:
    waited = 0.0
    every = min(WATCH_SECONDS, RENEW_SECONDS)
    while not self._ended.wait(every):
      waited += every
      try:
        if waited >= RENEW_SECONDS:
          waited = 0.0
          self._replace(self._status)
        elif _read(self.cell)[1] != self._generation:
          self._give_up()
          return
      except LeaseLostError:
        return
      except (OSError, ValueError):
        continue  # a full disk may have room again before the lease is stale

  def _replace(self, status: Status) -> None:
    with self._lock:
      generation = _write(self.cell, status, self._generation)
      if not generation:
        self._give_up()
        raise LeaseLostError(f'{self.cell} is held by another worker')
      self._generation = generation

  def _give_up(self) -> None:
    status = _read(self.cell)[0]
    # It may wait again already, and does so for this worker to leave.
    cancelled = status.state != 'running' and status.lease == self._status.lease
    (self.cancelled if cancelled else self.lost).set()


def _parse(value: bytes, cell: Folder) -> Status:
  try:
    return Status(**json.loads(value))
  except (ValueError, TypeError) as error:
    raise UserError(
      f'{cell}/{NAME} cannot be read ({error}); delete it and run the same command: the '
      'cell goes on from its checkpoints'
    ) from error


def _read(cell: Folder) -> tuple[Status, bytes]:
  value, generation = store.read(cell, NAME)
  return Status() if value is None else _parse(value, cell), generation


def _write(cell: Folder, status: Status, generation: bytes) -> bytes:
  """Replaces the status if it is still of that generation; returns the new one."""
  text = json.dumps(dataclasses.asdict(status), indent=2)
  return store.replace(cell, NAME, text.encode(), generation)


@functools.cache
def _host() -> str:
  """Names the set of processes that `_process_start` can see."""
  parts = [platform.node()]
  for read in (
    lambda: pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip(),
    lambda: os.readlink('/proc/self/ns/pid'),
  ):
    try:
      parts.append(read())
    except OSError:
      parts.append('')
  return ' '.join(parts)


def _process_start(pid: int) -> str | None:
  """Returns what tells a process from a later one of the same number, or None."""
  try:
    fields = pathlib.Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()
    return None if fields[0] == 'Z' else fields[19]
  except FileNotFoundError:
    pass
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return None
  except PermissionError:
    return 'unknown'
  return None if pathlib.Path('/proc/self/stat').exists() else 'unknown'


def check_writable(workdir: pathlib.Path) -> None:
  """Makes the folder and checks that files can be made in it.

  Raises:
    UserError: saying why not.
  """
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=workdir):
      pass
  except OSError as error:
    raise UserError(
      f'--workdir={workdir} cannot be written: {error.strerror or error}'
    ) from error
