"""Times the training step of ResNets: ours, plain Flax, PyTorch eager and compiled.

Ours as it is by itself, and with the convolutions of oneDNN (model.ops=onednn) where
they are installed: `pip install '.[onednn]'`.

  python -m experiments.benchmarks.train_step --out=train_step.json

Forward and backward pass, SGD with momentum and weight decay. Each contender is a
process of its own, and they take turns, a block of steps each, so that one computes at
a time and a busy machine is busy for all. The fastest step counts: other work disturbs
it least. Where other work never rests, --cores=1 and the CPU seconds still compare.
All but `flax` run with the allocator settings of a sweep's workers, `flax` with those of
glibc, as a script of one's own would; `flax.malloc` is the same with our settings.
GLIBC_TUNABLES in the environment, also an empty one, is for all.
PyTorch comes with `pip install '.[bench]'`.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from experiments.benchmarks.contenders import NAMES, NETS
from experiments.launch.local import TUNABLES

# What is measured: network, images a batch, and steps of a block.
CASES = (
  ('resnet20-28px', 128, 4),
  ('resnet20-32px', 128, 4),
  ('resnet50-224px', 8, 2),
  ('resnet50-224px', 16, 2),
)
REST_SECONDS = 1  # after a turn: threads go on looking for work for a while
DTYPES = ('float32', 'bfloat16')
PEER = 'torch'


class Contender:
  """A process that makes steps when told to."""

  def __init__(
    self,
    *argv: str,
    module: str = 'experiments.benchmarks.contenders',
    tunables: str = TUNABLES,
  ):
    self.seconds: list[float] = []
    self.cpu_seconds: list[float] = []
    # Each contender has as many devices as its own rule says.
    inherited = {k: v for k, v in os.environ.items() if k != 'JAX_NUM_CPU_DEVICES'}
    self._process = subprocess.Popen(
      [sys.executable, '-m', module, *argv],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env={'JAX_PLATFORMS': 'cpu', 'GLIBC_TUNABLES': tunables, **inherited},
    )
    self.first = self._read()

  def _read(self) -> dict[str, Any]:
    line = self._process.stdout.readline()  # pyright: ignore
    if not line:
      _, message = self._process.communicate()
      raise RuntimeError(message.strip().splitlines()[-1] if message else 'no answer')
    return json.loads(line)

  def run(self, steps: int) -> None:
    """Makes a block of steps and keeps their seconds."""
    print(steps, file=self._process.stdin, flush=True)
    answer = self._read()
    self.seconds += answer['seconds']
    self.cpu_seconds += answer['cpu_seconds']

  def close(self) -> None:
    """Ends the process."""
    self._process.communicate()


def measure(
  names: Sequence[str],
  net: str,
  dtype: str,
  batch_size: int,
  *,
  cores: int,
  steps: int,
  rounds: int,
) -> list[dict[str, Any]]:
  """Returns one row for each contender of a case.

  A contender that cannot start has its error in place of its numbers.
  """
  rows, contenders = [], {}
  for name in names:
    row = {'net': net, 'dtype': dtype, 'batch_size': batch_size, 'name': name}
    rows.append(row)
    try:
      case = (str(cores), name, net, dtype, str(batch_size))
      tunables = '' if name == 'flax' else TUNABLES
      contenders[name] = Contender(*case, tunables=tunables)
    except RuntimeError as error:
      row['error'] = str(error)
  for _ in range(rounds):
    for contender in contenders.values():
      contender.run(steps)
      time.sleep(REST_SECONDS)
  for row in rows:
    if contender := contenders.get(row['name']):
      contender.close()
      best = min(contender.seconds)
      row |= {
        'seconds_min': best,
        'seconds_median': statistics.median(contender.seconds),
        'cpu_seconds_min': min(contender.cpu_seconds),
        'images_per_second': batch_size / best,
        'steps': len(contender.seconds),
        'compile_seconds': contender.first['compile_seconds'],
      }
  return rows


HEADER = """\
| network | dtype | batch | contender | s min | median | CPU s min | images/s | to PyTorch | by CPU s | compile s |
|---|---|---|---|---|---|---|---|---|---|---|"""


def format_rows(rows: Sequence[dict[str, Any]]) -> str:
  """Returns the Markdown lines of one case, with ratios of speed to PyTorch eager."""
  peer = next((row for row in rows if row['name'] == PEER and 'error' not in row), None)

  def ratio(row, name):
    return f'{peer[name] / row[name]:.2f}' if peer else ''

  lines = []
  for row in rows:
    case = [row['net'], row['dtype'], row['batch_size'], row['name']]
    if 'error' in row:
      case += [row['error'], *[''] * 6]
    else:
      case += [
        f'{row["seconds_min"]:.3f}',
        f'{row["seconds_median"]:.3f}',
        f'{row["cpu_seconds_min"]:.3f}',
        f'{row["images_per_second"]:.1f}',
        ratio(row, 'seconds_min'),
        ratio(row, 'cpu_seconds_min'),
        f'{row["compile_seconds"]:.1f}',
      ]
    lines.append(f'| {" | ".join(map(str, case))} |')
  return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  parser = argparse.ArgumentParser(
    prog='train_step',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--net', action='append', choices=NETS, help='default: all')
  parser.add_argument('--dtype', action='append', choices=DTYPES, help='default: both')
  parser.add_argument('--name', action='append', choices=NAMES, help='default: all')
  parser.add_argument('--cores', type=int, help='to run on; default: all')
  parser.add_argument('--rounds', type=int, default=6, help='turns of each contender')
  parser.add_argument('--steps', type=int, help='of a turn, for the pace of a long run')
  parser.add_argument(
    '--quick', action='store_true', help='two turns, and no batch of 16'
  )
  parser.add_argument('--out', type=pathlib.Path, help='JSON file to write')
  args = parser.parse_args(argv)
  if args.rounds < 1:
    parser.error(f'--rounds={args.rounds} must be at least 1')
  names = list(args.name or NAMES)
  if importlib.util.find_spec('torch') is None:
    names = [name for name in names if not name.startswith(PEER)]
    print("PyTorch is not installed, so it is left out: pip install '.[bench]'")
    if not names:
      return 1
  available = len(os.sched_getaffinity(0))
  cores = min(args.cores or available, available)
  machine = Contender(str(cores), 'limits')
  machine.close()
  limits = machine.first
  print(
    f'cores: {cores}; products of 2048 x 2048: '
    f'{limits["gemm_float32_gflops"]:.0f} GFLOP/s in float32, '
    f'{limits["gemm_bfloat16_gflops"]:.0f} in bfloat16; '
    f'memory {limits["memory_gbytes_per_second"]:.0f} GB/s\n'
  )
  print(HEADER)
  rows: list[dict[str, Any]] = []
  for net, batch_size, steps in CASES:
    if net not in (args.net or NETS) or (args.quick and batch_size == 16):
      continue
    for dtype in args.dtype or DTYPES:
      rounds = 2 if args.quick else args.rounds
      new = measure(
        names,
        net,
        dtype,
        batch_size,
        cores=cores,
        steps=args.steps or steps,
        rounds=rounds,
      )
      print(format_rows(new), flush=True)
      rows += new
      if args.out:
        report = {'cores': cores, 'limits': limits, 'rows': rows}
        args.out.write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
  return 0


if __name__ == '__main__':
  sys.exit(main())
