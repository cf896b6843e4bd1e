"""The one program that every launcher starts: claims cells until none is left.

It lives for the whole sweep, so that imports and compilation are paid once per worker
and depth. Its orders come as one JSON line on standard input, which its launcher then
keeps open: when that closes the launcher is gone, and the worker saves and leaves.

Exit status: 0 nothing left to do, 74 the folder cannot be written, 75 stopped and to be
started again.
"""

import contextlib
import json
import logging
import os
import pathlib
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from experiments import ledger, sweep
from scaling import metrics
from scaling.errors import Stopped, UserError

STORAGE, STOPPED = 74, 75  # EX_IOERR, EX_TEMPFAIL
LOG = logging.getLogger('scaling')


def main() -> int:
  """Works through the cells that standard input names."""
  orders = json.loads(sys.stdin.readline())
  stop = threading.Event()
  signal.signal(signal.SIGTERM, lambda *_: stop.set())
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the launcher to answer
  threading.Thread(target=_stop_at_end_of_input, args=(stop,), daemon=True).start()
  log_to_stdout()
  if orders['cores'] and hasattr(os, 'sched_setaffinity'):
    os.sched_setaffinity(0, orders['cores'])
  use_compilation_cache()
  workdir = pathlib.Path(orders['workdir'])
  cells = [sweep.cell_folder(workdir, name) for name in orders['cells']]
  try:
    work(
      cells,
      data_dir=orders['data_dir'],
      tensorboard=orders['tensorboard'],
      layout=orders['layout'],
      stop=stop,
    )
  except OSError as error:
    LOG.error('%s cannot be written: %s', workdir, error)
    return STORAGE
  return STOPPED if stop.is_set() else 0


def work(
  cells: list[pathlib.Path],
  *,
  data_dir: str | None,
  tensorboard: bool,
  layout: dict[str, Any],
  stop: threading.Event,
) -> None:
  """Trains cells in their order until all are done or failed, or `stop` is set."""
  left = list(cells)
  while left and not stop.is_set():
    held = []
    for cell in left:
      if stop.is_set():
        return
      if ledger.read_status(cell).state in ('done', 'failed'):
        continue
      lease = ledger.claim(cell)
      if lease is None:
        held.append(cell)
      else:
        run_cell(
          lease, data_dir=data_dir, tensorboard=tensorboard, options=layout, stop=stop
        )
    # What others hold is theirs to finish, and ours if they vanish.
    left = [c for c in held if ledger.read_status(c).state not in ('done', 'failed')]
    if left:
      stop.wait(0.5)


def run_cell(
  lease: ledger.Lease,
  *,
  data_dir: str | None,
  tensorboard: bool = False,
  options: dict[str, Any] | None = None,
  stop: threading.Event | None = None,
) -> str:
  """Trains a claimed cell and publishes how it ended; returns that state.

  Args:
    lease: on the cell.
    data_dir: where the image set lies, when not in its usual place.
    tensorboard: also write event files.
    options: more of `scaling.train.train`, such as `model_devices` and `fsdp`.
    stop: when set, the cell is saved and left.
  """
  from scaling import train

  def should_stop() -> bool:
    return lease.lost.is_set() or (stop is not None and stop.is_set())

  with _logged_to(lease.cell / 'log.txt'):
    LOG.info('cell %s', lease.cell.name)
    state, reason = 'done', None
    try:
      train.train(
        read_config(lease.cell),
        lease.cell,
        data_dir=data_dir,
        tensorboard=tensorboard,
        should_stop=should_stop,
        **(options or {}),
      )
    except Stopped as why:
      state, reason = 'stopped', str(why)
    except UserError as error:
      state, reason = 'failed', str(error)
    except Exception as error:
      # One cell's trouble is not another's; the whole story is in its log.
      LOG.error('%s', traceback.format_exc())
      lines = str(error).splitlines() or ['']
      state, reason = 'failed', f'{type(error).__name__}: {lines[0]}'
      # So XLA calls it, on all devices and when it compiles too.
      if 'RESOURCE_EXHAUSTED' in lines[0] or isinstance(error, MemoryError):
        reason = f'{out_of_memory(lease.cell)} ({reason})'
    LOG.info('%s%s', state, f': {reason}' if reason else '')
    with contextlib.suppress(ledger.LeaseLostError):
      lease.end(state, reason)
  return state


def out_of_memory(cell: pathlib.Path) -> str:
  """Returns when a cell ran out of memory, and what to try."""
  train = json.loads((cell / 'config.json').read_text())['train']
  step = metrics.last_row(cell / 'metrics.jsonl').get('step')
  when = 'before the first row of metrics' if step is None else f'after step {step}'
  return (
    f'out of memory {when}; try a train.batch_size below {train["batch_size"]}, '
    f'train.accumulate_steps above {train["accumulate_steps"]}, or '
    'model.dtype=bfloat16'
  )


def read_config(cell: pathlib.Path) -> ConfigDict:
  """Returns the config of a cell."""
  return ConfigDict(json.loads((cell / 'config.json').read_text()))


def use_cores(config: ConfigDict) -> None:
  """Lets JAX see a device for each core that a cell by itself can use.

  Workers do not: the results of a sweep shall not depend on their number.
  """
  from scaling import processes, sharding

  sizes = (config.train.batch_size, config.log.eval_batch_size)
  sharding.use_cores(processes.num_cores(), sizes)


def log_to_stdout() -> None:
  """Logs our own doings, and of the libraries only their warnings."""
  logging.basicConfig(
    level=logging.WARNING,
    format='%(asctime)s %(message)s',
    stream=sys.stdout,
    force=True,
  )
  LOG.setLevel(logging.INFO)


def use_compilation_cache() -> None:
  """Lets compiled programs outlive the process; JAX's own variable moves the place."""
  import jax

  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    home = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
    jax.config.update('jax_compilation_cache_dir', f'{home}/scaling/jax')
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


@contextlib.contextmanager
def _logged_to(path: pathlib.Path) -> Iterator[None]:
  handler = logging.FileHandler(path, encoding='utf-8')
  handler.setFormatter(logging.Formatter('%(asctime)s %(message)s'))
  logging.getLogger().addHandler(handler)
  try:
    yield
  finally:
    logging.getLogger().removeHandler(handler)
    handler.close()


def _stop_at_end_of_input(stop: threading.Event) -> None:
  # The bare descriptor: a thread that waits inside sys.stdin holds its lock, and the
  # interpreter aborts over that lock when it ends.
  while os.read(0, 1024):
    pass
  stop.set()


def orders(
  workdir: pathlib.Path,
  cells: list[str],
  *,
  cores: list[int] | None,
  data_dir: str | None,
  tensorboard: bool,
  layout: dict[str, Any],
) -> str:
  """Returns the line that a launcher writes to a worker's standard input."""
  values: dict[str, Any] = {
    'workdir': str(workdir),
    'cells': cells,
    'cores': cores,
    'data_dir': data_dir,
    'tensorboard': tensorboard,
    'layout': layout,
  }
  return json.dumps(values) + '\n'


if __name__ == '__main__':
  sys.exit(main())
