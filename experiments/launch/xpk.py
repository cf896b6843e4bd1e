"""Hands a sweep's workers to a GKE cluster: a JobSet each, made by the tool xpk.

A worker is a slice of TPUs, and has a process on each of its hosts. The JobSet starts all
of them again when one ends other than with 0.
"""

import shlex
import shutil
import subprocess
from collections.abc import Iterator

from experiments import worker
from experiments.launch.jobs import Launch
from experiments.watchdog import HUNG
from scaling import config as config_lib
from scaling.errors import UserError

REQUIRED = ('cluster', 'tpu-type', 'docker-image')
DEFAULTS = {
  # A slice may be taken away often; the cells count what went wrong with them.
  'max-restarts': '100',
  # To save after a SIGTERM, where Kubernetes gives 30 s.
  'termination-grace-period-seconds': '120',
}
OWN = {
  'command': 'it is the worker',
  'workload': 'it is named after the study',
  'restart-on-exit-codes': 'it goes with the worker',
  'device-type': 'use --option=tpu-type=TYPE',
  'dry-run': 'use --dry_run',
  'quiet': 'xpk would end a workload of the same name unasked',
}
NEAR = (*REQUIRED, *DEFAULTS, 'project', 'project-number', 'zone', 'num-slices', 'spot')
MAX_NAME = 40  # xpk's own


def render(launch: Launch) -> str:
  """Returns the commands that `submit` would run.

  Raises:
    UserError: for options that are missing or cannot be.
  """
  return '\n'.join(shlex.join(command) for command in commands(launch))


def commands(launch: Launch) -> list[list[str]]:
  """Returns a command of xpk for each worker.

  Raises:
    UserError: for options that are missing or cannot be.
  """
  if launch.num_processes > 1:
    raise UserError(
      f'--processes={launch.num_processes}: on a slice a worker has a process a host, '
      'which follows from --option=tpu-type; leave it out'
    )
  options = DEFAULTS | {_flag(key): value for key, value in launch.options.items()}
  for key, why in OWN.items():
    if key in options:
      raise UserError(f'--option={key} is not for you to set: {why}')
  missing = [key for key in REQUIRED if not options.get(key)]
  if missing:
    wanted = ' '.join(f'--option={key}=...' for key in missing)
    given = [key for key in options if key not in NEAR]
    raise UserError(
      f'--on=xpk needs {wanted}; `xpk workload create --help` says what they are.'
      + ''.join(config_lib.suggest(key, missing) for key in given)
    )
  flags = [
    f'--{key}={value}' if value else f'--{key}' for key, value in options.items()
  ]
  return [
    [
      *('xpk', 'workload', 'create', f'--workload={name}'),
      # Of these codes a JobSet knows nothing; 127 and above it takes for a lost host.
      f'--restart-on-exit-codes={HUNG},{worker.STOPPED}',
      *flags,
      f'--command={_worker(launch, slot)}',
    ]
    for slot, name in enumerate(_names(launch))
  ]


def submit(launch: Launch) -> Iterator[tuple[str, int]]:
  """Creates a workload for each worker.

  Yields:
    The name of each, with its one worker, as soon as it is there: a later one may fail.

  Raises:
    UserError: without xpk, or quoting why it refuses.
  """
  if shutil.which('xpk') is None:
    raise UserError("--on=xpk needs the command xpk; run `pip install 'scaling[xpk]'`")
  for name, command in zip(_names(launch), commands(launch), strict=True):
    # Without input xpk cannot ask whether to end a workload of this name.
    done = subprocess.run(
      command,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    if done.returncode:
      told = [line for line in done.stdout.splitlines() if line.strip()]
      raise UserError(
        f'xpk created no workload {name}: {" ".join(told[-3:])} (a workload of this name '
        f'is ended by `xpk workload delete --workload={name} --cluster='
        f'{_option(launch, "cluster")}`)'
      )
    yield name, 1


def states(job: str) -> str:
  """Returns nothing: xpk cannot be asked without the options of the cluster."""
  del job
  return ''


def cancel(job: str) -> None:
  """Does nothing: workers whose cells are cancelled leave with 0, which ends a JobSet."""
  del job


def _flag(key: str) -> str:
  found = key.replace('_', '-')
  return 'termination-grace-period-seconds' if found == 'tgps' else found


def _option(launch: Launch, wanted: str) -> str:
  return next(value for key, value in launch.options.items() if _flag(key) == wanted)


def _worker(launch: Launch, slot: int) -> str:
  """Returns the line that the container's shell runs on each host."""
  words = launch.verb(f'--slot={slot}', '--coordinator=auto')
  # In the shell's own place, so that xpk's SIGTERM reaches the worker.
  return f'exec scaling {shlex.join(words)}'


def _names(launch: Launch) -> list[str]:
  return [launch.name(slot, MAX_NAME) for slot in range(launch.num_workers)]
