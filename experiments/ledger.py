"""Who works on which cell, in each cell's status.json.

Every change is a compare-and-swap through TensorStore, so that of two workers that want
a cell one gets it, on a local disk as on a shared one. A worker holds a cell under a
lease that it renews; a lease whose process is gone, or that was not renewed in time, is
taken over. The file is the only truth: nothing else remembers what was run.
"""

import dataclasses
import functools
import json
import os
import pathlib
import platform
import tempfile
import threading
from typing import Any

import tensorstore as ts

from scaling.errors import UserError

STATES = ('pending', 'running', 'stopped', 'failed', 'done')
RENEW_SECONDS = 30.0
STALE_SECONDS = 120.0
MAX_VANISHED = 5  # workers that may die over a cell before the cell is to blame


@dataclasses.dataclass(frozen=True)
class Status:
  """The content of a status.json.

  Attributes:
    state: one of STATES.
    reason: why it failed or stopped, in one line.
    attempts: how often it was claimed.
    vanished: how many of those ended without a word.
    lease: host, pid and start of the process that works on it, while running.
  """

  state: str = 'pending'
  reason: str | None = None
  attempts: int = 0
  vanished: int = 0
  lease: dict[str, Any] | None = None


class LeaseLostError(Exception):
  """Another worker has taken the cell over."""


def read_status(cell: pathlib.Path) -> Status:
  """Returns the status of a cell; one without a file is pending."""
  try:
    return Status(**json.loads((cell / 'status.json').read_text()))
  except FileNotFoundError:
    return Status()


def is_stale(cell: pathlib.Path, status: Status) -> bool:
  """Returns whether a running cell's worker is gone."""
  if status.state != 'running' or status.lease is None:
    return False
  if status.lease['host'] == _host():
    return _process_start(status.lease['pid']) != status.lease['start']
  # Elsewhere only time tells: both ends of it by the clock of the file system.
  with tempfile.NamedTemporaryFile(dir=cell) as now:
    age = os.stat(now.name).st_mtime - (cell / 'status.json').stat().st_mtime
  return age > STALE_SECONDS


def claim(cell: pathlib.Path) -> 'Lease | None':
  """Takes a cell that waits or whose worker is gone; None if there is nothing to take.

  A cell that too many workers died over is marked as failed instead.
  """
  status, generation = _read(cell)
  stale = is_stale(cell, status)
  if not stale and status.state not in ('pending', 'stopped'):
    return None
  vanished = status.vanished + stale
  if vanished >= MAX_VANISHED:
    reason = f'{vanished} workers vanished over it (killed, or out of memory?)'
    new = dataclasses.replace(
      status, state='failed', reason=reason, vanished=vanished, lease=None
    )
    _write(cell, new, generation)
    return None
  new = Status(
    state='running',
    attempts=status.attempts + 1,
    vanished=vanished,
    lease={'host': _host(), 'pid': os.getpid(), 'start': _process_start(os.getpid())},
  )
  generation = _write(cell, new, generation)
  return Lease(cell, new, generation) if generation else None


def retry(cell: pathlib.Path) -> bool:
  """Makes a failed cell pending again; returns whether it was failed."""
  status, generation = _read(cell)
  if status.state != 'failed':
    return False
  return bool(_write(cell, Status(attempts=status.attempts), generation))


class Lease:
  """A claimed cell. Renewed from a thread of its own until it is ended."""

  def __init__(self, cell: pathlib.Path, status: Status, generation: bytes):
    self.cell = cell
    self._status, self._generation = status, generation
    self._lock = threading.Lock()
    self._ended = threading.Event()
    self.lost = threading.Event()
    self._thread = threading.Thread(target=self._renew, daemon=True)
    self._thread.start()

  def end(self, state: str, reason: str | None = None) -> None:
    """Publishes how the work ended and lets go.

    Raises:
      LeaseLostError: if another worker holds the cell; nothing is written then.
    """
    self._ended.set()
    self._thread.join()
    self._replace(
      dataclasses.replace(self._status, state=state, reason=reason, lease=None)
    )

  def _renew(self) -> None:
    while not self._ended.wait(RENEW_SECONDS):
      try:
        self._replace(self._status)
      except LeaseLostError:
        return
      except OSError:
        continue  # a full disk may have room again before the lease is stale

  def _replace(self, status: Status) -> None:
    with self._lock:
      generation = _write(self.cell, status, self._generation)
      if not generation:
        self.lost.set()
        raise LeaseLostError(f'{self.cell.name} is held by another worker')
      self._generation = generation


@functools.cache
def _store(folder: str) -> ts.KvStore:
  return ts.KvStore.open({'driver': 'file', 'path': folder + '/'}).result()


def _read(cell: pathlib.Path) -> tuple[Status, bytes]:
  found = _store(str(cell.absolute())).read('status.json').result()
  status = Status(**json.loads(found.value)) if found.state == 'value' else Status()
  return status, found.stamp.generation


def _write(cell: pathlib.Path, status: Status, generation: bytes) -> bytes:
  """Replaces the status if it is still of that generation; returns the new one."""
  text = json.dumps(dataclasses.asdict(status), indent=2)
  try:
    return (
      _store(str(cell.absolute()))
      .write('status.json', text.encode(), if_equal=generation)
      .result()
      .generation
    )
  except ValueError as error:
    raise OSError(f'{cell / "status.json"} cannot be written: {error}') from error


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
