"""Several cells in one program against one cell after the other.

  python -m experiments.benchmarks.packing --cells=4 --out=packing.json

`scaling sweep --pack=N` trains cells of one program side by side. It pays where a device
idles between the small operations of a small network. Both forms make the same updates of
the same cells, in turns in one process, on one device; the median of the turns' ratios
counts, and how far their weights come apart is told (docs/studies.md).
"""

import argparse
import json
import pathlib
import statistics
import sys
import time
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import cifar10, digits, procedural
from scaling import optim, sharding, step

# A network of each size that people train on a laptop.
CASES = {
  'digits, as shipped': (digits, {}),
  'ResNet-8 of width 8, 16 px': (procedural, {'model.depth': 8, 'model.width': 8}),
  'ResNet-20 of width 16, 32 px': (
    cifar10,
    {'model.depth': 20, 'model.width': 16, 'train.batch_size': 32},
  ),
}
SECONDS = 0.5  # of each form in each turn
_COMPARED = 3  # updates before the weights are compared


def benchmark(config: ConfigDict, num_cells: int, rounds: int) -> dict[str, Any]:
  """Returns how both forms of training a few cells compare.

  Args:
    config: of the cells, which differ in their seeds.
    num_cells: side by side.
    rounds: turns.

  Returns:
    'alone' and 'packed', the median seconds of an update of one cell; 'ratio', how many
    times faster the packed ones are, and 'ratios', of each turn; 'difference', how
    far the weights differ after three updates, as a share of the largest of an array.
  """
  mesh = sharding.make_mesh(1)
  program = step.compile_program(config, mesh)
  packed = program.packed(num_cells)
  schedule = optim.Schedule(
    np.float32(0.01), np.int32(1_000_000), np.int32(10), np.int32(0)
  )
  keys = [sharding.put_keys(i, 1, mesh)[0] for i in range(num_cells)]
  batches = [
    jax.device_put(batch, sharding.split_batch(mesh))
    for batch in _batches(config, num_cells)
  ]
  schedules = (schedule,) * num_cells
  states = [program.init(key) for key in keys]
  beside = tuple(program.init(key) for key in keys)

  def train_alone(updates: int) -> None:
    for i in range(num_cells):
      for _ in range(updates):
        states[i], _ = program.train_step(states[i], batches[i], keys[i], schedule)
    jax.block_until_ready(states)

  def train_packed(updates: int) -> None:
    nonlocal beside
    for _ in range(updates):
      made = packed(beside, tuple(batches), tuple(keys), schedules)
      beside = tuple(state for state, _ in made)
    jax.block_until_ready(beside)

  train_alone(_COMPARED)
  train_packed(_COMPARED)
  difference = max(map(_difference, states, beside))
  turns = []
  seconds = _seconds(train_alone, 1)
  updates = max(1, round(SECONDS / seconds))
  for _ in range(rounds):
    turns.append([_seconds(form, updates) for form in (train_alone, train_packed)])
  ratios = [one / many for one, many in turns]
  each = updates * num_cells
  return {
    'alone': statistics.median(one for one, _ in turns) / each,
    'packed': statistics.median(many for _, many in turns) / each,
    'ratio': statistics.median(ratios),
    'ratios': sorted(ratios),
    'difference': difference,
  }


def _difference(alone: step.State, beside: step.State) -> float:
  """Returns how far weights differ, as a share of the largest of their array."""
  shares = jax.tree.map(
    lambda a, b: float(np.abs(np.asarray(a) - b).max() / np.abs(a).max()),
    alone.params,
    beside.params,
  )
  return max(jax.tree.leaves(shares))


def _seconds(train: Any, updates: int) -> float:
  began = time.perf_counter()
  train(updates)
  return time.perf_counter() - began


def _batches(config: ConfigDict, num_cells: int) -> list[dict[str, np.ndarray]]:
  """Returns a batch of noise for each cell."""
  rng = np.random.default_rng(0)
  high = {'image': 256, 'labels': config.data.num_classes}
  return [
    {
      name: rng.integers(0, high.get(name, 1), like.shape).astype(like.dtype)
      for name, like in step.abstract_batch(config).items()
    }
    for _ in range(num_cells)
  ]


def main(argv: list[str] | None = None) -> int:
  """Runs the benchmark."""
  parser = argparse.ArgumentParser(prog='packing', description=__doc__)
  parser.add_argument('--cells', type=int, default=4, help='side by side')
  parser.add_argument('--rounds', type=int, default=7, help='turns of each form')
  parser.add_argument('--case', action='append', help='words of it; default: all')
  parser.add_argument('--out', type=pathlib.Path, help='JSON file to write')
  args = parser.parse_args(argv)
  results = {}
  print(f'{"":<30}  ms alone  ms packed  times as fast  weights differ by')
  for name, (module, fields) in CASES.items():
    if args.case and not any(word in name for word in args.case):
      continue
    config = module.get_config()
    config.update_from_flattened_dict(fields)
    found = results[name] = benchmark(config, args.cells, args.rounds)
    low, high = found['ratios'][0], found['ratios'][-1]
    print(
      f'{name:<30}  {1e3 * found["alone"]:>8.2f}  {1e3 * found["packed"]:>9.2f}  '
      f'{found["ratio"]:.2f} ({low:.2f}–{high:.2f})  {found["difference"]:>11.1e}',
      flush=True,
    )
  if args.out:
    args.out.write_text(json.dumps(results) + '\n', encoding='utf-8')
  return 0


if __name__ == '__main__':
  sys.exit(main())
