"""What a sweep costs beside its training: claims, status, tables, and idle workers.

    python -m experiments.benchmarks.sweeps [overhead] [status] [table] [digits]

prints, on this machine: seconds a cell to claim, run and publish 1,000 cells of no work
by two workers; `status` of 10,000 cells; the results table of 3,000 cells with 300,000
rows of metrics; and how long the digits study takes over the time its workers spend
training, which is what reusing a worker for many cells is for.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from analysis import results
from configs import base
from experiments import ledger, orders, status, sweep, worker
from experiments.sweep import Cell
from scaling import metrics, train

_ROW = {
  'train/loss': 1.2345678,
  'train/grad_norm': 0.3456789,
  'train/param_norm': 30.123456,
  'time/images_per_second': 1234.5678,
  'time/input_wait_share': 0.0123456,
  'time/train_seconds': 12.345678,
  'time/input_wait_seconds': 0.12345678,
  'time/compile_seconds': 3.4567891,
  'time/eval_seconds': 0.456789,
}
_TEST = {'test/loss': 1.0, 'test/top1': 0.5, 'test/top5': 0.9, 'test/num_images': 256}


def make_study(workdir: pathlib.Path, num_cells: int) -> list[Cell]:
  """Writes a study of many cells that wait."""
  config = base.get_config()
  wanted = [
    {'data.num_images': 100 * (i // 50 + 1), 'seed': i % 50} for i in range(num_cells)
  ]
  cells = sweep.make_cells(config, wanted)
  sweep.write_study(workdir, config, 'made_up.py', cells)
  return cells


def finish(workdir: pathlib.Path, cells: Sequence[Cell], num_rows: int) -> None:
  """Writes what cells leave when they are done."""
  steps = 2 * (num_rows - 1)
  manifest = {
    'steps': steps,
    'batch_size': 64,
    'examples': 64 * steps,
    'num_devices': 1,
    'num_params': 77_000,
    'train_flops': 1e12,
    'num_full': 100_000,
    'num_test': 256,
  }
  rows = [{'step': 2 * i} | _ROW for i in range(num_rows)]
  rows[-1] |= _TEST
  lines = ''.join(json.dumps(row) + '\n' for row in rows)
  for cell in cells:
    folder = sweep.cell_folder(workdir, cell.name)
    (folder / 'manifest.json').write_text(json.dumps(manifest))
    (folder / 'metrics.jsonl').write_text(lines)
    ended = {'state': 'done', 'attempts': 1}
    (folder / ledger.NAME).write_text(json.dumps(ended))


def measure_overhead(folder: pathlib.Path, num_cells: int = 1000) -> float:
  """Returns seconds a cell of two workers whose cells take no time."""
  cells = make_study(folder, num_cells)
  told = orders.Orders(orders.group(cells))
  found = [sweep.cell_folder(folder, name) for name in told.cells(0)]
  real, train.train = train.train, lambda *args, **kwargs: {}
  began = time.monotonic()
  workers = [
    threading.Thread(target=worker.work_alone, args=(found, told, threading.Event()))
    for _ in range(2)
  ]
  try:
    for thread in workers:
      thread.start()
    for thread in workers:
      thread.join()
  finally:
    train.train = real
  seconds = time.monotonic() - began
  done = [ledger.read_status(cell) for cell in found]
  assert all(cell.state == 'done' and cell.attempts == 1 for cell in done)
  return seconds / num_cells


def measure_status(folder: pathlib.Path, num_cells: int = 10_000) -> float:
  """Returns the seconds in which the state of many cells is read and told."""
  finish(folder, make_study(folder, num_cells), 6)
  began = time.monotonic()
  expected = status.expect(folder, sweep.read_study(folder))
  seen = [status.read_progress(cell) for cell in expected]
  text = status.table(seen) + status.summary(seen)
  assert text.count('done') == num_cells + 1
  return time.monotonic() - began


def measure_table(folder: pathlib.Path, num_cells: int = 3000) -> float:
  """Returns the seconds in which the results of many cells become a table."""
  finish(folder, make_study(folder, num_cells), 100)
  began = time.monotonic()
  study = results.read_study(folder)
  assert len(study.table) == 3 * num_cells
  return time.monotonic() - began


def measure_digits(folder: pathlib.Path, workers: int = 2) -> dict[str, float]:
  """Returns the seconds of the digits study, and of the steps in it."""
  command = [sys.executable, '-m', 'experiments.cli', 'sweep', '--config=digits']
  command += [f'--workdir={folder}', f'--workers={workers}']
  began = time.monotonic()
  subprocess.run(command, check=True)
  seconds = time.monotonic() - began
  sums = dict.fromkeys(('train', 'compile', 'eval'), 0.0)
  for path in folder.glob('cells/*/metrics.jsonl'):
    row = metrics.last_row(path)
    for name in sums:
      sums[name] += row[f'time/{name}_seconds']
  return {'study': seconds} | {name: s / workers for name, s in sums.items()}


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the named measurements, or all, and prints a line for each."""
  found: dict[str, tuple[Callable[[pathlib.Path], Any], Callable[[Any], str]]] = {
    'overhead': (measure_overhead, lambda s: f'{1e3 * s:.1f} ms a cell of no work'),
    'status': (measure_status, lambda s: f'{s:.2f} s for 10,000 cells'),
    'table': (measure_table, lambda s: f'{s:.2f} s for 3,000 cells, 300,000 rows'),
    'digits': (measure_digits, _say_digits),
  }
  parser = argparse.ArgumentParser(
    prog='sweeps',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  every = ', '.join(found)
  parser.add_argument('name', nargs='*', help=f'of {every}; default: all')
  names = parser.parse_args(argv).name
  if unknown := [name for name in names if name not in found]:
    parser.error(f'{unknown[0]!r} is none of {every}')
  for name in names or found:
    measure, say = found[name]
    with tempfile.TemporaryDirectory() as folder:
      print(f'{name:<9} {say(measure(pathlib.Path(folder) / "study"))}', flush=True)


def _say_digits(seconds: dict[str, float]) -> str:
  ratio = seconds['study'] / seconds['train']
  parts = ', '.join(f'{name} {s:.1f} s' for name, s in seconds.items())
  return f'{ratio:.3f} times the time of its steps ({parts}; sums over workers)'


if __name__ == '__main__':
  main()
