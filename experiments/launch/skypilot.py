"""Hands a sweep's workers to SkyPilot: a managed job each.

SkyPilot finds machines for a worker, and others when they are taken away.
"""

import ast
import functools
import json
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

from experiments import worker
from experiments.launch.jobs import Launch
from experiments.watchdog import HUNG
from scaling.errors import UserError

# After these a worker is to be started again; the last four are those of kills.
RESTARTED = (HUNG, worker.STOPPED, 134, 137, 139, 143)
# Options that are no resources; all others are, by SkyPilot's own names.
OF_TASK = ('setup', 'workdir', 'envs', 'file_mounts', 'volumes', 'config')
OWN = {
  'run': 'it is the worker',
  'name': 'it is named after the study',
  'num_nodes': 'use --processes',
  'resources': 'give each by itself, such as --option=accelerators=tpu-v6e-8',
}
MAX_NAME = 40  # still readable in a table
PORT = 8476  # where the processes of one worker meet
FRESH_SECONDS = 30.0  # an answer holds for so long: each takes seconds
PATIENCE_SECONDS = 60.0


def render(launch: Launch) -> str:
  """Returns the task of the first worker as YAML; others differ in name and slot.

  Raises:
    UserError: for an option that cannot be.
  """
  return _yaml(launch, 0)


def submit(launch: Launch) -> Iterator[tuple[str, int]]:
  """Submits a managed job for each worker.

  Yields:
    The name of each, with its one worker, as soon as it is there: a later one may fail.

  Raises:
    UserError: without SkyPilot, or quoting why it refuses.
  """
  if shutil.which('sky') is None:
    raise UserError(
      "--on=skypilot needs the command sky; run `pip install 'scaling[skypilot]'` and, of "
      "your cloud, such as `pip install 'skypilot[gcp]'`"
    )
  for slot in range(launch.num_workers):
    name = launch.name(slot, MAX_NAME)
    with tempfile.NamedTemporaryFile('w', suffix='.yaml') as file:
      file.write(_yaml(launch, slot))
      file.flush()
      # It returns when the job is submitted, and follows no log.
      done = _sky(
        ['jobs', 'launch', '--yes', '--detach-run', '--name', name, file.name]
      )
    if done.returncode:
      told = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
      raise UserError(f'SkyPilot took no job {name}: {" ".join(told[-3:])}')
    yield name, 1


def states(job: str) -> str:
  """Returns what SkyPilot says of a job that has not ended, such as '1 recovering'."""
  found = [
    row for row in _queue(int(time.monotonic() / FRESH_SECONDS)) if row[0] == job
  ]
  counts = {status: found.count((job, status)) for _, status in found}
  return ', '.join(f'{number} {status}' for status, number in sorted(counts.items()))


def cancel(job: str) -> None:
  """Cancels a job. Its worker has left by itself if its cells were cancelled before."""
  if shutil.which('sky') is not None:
    _sky(['jobs', 'cancel', '--yes', '--name', job])


@functools.lru_cache(maxsize=1)
def _queue(moment: int) -> list[tuple[str, str]]:
  """Returns name and state of each job that has not ended, or nothing."""
  del moment
  if shutil.which('sky') is None:
    return []
  words = ['jobs', 'queue', '--skip-finished', '--all', '--output', 'json']
  try:
    done = _sky(words, PATIENCE_SECONDS)
    # Of a server that it had to start first it may tell above the answer.
    rows = json.loads(done.stdout[max(done.stdout.find('[\n'), 0) :])
    return [(row['job_name'], row['status'].lower()) for row in rows]
  except (subprocess.TimeoutExpired, ValueError, KeyError, TypeError, AttributeError):
    return []  # no server, or of another version: a hint less


def _sky(
  words: Sequence[str], seconds: float | None = None
) -> subprocess.CompletedProcess[str]:
  return subprocess.run(
    ['sky', *words],
    stdin=subprocess.DEVNULL,
    capture_output=True,
    text=True,
    timeout=seconds,
  )


def _yaml(launch: Launch, slot: int) -> str:
  """Returns a worker's task, in that part of YAML that is JSON."""
  for key, why in OWN.items():
    if key in launch.options:
      raise UserError(f'--option={key} is not for you to set: {why}')
  options = {key: _value(text) for key, text in launch.options.items()}
  task: dict[str, Any] = {'name': launch.name(slot, MAX_NAME)}
  task |= {key: options.pop(key) for key in OF_TASK if key in options}
  if launch.num_processes > 1 and not _on_tpu(options):
    task['num_nodes'] = launch.num_processes  # a TPU says itself how many hosts it has
  # A lost machine is always made up for; these are for those that say goodbye.
  recovery = {'recover_on_exit_codes': list(RESTARTED)}
  if strategy := options.pop('job_recovery', None):
    recovery |= strategy if isinstance(strategy, dict) else {'strategy': strategy}
  task['resources'] = {**options, 'job_recovery': recovery}
  task['run'] = _run(launch, slot, _on_tpu(options))
  return json.dumps(task, indent=2)


def _run(launch: Launch, slot: int, on_tpu: bool) -> str:
  words = launch.verb(f'--slot={slot}')
  if launch.num_processes == 1:
    return f'exec scaling {shlex.join(words)}\n'
  if on_tpu:
    return f'exec scaling {shlex.join([*words, "--coordinator=auto"])}\n'
  return (
    f'exec scaling {shlex.join(words)} \\\n'
    f'  --coordinator="$(echo "$SKYPILOT_NODE_IPS" | head -n 1):{PORT}" \\\n'
    '  --num_processes="$SKYPILOT_NUM_NODES" --process="$SKYPILOT_NODE_RANK"\n'
  )


def _on_tpu(options: dict[str, Any]) -> bool:
  return 'tpu' in str(options.get('accelerators', '')).lower()


def _value(text: str) -> Any:
  """Returns what an option's text stands for: JSON or a Python literal, else itself."""
  for parse in (json.loads, ast.literal_eval):
    try:
      return parse(text)
    except (ValueError, SyntaxError):
      continue
  return text
