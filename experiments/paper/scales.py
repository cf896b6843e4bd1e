"""How large the studies are run: on a laptop, on one GPU, on a pod."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Scale:
  """Sizes of a study.

  Attributes:
    name: of the scale.
    config: shipped config that it starts from.
    sizes: training images, from the smallest.
    depths: of the networks, from the shallowest.
    epochs: passes over each subset where all are passed over alike.
    seeds: runs of each setting; the two largest sizes have one less.
    finetune_steps: of networks that start from another.
    depth: of the networks, where one depth is all that a study needs; 0: that of the
      config.
    width: of the networks; 0: that of the config.
    device: that it is planned for, see `scaling.chips`, or 'cpu'.
    num_devices: of them, for each cell; of a CPU all cores are taken.
  """

  name: str
  config: str
  sizes: tuple[int, ...]
  depths: tuple[int, ...]
  epochs: float
  seeds: int
  finetune_steps: int
  depth: int = 0
  width: int = 0
  device: str = 'cpu'
  num_devices: int = 1

  def seeds_of(self, num_images: int) -> range:
    """Returns the seeds of a size: fewer where runs are long and differ least."""
    fewer = num_images in self.sizes[-2:] and len(self.sizes) > 2
    return range(max(1, self.seeds - fewer))

  def steps(self, num_images: int, batch_size: int, epochs: float | None = None) -> int:
    """Returns the updates of so many passes over a subset."""
    return math.ceil((epochs or self.epochs) * num_images / batch_size)


SCALES = {
  'laptop': Scale(
    'laptop',
    'procedural',
    (250, 500, 1000, 2000, 4000, 8000),
    (8, 14, 20),
    10.0,
    3,
    300,
    width=8,
  ),
  'gpu': Scale(
    'gpu',
    'cifar10',
    (500, 1000, 2000, 4000, 8000, 16_000, 32_000, 50_000),
    (20, 56, 110),
    50.0,
    3,
    500,
    depth=20,
    device='H100',
  ),
  'pod': Scale(
    'pod',
    'jft',
    (10_000_000, 30_000_000, 100_000_000, 300_000_000),
    (50, 101, 152),
    4.0,
    1,
    20_000,
    device='TPU v5e',
    num_devices=256,
  ),
}
