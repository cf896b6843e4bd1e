"""Trains on 1, 2, 4 and 8 virtual devices, the batch growing with them.

  python -m experiments.benchmarks.weak_scaling --out=weak_scaling.json

A process for each number of devices. Communication is read from the compiled program and
set beside `scaling.roofline`'s. The devices are threads that share this machine's cores,
so the speeds say nothing about a pod; only what is sent, and how it grows, is evidence.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

DEVICES = (1, 2, 4, 8)
PER_DEVICE = 16
STEPS = 10
REPEATS = 3


def run(num_devices: int, per_device: int, steps: int, depth: int) -> dict[str, Any]:
  """Measures in a process of its own, which alone can choose its number of devices.

  Args:
    num_devices: virtual devices.
    per_device: images a device and step.
    steps: timed at once; 0 compiles only.
    depth: of a ResNet of width 16 for 32-pixel images.

  Returns:
    See `measure`.
  """
  environment = dict(
    os.environ, JAX_PLATFORMS='cpu', JAX_NUM_CPU_DEVICES=f'{num_devices}'
  )
  command = [sys.executable, '-m', 'experiments.benchmarks.weak_scaling', '--child']
  numbers = {
    'num_devices': num_devices,
    'per_device': per_device,
    'steps': steps,
    'depth': depth,
  }
  done = subprocess.run(
    [*command, json.dumps(numbers)],
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  if done.returncode:
    raise RuntimeError(f'{num_devices} devices: {done.stderr.strip()}')
  return json.loads(done.stdout.splitlines()[-1])


def measure(
  num_devices: int, per_device: int, steps: int, depth: int
) -> dict[str, Any]:
  """Compiles the training step on all devices, and times it.

  Returns:
    'num_devices', 'batch_size'; 'steps_per_second', the best of several; by kind what a
    device puts into collectives, in bytes, as 'operands', how many there are as
    'collectives', what it sends as 'sent_bytes'; and by the model, 'model_operands' and
    'model_sent_bytes'.
  """
  import jax
  import numpy as np

  from configs import base
  from scaling import collectives, cost, optim, roofline, sharding
  from scaling import step as step_lib

  if jax.device_count() != num_devices:
    raise RuntimeError(f'{jax.device_count()} devices here, not {num_devices}')
  config = base.get_config()
  config.model.depth = depth
  config.model.ops = 'native'  # as accelerators run it; the CPU's form sends more
  config.train.batch_size = config.log.eval_batch_size = per_device * num_devices
  mesh = sharding.make_mesh()
  program = step_lib.compile_program(config, mesh)
  found = collectives.find(program.train_step.as_text())  # pyright: ignore
  network = cost.network(config)
  model = roofline.transfers(network, num_devices, per_device)
  operands: dict[str, int] = {}
  for one in found:
    operands[one.kind] = operands.get(one.kind, 0) + one.times * one.operand_bytes

  best = 0.0
  if steps:
    state = program.init(jax.random.key(0))
    schedule = optim.make_schedule(config, steps)
    rows = {
      name: np.zeros(shape.shape, shape.dtype)
      for name, shape in step_lib.abstract_batch(config).items()
    }
    batch = sharding.put_batch(rows, mesh)
    key = jax.random.key(1)
    for _ in range(REPEATS):
      seconds = -time.perf_counter()
      for _ in range(steps):
        state, metrics = program.train_step(state, batch, key, schedule)
        # Unbounded queues starve the threads that must meet in a collective.
        jax.block_until_ready(metrics)
      seconds += time.perf_counter()
      best = max(best, steps / seconds)
  return {
    'num_devices': num_devices,
    'batch_size': config.train.batch_size,
    'steps_per_second': best,
    'operands': operands,
    'collectives': sum(one.times for one in found),
    'sent_bytes': sum(one.sent_bytes for one in found),
    'model_operands': sum(one.operand_bytes * one.times for one in model),
    'model_sent_bytes': sum(
      one.times * collectives.sent_bytes(one.kind, one.operand_bytes, one.group)
      for one in model
    ),
  }


def format_table(rows: list[dict[str, Any]]) -> str:
  """Returns a line for each number of devices, and what it is worth."""
  lines = [
    f'{"devices":>7}  {"batch":>5}  {"steps/s":>7}  {"collectives":>11}  '
    f'{"bytes sent a device":>19}  {"modelled":>9}'
  ]
  for row in rows:
    lines.append(
      f'{row["num_devices"]:>7}  {row["batch_size"]:>5}  {row["steps_per_second"]:>7.2f}  '
      f'{row["collectives"]:>11}  {row["sent_bytes"]:>19,.0f}  '
      f'{row["model_sent_bytes"]:>9,.0f}'
    )
  lines.append(
    f'The devices are threads on {os.cpu_count()} shared cores: their speed is no '
    'evidence of scaling. What each sends is: it tends to twice the gradients.'
  )
  return '\n'.join(lines)


def main(argv: list[str] | None = None) -> int:
  """Runs the benchmark."""
  parser = argparse.ArgumentParser(prog='weak_scaling', description=__doc__)
  parser.add_argument('--per_device', type=int, default=PER_DEVICE, help='images')
  parser.add_argument('--steps', type=int, default=STEPS, help='timed at once')
  parser.add_argument('--depth', type=int, default=8, help='of the ResNet')
  parser.add_argument('--out', type=pathlib.Path, help='JSON file to write')
  parser.add_argument('--child', help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.child:
    print(json.dumps(measure(**json.loads(args.child))))
    return 0
  rows = [run(n, args.per_device, args.steps, args.depth) for n in DEVICES]
  print(format_table(rows))
  if args.out:
    args.out.write_text(json.dumps(rows) + '\n', encoding='utf-8')
  return 0


if __name__ == '__main__':
  sys.exit(main())
