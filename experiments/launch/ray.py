"""Runs a sweep's workers as tasks of Ray, on a cluster or on this machine alone.

Ray finds each worker a node, and another one when that is lost. What is left to do, and
who does it, stands in the folder of the study and nowhere in Ray: whatever it kills costs
a restart and no results. Ray's only home.
"""

import contextlib
import dataclasses
import logging
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from experiments import worker
from experiments.launch import cores, local, stopping
from experiments.launch.jobs import Launch
from scaling import config as config_lib
from scaling.errors import UserError

STORE_BYTES = 80 << 20  # for objects, of which there are none to speak of
CALL_SECONDS = 20.0  # for the head node to answer
WAIT_SECONDS = 0.2  # between looks at whether the worker has ended
OWN = ('address', 'num_cpus', 'num_gpus')


@dataclasses.dataclass(frozen=True)
class _Wanted:
  """What the options ask for.

  Attributes:
    address: of a cluster to join; None for one of our own.
    resources: of each worker, by Ray's names.
  """

  address: str | None
  resources: dict[str, float]

  @property
  def cores(self) -> int:
    """To hold a worker to; 0 where they serve an accelerator."""
    return int(self.resources['CPU']) if len(self.resources) == 1 else 0


def render(launch: Launch) -> str:
  """Returns where the workers run, what each takes and what it does.

  Raises:
    UserError: for an option that cannot be.
  """
  wanted = _read(launch)
  resources = ', '.join(
    f'{amount:g} {name}' for name, amount in wanted.resources.items()
  )
  return (
    f'cluster: {wanted.address or "its own, on this machine"}\n'
    f'each worker takes: {resources}\n'
    f'{" ".join(launch.command("--slot=K"))}'
  )


def run(launch: Launch, watch: Callable[[], bool]) -> bool:
  """Runs workers until no cell is left.

  Args:
    launch: the workers to start; their own output goes to WORKDIR/logs.
    watch: called about once a second, to show progress; returns whether cells are left.

  Returns:
    Whether it came to its end; False after Ctrl-C or SIGTERM, which let each worker
    save its cell first.

  Raises:
    UserError: without Ray, without the cluster, or for an option that cannot be.
  """
  wanted = _read(launch)
  (launch.workdir / 'logs').mkdir(exist_ok=True)
  with contextlib.ExitStack() as stack:
    try:
      ray = stack.enter_context(_connected(wanted))
    except (KeyboardInterrupt, SystemExit):  # Ray's own way of ending by SIGTERM
      return False
    stop = stack.enter_context(stopping.asked())
    _check_resources(wanted, ray.cluster_resources())
    return _follow(ray, launch, wanted, watch, stop.wait)


def _follow(
  ray: Any,
  launch: Launch,
  wanted: _Wanted,
  watch: Callable[[], bool],
  stopped: Callable[[float], bool],
) -> bool:
  others = {k: v for k, v in wanted.resources.items() if k not in ('CPU', 'GPU')}
  task = ray.remote(_work).options(
    num_cpus=wanted.resources['CPU'],
    num_gpus=wanted.resources.get('GPU', 0),
    resources=others,
    max_retries=-1,  # a lost node is no fault of the worker's
  )

  def start(slot: int) -> Any:
    return task.remote(launch, slot, wanted.cores)

  tasks = [start(slot) for slot in range(launch.num_workers)]
  try:
    restarts = 0
    while watch():
      if stopped(local.POLL_SECONDS):
        return False
      for slot, found in enumerate(tasks):
        status = _status(ray, found)
        if status in (None, 0, worker.STORAGE) or restarts >= local.MAX_RESTARTS:
          continue
        restarts += 1
        tasks[slot] = start(slot)
      if all(_status(ray, found) is not None for found in tasks):
        watch()
        break
    return True
  finally:
    _end(ray, tasks)


def _status(ray: Any, task: Any) -> int | None:
  """Returns a worker's exit status, None while it works, -1 if Ray gave it up."""
  if not ray.wait([task], timeout=0)[0]:
    return None
  try:
    return ray.get(task)
  except ray.exceptions.RayTaskError as error:
    told = str(error).strip().splitlines()[-1]
    raise UserError(f'Ray could not start a worker: {told}') from error
  except ray.exceptions.RayError:
    return -1


def _end(ray: Any, tasks: Sequence[Any]) -> None:
  """Asks the workers to save and leave, and waits until they have."""
  for task in tasks:
    ray.cancel(task)
  ray.wait(tasks, num_returns=len(tasks), timeout=local.GRACE_SECONDS)


