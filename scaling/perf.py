"""What limits training on this machine: input, compute, compilation or the allocator.

Each part is measured alone, with the compiled step that training uses: batches without
a step, the step without input, the machine's own matrix product and copy, and what the
kernel charges for fresh memory.
"""

import dataclasses
import functools
import mmap
import os
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from scaling import config as config_lib
from scaling import cores, cost, models, optim, sharding, speed, step
from scaling.data import pipeline, sources, stages
from scaling.data.prefetch import Prefetch

_MATRIX = 2048  # rows of the square matrices whose product is timed
_COPY_BYTES = 1 << 28  # far beyond any cache
_FAULTS = 1 << 13  # pages touched to time one


@dataclasses.dataclass(frozen=True)
class Measured:
  """What one machine does with one config. Times are medians, in seconds.

  Attributes:
    num_devices: that the step runs on.
    num_cores: that this process may use.
    batch_size: images a step.
    steps: of the whole run.
    compile_seconds: of the three programs; little if they were in the cache.
    step_seconds: of a training step whose batch is on the device.
    input_seconds: to prepare a batch, by the one thread that does and its decoders.
    stages: of these, each stage's with one core; see `scaling.data.stages`.
    fed_seconds: of a training step as training runs it, input beside it.
    flops_per_step: forward and backward, see `scaling.cost`.
    gemm_flops: FLOP/s of large matrix products in the model's dtype, on all devices.
    copy_bytes: bytes/s read and written by scaling a large array.
    faults_per_step: pages that the kernel mapped during a step.
    fault_seconds: that one costs.
    ops: the form of a ResNet's layers, one of `model.ops`; empty for other networks.
    peak_bytes: of memory, so far.
  """

  num_devices: int
  num_cores: int
  batch_size: int
  steps: int
  compile_seconds: float
  step_seconds: float
  input_seconds: float
  stages: dict[str, float]
  fed_seconds: float
  flops_per_step: float
  gemm_flops: float
  copy_bytes: float
  faults_per_step: float
  fault_seconds: float
  ops: str
  peak_bytes: int


def measure(
  config: ConfigDict,
  data_dir: str | None = None,
  *,
  num_steps: int = 10,
  say: Callable[[str], None] = lambda text: None,
) -> Measured:
  """Measures a config here; nothing is written.

  Args:
    config: of a cell.
    data_dir: where the image set lies, when not in its usual place.
    num_steps: to take the medians of.
    say: told what comes next.

  Raises:
    UserError: for a config or image set that cannot be.
  """
  config_lib.check(config)
  mesh = sharding.make_mesh()
  say('reading the image set')
  train_split, _ = sources.load(config.data, data_dir)
  subset = pipeline.make_subset(train_split, config.data)
  steps = config_lib.num_steps(config, subset.num_images)
  say('compiling')
  program = step.compile_program(config, mesh, cropped=train_split.encoded is not None)

  make_batch = functools.partial(
    pipeline.placed_batch,
    config=config,
    split=train_split,
    subset=subset,
    mesh=mesh,
  )

  whole = sharding.replicated(mesh)
  key = jax.device_put(jax.random.key(config.seed), whole)
  schedule = optim.make_schedule(config, steps)
  say(f'{num_steps} batches without a step')
  make_batch(0)
  input_seconds = _median(lambda i: jax.block_until_ready(make_batch(i)), num_steps)

  stages_of_batch = stages.measure(
    range(num_steps), config=config, split=train_split, subset=subset, mesh=mesh
  )

  say(f'{num_steps} steps without input')
  state, batch = program.init(key), make_batch(0)

  def update(batch: dict[str, jax.Array]) -> None:
    nonlocal state
    state, metrics = program.train_step(state, batch, key, schedule)
    jax.block_until_ready((state, metrics))

  for _ in range(2):  # the first ones touch their memory for the first time
    update(batch)
  before = _faults()
  step_seconds = _median(lambda i: update(batch), num_steps)
  faults = (_faults() - before) / num_steps

  say(f'{num_steps} steps with input')
  with Prefetch(make_batch, 0, num_steps + 2) as batches:
    update(next(batches))
    update(next(batches))
    fed_seconds = _median(lambda i: update(next(batches)), num_steps)

  say('the machine by itself')
  ops = ''
  if config.model.name == 'resnet':
    ops = models.choose_ops(config.model.ops, mesh.devices.flat[0].platform)
  return Measured(
    num_devices=mesh.devices.size,
    num_cores=cores.num_cores(),
    batch_size=config.train.batch_size,
    steps=steps,
    compile_seconds=program.compile_seconds,
    step_seconds=step_seconds,
    input_seconds=input_seconds,
    stages=stages_of_batch,
    fed_seconds=fed_seconds,
    flops_per_step=cost.train_flops(config, 1),
    gemm_flops=_gemm_flops(jnp.dtype(config.model.dtype), mesh),
    copy_bytes=_copy_bytes(),
    faults_per_step=faults,
    fault_seconds=_fault_seconds(),
    ops=ops,
    peak_bytes=speed.peak_bytes(mesh.devices.flat[0]),
  )


def machine() -> str:
  """Returns the devices, cores and memory as a line."""
  devices = jax.devices()
  memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30
  return (
    f'{len(devices)} x {devices[0].device_kind}, {cores.num_cores()} cores, '
    f'{memory:.0f} GiB of memory'
  )


def _median(run: Callable[[int], Any], times: int) -> float:
  seconds = []
  for i in range(times):
    start = time.perf_counter()
    run(i)
    seconds.append(time.perf_counter() - start)
  return max(statistics.median(seconds), 1e-9)


def _gemm_flops(dtype: Any, mesh: Mesh) -> float:
  """FLOP/s of all devices; the devices of a CPU share its cores."""
  matrix = jnp.ones((_MATRIX, _MATRIX), dtype)
  # A float32 sum is what lets a CPU use its bfloat16 unit.
  product = jax.jit(lambda a: jnp.dot(a, a, preferred_element_type=jnp.float32))
  product(matrix).block_until_ready()
  seconds = _median(lambda i: product(matrix).block_until_ready(), 5)
  sharing = mesh.devices.flat[0].platform == 'cpu'
  return 2 * _MATRIX**3 / seconds * (1 if sharing else mesh.devices.size)


def _copy_bytes() -> float:
  # Into the same buffer: fresh memory is the allocator's part.
  negate = jax.jit(lambda a: -a, donate_argnums=0)
  array = negate(jnp.ones(_COPY_BYTES // 4, jnp.float32))

  def run(i: int) -> None:
    nonlocal array
    del i
    array = negate(array).block_until_ready()

  return 2 * _COPY_BYTES / _median(run, 5)


def _fault_seconds() -> float:
  """Of the first write to a page, less that of a second one."""

  def touch() -> float:
    start = time.perf_counter()
    for at in range(0, len(fresh), mmap.PAGESIZE):
      fresh[at] = 1
    return time.perf_counter() - start

  with mmap.mmap(-1, _FAULTS * mmap.PAGESIZE) as fresh:
    return max(touch() - touch(), 0.0) / _FAULTS


def _faults() -> int:
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
