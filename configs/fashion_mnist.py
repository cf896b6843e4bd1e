"""Fashion-MNIST: 60,000 grey images of 28 pixels in ten classes (Xiao et al. 2017).

`apt-get install dataset-fashion-mnist` brings it on Debian; elsewhere put its four .gz
files in a folder and give it as --data_dir. Narrow networks, so that the study takes
under an hour on two cores. Each subset is passed over the same number of times, as in
the 2017 study, so data and compute grow together.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  config = base.get_config()
  config.name = 'fashion_mnist'

  config.data.source = 'idx'
  config.data.name = 'fashion-mnist'
  config.data.train_split = 'train'
  config.data.test_split = 't10k'
  config.data.num_classes = 10
  config.data.image_size = 28
  config.data.channels = 1
  config.data.mean = (0.286,)  # over the training images
  config.data.std = (0.353,)
  config.data.flip = True

  config.model.width = 8

  config.train.batch_size = 16  # small, so that small subsets get some updates too
  config.train.epochs = 5.0
  config.train.steps = 0

  config.optim.lr = 0.1

  config.log.every_steps = 100
  config.log.eval_batch_size = 500
  return config


def get_sweep() -> list[dict]:
  sizes = (100, 250, 600, 1500, 4000, 10_000, 25_000, 60_000)
  return [
    {'data.num_images': num_images, 'model.depth': depth, 'seed': seed}
    for depth in (8, 14, 20)
    for num_images in sizes
    # Repeats where they are needed most: small subsets differ most among each other.
    for seed in range(3 if num_images <= 1500 else 2 if num_images <= 10_000 else 1)
  ]
