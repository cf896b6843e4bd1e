"""Handwritten digits: 1,797 real images of 8 pixels, which scikit-learn brings along.

The whole study takes minutes on a laptop. Every subset gets the same compute.
"""

import itertools

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  config = base.get_config()
  config.name = 'digits'

  config.data.source = 'digits'
  config.data.name = 'digits'
  config.data.num_classes = 10
  config.data.image_size = 8
  config.data.channels = 1
  config.data.mean = (0.305,)  # over the training images
  config.data.std = (0.376,)
  config.data.pad_crop = 1

  config.model.width = 8

  config.train.batch_size = 64
  config.train.steps = 120

  config.optim.lr = 0.3

  config.log.every_steps = 50
  config.log.eval_batch_size = 360
  return config


def get_sweep() -> list[dict]:
  sizes = (50, 80, 130, 210, 340, 550, 890, 1438)
  return [
    {'data.num_images': num_images, 'model.depth': depth, 'seed': seed}
    for num_images, depth, seed in itertools.product(sizes, (8, 14, 20), range(3))
  ]
