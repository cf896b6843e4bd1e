"""The one program that every launcher starts: claims cells until none is left.

It lives for the whole sweep, so that imports and compilation are paid once per worker
and depth. Several processes may be one worker: then the first claims, and the others
train along.

Exit status: 0 nothing left to do, 70 ended over a cell, 74 the folder cannot be written,
75 stopped on request. After 70 and 75, and when it was killed, it is to be started again.
"""

import concurrent.futures
import contextlib
import errno
import gc
import json
import logging
import os
import pathlib
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from experiments import ledger, sweep
from experiments import orders as orders_lib
from experiments.orders import Orders
from experiments.programs import Programs
from experiments.watchdog import HUNG, watchdog
from scaling import files, metrics
from scaling.errors import DivergedError, Stopped, StorageError, UserError

if TYPE_CHECKING:
  from scaling.packing import Pack

STORAGE, STOPPED = 74, 75  # EX_IOERR, EX_TEMPFAIL
# Between looks at cells that others hold: a tenth of the wait so far, within these.
LOOK_SECONDS = 0.05, 0.5
GRACE_SECONDS = 60.0  # to save, once the launcher is gone
LOG = logging.getLogger('scaling')


def main(
  workdir: pathlib.Path,
  name: str,
  *,
  slot: int = 0,
  cores: Sequence[int] = (),
  attached: bool = False,
  coordinator: str | None = None,
  num_processes: int | None = None,
  process: int | None = None,
) -> int:
  """Works through the cells of a launch, and returns the exit status.

  Args:
    workdir: of the study.
    name: of the orders.
    slot: number among the workers; they look at the cells in different orders.
    cores: to run on; all when empty.
    attached: leave when standard input ends, for then the launcher is gone.
    coordinator: HOST:PORT where the processes of this worker meet, or 'auto'.
    num_processes: of this worker; found out from Slurm or the TPU when None.
    process: which of them this is; likewise.
  """
  stop = threading.Event()
  _stop_on_signals(stop)
  if attached:
    threading.Thread(target=_stop_at_end_of_input, args=(stop,), daemon=True).start()
  log_to_stdout()
  _import_for_good()
  if cores and hasattr(os, 'sched_setaffinity'):
    os.sched_setaffinity(0, cores)
  use_compilation_cache()
  told = orders_lib.read(workdir, name)
  cells = [sweep.cell_folder(workdir, cell) for cell in told.cells(slot)]
  if coordinator:
    from scaling import processes

    # Who loses a peer is aborted, which is no reason to fill the disk.
    resource.setrlimit(
      resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1])
    )
    processes.connect(coordinator, num_processes, process)
    _stop_on_signals(stop)  # JAX has put its own in place
  from experiments import packs

  try:
    if coordinator:
      status = work_together(cells, told, stop)
    elif pack := packs.choose(workdir, told):
      status = work_side_by_side(cells, told, stop, pack)
    else:
      status = work_alone(cells, told, stop)
  except (OSError, StorageError) as error:
    LOG.error('%s cannot be written: %s', workdir, error)
    status = STORAGE
  except Exception:
    if not coordinator:
      raise
    LOG.error('%s', traceback.format_exc())  # a peer that is gone, between two cells
    status = HUNG
  if coordinator and status in (0, STOPPED):
    processes.disconnect()
  return status


def work_alone(
  cells: list[pathlib.Path],
  orders: Orders,
  stop: threading.Event,
  pack: 'Pack | None' = None,
) -> int:
  """Trains cells in their order until all have ended, or `stop` is set."""
  programs = Programs(orders.groups)
  # In a pack another thread may have compiled it.
  leaves = (lambda cell: False) if pack else programs.leaves
  for claimed in claims(cells, stop, orders.after, leaves):
    if claimed is not None:
      run_cell(*claimed, orders, stop, pack=pack)
      programs.ran(claimed[0])
  return STOPPED if stop.is_set() else 0


def work_side_by_side(
  cells: list[pathlib.Path], orders: Orders, stop: threading.Event, pack: 'Pack'
) -> int:
  """The same by a thread for each place of a pack, which all train other cells."""
  with concurrent.futures.ThreadPoolExecutor(pack.size, _SIDE_BY_SIDE) as pool:
    futures = [
      pool.submit(work_alone, cells, orders, stop, pack) for _ in range(pack.size)
    ]
    for future in concurrent.futures.as_completed(futures):
      if future.exception():
        stop.set()  # the others save their cells first
  return max(future.result() for future in futures)