def _work(launch: Launch, slot: int, num_cores: int) -> int:
  """Runs a worker where Ray wants it, and returns its exit status."""
  log = launch.workdir / 'logs' / f'ray-{slot}.log'
  with cores.held(num_cores) as held, log.open('a') as file:
    words = ['--attached', f'--slot={slot}']
    if held:
      words.append(f'--cores={",".join(map(str, held))}')
    # Ray kills the children of its own processes as they end. The shell dies in the
    # worker's place, which is left to see the end of its input and to save.
    process = subprocess.Popen(
      ['sh', '-c', '"$@"; exit $?', 'sh', *launch.command(*words)],
      stdin=subprocess.PIPE,
      stdout=file,
      stderr=subprocess.STDOUT,
      env={'GLIBC_TUNABLES': local.TUNABLES, **os.environ},
      start_new_session=True,
    )
    assert process.stdin is not None
    try:
      while process.poll() is None:
        time.sleep(WAIT_SECONDS)  # in Python, where Ray can interrupt it
    finally:
      process.stdin.close()
      process.wait()
  return process.returncode


@contextlib.contextmanager
def _connected(wanted: _Wanted) -> Iterator[Any]:
  """Yields Ray, connected to the cluster; one of our own ends with the block."""
  with contextlib.ExitStack() as stack:
    options: dict[str, Any] = {'address': wanted.address}
    if wanted.address is not None:
      _call(wanted.address)
    else:
      folder = pathlib.Path(tempfile.mkdtemp(prefix='ray-', dir=_short_folder()))
      stack.callback(shutil.rmtree, folder, ignore_errors=True)
      # Ray listens to the whole network unless told that there can be no other node.
      os.environ['RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER'] = '0'
      os.environ['RAY_USAGE_STATS_ENABLED'] = '0'
      options = {
        'address': 'local',
        'num_cpus': len(cores.here()),
        'include_dashboard': False,
        'object_store_memory': STORE_BYTES,
        '_temp_dir': str(folder),
      }
    try:
      import ray
    except ImportError as error:
      raise UserError(
        f"--on=ray needs Ray ({error}); run `pip install 'scaling[ray]'`"
      ) from None
    stack.callback(ray.shutdown)
    try:
      ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
      where = f'--option=address={wanted.address}' if wanted.address else '--on=ray'
      told = ' '.join(str(error).split())
      raise UserError(f'{where}: Ray says: {told}') from error
    yield ray


def _call(address: str) -> None:
  """Sees that somebody is there, where Ray would try for many minutes.

  Raises:
    UserError: if not.
  """
  host, _, port = address.rpartition(':')
  if address == 'auto':
    return
  try:
    socket.create_connection((host.strip('[]'), int(port)), CALL_SECONDS).close()
  except (OSError, ValueError) as error:
    raise UserError(
      f'--option=address={address}: {error}; give HOST:PORT of the head node, which '
      '`ray start --head` names, or auto on a node of the cluster'
    ) from error


def _short_folder() -> str:
  """Returns where Ray may lie: the paths of its sockets may have 107 letters."""
  folder = tempfile.gettempdir()
  return folder if len(folder) <= 30 else '/tmp'


def _read(launch: Launch) -> _Wanted:
  """Returns what the options ask for.

  Raises:
    UserError: for what cannot be.
  """
  if launch.num_processes > 1:
    raise UserError(
      f'--processes={launch.num_processes}: on Ray a worker is one process, with all '
      'devices of its node; several train a cell together with --on=slurm, --on=xpk or '
      '--on=local'
    )
  address = launch.options.get('address')
  if address is not None and '://' in address:
    raise UserError(
      f'--option=address={address}: run it on a node of the cluster, with HOST:PORT of '
      'the head node or auto'
    )
  names = {'num_cpus': 'CPU', 'num_gpus': 'GPU'}
  resources = {'CPU': 1.0}
  for key, value in launch.options.items():
    if key == 'address':
      continue
    try:
      amount = float(value)
    except ValueError:
      amount = -1.0
    if not 0 <= amount < 1e6 or (amount > 1 and amount != int(amount)):
      raise UserError(
        f'--option={key}={value}: how much of {key} a worker takes is a whole number, or '
        'a part of 1.' + config_lib.suggest(key, OWN)
      )
    resources[names.get(key, key)] = amount
  return _Wanted(address, resources)


def _check_resources(wanted: _Wanted, there: Mapping[str, float]) -> None:
  """Says what the cluster does not have: its tasks would wait for ever.

  Raises:
    UserError: if the cluster is our own, to which nothing will come.
  """
  for name, amount in wanted.resources.items():
    if amount <= there.get(name, 0):
      continue
    has = f'{there.get(name, 0):g} {name}'
    if wanted.address is None:
      raise UserError(
        f'a worker is to take {amount:g} {name}, and this machine has {has}; ask for '
        'less by --option, or join a cluster by --option=address=HOST:PORT.'
        + config_lib.suggest(name, OWN)
      )
    print(f'ray: waiting for {amount:g} {name}; now there are {has}', file=sys.stderr)
