"""Several cells in one program against one cell after the other.

  python -m experiments.benchmarks.packing --cells=4 --out=packing.json

Cells of one program shape could be trained side by side: the same training step, mapped by
`jax.vmap` over a leading axis of states, batches and keys. It pays where a device idles
between the small operations of a small network. Both forms make the same updates of the
same cells, in turns in one process, on one device; the median of the turns' ratios counts,
and how far their weights come apart is told. Sweeps do not pack; docs/engines.md says
why.
"""

import argparse
import functools
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import cifar10, digits, procedural
from scaling import models, optim, step

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
  config = config.copy_and_resolve_references()
  config.model.ops = models.choose_ops(config.model.ops, jax.devices()[0].platform)
  update = functools.partial(step.train_step, config)
  schedule = optim.Schedule(
    np.float32(0.01), np.int32(1_000_000), np.int32(10), np.int32(0)
  )
  keys = jax.random.split(jax.random.key(0), num_cells)
  batches = _batches(config, num_cells)
  alone = jax.jit(update, donate_argnums=0)
  packed = jax.jit(jax.vmap(update, in_axes=(0, 0, 0, None)), donate_argnums=0)
  init = jax.jit(functools.partial(step.init, config))
  states = [init(key) for key in keys]
  stacked = jax.jit(jax.vmap(functools.partial(step.init, config)))(keys)

  def train_alone(updates: int) -> None:
    for i in range(num_cells):
      batch = {name: rows[i] for name, rows in batches.items()}
      for _ in range(updates):
        states[i], _ = alone(states[i], batch, keys[i], schedule)
    jax.block_until_ready(states)

  def train_packed(updates: int) -> None:
    nonlocal stacked
    for _ in range(updates):
      stacked, _ = packed(stacked, batches, keys, schedule)
    jax.block_until_ready(stacked)

  train_alone(_COMPARED)
  train_packed(_COMPARED)
  difference = _difference(states, stacked)
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


def _difference(states: Sequence[step.State], stacked: step.State) -> float:
  """Returns how far weights differ, as a share of the largest of their array."""
  alone = jax.tree.map(lambda *leaves: np.stack(leaves), *(s.params for s in states))
  shares = jax.tree.map(
    lambda a, b: np.abs(a - np.asarray(b)).max() / np.abs(a).max(),
    alone,
    stacked.params,
  )
  return max(map(float, jax.tree.leaves(shares)))


def _seconds(train: Any, updates: int) -> float:
  began = time.perf_counter()
  train(updates)
  return time.perf_counter() - began


def _batches(config: ConfigDict, num_cells: int) -> dict[str, np.ndarray]:
  """Returns a batch of noise for each cell, `[cells, B, ...]`."""
  rng = np.random.default_rng(0)
  found = {}
  for name, like in step.abstract_batch(config).items():
    high = {'image': 256, 'labels': config.data.num_classes}.get(name, 1)
    values = rng.integers(0, high, (num_cells, *like.shape))
    found[name] = values.astype(like.dtype)
  return found


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