def work_together(
  cells: list[pathlib.Path], orders: Orders, stop: threading.Event
) -> int:
  """The same by several processes, all of which call it alike."""
  from scaling import processes

  own = claims(cells, stop, orders.after) if processes.is_first() else None
  while not processes.any_true(stop.is_set()):
    claimed, number = None, _WAIT
    if own is not None:
      try:
        claimed = next(own)
      except StopIteration:
        number = _END
      if claimed is not None:
        number = cells.index(claimed[0])
    number = processes.first_says(number)
    if number == _END:
      return 0
    if number != _WAIT:
      lease = claimed[1] if claimed else None
      state = run_cell(cells[number], lease, orders, stop)
      if state in ('failed', 'lost'):
        # The others may wait in a step that this one never makes: all begin anew.
        return HUNG
  return STOPPED


_WAIT, _END = -1, -2
_SIDE_BY_SIDE = 'cell'  # how the names of their threads begin


def claims(
  cells: list[pathlib.Path],
  stop: threading.Event,
  after: Mapping[str, str] | None = None,
  leaves: Callable[[pathlib.Path], bool] = lambda cell: False,
) -> Iterator[tuple[pathlib.Path, ledger.Lease] | None]:
  """Yields cells with a lease on them until all have ended.

  None comes after each wait for cells that others hold.

  Args:
    cells: their folders.
    stop: when set, no more is claimed.
    after: {name of a cell: that which it starts from, which has to end first}.
    leaves: whether to leave a cell that waits to others, for the time being.
  """

  def must_wait(cell: pathlib.Path) -> bool:
    first = (after or {}).get(cell.name)
    if first is None:
      return False
    return ledger.read_status(cell.parent / first).state not in ledger.ENDED

  left, waited = list(cells), 0.0
  while left and not stop.is_set():
    held, took = [], False
    for cell in left:
      if stop.is_set():
        return
      state = ledger.read_status(cell).state
      if state in ledger.ENDED:
        continue
      if must_wait(cell) or (state in ledger.WAITING and leaves(cell)):
        held.append(cell)
        continue
      lease = ledger.claim(cell)
      if lease is not None:
        took = True
        yield cell, lease
      held.append(cell)
    # What others hold is theirs to finish, and ours if they vanish; what failed here
    # may have another try.
    states = {cell: ledger.read_status(cell).state for cell in held}
    left = [cell for cell in held if states[cell] not in ledger.ENDED]
    if took:
      waited = 0.0
    elif left:
      seconds = min(max(waited / 10, LOOK_SECONDS[0]), LOOK_SECONDS[1])
      stop.wait(seconds)
      waited += seconds
      yield None


def run_cell(
  cell: pathlib.Path,
  lease: ledger.Lease | None,
  orders: Orders,
  stop: threading.Event | None = None,
  **options: Any,
) -> str:
  """Trains a cell and publishes how it ended.

  Args:
    cell: its folder.
    lease: on it; None where another process of this worker holds it.
    orders: how to train it.
    stop: when set, the cell is saved and left.
    options: more of `scaling.train.train`.

  Returns:
    'done', 'preempted', 'cancelled', 'lost' to another worker, or 'failed'.

  Raises:
    StorageError: if its folder cannot be written; the cell goes on when it can.
    OSError: if that could not even be published.
  """
  from scaling import processes, train

  log = cell / ('log.txt' if lease else f'log-{processes.index()}.txt')
  with _logged_to(log):
    LOG.info('cell %s', cell.name)
    state, reason = 'done', ''

    def hung() -> None:
      if lease:
        lease.failed(
          f'no step for {orders.stall_seconds:g} s {_when(cell)}; stacks of its threads in '
          f'{log.name}; where a test, a save or compiling takes longer, raise --stall_seconds'
        )

    try:
      with watchdog(orders.stall_seconds, log, hung) as beat:

        def should_stop() -> bool:
          beat()
          if lease is not None and lease.lost.is_set():
            raise ledger.LeaseLostError
          cancelled = lease is not None and lease.cancelled.is_set()
          return cancelled or (stop is not None and stop.is_set())

        train.train(
          read_config(cell),
          cell,
          data_dir=orders.data_dir,
          tensorboard=orders.tensorboard,
          mirror=orders.mirror,
          model_devices=orders.model_devices,
          fsdp=orders.fsdp,
          should_stop=should_stop,
          before_write=lease.confirm if lease else lambda: None,
          **options,
        )
      if lease:
        lease.done()
    except Stopped as why:
      state, reason = 'preempted', str(why)
      if lease:
        with contextlib.suppress(ledger.LeaseLostError):
          lease.preempted(reason)
        state = 'cancelled' if lease.cancelled.is_set() else state
    except ledger.LeaseLostError:
      state, reason = 'lost', 'another worker has it'
      if lease is not None and lease.cancelled.is_set():
        state, reason = 'cancelled', ''
    except Exception as error:
      # One cell's trouble is not another's; the whole story is in its log.
      if not isinstance(error, UserError):
        LOG.error('%s', traceback.format_exc())
      state, reason = 'failed', describe(error, cell)
      if lease:
        with contextlib.suppress(ledger.LeaseLostError):
          if processes.lost_peer(error):  # which is no fault of the cell
            lease.vanished()
          elif _is_full(error):  # nor is this; the other cells would fare no better
            lease.preempted(reason)
          else:
            lease.failed(reason, final=isinstance(error, DivergedError))
      if _is_full(error):
        raise StorageError(reason) from error
    if lease is not None and lease.cancelled.is_set():
      lease.leave()
    LOG.info('%s%s', state, f': {reason}' if reason else '')
  return state


