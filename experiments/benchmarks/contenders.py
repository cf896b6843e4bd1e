"""Training steps to time: ours in its three forms, and PyTorch's. One process for each.

Started as `python -m experiments.benchmarks.contenders CORES NAME NET DTYPE BATCH`.
Prints one JSON line when the step is compiled; then, for each number it reads, makes
that many steps and prints the seconds and the CPU seconds of each. It leaves when its
input ends.
"""

import json
import os
import sys
import time
from collections.abc import Callable

from ml_collections import ConfigDict

from experiments.benchmarks.nets import NETS, make_config

OPS = {  # ours, by model.ops
  'ours': 'auto',
  'onednn': 'onednn',
  'flax': 'native',
  'flax.malloc': 'native',
}
NAMES = (*OPS, 'torch', 'torch.compile')


def jax_step(config: ConfigDict) -> tuple[Callable[[], None], float]:
  """Returns our own compiled training step, and the seconds of compiling it."""
  import jax
  import numpy as np

  from scaling import optim, sharding, step

  mesh = sharding.make_mesh()
  program = step.compile_program(config, mesh)
  rng = np.random.default_rng(0)
  high = {'image': 256, 'labels': config.data.num_classes, 'id': 100, 'epoch': 1}
  batch = {
    name: rng.integers(high[name], size=spec.shape).astype(spec.dtype)
    for name, spec in step.abstract_batch(config).items()
  }
  batch = sharding.put_batch(batch, mesh)
  key, schedule = jax.random.key(1), optim.make_schedule(config, 1000)
  state = program.init(jax.random.key(0))

  def run():
    nonlocal state
    state, _ = jax.block_until_ready(program.train_step(state, batch, key, schedule))

  return run, program.compile_seconds


def limits() -> dict[str, float]:
  """Returns GFLOP/s of large products, and GB/s of scaling a large array, of JAX."""
  import jax
  import jax.numpy as jnp

  def best(function, *args):
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*args))
    seconds = []
    for _ in range(7):
      start = time.perf_counter()
      jax.block_until_ready(compiled(*args))
      seconds.append(time.perf_counter() - start)
    return min(seconds)

  found = {}
  for dtype in ('float32', 'bfloat16'):
    a = jnp.ones((2048, 2048), dtype)
    seconds = best(lambda a: jnp.dot(a, a, preferred_element_type=jnp.float32), a)
    found[f'gemm_{dtype}_gflops'] = 2 * 2048**3 / seconds / 1e9
  x = jnp.ones(2**24)
  found['memory_gbytes_per_second'] = 2 * x.nbytes / best(lambda x: 2 * x, x) / 1e9
  return found


def main(argv: list[str]) -> int:
  """Serves the steps of one contender."""
  cores, name, *case = argv
  # Before either framework starts its threads, of which it takes one for each core.
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
  if name == 'limits':
    print(json.dumps(limits()))
    return 0
  net, dtype, batch_size = case
  if name.startswith('torch'):
    from experiments.benchmarks import torch_step

    run, compile_seconds = torch_step.make(
      NETS[net], dtype, int(batch_size), compiled=name == 'torch.compile'
    )
  else:
    config = make_config(NETS[net], dtype, int(batch_size), OPS[name])
    if OPS[name] != 'native':
      from scaling import sharding

      sharding.use_cores(int(cores), [int(batch_size)])
    run, compile_seconds = jax_step(config)
  run()
  print(json.dumps({'compile_seconds': compile_seconds}), flush=True)
  for line in sys.stdin:
    seconds, cpu_seconds = [], []
    for _ in range(int(line)):
      start, cpu_start = time.perf_counter(), time.process_time()
      run()
      seconds.append(time.perf_counter() - start)
      cpu_seconds.append(time.process_time() - cpu_start)
    print(json.dumps({'seconds': seconds, 'cpu_seconds': cpu_seconds}), flush=True)
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
