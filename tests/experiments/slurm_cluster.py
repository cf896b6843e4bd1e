"""A real Slurm of two nodes on this machine, for the time of the tests.

Debian's own daemons, as root, on loopback alone and without systemd or cgroups. Nothing
of it is shared with a Slurm that may be installed here: ports, keys and state are its
own, in a folder that goes with it.
"""

import contextlib
import datetime
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

NODES = ('n1', 'n2')
TOOLS = ('slurmctld', 'slurmd', 'sbatch', 'munged')
PACKAGES = 'apt-get install --no-install-recommends slurmctld slurmd slurm-client munge'
PATIENCE = 600.0  # seconds: a machine may be busy, and what hangs must end some time
# Debian keeps daemons out of the way of who is not root.
PATH = f'{os.environ.get("PATH", "")}:/usr/sbin:/sbin'

# `low` is preempted by `high`, with five seconds to save in; `abrupt` is not given them.
CONFIG = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort={port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
MessageTimeout=30
SlurmdTimeout=20
KillWait=20
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=5
PartitionName=abrupt Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""
NODE = 'NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2\n'


def missing() -> str:
  """Returns what this machine lacks for a cluster, or ''."""
  absent = [tool for tool in TOOLS if not shutil.which(tool, path=PATH)]
  if absent:
    return f'{", ".join(absent)} missing; {PACKAGES}'
  return '' if os.geteuid() == 0 else 'daemons of Slurm on one machine need root'


class Cluster:
  """A running cluster.

  Attributes:
    environment: of its commands and jobs.
  """

  def __init__(self, folder: pathlib.Path, environment: Mapping[str, str]):
    self.folder = folder
    self.environment = {
      **environment,
      'PATH': f'{folder}/bin:{environment.get("PATH", "")}',
      'SLURM_CONF': str(folder / 'slurm.conf'),
    }
    self._daemons: dict[str, subprocess.Popen] = {}

  def run(self, *words: str, check: bool = True) -> str:
    """Returns what a command of Slurm says."""
    done = subprocess.run(
      words, env=self.environment, text=True, capture_output=True, timeout=PATIENCE
    )
    assert not check or done.returncode == 0, (words, done.stderr)
    return done.stdout.strip()

  def start(self) -> None:
    """Starts the daemons, and waits until the nodes are ready."""
    self._configure()
    folder = self.folder
    self._start(
      'munged',
      '--foreground',
      '--force',
      *(f'--{name}={folder}/munge.{name}' for name in ('socket', 'key-file')),
      *(f'--{name}={folder}/munge.{name}' for name in ('pid-file', 'log-file')),
      f'--seed-file={folder}/munge.seed',
    )
    wait_for((folder / 'munge.socket').exists)
    self._start('slurmctld', '-D', '-c')
    for node in NODES:
      self.start_node(node)
    wait_for(lambda: self._node_states() == {'idle'})

  def start_node(self, node: str) -> None:
    """Starts a node; the one of that name that was killed comes back."""
    self._start(f'slurmd {node}', '-D', '-N', node)

  def kill_node(self, node: str) -> None:
    """Kills a node and all that runs on it, as a power cut would."""
    daemon = self._daemons.pop(f'slurmd {node}')
    # Its jobs are no children of it: steps outlive the daemon that started them.
    _kill([daemon.pid, *self._processes(SLURMD_NODENAME=node)])
    daemon.wait()

  def workers(self) -> list[int]:
    """Returns what srun has started; its own shell is a step of another number."""
    return self._running(SLURM_STEP_ID='0')

  def stop(self) -> None:
    """Ends the jobs and the daemons."""
    with contextlib.suppress(AssertionError, OSError, subprocess.TimeoutExpired):
      self.clear()
    for daemon in reversed(self._daemons.values()):
      daemon.terminate()
    for daemon in self._daemons.values():
      try:
        daemon.wait(30)
      except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
    _kill(self._processes())

  def clear(self) -> None:
    """Cancels what jobs are left, and waits for their end."""
    self.run('scancel', '--user=root', check=False)
    wait_for(lambda: not self.run('squeue', '--noheader', check=False), seconds=60)

  def states(self, job: str) -> dict[str, str]:
    """Returns the state and reason of each task of a job, by its full number."""
    lines = self.run(
      'squeue',
      '--noheader',
      '--array',
      f'--jobs={job}',
      '--format=%i %T %r',
      check=False,
    )
    return dict(line.split(' ', 1) for line in lines.splitlines())

  def over(self, job: str) -> bool:
    """Returns whether nothing of a job is left; lets what was requeued start soon.

    Slurm itself lets it wait for two minutes. At once would be too soon: a node takes
    the job for the one that it has just ended, and refuses it.
    """
    words = ('--noheader', '--array', f'--jobs={job}', '--format=%i %r %S')
    lines = self.run('squeue', *words, check=False).splitlines()
    for task, reason, start in map(str.split, lines):
      if reason == 'BeginTime' and start != 'N/A':
        left = datetime.datetime.fromisoformat(start) - datetime.datetime.now()
        if left.total_seconds() > 20:
          self.run(
            'scontrol', 'update', f'JobId={task}', 'StartTime=now+3', check=False
          )
    return not lines

  def _configure(self) -> None:
    folder, host = self.folder, socket.gethostname().partition('.')[0]
    ports = _free_ports(1 + len(NODES))
    text = CONFIG.format(folder=folder, host=host, port=ports[0])
    for node, port in zip(NODES, ports[1:], strict=True):
      text += NODE.format(name=node, host=host, port=port)
      (folder / f'spool.{node}').mkdir()
    (folder / 'slurm.conf').write_text(text)
    (folder / 'state').mkdir()
    key = folder / 'munge.key-file'
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    # Processes of one worker meet on loopback too.
    (folder / 'bin').mkdir()
    (folder / 'bin' / 'hostname').write_text('#!/bin/sh\necho 127.0.0.1\n')
    (folder / 'bin' / 'hostname').chmod(0o755)

  def _start(self, name: str, *words: str) -> None:
    program = shutil.which(name.partition(' ')[0], path=PATH)
    assert program is not None
    with (self.folder / 'daemons.log').open('a') as log:
      self._daemons[name] = subprocess.Popen(
        [program, *words],
        env=self.environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
      )

  def _node_states(self) -> set[str]:
    return set(self.run('sinfo', '--noheader', '--format=%T', check=False).split())

  def _processes(self, **variables: str) -> list[int]:
    """Returns what runs in jobs, where these variables are set, and what watches it."""
    found = self._running(**variables)
    # A slurmstepd writes its title over its own variables.
    watching = {parent for pid in found if _is_step(parent := _parent(pid))}
    return [*watching, *found]

  def _running(self, **variables: str) -> list[int]:
    wanted = {'SLURM_CONF': self.environment['SLURM_CONF'], **variables}
    wanted_items = {f'{name}={value}' for name, value in wanted.items()}
    found = []
    for path in pathlib.Path('/proc').glob('[0-9]*/environ'):
      with contextlib.suppress(OSError):
        if wanted_items <= set(path.read_text(errors='replace').split('\0')):
          found.append(int(path.parent.name))
    return found


@contextlib.contextmanager
def cluster(environment: Mapping[str, str]) -> Iterator[Cluster]:
  """Yields a cluster whose jobs have this environment; stops it at the end."""
  # Not in a folder of pytest: the names of sockets are short.
  folder = pathlib.Path(tempfile.mkdtemp(prefix='slurm-'))
  made = Cluster(folder, environment)
  try:
    made.start()
    yield made
  finally:
    made.stop()
    shutil.rmtree(folder, ignore_errors=True)


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
  """Returns when a condition holds."""
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, 'it did not happen in time'
    time.sleep(0.1)


def _parent(pid: int) -> int:
  try:
    stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except OSError:
    return 0
  return int(stat.rsplit(')', 1)[1].split()[1])


def _is_step(pid: int) -> bool:
  try:
    program = pathlib.Path(os.readlink(f'/proc/{pid}/exe')).name
  except OSError:
    return False
  return program.startswith('slurmstepd')  # slurmstepd-wlm in Debian


def _kill(pids: Sequence[int]) -> None:
  """Kills processes at once, so that none can tell of another's end."""
  for number in (signal.SIGSTOP, signal.SIGKILL):
    for pid in pids:
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _free_ports(number: int) -> list[int]:
  with contextlib.ExitStack() as stack:
    found = [stack.enter_context(socket.socket()) for _ in range(number)]
    for free in found:
      free.bind(('127.0.0.1', 0))
    return [free.getsockname()[1] for free in found]