def _is_full(error: Exception) -> bool:
  full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
  return full or isinstance(error, StorageError)


def describe(error: Exception, cell: pathlib.Path) -> str:
  """Returns in a line why a cell failed, and what to try."""
  if isinstance(error, UserError):
    return str(error)
  first = (str(error).splitlines() or [''])[0]
  reason = f'{type(error).__name__}: {first}'
  # So XLA calls it, on all devices and when it compiles too.
  if 'RESOURCE_EXHAUSTED' in first or isinstance(error, MemoryError):
    return f'{out_of_memory(cell)} ({reason})'
  return reason


def _when(cell: pathlib.Path) -> str:
  step = metrics.last_row(cell / 'metrics.jsonl').get('step')
  return 'before the first row of metrics' if step is None else f'after step {step}'


def out_of_memory(cell: pathlib.Path) -> str:
  """Returns when a cell ran out of memory, and what to try."""
  config = json.loads((cell / 'config.json').read_text())
  train, model = config['train'], config['model']
  return (
    f'out of memory {_when(cell)}; try a train.batch_size below {train["batch_size"]}, '
    f'train.accumulate_steps above {train["accumulate_steps"]}, model.dtype=bfloat16, or '
    f'less than model.depth={model["depth"]} and model.width={model["width"]}'
  )


def read_config(cell: pathlib.Path) -> ConfigDict:
  """Returns the config of a cell."""
  return ConfigDict(json.loads((cell / 'config.json').read_text()))


def use_cores(config: ConfigDict) -> None:
  """Lets JAX see a device for each core that a cell by itself can use.

  Workers do not: the results of a sweep shall not depend on their number.
  """
  from scaling import cores, sharding

  sizes = (config.train.batch_size, config.log.eval_batch_size)
  sharding.use_cores(cores.num_cores(), sizes)


def log_to_stdout() -> None:
  """Logs our own doings, and of the libraries only their warnings."""
  logging.basicConfig(
    level=logging.WARNING,
    format='%(asctime)s %(message)s',
    stream=sys.stdout,
    force=True,
  )
  LOG.setLevel(logging.INFO)


def _import_for_good() -> None:
  """Imports JAX and what trains, and keeps them out of later searches for garbage.

  Tracing makes many objects, and Python would look through all of JAX with each of its
  full searches: half a second of a worker's life.
  """
  gc.disable()
  from scaling import train  # noqa: F401

  gc.freeze()
  gc.enable()


def use_compilation_cache() -> None:
  """Lets compiled programs outlive the process; JAX's own variable moves the place."""
  import jax

  import scaling
  from scaling import executables

  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    # What JAX holds is not kept beside it, so each version begins anew.
    own = files.cache_folder() / f'jax-{scaling.__version__}'
    jax.config.update('jax_compilation_cache_dir', str(own))
  folder = jax.config.values['jax_compilation_cache_dir']
  if (
    folder and '://' not in folder and jax.config.values['jax_enable_compilation_cache']
  ):
    executables.keep_in(pathlib.Path(folder) / 'programs')
  # Without the small ones, such as those that make random keys, a start takes 0.1 s more.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.02)


@contextlib.contextmanager
def _logged_to(path: pathlib.Path) -> Iterator[None]:
  own = threading.current_thread().name

  def concerns(record: logging.LogRecord) -> bool:
    other = (record.threadName or '').startswith(_SIDE_BY_SIDE)
    return record.threadName == own or not other

  handler = logging.FileHandler(path, encoding='utf-8')
  handler.addFilter(concerns)
  handler.setFormatter(logging.Formatter('%(asctime)s %(message)s'))
  logging.getLogger().addHandler(handler)
  try:
    yield
  finally:
    logging.getLogger().removeHandler(handler)
    handler.close()


def _stop_on_signals(stop: threading.Event) -> None:
  signal.signal(signal.SIGTERM, lambda *_: stop.set())
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the launcher to answer


def _stop_at_end_of_input(stop: threading.Event) -> None:
  # The bare descriptor: a thread that waits inside sys.stdin holds its lock, and the
  # interpreter aborts over that lock when it ends.
  while os.read(0, 1024):
    pass
  stop.set()
  threading.Event().wait(GRACE_SECONDS)
  os._exit(STOPPED)  # whatever holds it up, no device stays taken
