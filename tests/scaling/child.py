"""Trains one cell in a process of its own, which can be told when to die or stop.

Its only argument is a JSON object: `workdir`, `config`, and of these what is wanted:
  die: [where, step], 'row' with that row on disk and its save still to come, 'test' in
    the middle of the evaluation, 'save' with half of a checkpoint on disk.
  stop_at: ask for a stop once so many steps were begun by this process.
  pause: seconds to sleep in each step, so that there is time to be killed in.
  batches: a file that gets a line for each batch: its step and the images' ids.
  process, num_processes, port: of jax.distributed on this machine.
"""

import contextlib
import json
import logging
import os
import pathlib
import signal
import sys
import threading
import time

import jax

from scaling import checkpoint, metrics
from scaling import config as config_lib
from scaling.data import pipeline
from scaling.errors import Stopped
from scaling.evals import classify
from scaling.train import train


def die():
  os.kill(os.getpid(), signal.SIGKILL)


def die_at(where: str, step: int, workdir: pathlib.Path) -> None:
  """Plants the kill by wrapping the function in which it shall happen."""
  write, evaluate = metrics.Writer.write, classify.evaluate
  save = checkpoint.Checkpoints.save

  def write_and_die(self, at, values):
    write(self, at, values)
    if at >= step:
      die()

  def evaluate_and_die(program, state, batches, *rest):
    def fatal():
      yield next(batches)
      die()

    tested = fatal() if int(state.step) >= step else batches
    return evaluate(program, state, tested, *rest)

  def watch():
    while not list(workdir.glob('checkpoints/*tmp/*tmp/ocdbt.process_0/d/*')):
      time.sleep(0)
    die()

  def save_and_die(self, state, *args):
    if int(state.step) >= step:
      threading.Thread(target=watch, daemon=True).start()
    save(self, state, *args)

  if where == 'row':
    metrics.Writer.write = write_and_die
  elif where == 'test':
    classify.evaluate = evaluate_and_die
  else:
    checkpoint.Checkpoints.save = save_and_die


def note_batches(path: pathlib.Path) -> None:
  """Writes the ids of each batch that is made."""
  make = pipeline.train_batch

  def make_and_note(step, **rest):
    batch = make(step, **rest)
    with path.open('a') as file:
      file.write(json.dumps([step, batch['id'][:, 0].tolist()]) + '\n')
    return batch

  pipeline.train_batch = make_and_note


def main(orders):
  logging.basicConfig(format='%(message)s', level=logging.WARNING)
  if 'port' in orders:
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    address = f'127.0.0.1:{orders["port"]}'
    jax.distributed.initialize(
      address,
      orders['num_processes'],
      orders['process'],
      coordinator_bind_address=address,
      heartbeat_timeout_seconds=20,
    )
  workdir = pathlib.Path(orders['workdir'])
  if 'die' in orders:
    die_at(*orders['die'], workdir)
  if 'batches' in orders:
    note_batches(pathlib.Path(orders['batches']))
  begun = 0

  def should_stop():
    nonlocal begun
    begun += 1
    time.sleep(orders.get('pause', 0))
    return begun > orders.get('stop_at', float('inf'))

  config = config_lib.nested(config_lib.flat(orders['config']))
  with contextlib.suppress(Stopped):
    train(config, workdir, should_stop=should_stop, **orders.get('layout', {}))
  if 'port' in orders:
    jax.distributed.shutdown()


if __name__ == '__main__':
  main(json.loads(sys.argv[1]))
