"""Times the ways from stored images to batches: ours, PyTorch's, tf.data's and grain's.

  python -m experiments.benchmarks.input --out=input.json

Cases:
  jpeg        500x375 JPEG files to random crops of 224 pixels, flipped, batches of 64.
              Ours flips on the host here, though in training the device does.
  memory28    60,000 images 28x28x1 in memory to shuffled batches of 128
  memory32    50,000 images 32x32x3, likewise
  records     records of 32-pixel PNG images at random from a prepared TFDS set, 256 at a
              time: as bytes, as array_record gives them; parsed, and with the image
              decoded, as TFDS does
  procedural  computed images, 32x32x3, beside our training step of ResNet-20 on the
              same cores
  start       seconds until a first batch, from ten thousand images to a billion, of
              files in a folder and in a CSV list (a million names for a few files, in the
              system's temporary folder), and of CIFAR-10, decoded into memory, where
              --data_dir has it
  ids         cost and memory of the order of images, up to 2^40 of them

Each contender is a process of its own, and they take turns, so that one works at a time
and a busy machine is busy for all. Counted are images a second and images a CPU-second
of the process with all that it starts; the best turn counts: other work disturbs it
least. Where other work never rests, CPU-seconds still compare.
All run with the allocator settings of a sweep's workers; GLIBC_TUNABLES in the
environment, also an empty one, takes their place.
PyTorch, which decodes with simplejpeg as we do, and grain come with `pip install '.[bench]'`;
`pip install tensorflow` adds tf.data. Who is not installed is left out.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

from experiments.benchmarks import input_files
from experiments.benchmarks.input_cases import CASES, Case, Job
from experiments.benchmarks.train_step import Contender

MODULE = 'experiments.benchmarks.input_contenders'
START_SIZES = (10**4, 10**6, 3 * 10**8, 10**9)
NUM_FILES = 10**6
IDS_SIZES = (*START_SIZES, 2**40)
NUM_IDS = 2**21
NAMES = (*CASES, 'start', 'ids')
INSTALL = {
  'grain': "pip install '.[bench]'",
  'tensorflow': 'pip install tensorflow',
  'torch': "pip install '.[bench]'",
}


def ask(job: Job) -> Contender:
  """Starts the process that does a job, and returns it when it is ready."""
  return Contender(json.dumps(dataclasses.asdict(job)), module=MODULE)


def missing(needs: Iterable[str]) -> str:
  """Returns which of the modules is not installed, and how to get it, or nothing."""
  for name in needs:
    if importlib.util.find_spec(name) is None:
      return f'{name} is not installed: {INSTALL.get(name, f"pip install {name}")}'
  return ''


def calibrate(contender: Contender, seconds: float) -> int:
  """Returns how many batches take so long, and forgets those made to find out."""
  batches = 1
  for limit in (seconds / 10, seconds):
    contender.run(batches)
    batches = max(1, round(limit / (contender.seconds[-1] / batches)))
  contender.seconds.clear()
  contender.cpu_seconds.clear()
  return batches


def measure(
  name: str, case: Case, folder: str, *, cores: int, rounds: int, seconds: float
) -> list[dict[str, Any]]:
  """Returns one row for each contender of a case.

  A contender that is not installed, or cannot start, has its error for its numbers.

  Args:
    name: of the case.
    case: its sizes and contenders.
    folder: for its files.
    cores: to run on.
    rounds: turns of each contender.
    seconds: of a turn, about.
  """
  job = Job(name, '', cores, folder, case.images, case.batch_size)
  if case.prepare is not None:
    prepared = ask(dataclasses.replace(job, name='prepare'))
    prepared.close()
    print(f'{name}: {prepared.first["about"]}', file=sys.stderr)
  rows, running = [], []
  for key, contender in case.contenders.items():
    row: dict[str, Any] = {'case': name, 'name': key, 'against': contender.against}
    rows.append(row)
    if reason := missing(contender.needs):
      row['error'] = reason
      continue
    warm = 2 * cores + 1 if contender.runs_ahead else 0
    try:
      process = ask(dataclasses.replace(job, name=key, warm=warm))
    except RuntimeError as error:
      row['error'] = str(error)
      continue
    running.append((row, process, calibrate(process, seconds), warm))
  load = os.getloadavg()[0]
  for _ in range(rounds):
    for _, process, batches, _ in running:
      process.run(batches)
  for row, process, batches, warm in running:
    process.close()
    images, all_images = (n * case.batch_size for n in (batches, batches + warm))
    row |= {
      'images_per_second': images / min(process.seconds),
      'images_per_cpu_second': all_images / min(process.cpu_seconds),
      'images_per_cpu_second_median': all_images
      / statistics.median(process.cpu_seconds),
      'batches': batches,
      'seconds': process.seconds,
      'cpu_seconds': process.cpu_seconds,
      'load': load,
    }
  return rows


HEADER = """\
| case | contender | images/s | images/CPU-s | median | ours to it | by CPU-s | load |
|---|---|---|---|---|---|---|---|"""


def format_rows(rows: Sequence[dict[str, Any]]) -> str:
  """Returns the Markdown lines of one case, with ratios of our speed to each peer's."""
  found = {row['name']: row for row in rows if 'error' not in row}
  lines = []
  for row in rows:
    line = [row['case'], row['name']]
    ours = None if row['name'].startswith('ours') else found.get(row['against'])
    if 'error' in row:
      line += [row['error'], *[''] * 5]
    else:
      line += [
        f'{row["images_per_second"]:,.0f}',
        f'{row["images_per_cpu_second"]:,.0f}',
        f'{row["images_per_cpu_second_median"]:,.0f}',
      ]
      for number in ('images_per_second', 'images_per_cpu_second'):
        line.append(f'{ours[number] / row[number]:.2f}' if ours else '')
      line.append(f'{row["load"]:.1f}')
    lines.append(f'| {" | ".join(line)} |')
  return '\n'.join(lines)


