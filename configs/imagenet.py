"""ImageNet (ILSVRC 2012): 1.28 million photographs in 1,000 classes, at 224 pixels.

ResNet v1.5 by the recipe of Goyal et al. (2017, section 5.1): 90 passes, so that data
and compute grow together as in the 2017 study. Prepare the set once for TFDS as
ArrayRecord and give its folder as --data_dir.
"""

import itertools

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  config = base.get_config()
  config.name = 'imagenet'

  config.data.source = 'tfds'
  config.data.name = 'imagenet2012'
  config.data.test_split = 'validation'
  config.data.num_classes = 1000
  config.data.image_size = 224
  config.data.resize_short = 256
  config.data.channels = 3
  config.data.mean = (0.485, 0.456, 0.406)
  config.data.std = (0.229, 0.224, 0.225)
  config.data.flip = True
  config.data.min_crop_area = 0.08

  config.model.form = 'imagenet'
  config.model.depth = 50
  config.model.width = 64
  config.model.dtype = 'bfloat16'

  config.train.batch_size = 1024
  config.train.epochs = 90.0
  config.train.steps = 0
  config.train.label_smoothing = 0.1

  config.optim.lr = 0.4  # 0.1 for every 256 images of a batch
  config.optim.weight_decay = 1e-4
  config.optim.schedule = 'cosine'
  config.optim.warmup_fraction = 5 / 90

  config.log.every_steps = 100
  config.log.eval_every_steps = 5000
  config.log.eval_batch_size = 1024

  config.checkpoint.every_seconds = 600.0
  return config


def get_sweep() -> list[dict]:
  # A hundredth of the set up to all of it, in half decades.
  sizes = (13_000, 40_000, 128_000, 400_000, 1_281_167)
  return [
    {'data.num_images': num_images, 'model.depth': depth}
    for num_images, depth in itertools.product(sizes, (50, 101, 152))
  ]
