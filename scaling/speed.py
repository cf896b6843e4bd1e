"""How fast a run goes and what it takes of the machine, for the rows of metrics."""

import resource
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from scaling import chips, cost
from scaling.clock import Clock


class Speed:
  """Rates since the last measurement, and totals that survive restarts.

  Args:
    done: updates made before the first measurement.
    clock: of the run.
    config: of the cell.
    mesh: that it runs on.
  """

  def __init__(self, done: int, clock: Clock, config: ConfigDict, mesh: Mesh):
    self._clock, self._mesh = clock, mesh
    self._batch_size = config.train.batch_size
    chip = chips.of_kind(mesh.devices.flat[0].device_kind)
    # What all devices could do with the FLOPs of one image.
    self._peak_images = (
      None
      if chip is None
      else chip.flops * mesh.size * self._batch_size / cost.train_flops(config, 1)
    )
    self._last = done, clock.seconds['train'], clock.seconds['input_wait']

  def measure(self, done: int) -> dict[str, float]:
    """Returns what the rows say beside the seconds themselves.

    `time/images_per_second` and `time/input_wait_share` are since the last call;
    `time/device_hours` are of training alone, over all starts; `time/mfu` is the share
    of the devices' peak, where that is known.
    """
    before, seconds, waited = self._last
    self._last = done, self._clock.seconds['train'], self._clock.seconds['input_wait']
    elapsed = max(self._last[1] - seconds, 1e-9)
    rate = (done - before) * self._batch_size / elapsed
    row = {
      'time/images_per_second': rate,
      'time/input_wait_share': (self._last[2] - waited) / elapsed,
      'time/device_hours': self._clock.seconds['device'] * self._mesh.size / 3600,
      'time/peak_memory_gib': peak_bytes(self._mesh.local_devices[0]) / 2**30,
    }
    if self._peak_images is not None:
      row['time/mfu'] = rate / self._peak_images
    return row


def peak_bytes(device: Any) -> int:
  """Returns the most memory that was in use: the device's, or on a CPU the process's."""
  stats = device.memory_stats()
  if stats and 'peak_bytes_in_use' in stats:
    return stats['peak_bytes_in_use']
  return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
