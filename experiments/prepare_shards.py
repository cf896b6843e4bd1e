"""Writes the shards of a prepared set, several at a time, in processes of their own."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from scaling.data import sources
from scaling.data.prepare import prepared
from scaling.data.prepare.plans import PARTS, Plan
from scaling.data.prepare.shards import write_shard
from scaling.data.split import Split
from scaling.errors import UserError

POLL_SECONDS = 0.2


class Job(NamedTuple):
  """What all shards have in common.

  Attributes:
    data: the `data` part of a config that names the set.
    data_dir: where it lies.
    plan: of the prepared set.
    folder: that the shards go to.
    skip: leave out images that cannot be decoded.
  """

  data: dict[str, Any]
  data_dir: str | None
  plan: Plan
  folder: pathlib.Path
  skip: bool


def write(
  job: Job,
  splits: Mapping[str, Split],
  missing: Sequence[tuple[str, int]],
  *,
  workers: int,
  tell: Callable[[int], None],
) -> None:
  """Writes the missing shards, each noted in the folder as soon as it is whole.

  Args:
    job: what they have in common.
    splits: of the set, for a worker that is this process.
    missing: part and number of each shard.
    workers: processes; of one there is no other than this.
    tell: called now and then with the images of these shards that are done.

  Raises:
    UserError: the first that a shard ended with; whole ones stay.
  """
  workers = min(workers, len(missing))
  if workers <= 1:
    before = 0
    for part, shard in missing:

      def tell_all(done: int, before: int = before) -> None:
        tell(before + done)

      _write_one(job, splits[part], part, shard, tell_all)
      before += len(job.plan.ids(part, shard))
    return
  # A fork would inherit the threads that JAX has started by half.
  spawn = multiprocessing.get_context('spawn')
  done = spawn.RawArray('q', len(missing))
  running: dict[int, tuple[Any, Connection]] = {}
  try:
    for first in range(workers):
      rows = range(first, len(missing), workers)
      receive, send = spawn.Pipe(duplex=False)
      process = spawn.Process(
        target=_work, args=(job, [(row, *missing[row]) for row in rows], done, send)
      )
      process.start()
      send.close()
      running[process.sentinel] = process, receive
    while running:
      ended = multiprocessing.connection.wait(list(running), POLL_SECONDS)
      tell(sum(done))
      for sentinel in ended:
        process, receive = running[sentinel]  # pyright: ignore - a sentinel is an int
        process.join()
        _check_end(process.exitcode, receive)
        del running[sentinel]  # pyright: ignore
  finally:
    # After an error, or Ctrl-C. What they have begun is begun anew.
    for process, _ in running.values():
      process.kill()
      process.join()


def _check_end(code: int | None, receive: Connection) -> None:
  if receive.poll():
    with contextlib.suppress(EOFError):
      raise UserError(receive.recv())
  if code and code < 0:
    raise UserError(
      f'a worker was ended by signal {-code} (out of memory?); run the same command '
      'again, with fewer --workers'
    )
  if code:
    raise RuntimeError('a worker failed; its own words are above')


def _write_one(
  job: Job, split: Split, part: str, shard: int, tell: Callable[[int], None]
) -> None:
  written = write_shard(
    split,
    job.plan,
    part,
    shard,
    folder=job.folder,
    work=prepared.work_folder(job.folder),
    skip=job.skip,
    root=os.path.expanduser(job.data_dir or ''),
    tell=tell,
  )
  prepared.keep(job.folder, part, shard, written)


def _work(
  job: Job, shards: Sequence[tuple[int, str, int]], done: Any, send: Connection
) -> None:
  """What a worker process does: it loads the set anew and writes its shards."""
  # Ctrl-C reaches all processes of a terminal, and the parent decides what it means.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  parent = multiprocessing.parent_process()
  assert parent is not None

  def end_with_parent() -> None:
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)

  threading.Thread(target=end_with_parent, daemon=True).start()
  try:
    loaded = sources.load_as_found(ConfigDict(job.data), job.data_dir)
    splits = dict(zip(PARTS, loaded, strict=True))
    for row, part, shard in shards:

      def tell(count: int, row: int = row) -> None:
        done[row] = count

      _write_one(job, splits[part], part, shard, tell)
  except (UserError, OSError) as error:
    send.send(str(error))
