"""Studies through the real command, watched, killed and compared, by several tests."""

import contextlib
import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np

PATIENCE = 1200.0  # seconds: a machine may be busy, and what hangs must end some time

TIMES = ('train_seconds', 'images_per_second', 'input_wait_share')
COMMAND = [str(pathlib.Path(sys.executable).with_name('scaling'))]


def results(workdir: pathlib.Path, seed: int | None = None) -> list[dict[str, str]]:
  """Returns results.csv without what may differ between runs: the times."""
  with (workdir / 'report' / 'results.csv').open() as file:
    rows = list(csv.DictReader(file))
  return [
    {name: value for name, value in row.items() if name not in TIMES}
    for row in rows
    if seed is None or row['seed'] == str(seed)
  ]


def metrics(workdir: pathlib.Path, seed: int = 0) -> dict[str, list[dict]]:
  """Returns the rows of each cell of a seed, without the times."""
  return {
    path.parent.name: [
      {k: v for k, v in json.loads(line).items() if not k.startswith('time/')}
      for line in path.read_text().splitlines()
    ]
    for path in sorted(workdir.glob(f'cells/*seed{seed}*/metrics.jsonl'))
  }


def statuses(workdir: pathlib.Path) -> list[dict]:
  """Returns the status of each cell that has one."""
  found = []
  for path in sorted(workdir.glob('cells/*/status.json')):
    with contextlib.suppress(FileNotFoundError):
      found.append(json.loads(path.read_text()))
  return found


def children(pid: int) -> list[int]:
  """Returns the processes whose parent is `pid`, in whatever session."""
  found = []
  for stat in pathlib.Path('/proc').glob('[0-9]*/stat'):
    with contextlib.suppress(OSError):
      fields = stat.read_text().rsplit(')', 1)[1].split()
      if int(fields[1]) == pid:
        found.append(int(stat.parent.name))
  return found


def alive(pid: int) -> bool:
  """Returns whether a process runs; one that ended and waits for its parent does not."""
  try:
    stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except OSError:
    return False
  return stat.rsplit(')', 1)[1].split()[0] != 'Z'


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, 'it did not happen in time'
    time.sleep(0.02)


def holders(workdir: pathlib.Path, most: int = 9) -> list[int]:
  """Returns the processes that work on a cell and have written 2 to `most` rows."""
  found = []
  for path in workdir.glob('cells/*/metrics.jsonl'):
    rows = len(path.read_text().splitlines())
    with contextlib.suppress(FileNotFoundError):
      status = json.loads(path.with_name('status.json').read_text())
      if status['state'] == 'running' and 1 < rows <= most:
        found.append(status['lease']['pid'])
  return found


def num_rows(workdir: pathlib.Path) -> int:
  """Returns how many rows all cells have written."""
  paths = workdir.glob('cells/*/metrics.jsonl')
  return sum(len(path.read_text().splitlines()) for path in paths)


def num_done(workdir: pathlib.Path) -> int:
  return sum(status['state'] == 'done' for status in statuses(workdir))


@contextlib.contextmanager
def killed(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
  """Kills a process and its children at the end of the block, at once."""
  with process:
    try:
      yield process
    finally:
      tree = [process.pid, *children(process.pid)]
      if process.poll() is None:
        for pid in tree:
          with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
      if process.stdout is not None and not process.stdout.closed:
        process.communicate()


@contextlib.contextmanager
def paused(pids: Iterable[int]) -> Iterator[None]:
  """Lets processes stand still meanwhile; a fast one comes to its end otherwise."""
  pids = list(pids)
  for pid in pids:
    os.kill(pid, signal.SIGSTOP)
  try:
    yield
  finally:
    for pid in pids:
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def is_pending(pid: int, number: int) -> bool:
  """Returns whether a signal waits for a process that stands still."""
  lines = pathlib.Path(f'/proc/{pid}/status').read_text().splitlines()
  found = dict(line.split(':', 1) for line in lines)
  return bool(int(found['ShdPnd'], 16) >> (number - 1) & 1)


def checkpoint(cell: pathlib.Path) -> tuple[int, list[str], dict[str, np.ndarray]]:
  """Returns the step of the last checkpoint, the leaves of its state, and its arrays."""
  import jax
  from orbax.checkpoint import v1 as ocp

  with ocp.training.Checkpointer((cell / 'checkpoints').absolute()) as checkpoints:
    assert checkpoints.latest is not None
    step = checkpoints.latest.step
    about = checkpoints.checkpointables_metadata(step)
    abstract = about.metadata['state']
    state = checkpoints.load_checkpointables(step, {'state': abstract})['state']
  arrays = jax.tree_util.tree_leaves_with_path(state)
  names = list(about.custom_metadata['leaves'])
  return step, names, {jax.tree_util.keystr(at): np.asarray(x) for at, x in arrays}


def assert_same_checkpoints(one: pathlib.Path, other: pathlib.Path) -> None:
  cells = sorted(path.name for path in (one / 'cells').iterdir())
  assert cells == sorted(path.name for path in (other / 'cells').iterdir())
  for cell in cells:
    step, names, arrays = checkpoint(one / 'cells' / cell)
    other_step, other_names, other_arrays = checkpoint(other / 'cells' / cell)
    assert step == other_step == 20
    assert names == other_names
    assert len(names) > 20
    assert arrays.keys() == other_arrays.keys()
    assert sum(array.nbytes for array in arrays.values()) > 10_000
    for name, array in arrays.items():
      np.testing.assert_array_equal(array, other_arrays[name], err_msg=f'{cell} {name}')
