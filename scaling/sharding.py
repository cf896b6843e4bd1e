"""Where arrays live: one mesh, the batch split over it, the state by rule.

The mesh has the axes 'data' and 'model'. Every device has its own rows of the batch; the
devices along 'model' also share the classifier, each with some of its classes. With
FSDP the large arrays of the state are split along 'data' as well, and XLA gathers them
where they are used. No layout changes what is computed, only in which order sums are
taken.
"""

import math
import os
import re
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from scaling import cores
from scaling.errors import UserError

# How the axes of a leaf are split over 'model', by the end of its path: the first rule
# that matches. A leaf without a rule is refused, so that no network goes unthought of.
RULES = (
  (r'head/kernel', (None, 'model')),
  (r'head/bias', ('model',)),
  (r'(kernel|bias|scale|mean|var|positions|token)', ()),
)
# A core's share of a batch below this many images is not worth a device: the products of
# the few but large images of such a batch use all cores by themselves.
_DEVICE_IMAGES = 16
# Below this many elements an array is cheaper to keep than to gather.
_FSDP_ELEMENTS = 4096


def use_cores(num_cores: int, batch_sizes: Iterable[int]) -> int:
  """Lets JAX see a device for each core of a CPU, before it looks for devices.

  XLA:CPU leaves cores idle between and within the operations of small networks. As many
  devices with a share of the batch each keep all of them busy: a step of ResNet-20 on
  two cores takes three quarters of the time. JAX_NUM_CPU_DEVICES, where set, decides.

  Args:
    num_cores: that this process may use.
    batch_sizes: of all training and evaluation to come; each device gets an equal share
      of each, of at least `_DEVICE_IMAGES`.

  Returns:
    The number of CPU devices.
  """
  if 'JAX_NUM_CPU_DEVICES' in os.environ:
    return int(os.environ['JAX_NUM_CPU_DEVICES'])
  flags = os.environ.get('XLA_FLAGS', '')
  if '_collective_call_terminate_' not in flags:
    # Devices wait for each other in each batch norm. On a machine that is busy with
    # other work that may take longer than the 40 s after which XLA gives up.
    patience = '--xla_cpu_collective_call_terminate_timeout_seconds=1800'
    os.environ['XLA_FLAGS'] = f'{flags} {patience}'.strip()
  common = math.gcd(*batch_sizes) or 1
  most = min(num_cores, max(1, common // _DEVICE_IMAGES))
  num_devices = max(n for n in range(1, most + 1) if common % n == 0)
  jax.config.update('jax_num_cpu_devices', num_devices)
  # The thread that starts one device's program then runs it, and keeps the memory of a
  # step, of which malloc returns that of any other thread: a ResNet-50 by 8 spends a
  # twentieth of its time on new pages, and more where another process had the old ones.
  jax.config.update('jax_cpu_enable_async_dispatch', num_devices > 1)
  return num_devices


def make_mesh(num_devices: int | None = None, model_devices: int = 1) -> Mesh:
  """Returns a mesh of the axes ('data', 'model') over the first or all devices.

  Raises:
    UserError: if there are fewer devices, or `model_devices` does not divide them.
  """
  devices = jax.devices()
  num_devices = num_devices or len(devices)
  if num_devices > len(devices):
    raise UserError(
      f'a mesh of {num_devices} devices, but there are {len(devices)}; ask for at most '
      'as many'
    )
  # The classifier is shared within a process, whose rows of the batch stay together.
  within = math.gcd(num_devices, jax.local_device_count())
  if within % model_devices:
    fits = [n for n in range(1, within + 1) if within % n == 0]
    raise UserError(
      f'--model_devices={model_devices} does not divide the {within} devices of a '
      f'process; use {", ".join(map(str, fits))}'
    )
  return jax.make_mesh(
    (num_devices // model_devices, model_devices),
    ('data', 'model'),
    axis_types=(AxisType.Auto, AxisType.Auto),
    devices=devices[:num_devices],
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of a leading batch axis over all devices."""
  return NamedSharding(mesh, PartitionSpec(('data', 'model')))


def split_logits(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of logits `[B, C]`: each device along 'model' has its classes.

  Said outright, for XLA would rather gather the classifier than a batch's features.
  """
  return NamedSharding(mesh, PartitionSpec('data', 'model'))


def by_rule(tree: Any, mesh: Mesh, fsdp: bool = False) -> Any:
  """Returns the sharding of each leaf of a state, by `RULES`.

  Args:
    tree: of arrays or their shapes.
    mesh: where they will live.
    fsdp: split large arrays along 'data' too, each along its longest axis that divides.

  Raises:
    UserError: for a leaf that no rule matches, or an axis that does not divide.
  """

  def place(path: Any, leaf: Any) -> NamedSharding:
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if leaf.ndim == 0:
      return replicated(mesh)
    found = [axes for end, axes in RULES if re.search(f'(^|/){end}$', name)]
    if not found:
      raise UserError(
        f'no sharding rule matches {name} {list(leaf.shape)}; add one to RULES in '
        'scaling/sharding.py'
      )
    # From the end: blocks that are scanned over have one more axis in front.
    spec = [None] * (leaf.ndim - len(found[0])) + list(found[0])
    for axis, size in zip(spec, leaf.shape, strict=True):
      if axis and size % mesh.shape[axis]:
        raise UserError(
          f'{name} {list(leaf.shape)} does not divide over --model_devices='
          f'{mesh.shape[axis]}; set model.head_multiple={mesh.shape[axis]} or a multiple '
          'of it, such as 128'
        )
    parts = mesh.shape['data']
    if fsdp and parts > 1 and math.prod(leaf.shape) >= _FSDP_ELEMENTS:
      free = [
        i for i, size in enumerate(leaf.shape) if spec[i] is None and size % parts == 0
      ]
      if free:
        spec[max(free, key=lambda i: leaf.shape[i])] = 'data'
    return NamedSharding(mesh, PartitionSpec(*spec))

  return jax.tree_util.tree_map_with_path(place, tree)


def check_divides(name: str, size: int, mesh: Mesh, steps: int = 1) -> None:
  """Checks that a batch splits evenly over the devices.

  Args:
    name: of the field.
    size: images.
    mesh: of the devices.
    steps: equal parts that the batch of each device is split into.

  Raises:
    UserError: naming the field and the nearest sizes that do.
  """
  devices = mesh.size
  parts = devices * steps
  if size % parts:
    below, above = size // parts * parts, -(-size // parts) * parts
    fits = f'{below} or {above}' if below else f'{above}'
    each = f' times train.accumulate_steps={steps}' if steps > 1 else ''
    raise UserError(
      f'{name}={size} does not divide over {devices} devices{each}; use {fits}'
    )


def check_fits(state: Any, placed: Any) -> None:
  """Checks that the devices can hold a state, before XLA is asked to, which may abort.

  One state and nothing else: what passes may still not fit, beside its gradients and
  activations, other cells or other processes.

  Args:
    state: the shapes of it.
    placed: the sharding of each leaf.

  Raises:
    UserError: with what it takes and what there is.
  """
  each = sum(
    math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf, place in zip(jax.tree.leaves(state), jax.tree.leaves(placed), strict=True)
  )
  (device, *others) = jax.tree.leaves(placed)[0].addressable_devices
  if device.platform == 'cpu':  # all devices share what the machine has
    needed, there = each * (1 + len(others)), cores.memory_bytes()
  else:
    needed, there = each, (device.memory_stats() or {}).get('bytes_limit')
  if there is not None and needed > there:
    raise UserError(
      f'weights and optimiser take {needed / 2**30:,.1f} GiB before any image, and there '
      f'are {there / 2**30:,.1f} GiB; try a smaller model.width or model.depth, fewer '
      'classes, or more devices with --fsdp'
    )


def process_rows(batch_size: int) -> slice:
  """Returns the rows of the global batch that this process feeds."""
  rows = batch_size // jax.process_count()
  return slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)


def put_keys(seed: int, number: int, mesh: Mesh) -> tuple[jax.Array, ...]:
  """Returns random keys that every device holds."""
  keys = jax.random.split(jax.random.key(seed), number)
  # As plain numbers, since device_put takes no keys beyond this process's devices.
  data = [np.asarray(jax.random.key_data(key)) for key in keys]
  return tuple(map(jax.random.wrap_key_data, jax.device_put(data, replicated(mesh))))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, Any]:
  """Returns this process's rows as global arrays, split over all devices."""
  sharding = split_batch(mesh)
  return {
    name: jax.make_array_from_process_local_data(sharding, rows)
    for name, rows in batch.items()
  }
