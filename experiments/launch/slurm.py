"""Workers as the tasks of one array job of Slurm, version 22.05 or newer.

Slurm decides where and when they run, and which make room for others. A worker that was
told to stop has saved its cell, and its task is queued again; what any of them left
behind the next one goes on with.
"""

import json
import re
import shlex
import subprocess
from collections import Counter
from typing import Any

from experiments.launch import local
from experiments.launch.jobs import Launch
from experiments.watchdog import HUNG
from experiments.worker import STOPPED
from scaling.errors import UserError

# After these a worker is to be started again: by its own word, and where it was killed
# (by a signal, or aborted because another process of it was).
RESTART = (HUNG, STOPPED, 134, 137, 143)
# Options that the script depends on, and what is to be said instead.
OWN = {
  'array': 'use --workers for the number of tasks',
  'ntasks': 'use --processes for the processes of a worker',
  'output': 'the output is in WORKDIR/logs',
  'error': 'the output is in WORKDIR/logs',
  'open-mode': 'the output of all attempts is in one file',
  'requeue': 'tasks are always queued again',
  'no-requeue': 'tasks are always queued again; `scaling cancel` ends them',
  'job-name': 'it is the name of the study; set config.name',
  'wrap': 'the script is written by `scaling`',
  'parsable': '`scaling` reads the number of the job',
  'wait': '`scaling status --watch` waits',
  'test-only': 'use --dry_run',
  'clusters': 'submit from a machine of that cluster',
}
# What squeue tells of for some minutes after a task has ended.
_OVER = (
  'BOOT_FAIL',
  'CANCELLED',
  'COMPLETED',
  'DEADLINE',
  'FAILED',
  'NODE_FAIL',
  'OUT_OF_MEMORY',
  'PREEMPTED',
  'REVOKED',
  'TIMEOUT',
)
_OF_ANOTHER_FORM = (AttributeError, LookupError, TypeError, ValueError)
TIMEOUT_SECONDS = 120.0

_SCRIPT = """\
#!/bin/bash
{header}

ulimit -c 0  # who loses a peer is aborted, which is no reason to fill the disk
# Slurm asks the whole job to stop. The worker does, and this shell sees to the rest.
trap '' TERM
export GLIBC_TUNABLES="${{GLIBC_TUNABLES:-{tunables}}}"
{coordinator}# srun does not ask for the cores of the job by itself.
srun{flags} ${{SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"}} \\
  {command}
code=$?

# A job that ends by itself when it is to make room has failed, as far as Slurm is
# concerned, and so it has at its time limit: both must ask for another turn. One that
# was cancelled must not, for it would get it. Of those two only the first still counts
# as running.
case $code in
  {restart})
    case $(squeue --noheader --jobs="$SLURM_JOB_ID" --format='%T %r') in
      RUNNING* | *TimeLimit)
        scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
        ;;
    esac
    ;;
esac
exit $code
"""

# Above the ports that systems hand out, and of each task its own. The shell's own
# $HOSTNAME may have come along from where the job was submitted.
_COORDINATOR = """\
coordinator="$(hostname):$((61440 + SLURM_JOB_ID % 4096))"
"""


def render(launch: Launch) -> str:
  """Returns the script of the job.

  Raises:
    UserError: for an option that the script must set itself, or that is none.
  """
  if '\\' in str(launch.workdir):
    raise UserError(
      f'--workdir={launch.workdir} has a backslash, which Slurm does not allow in the '
      'name of an output file; use another folder'
    )
  several = launch.num_processes > 1
  logs = str(launch.workdir / 'logs').replace('%', '%%')
  wanted = {
    'job-name': launch.study,
    'array': f'0-{launch.num_workers - 1}',
    'output': f'{logs}/slurm-%A_%a.log',
    'open-mode': 'append',
    'requeue': '',
    'nodes': str(launch.num_processes),
    'ntasks': str(launch.num_processes),
    **_options(launch),
  }
  words = list(map(shlex.quote, launch.command()))
  words.append('--slot="$SLURM_ARRAY_TASK_ID"')
  if several:  # how many, and which one it is, JAX reads in SLURM_NTASKS and so on
    words.append('--coordinator="$coordinator"')
  return _SCRIPT.format(
    header='\n'.join(f'#SBATCH {_line(key, value)}' for key, value in wanted.items()),
    tunables=local.TUNABLES,
    coordinator=_COORDINATOR if several else '',
    flags=' --kill-on-bad-exit=1' if several else '',
    command=' '.join(words),
    restart=' | '.join(map(str, RESTART)),
  )


