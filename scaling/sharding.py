"""Where arrays live: one mesh over all devices, batches split, the state replicated."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from scaling.errors import UserError


def make_mesh(num_devices: int | None = None) -> Mesh:
  """Returns a mesh of the axes ('data', 'model') over the first or all devices."""
  devices = jax.devices()[:num_devices]
  return jax.make_mesh(
    (len(devices), 1),
    ('data', 'model'),
    axis_types=(AxisType.Auto, AxisType.Auto),
    devices=devices,
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of a leading batch axis over the data devices."""
  return NamedSharding(mesh, PartitionSpec('data'))


def check_divides(name: str, size: int, mesh: Mesh, steps: int = 1) -> None:
  """Checks that a batch splits evenly over the data devices.

  Args:
    name: of the field.
    size: images.
    mesh: of the devices.
    steps: equal parts that the batch of each device is split into.

  Raises:
    UserError: naming the field and the nearest sizes that do.
  """
  devices = mesh.shape['data']
  parts = devices * steps
  if size % parts:
    below, above = size // parts * parts, -(-size // parts) * parts
    fits = f'{below} or {above}' if below else f'{above}'
    each = f' times train.accumulate_steps={steps}' if steps > 1 else ''
    raise UserError(
      f'{name}={size} does not divide over {devices} devices{each}; use {fits}'
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
  """Returns this process's rows as global arrays, split over the data devices."""
  sharding = split_batch(mesh)
  return {
    name: jax.make_array_from_process_local_data(sharding, rows)
    for name, rows in batch.items()
  }
