"""The label space of JFT-300M on computed images: 18,291 classes and all their trouble.

A long tail, several objects an image, a fifth of the labels wrong, most further objects
without theirs. The subsets are as far apart as the 2017 study's (10, 30, 100 and 300
million images) at a size that a laptop trains on; another --config.data.procedural field
or size is one flag away.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  config = base.get_config()
  config.name = 'procedural_jft'

  config.data.source = 'procedural'
  config.data.name = 'procedural'
  config.data.num_classes = 18_291
  config.data.max_labels = 3
  config.data.image_size = 16
  config.data.mean = (0.5, 0.5, 0.5)
  config.data.std = (0.15, 0.15, 0.15)
  config.data.procedural.zipf = 1.0
  config.data.procedural.more_objects = 0.70  # 1.26 labels an image, with `missing`
  config.data.procedural.missing = 0.6
  config.data.procedural.wrong = 0.2  # Sun et al. 2017, section 3
  config.data.procedural.branching = 8
  config.data.procedural.num_test = 4000

  config.model.width = 24
  config.model.head_bias = -10.0

  config.train.loss = 'sigmoid'
  config.train.batch_size = 64

  config.optim.name = 'adamw'
  config.optim.lr = 0.002
  config.optim.weight_decay = 1e-4
  config.optim.warmup_fraction = 0.05

  config.log.every_steps = 200
  config.log.eval_batch_size = 500
  return config


def get_sweep() -> list[dict]:
  sizes = (3_000, 10_000, 30_000, 100_000)
  return [
    {'data.num_images': n, 'train.steps': max(1500, 2 * n // 64), 'seed': 0}
    for n in sizes
  ]