def submit(launch: Launch) -> list[tuple[str, int]]:
  """Submits the workers.

  Returns:
    The number of the job, and how many workers it has.

  Raises:
    UserError: if sbatch is missing, or refuses.
  """
  script = render(launch)
  # Without the folder of its output a job fails without a word.
  (launch.workdir / 'logs').mkdir(parents=True, exist_ok=True)
  try:
    said = _ask('sbatch', '--parsable', script=script)
  except subprocess.CalledProcessError as error:
    raise UserError(
      f'sbatch refused the job: {_reason(error)}; --option=KEY=VALUE sets its options, '
      '--dry_run shows them'
    ) from error
  return [(said.strip().partition(';')[0], launch.num_workers)]


def states(job: str) -> str:
  """Returns how many tasks of a job are in which state, such as '2 running'.

  Empty when it is over, or when nobody knows.
  """
  try:
    try:
      found = _from_json(_ask('squeue', '--json', f'--jobs={job}'), job)
    except (subprocess.CalledProcessError, *_OF_ANOTHER_FORM):
      # Builds without a library for JSON have no such option.
      found = _from_lines(job)
  except (UserError, subprocess.CalledProcessError):
    return ''
  return ', '.join(f'{number} {state}' for state, number in sorted(found.items()))


def _from_json(said: str, job: str) -> Counter[str]:
  """Returns how many tasks of a job are in which state.

  A number is one by itself up to 22.05, later an object with `set` and `number`; a state
  is a word up to 23.02, later a list of words. Before 23.02 all jobs are told of, and
  those that are over in any version.
  """

  def number(value: Any) -> int | None:
    if not isinstance(value, dict):
      return value
    return value['number'] if value['set'] else None

  found: Counter[str] = Counter()
  for one in json.loads(said)['jobs']:
    if job not in (str(number(one['array_job_id'])), str(number(one['job_id']))):
      continue
    state, *more = [words] if isinstance(words := one['job_state'], str) else words
    if 'COMPLETING' in more:  # what runs after a task is not over yet
      state = 'COMPLETING'
    if state not in _OVER:
      # Tasks that have not begun are one entry, with their numbers such as '1,4-6%2'.
      waiting = one['array_task_string'].partition('%')[0]
      spans = [part.split('-') for part in waiting.split(',')] if waiting else [['0']]
      tasks = sum(int(span[-1]) - int(span[0]) + 1 for span in spans)
      found[_state(state, one['state_reason'])] += tasks
  return found


def _from_lines(job: str) -> Counter[str]:
  said = _ask('squeue', '--noheader', '--array', f'--jobs={job}', '--format=%T %r')
  return Counter(_state(*line.split(maxsplit=1)) for line in said.splitlines())


def _state(state: str, reason: str = 'None') -> str:
  state = state.lower()
  return state if reason == 'None' else f'{state} ({reason})'


def cancel(job: str) -> None:
  """Ends a job: what runs is told to save first."""
  try:
    _ask('scancel', job)
  except subprocess.CalledProcessError as error:
    if states(job):  # else it has just come to its end
      raise UserError(f'scancel refused job {job}: {_reason(error)}') from error


def _options(launch: Launch) -> dict[str, str]:
  """Returns the user's options by the long names of sbatch."""
  found = {}
  for key, value in launch.options.items():
    name = key.replace('_', '-')
    if name in OWN:
      raise UserError(f'--option={key}={value} is not for Slurm: {OWN[name]}')
    if not re.fullmatch('[a-z][a-z0-9-]+', name):
      raise UserError(
        f'--option={key}={value} is no option of sbatch; use a long name without its '
        'dashes, such as --option=partition=gpu'
      )
    if '\n' in value:
      raise UserError(f'--option={key}={value!r} has more than one line; use one')
    found[name] = value
  return found


def _line(key: str, value: str) -> str:
  """Returns an option as sbatch reads it from a script: with quotes like a shell's."""
  if not value:
    return f'--{key}'
  if re.search(r'[^\w./:=,@%+-]', value):
    value = '"' + re.sub(r'(["\\])', r'\\\1', value) + '"'
  return f'--{key}={value}'


def _ask(tool: str, *words: str, script: str = '') -> str:
  """Returns what a tool of Slurm answers."""
  try:
    return subprocess.run(
      (tool, *words),
      input=script,
      text=True,
      capture_output=True,
      check=True,
      timeout=TIMEOUT_SECONDS,
    ).stdout
  except FileNotFoundError:
    raise UserError(
      f'--on=slurm needs {tool}, which is not on this machine; use a login node of the '
      'cluster, or another engine'
    ) from None
  except subprocess.TimeoutExpired:
    raise UserError(
      f'{tool} said nothing for {TIMEOUT_SECONDS:g} s; try again when the cluster answers'
    ) from None


def _reason(error: subprocess.CalledProcessError) -> str:
  return ' '.join(error.stderr.split()) or f'exit status {error.returncode}'
