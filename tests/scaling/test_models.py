"""The networks: published sizes, shapes, precision, and statistics over all devices."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from scaling import models, sharding
from scaling.models import layers


def build(**fields):
  config = base.get_config()
  config.update_from_flattened_dict(
    {k.replace('__', '.'): v for k, v in fields.items()}
  )
  return models.build(config)


def count(model) -> int:
  variables = jax.eval_shape(model.init, jax.random.key(0))
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables['params']))


# Counted by the widely used PyTorch code for the CIFAR form with parameter-free
# shortcuts; He et al. (2016) round them: 0.27M, 0.46M, 0.66M, 0.85M and 1.7M.
@pytest.mark.parametrize(
  ('depth', 'params'),
  [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)],
)
def test_parameters_of_the_small_form(depth, params):
  assert count(build(model__depth=depth)) == params


# As torchvision's networks.
@pytest.mark.parametrize(
  ('depth', 'params'),
  [
    (18, 11_689_512),
    (34, 21_797_672),
    (50, 25_557_032),
    (101, 44_549_160),
    (152, 60_192_808),
  ],
)
def test_parameters_of_the_imagenet_form(depth, params):
  model = build(
    model__form='imagenet',
    model__depth=depth,
    model__width=64,
    data__num_classes=1000,
    data__image_size=224,
  )
  assert count(model) == params


@pytest.mark.parametrize('channels', [1, 3, 5])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize(('form', 'depth'), [('small', 8), ('imagenet', 50)])
def test_shapes_and_precision(form, depth, dtype, channels):
  model = build(
    model__form=form,
    model__depth=depth,
    model__width=4,
    model__dtype=dtype,
    data__num_classes=7,
    data__image_size=32,
    data__channels=channels,
  )
  variables = jax.eval_shape(model.init, jax.random.key(0))
  images = jax.ShapeDtypeStruct((6, 32, 32, channels), jnp.dtype(dtype))
  for train in (False, True):
    logits, stats = jax.eval_shape(
      lambda v, x, train=train: model.apply(v, x, train), variables, images
    )
    assert (logits.shape, logits.dtype) == ((6, 7), jnp.float32)
    assert stats == variables['batch_stats']
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


def test_width_is_the_channels_of_the_first_stage():
  for width in (4, 16):
    variables = jax.eval_shape(build(model__width=width).init, jax.random.key(0))
    shapes = {
      name: part['Conv_0']['kernel'].shape
      for name, part in variables['params'].items()
      if name.startswith('stage')
    }
    assert [shapes[f'stage{i}_block1'][-1] for i in (1, 2, 3)] == [
      width,
      2 * width,
      4 * width,
    ]


def test_a_new_network_answers_its_head_bias_and_blocks_are_shortcuts(tiny_config):
  config = tiny_config({'model.head_bias': -10.0})
  params = jax.jit(models.build(config).init)(jax.random.key(0))['params']
  assert np.array_equal(params['head']['kernel'], np.zeros((16, 10)))
  assert np.array_equal(params['head']['bias'], np.full(10, -10.0))
  last = [p['BatchNorm_1']['scale'] for n, p in params.items() if n.startswith('stage')]
  assert len(last) == 3
  assert not any(scale.any() for scale in last)


def test_bfloat16_computes_in_bfloat16_and_agrees_with_float32(
  tiny_config, random_variables
):
  outputs = []
  images = np.random.default_rng(1).normal(size=(8, 8, 8, 1)).astype(np.float32)
  for dtype in ('float32', 'bfloat16'):
    model = models.build(tiny_config({'model.dtype': dtype}))
    apply = jax.jit(lambda v, x, model=model: model.apply(v, x, False)[0])
    logits = apply(random_variables(model), images)
    assert logits.dtype == jnp.float32
    outputs.append(np.asarray(logits))
  assert not np.array_equal(*outputs)
  # bfloat16 keeps 8 bits: 2^-9 relative a rounding, some ten roundings in a row.
  scale = np.abs(outputs[0]).max()
  np.testing.assert_allclose(outputs[1], outputs[0], atol=10 * 2**-9 * scale)


def test_batch_norm_statistics_are_those_of_the_whole_batch(
  tiny_config, random_variables
):
  model = models.build(tiny_config())
  variables = random_variables(model)
  # Each quarter of the batch has another spread, so that a device's own statistics
  # would be far off.
  spread = jnp.repeat(jnp.arange(1.0, 5.0), 4)[:, None, None, None]
  images = spread * (1 + jax.random.normal(jax.random.key(1), (16, 8, 8, 1)))

  def statistics(variables, images):
    return model.apply(variables, images, True)[1]

  mesh = sharding.make_mesh()
  assert mesh.shape['data'] == 4
  whole, split = sharding.replicated(mesh), sharding.split_batch(mesh)
  over_four = jax.jit(statistics, in_shardings=(whole, split), out_shardings=whole)(
    variables, images
  )
  alone = jax.jit(statistics)(variables, images)
  for a, b in zip(jax.tree.leaves(over_four), jax.tree.leaves(alone), strict=True):
    # Only the order of the sums differs: a few float32 roundings (6e-8 each) of numbers
    # near 1, where variances come from a difference of larger numbers.
    np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize('shape', [(3, 3, 16, 64), (1, 1, 64, 128), (7, 7, 3, 64)])
def test_he_normal_has_variance_two_over_fan_out(shape):
  weights = layers.he_normal(jax.random.key(3), shape, jnp.float32)
  assert (weights.shape, weights.dtype) == (shape, jnp.float32)
  fan_out = shape[0] * shape[1] * shape[3]
  # The sample variance of n normal numbers has a relative spread of sqrt(2 / n); the
  # draw is fixed, and four spreads are allowed.
  allowed = 4 * math.sqrt(2 / weights.size)
  assert float(weights.var()) * fan_out / 2 == pytest.approx(1, rel=allowed)
