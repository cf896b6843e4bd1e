"""Computed images whose error falls by a law that is known: the study against the truth.

Ten classes, each with an endless tail of looks; `data.procedural.exponent` says how fast
the error of a learner falls that knows the looks it has seen (docs/data.md). Small
subsets get as many updates as they need, large ones a number of passes, so that the
images and not the updates are what runs short.
"""

import itertools

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  config = base.get_config()
  config.name = 'procedural'

  config.data.source = 'procedural'
  config.data.name = 'procedural'
  config.data.num_classes = 10
  config.data.image_size = 16
  config.data.mean = (0.5, 0.5, 0.5)
  config.data.std = (0.15, 0.15, 0.15)
  config.data.procedural.exponent = 0.4
  config.data.procedural.pose = 0.4
  config.data.procedural.num_test = 8000

  config.model.width = 24

  config.train.batch_size = 64

  config.optim.lr = 0.1

  config.log.every_steps = 200
  config.log.eval_batch_size = 1000
  return config


def get_sweep() -> list[dict]:
  sizes = (250, 540, 1160, 2500, 5400, 11_600, 25_000)
  return [
    {'data.num_images': n, 'train.steps': max(1000, 20 * n // 64), 'seed': seed}
    for n, seed in itertools.product(sizes, range(2))
  ]
