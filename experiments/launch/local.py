"""Runs a sweep's workers on this machine and shows how it goes."""

import dataclasses
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

from experiments import worker
from experiments.launch import cores, stopping
from experiments.launch.jobs import Launch

# glibc's own settings: keep freed memory, where by default each training step hands its
# large arrays back to the kernel and pays for every fresh page of the next ones.
TUNABLES = (
  'glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0'
  ':glibc.malloc.trim_threshold=17179869184'
)
GRACE_SECONDS = 60.0
POLL_SECONDS = 1.0
MAX_RESTARTS = 20  # of workers that died, over a whole sweep
MAX_CRASHES = 3  # of them by an error that no cell had
_ERRORS = (1, 2)  # how Python and the command line leave with one


def default_workers(num_cells: int, num_processes: int = 1) -> int:
  """Returns a worker per core, or one where the cores serve an accelerator."""
  accelerators = ('nvidia[0-9]*', 'accel[0-9]*', 'vfio/[0-9]*')
  if any(any(pathlib.Path('/dev').glob(name)) for name in accelerators):
    return 1
  return max(1, min(num_cells, len(cores.here()) // num_processes))


@dataclasses.dataclass
class _Worker:
  """One worker: its processes, all of which live or none."""

  processes: list[subprocess.Popen]

  def status(self) -> int | None:
    """Returns None while it works, 0 at its end, else the first other exit status."""
    found = [process.poll() for process in self.processes]
    bad = [code for code in found if code]
    return bad[0] if bad else None if None in found else 0

  def signal(self, number: int) -> None:
    for process in self.processes:
      if process.poll() is None:
        process.send_signal(number)

  def wait(self, seconds: float | None = None) -> None:
    for process in self.processes:
      process.wait(seconds)
      if process.stdin is not None:
        process.stdin.close()


def run(launch: Launch, num_slots: int, watch: Callable[[], bool]) -> bool:
  """Runs workers until no cell is left.

  Args:
    launch: the workers to start; their own output goes to WORKDIR/logs.
    num_slots: parts into which the cores are divided, of which each worker gets one.
    watch: called about once a second, to show progress; returns whether cells are left.

  Returns:
    Whether it came to its end; False after Ctrl-C or SIGTERM, which let each worker
    save its cell first.
  """
  usable = cores.here()
  # Sums over other numbers of threads can differ in the last bit, so a process's share
  # follows from the command alone and not from how many cells are left.
  num_processes = launch.num_processes
  share = len(usable) // (num_slots * num_processes)
  logs = launch.workdir / 'logs'
  logs.mkdir(exist_ok=True)
  workers = []

  def start(slot: int) -> _Worker:
    own = launch.command('--attached', f'--slot={slot}')
    coordinator = f'127.0.0.1:{_free_port()}'
    processes = []
    for i in range(num_processes):
      words = []
      if share:
        at = (slot * num_processes + i) * share
        words.append(f'--cores={",".join(map(str, usable[at : at + share]))}')
      if num_processes > 1:
        words += [f'--coordinator={coordinator}', f'--num_processes={num_processes}']
        words.append(f'--process={i}')
      processes.append(_start([*own, *words], logs / _log(slot, i)))
    return _Worker(processes)

  with stopping.asked() as stop:
    try:
      workers = [start(slot) for slot in range(launch.num_workers)]
      restarts = crashes = 0
      while watch() and not _wait(stop, workers):
        for slot, found in enumerate(workers):
          status = found.status()
          if status in (None, 0, worker.STORAGE):
            continue
          # It is not to leave so: an error of the machine or of ours, that will stay.
          crashes += status in _ERRORS
          if restarts >= MAX_RESTARTS or crashes > MAX_CRASHES:
            continue
          restarts += 1
          found.signal(signal.SIGKILL)  # the rest would wait for the one that died
          found.wait()
          workers[slot] = start(slot)
        if all(found.status() is not None for found in workers):
          watch()
          break
      return not stop.is_set()
    finally:
      _end(workers)


def _wait(stop: threading.Event, workers: Sequence[_Worker]) -> bool:
  """Waits for the next look, or for the end of all workers; returns whether to stop."""
  until = time.monotonic() + POLL_SECONDS
  while time.monotonic() < until and any(w.status() is None for w in workers):
    if stop.wait(POLL_SECONDS / 20):
      break
  return stop.is_set()


def _log(slot: int, process: int) -> str:
  return f'worker{slot}.log' if process == 0 else f'worker{slot}-{process}.log'


def _start(command: list[str], log: pathlib.Path) -> subprocess.Popen:
  with log.open('a') as file:
    return subprocess.Popen(
      command,
      stdin=subprocess.PIPE,  # it leaves when this closes
      stdout=file,
      stderr=subprocess.STDOUT,
      env={'GLIBC_TUNABLES': TUNABLES, **os.environ},
      start_new_session=True,  # Ctrl-C reaches this process alone
    )


def _free_port() -> int:
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return free.getsockname()[1]


def _end(workers: Sequence[_Worker]) -> None:
  """Asks the workers to save and leave; kills those that do not in time."""
  for found in workers:
    found.signal(signal.SIGTERM)
  for found in workers:
    try:
      found.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
      found.signal(signal.SIGKILL)
      found.wait()
