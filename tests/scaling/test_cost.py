"""Counted FLOPs against published numbers and against XLA's own count."""

import jax
import jax.numpy as jnp
import pytest

from configs import base
from scaling import cost, models


def make(form, depth, width, size, num_classes=1000):
  config = base.get_config()
  config.model.form, config.model.depth, config.model.width = form, depth, width
  config.data.image_size, config.data.num_classes = size, num_classes
  return config


# Multiply-adds of the v1.5 networks at 224 pixels as torchvision lists them, rounded to
# three digits there, hence half a per cent.
@pytest.mark.parametrize(
  ('depth', 'gmacs', 'params'),
  [(50, 4.09, 25_557_032), (101, 7.80, 44_549_160), (152, 11.51, 60_192_808)],
)
def test_forward_flops_are_twice_the_published_multiply_adds(depth, gmacs, params):
  config = make('imagenet', depth, 64, 224)
  assert cost.forward_flops(config) == pytest.approx(2 * gmacs * 1e9, rel=0.005)
  assert cost.num_params(config) == params


# At large sizes, for XLA leaves out the taps on the padding (a share that falls with
# the size) and adds norms and activations: a few per cent, in opposite directions.
@pytest.mark.parametrize(
  ('form', 'depth', 'width', 'size'),
  [('small', 8, 16, 128), ('imagenet', 18, 64, 448)],
)
def test_flops_agree_with_xla(form, depth, width, size):
  config = make(form, depth, width, size)
  model = models.build(config)
  variables = jax.eval_shape(model.init, jax.random.key(0))
  image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  lowered = jax.jit(lambda v, x: model.apply(v, x, False)[0]).lower(variables, image)
  assert cost.forward_flops(config) == pytest.approx(
    lowered.cost_analysis()['flops'], rel=0.05
  )


def test_flops_of_a_network_counted_by_hand():
  # ResNet-8 of width 4 on 8 pixels and one channel, 10 classes: [size, in, out] of each
  # 3x3 convolution; the shortcuts cost nothing.
  config = make('small', 8, 4, 8, 10)
  config.data.channels, config.data.mean, config.data.std = 1, (0.5,), (0.25,)
  layers = [
    (8, 1, 4),
    (8, 4, 4),
    (8, 4, 4),
    (4, 4, 8),
    (4, 8, 8),
    (2, 8, 16),
    (2, 16, 16),
  ]
  expected = sum(2 * 9 * size**2 * i * o for size, i, o in layers) + 2 * 16 * 10
  assert cost.forward_flops(config) == expected


def test_a_run_costs_three_forward_passes_an_image():
  config = make('small', 8, 4, 8)
  config.train.batch_size = 48
  assert cost.train_flops(config, 7) == 3 * 48 * 7 * cost.forward_flops(config)
  assert cost.train_flops(config, 0) == 0
