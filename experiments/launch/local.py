"""Runs a sweep's workers on this machine, one process each, and shows how it goes."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from experiments import worker

# glibc's own settings: keep freed memory, where by default each training step hands its
# large arrays back to the kernel and pays for every fresh page of the next ones.
TUNABLES = (
  'glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0'
  ':glibc.malloc.trim_threshold=17179869184'
)
GRACE_SECONDS = 60.0
POLL_SECONDS = 1.0
MAX_RESTARTS = 20  # of workers that died, over a whole sweep


def default_workers(num_cells: int) -> int:
  """Returns a worker per core, or one where the cores serve an accelerator."""
  accelerators = ('nvidia[0-9]*', 'accel[0-9]*', 'vfio/[0-9]*')
  if any(any(pathlib.Path('/dev').glob(name)) for name in accelerators):
    return 1
  return max(1, min(num_cells, len(_cores())))


def run(
  workdir: pathlib.Path,
  orders: Sequence[Sequence[str]],
  *,
  num_slots: int,
  data_dir: str | None,
  tensorboard: bool,
  layout: dict[str, Any],
  watch: Callable[[], bool],
) -> bool:
  """Runs one worker for each list of cells until no cell is left.

  Args:
    workdir: of the study; the workers' own output goes to its `logs`.
    orders: for each worker the cells in the order in which to look at them.
    num_slots: parts into which the cores are divided, of which each worker gets one.
    data_dir: passed on.
    tensorboard: passed on.
    layout: passed on.
    watch: called about once a second, to show progress; returns whether cells are left.

  Returns:
    Whether it came to its end; False after Ctrl-C or SIGTERM, which let each worker
    save its cell first.
  """
  cores = _cores()
  # Sums over other numbers of threads can differ in the last bit, so a worker's share
  # follows from the command alone and not from how many cells are left.
  share = len(cores) // num_slots
  slots = [
    cores[i * share : (i + 1) * share] if share else None for i in range(len(orders))
  ]
  (workdir / 'logs').mkdir(exist_ok=True)
  stop = threading.Event()
  handlers = {
    number: signal.signal(number, lambda *_: stop.set())
    for number in (signal.SIGINT, signal.SIGTERM)
  }
  workers = []

  def start(slot: int) -> subprocess.Popen:
    line = worker.orders(
      workdir,
      list(orders[slot]),
      cores=slots[slot],
      data_dir=data_dir,
      tensorboard=tensorboard,
      layout=layout,
    )
    with (workdir / 'logs' / f'worker{slot}.log').open('a') as log:
      process = subprocess.Popen(
        [sys.executable, '-m', 'experiments.worker'],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        text=True,
        env={'GLIBC_TUNABLES': TUNABLES, **os.environ},
        start_new_session=True,  # Ctrl-C reaches this process alone
      )
    assert process.stdin is not None
    process.stdin.write(line)
    process.stdin.flush()
    return process

  try:
    workers = [start(slot) for slot in range(len(orders))]
    restarts = 0
    while watch() and not stop.wait(POLL_SECONDS):
      for slot, process in enumerate(workers):
        died = process.poll() not in (None, 0, worker.STORAGE)
        if died and restarts < MAX_RESTARTS:
          restarts += 1
          workers[slot] = start(slot)
      if all(process.poll() is not None for process in workers):
        watch()
        break
    return not stop.is_set()
  finally:
    _end(workers)
    for number, handler in handlers.items():
      signal.signal(number, handler)


def _end(workers: Sequence[subprocess.Popen]) -> None:
  """Asks the workers to save and leave; kills those that do not in time."""
  for process in workers:
    if process.poll() is None:
      process.terminate()
  for process in workers:
    try:
      process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()
    if process.stdin is not None:
      process.stdin.close()


def _cores() -> list[int]:
  if hasattr(os, 'sched_getaffinity'):
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))
