"""Counted FLOPs against published numbers and against XLA's own count."""

import dataclasses

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


def lower_gradient(config):
  """Lowers the gradient of a loss over `train.batch_size` images, as XLA derives it."""
  config.model.ops = 'native'
  model = models.build(config)
  variables = jax.eval_shape(model.init, jax.random.key(0))
  size = config.data.image_size
  images = jax.ShapeDtypeStruct((config.train.batch_size, size, size, 3), jnp.float32)

  def loss(params, batch_stats, images):
    variables = {'params': params, 'batch_stats': batch_stats}
    return jax.nn.logsumexp(model.apply(variables, images, True)[0], axis=1).sum()

  return jax.jit(jax.grad(loss)).lower(
    variables['params'], variables['batch_stats'], images
  )


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


def test_a_run_costs_three_products_a_layer_and_two_at_the_image():
  config = make('small', 8, 4, 8)
  config.train.batch_size = 48
  stem = 2 * 9 * 8**2 * 3 * 4  # needs no gradient of its input
  image = 3 * cost.forward_flops(config) - stem
  assert cost.train_flops(config, 7) == 48 * 7 * image
  assert cost.train_flops(config, 0) == 0


# As above; the norms' backward passes add some and the padding takes some away.
@pytest.mark.parametrize(
  ('form', 'depth', 'width', 'size'),
  [('small', 8, 16, 128), ('imagenet', 18, 64, 448), ('imagenet', 50, 64, 224)],
)
def test_train_flops_agree_with_xla(form, depth, width, size):
  config = make(form, depth, width, size)
  config.train.batch_size = 2
  gradient = lower_gradient(config)
  assert cost.train_flops(config, 1) == pytest.approx(
    gradient.cost_analysis()['flops'], rel=0.05
  )


def test_residual_network_counted_by_hand():
  network = cost.network(make('imagenet', 50, 64, 224))
  sides, widths, blocks = (56, 28, 14, 7), (256, 512, 1024, 2048), (3, 4, 6, 3)
  shapes = list(zip(sides, widths, blocks, strict=True))
  assert network.shortcuts == sum(n * side**2 * width for side, width, n in shapes)
  assert network.pooled == (112**2 * 64, 56**2 * 64)
  assert [layer.from_image for layer in network.layers] == [True] + 53 * [False]
  norms = 64 + sum(n * (width // 2 + width) + width for _, width, n in shapes)
  assert network.norm_channels == norms


@pytest.mark.parametrize('depth', [14, 20])
def test_a_scanned_network_costs_what_the_unrolled_one_does(depth):
  scanned, unrolled = (base.get_config() for _ in range(2))
  for config in (scanned, unrolled):
    config.model.depth, config.data.image_size = depth, 8
  scanned.model.scan = True
  found, expected = cost.network(scanned), cost.network(unrolled)
  assert sum(layer.train_flops for layer in found.layers) == sum(
    layer.train_flops for layer in expected.layers
  )
  assert dataclasses.replace(found, layers=()) == dataclasses.replace(
    expected, layers=()
  )


def test_a_scan_counts_each_of_its_trips():
  def apply(kernels, x):
    def block(x, kernel):
      return jax.nn.relu(x @ kernel), None

    return jax.lax.scan(block, x, kernels)[0]

  shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((5, 8, 8), (3, 8))]
  jaxpr = jax.make_jaxpr(apply)(*shapes).jaxpr
  (layer,) = cost.count(jaxpr, num_images=1)[0]
  assert layer.times == 5
  assert layer.flops == 5 * 2 * 3 * 8 * 8
  assert not layer.from_image


@pytest.mark.parametrize('name', ['sgd', 'rmsprop'])
def test_the_optimisers_state_is_counted(name):
  config = make('small', 8, 4, 8)
  config.optim.name = name
  network = cost.network(config)
  copies = {'sgd': 1, 'rmsprop': 2}[name]
  assert network.opt_state_bytes == copies * 4 * network.params
