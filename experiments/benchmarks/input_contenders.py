"""A contender of `experiments.benchmarks.input`, in a process of its own.

Started as `python -m experiments.benchmarks.input_contenders JOB`, a `Job` as JSON.
Prints one JSON line when it is ready; then, for each number it reads, makes that many
batches and prints their seconds and CPU seconds. It leaves when its input ends.
"""

import contextlib
import json
import os
import pathlib
import sys
import time
from collections.abc import Sequence

from experiments.benchmarks import input_costs
from experiments.benchmarks.input_cases import CASES, Job
from experiments.benchmarks.input_peers import Next


def tree_cpu_seconds() -> float:
  """Returns the CPU seconds of this process and of all that it has started.

  Those still running are seen under Linux only.
  """
  times = os.times()
  total = time.process_time() + times.children_user + times.children_system
  parents: dict[int, int] = {}
  ticks: dict[int, int] = {}
  for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
    try:
      # After the name, which may hold anything: state, parent, ..., four times.
      fields = path.read_text().rpartition(')')[2].split()
    except OSError:  # it has ended
      continue
    pid = int(path.parent.name)
    parents[pid], ticks[pid] = int(fields[1]), sum(map(int, fields[11:15]))
  for pid in parents:
    above = parents[pid]
    while above not in (0, os.getpid()):
      above = parents.get(above, 0)
    if above:
      total += ticks[pid] / os.sysconf('SC_CLK_TCK')
  return total


def rest(longest: float = 10.0) -> None:
  """Waits until nothing is prepared ahead any more, which would cost others' turns."""
  stop = time.monotonic() + longest
  before, now = -1.0, tree_cpu_seconds()
  while now - before > 0.01 and time.monotonic() < stop:
    time.sleep(0.1)
    before, now = now, tree_cpu_seconds()


def serve(batch: Next, warm: int) -> None:
  """Makes batches when told to, and says what they cost."""
  for _ in range(2):  # the first compiles, the second starts threads
    batch()
  if warm:
    rest()
  print(json.dumps({}), flush=True)
  before = tree_cpu_seconds()
  for line in sys.stdin:
    for _ in range(warm):
      batch()
    began = time.perf_counter()
    for _ in range(int(line)):
      batch()
    seconds = time.perf_counter() - began
    if warm:
      rest()
    now = tree_cpu_seconds()
    answer = {'seconds': [seconds], 'cpu_seconds': [now - before]}
    before = now
    print(json.dumps(answer), flush=True)


def main(argv: Sequence[str]) -> int:
  """Does one job."""
  job = Job(**json.loads(argv[0]))
  # Before anything starts its threads, of which it may take one for each core.
  if hasattr(os, 'sched_setaffinity'):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job.cores])
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  if job.case == 'start':
    print(json.dumps(input_costs.start(job.images, job.name, job.folder)))
  elif job.case == 'ids':
    print(json.dumps(input_costs.plan(job.images, job.batch_size)))
  elif job.name == 'prepare':
    case = CASES[job.case]
    with contextlib.redirect_stdout(sys.stderr):  # TFDS has much to say
      about = case.prepare(job.path, case.shape, job.images) if case.prepare else ''
    print(json.dumps({'about': about}))
  else:
    serve(CASES[job.case].contenders[job.name].make(job), job.warm)
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
