"""CIFAR-10: 50,000 colour images of 32 pixels in ten classes (Krizhevsky 2009).

Networks, augmentation and optimiser as in He et al. (2016, section 4.2). Prepare the
set once for TFDS as ArrayRecord and give its folder as --data_dir.
"""

import itertools

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  config = base.get_config()
  config.name = 'cifar10'

  config.data.source = 'tfds'
  config.data.name = 'cifar10'
  config.data.num_classes = 10
  config.data.image_size = 32
  config.data.channels = 3
  config.data.mean = (0.4914, 0.4822, 0.4465)  # over the training images
  config.data.std = (0.2470, 0.2435, 0.2616)
  config.data.pad_crop = 4
  config.data.flip = True

  config.model.width = 16

  config.train.batch_size = 128
  config.train.steps = 20_000

  config.optim.lr = 0.1
  config.optim.nesterov = False
  config.optim.weight_decay = 1e-4

  config.log.every_steps = 100
  config.log.eval_every_steps = 2000
  config.log.eval_batch_size = 1000
  return config


def get_sweep() -> list[dict]:
  sizes = (500, 1000, 2000, 4000, 8000, 16_000, 32_000, 50_000)
  return [
    {'data.num_images': num_images, 'model.depth': depth, 'seed': seed}
    for num_images, depth, seed in itertools.product(sizes, (20, 56, 110), range(3))
  ]
