"""The networks whose training step is timed, and their configs."""

import dataclasses

from ml_collections import ConfigDict

from configs import base


@dataclasses.dataclass(frozen=True)
class Net:
  """A network at its size."""

  form: str
  depth: int
  width: int
  image_size: int
  channels: int
  num_classes: int


NETS = {
  'resnet20-28px': Net('small', 20, 16, 28, 1, 10),
  'resnet20-32px': Net('small', 20, 16, 32, 3, 10),
  'resnet50-224px': Net('imagenet', 50, 64, 224, 3, 1000),
}


def make_config(net: Net, dtype: str, batch_size: int, ops: str) -> ConfigDict:
  """Returns the config of a network: no augmentation, SGD with momentum and decay."""
  config = base.get_config()
  config.model.form, config.model.depth, config.model.width = (
    net.form,
    net.depth,
    net.width,
  )
  config.model.dtype, config.model.ops = dtype, ops
  data = config.data
  data.image_size, data.channels, data.num_classes = (
    net.image_size,
    net.channels,
    net.num_classes,
  )
  data.mean, data.std = (0.5,) * net.channels, (0.25,) * net.channels
  config.train.batch_size = config.log.eval_batch_size = batch_size
  return config
