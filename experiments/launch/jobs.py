"""What engines are asked for, and a record of it in WORKDIR/launches.

States of engines are hints. What became of a cell stands in its folder.
"""

import dataclasses
import datetime
import json
import pathlib
import re
import sys
from collections.abc import Mapping

from scaling import files
from scaling.errors import UserError


@dataclasses.dataclass(frozen=True)
class Launch:
  """Workers to start.

  Attributes:
    workdir: of the study, absolute; every worker sees it under this name.
    study: its name.
    orders: name of the workers' orders.
    num_workers: to start.
    num_processes: of each worker, that train a cell together.
    options: of the engine, by its own names.
  """

  workdir: pathlib.Path
  study: str
  orders: str
  num_workers: int
  num_processes: int = 1
  options: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def command(self, *words: str) -> list[str]:
    """Returns a worker's command line, for this machine or one that shares its disk."""
    return [sys.executable, '-m', 'experiments.cli', *self.verb(*words)]

  def verb(self, *words: str) -> list[str]:
    """Returns what follows `scaling` in it."""
    return ['worker', f'--workdir={self.workdir}', f'--orders={self.orders}', *words]

  def name(self, slot: int, longest: int) -> str:
    """Returns a name for a worker's job, of lower-case letters, digits and dashes.

    Only launches of the same orders share it.
    """
    study = re.sub('[^a-z0-9]+', '-', self.study.lower()).strip('-')
    if not study or not study[0].isalpha():
      study = f's-{study}'.rstrip('-')
    tail = f'-{self.orders[:6]}-{slot}'
    return study[: longest - len(tail)].rstrip('-') + tail


@dataclasses.dataclass(frozen=True)
class Job:
  """A job that an engine was handed.

  Attributes:
    engine: such as 'slurm'.
    job: its number or name there.
    orders: that its workers were given.
    workers: how many.
    submitted: when, in UTC.
  """

  engine: str
  job: str
  orders: str
  workers: int
  submitted: str


def record(launch: Launch, engine: str, job: str, workers: int) -> None:
  """Writes down a job that was submitted; a file of its own, written once."""
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
  made = Job(engine, job, launch.orders, workers, now)
  text = json.dumps(dataclasses.asdict(made), indent=2)
  files.write_atomically(launch.workdir / 'launches' / f'{engine}-{job}.json', text)


def read(workdir: pathlib.Path, engine: str) -> list[Job]:
  """Returns an engine's jobs, the oldest first."""
  paths = (workdir / 'launches').glob(f'{engine}-*.json')
  found = []
  for path in paths:
    try:
      found.append(Job(**json.loads(path.read_text())))
    except (ValueError, TypeError) as error:
      raise UserError(f'{path} cannot be read ({error}); delete it') from error
  return sorted(found, key=lambda job: (job.submitted, job.job))
