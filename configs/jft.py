"""JFT-300M as in Sun et al. (ICCV 2017), for those who have such a set.

300 million images, 375 million labels of 18,291 classes (talk; BiT, arXiv 1912.11370,
section 3.1). Each value says where it comes from: [T] the talk, [S] a paper that says
so, [M] recalled and not checked against the paper's text. Point `data.name` at your own
set, prepared for TFDS as ArrayRecord with a sequence of labels per image.

The 2017 run was asynchronous: 50 workers, each with batches of 32, each update by one
of them. This is its synchronous reading at the same batch. On a pod raise batch_size,
and optim.lr with it; the schedule counts images and follows. model.ghost_batch=32 then
keeps the statistics of batch norm those of one worker's step.
"""

import itertools

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  config = base.get_config()
  config.name = 'jft'

  config.data.source = 'tfds'
  config.data.name = 'jft'
  config.data.label_key = 'labels'
  config.data.num_classes = 18_291  # [S] BiT
  config.data.max_labels = 8  # 1.26 an image on average [S] BiT; 8 hold nearly all
  config.data.image_size = 299  # a random crop ... [M]
  config.data.resize_short = 340  # ... of 340 pixels [M]
  config.data.channels = 3
  config.data.mean = (0.5, 0.5, 0.5)  # pixels to [-1, 1] [M]
  config.data.std = (0.5, 0.5, 0.5)
  config.data.flip = True  # [M]
  config.data.min_crop_area = 0.08  # stands in for the fixed-scale crop

  config.model.form = 'imagenet'
  config.model.depth = 101  # the main one of 50, 101 and 152 [T]
  config.model.width = 64
  config.model.dtype = 'bfloat16'  # ours: the 2017 run was in float32 on K80s
  config.model.head_multiple = 128  # ours: 18,304 outputs, which split over devices
  config.model.head_bias = -10.0  # ours: as big_vision does for large sigmoid heads

  config.train.loss = 'sigmoid'  # [S] Zhai et al. 2022, following BiT
  config.train.batch_size = 32  # of one worker's step [M]
  config.train.epochs = 4.0  # of each subset [T]
  config.train.steps = 0

  config.optim.name = 'rmsprop'  # with momentum 0.9 [S] Chollet 2017 on JFT; [M] here
  config.optim.lr = 1e-3  # [M]; [S] Chollet 2017
  config.optim.momentum = 0.9
  config.optim.weight_decay = 1e-4  # [M]
  config.optim.schedule = 'exponential'
  config.optim.decay_rate = 0.9  # every 3 million steps of 32 images [M]; Chollet 2017
  config.optim.decay_images = 96_000_000  # says 3 million samples [S]: check first
  config.optim.warmup_fraction = 0.0

  config.log.every_steps = 1000
  config.log.eval_every_steps = 1_000_000
  config.log.eval_batch_size = 256

  config.checkpoint.every_seconds = 1800.0
  return config


def get_sweep() -> list[dict]:
  # Random subsets, nested here; 36 million updates at 300 million images [M].
  sizes = (10_000_000, 30_000_000, 100_000_000, 300_000_000)
  return [
    {'data.num_images': num_images, 'model.depth': depth}
    for num_images, depth in itertools.product(sizes, (50, 101, 152))
  ]