def measure_sizes(
  name: str,
  sets: Sequence[tuple[int, str, str]],
  *,
  cores: int,
  rounds: int,
  num_ids: int,
) -> list[dict[str, Any]]:
  """Returns one row for each set of 'start' or 'ids', the best of several processes.

  Args:
    name: of the case.
    sets: images in each, their source, and its folder if they are not computed.
    cores: to run on.
    rounds: processes for each size.
    num_ids: planned in each process of 'ids'.
  """
  rows: list[dict[str, Any]] = [
    {'case': name, 'images': size, 'source': source, 'load': os.getloadavg()[0]}
    for size, source, _ in sets
  ]
  for _ in range(rounds):
    for row, (size, source, folder) in zip(rows, sets, strict=True):
      process = ask(Job(name, source, cores, folder, size, num_ids))
      process.close()
      for key, value in process.first.items():
        row.setdefault(f'all_{key}', []).append(value)
        row[key] = min(row[f'all_{key}'])
  return rows


STORED = {
  'folder': ' files in a folder',
  'csv': ' files in a CSV list',
  'tfds': ' of CIFAR-10, decoded',
}
SIZE_HEADERS = {
  'start': """\
| case | images | s to the first batch | with its images on the device | load |
|---|---|---|---|---|""",
  'ids': """\
| case | images | CPU us/id, by 65,536 | by 128 | MB beyond imports | load |
|---|---|---|---|---|---|""",
}


def format_sizes(rows: Sequence[dict[str, Any]]) -> str:
  """Returns the Markdown lines of 'start' or 'ids'."""
  lines = []
  for row in rows:
    line = [row['case'], f'{row["images"]:,}{STORED.get(row["source"], "")}']
    if row['case'] == 'start':
      line += [f'{row["seconds"]:.2f}', f'{row["placed_seconds"]:.2f}']
    else:
      line += [
        f'{row["chunk_microseconds"]:.2f}',
        f'{row["batch_microseconds"]:.2f}',
        f'{row["peak_bytes"] / 1e6:.1f}',
      ]
    lines.append(f'| {" | ".join(line)} | {row["load"]:.1f} |')
  return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  parser = argparse.ArgumentParser(
    prog='input',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    '--case', action='append', choices=NAMES, help='may be repeated; default: all'
  )
  parser.add_argument('--cores', type=int, help='to run on; default: all')
  parser.add_argument('--rounds', type=int, default=5, help='turns of each contender')
  parser.add_argument('--seconds', type=float, default=1.5, help='of a turn, about')
  parser.add_argument(
    '--quick', action='store_true', help='two turns of 0.3 seconds, fewer ids and files'
  )
  parser.add_argument('--data_dir', help='with CIFAR-10, prepared by TFDS; for start')
  parser.add_argument('--out', type=pathlib.Path, help='JSON file to write')
  args = parser.parse_args(argv)
  if args.rounds < 1:
    parser.error(f'--rounds={args.rounds} must be at least 1')
  if args.seconds <= 0:
    parser.error(f'--seconds={args.seconds} must be above 0')
  rounds, seconds, num_ids, num_files = args.rounds, args.seconds, NUM_IDS, NUM_FILES
  if args.quick:
    rounds, seconds, num_ids, num_files = 2, 0.3, NUM_IDS // 16, NUM_FILES // 100
  available = len(os.sched_getaffinity(0))
  cores = min(args.cores or available, available)
  rows: list[dict[str, Any]] = []
  header = ''
  print(f'cores: {cores}')
  for name in args.case or NAMES:
    if name in CASES:
      with tempfile.TemporaryDirectory() as folder:
        new = measure(
          name, CASES[name], folder, cores=cores, rounds=rounds, seconds=seconds
        )
      text, table = format_rows(new), HEADER
    else:
      sizes = START_SIZES if name == 'start' else IDS_SIZES
      sets = [(size, 'procedural', '') for size in sizes]
      with tempfile.TemporaryDirectory() as folder:
        if name == 'start':
          input_files.many(pathlib.Path(folder), num_files)
          sets += [(num_files, source, folder) for source in ('folder', 'csv')]
        if name == 'start' and args.data_dir:
          sets.append((50_000, 'tfds', args.data_dir))
        # A fresh process each takes its time; three show what the best is.
        new = measure_sizes(
          name, sets, cores=cores, rounds=min(rounds, 3), num_ids=num_ids
        )
      text, table = format_sizes(new), SIZE_HEADERS[name]
    if table != header:
      header = table
      print(f'\n{header}')
    print(text, flush=True)
    rows += new
    if args.out:
      report = {'cores': cores, 'rows': rows}
      args.out.write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
  return 0


if __name__ == '__main__':
  sys.exit(main())
