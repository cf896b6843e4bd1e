"""The two forms of convolution, batch norm and pooling: the same values and gradients."""

import math
import platform
import sys

import gradients
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradients import assert_close, draw
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import base
from scaling import models, sharding
from scaling.errors import UserError
from scaling.models import cpu_ops, native_ops
from scaling.models.layers import choose_ops

pytestmark = pytest.mark.usefixtures('quick_compile')

# Rounding of sums taken in another order: float64 keeps 53 bits, float32 24. In bfloat16
# results are rounded to 8 bits, half a unit being 2^-9; a sum that falls on another side
# is off by one unit, 2^-8, and the clipped gradients by a few of them.
TOLERANCE = {'float64': 1e-12, 'float32': 1e-5, 'bfloat16': 2**-6}
CONVS = [
  # size of the images, channels in and out, kernel, stride, images
  ((8, 8), 16, 16, 3, 1, 6),
  ((9, 7), 3, 8, 3, 1, 4),
  ((8, 8), 8, 16, 3, 2, 4),
  ((9, 7), 8, 5, 3, 2, 3),
  ((1, 1), 8, 4, 3, 2, 2),
  ((1, 5), 9, 4, 3, 1, 2),
  ((8, 8), 8, 12, 1, 1, 4),
  ((9, 8), 8, 12, 1, 2, 4),
  ((5, 7), 4, 3, 1, 3, 2),
  ((16, 15), 3, 8, 7, 2, 4),
  ((14, 14), 8, 4, 5, 3, 2),
  ((9, 7), 4, 3, 3, 4, 2),
  ((8, 8), 64, 4, 3, 1, 2),
  ((6, 6), 65, 66, 3, 1, 2),
]


@pytest.fixture
def wide():
  with jax.enable_x64(True):
    yield


def pulled_back(function, inputs, seed=9):
  """Returns the values of a function and the gradients of random cotangents."""

  def both(inputs):
    out, pull = jax.vjp(function, *inputs)
    leaves, tree = jax.tree.flatten(out)
    keys = draw(seed, *(leaf.shape for leaf in leaves))
    keys = [k.astype(leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    return out, pull(jax.tree.unflatten(tree, keys))

  return jax.jit(both)(inputs)


def check_conv(image, num_in, num_out, size, stride, count, dtype):
  shapes = (count, *image, num_in), (size, size, num_in, num_out)
  inputs = draw(0, *shapes, dtype=dtype)
  native, cpu = (
    pulled_back(lambda x, w, ops=ops: ops.conv(x, w, stride), inputs)
    for ops in (native_ops, cpu_ops)
  )
  assert_close(cpu, native, TOLERANCE[dtype])


@pytest.mark.parametrize('dtype', list(TOLERANCE))
@pytest.mark.parametrize('shape', CONVS)
def test_convolutions_and_their_gradients_are_equal(shape, dtype, wide):
  check_conv(*shape, dtype)


@settings(max_examples=10)
@given(
  image=st.tuples(st.integers(1, 7), st.integers(1, 7)),
  num_in=st.integers(1, 9),
  num_out=st.integers(1, 4),
  size=st.sampled_from([1, 3, 5, 7]),
  stride=st.integers(1, 3),
  count=st.integers(1, 4),
)
def test_convolutions_of_any_small_shape_are_equal(
  image, num_in, num_out, size, stride, count
):
  with jax.enable_x64(True):
    check_conv(image, num_in, num_out, size, stride, count, 'float64')


@pytest.mark.parametrize('block_bytes', [1, 2000, 2**30])
@pytest.mark.parametrize('stride', [1, 2])
def test_the_blocks_of_a_gradient_change_nothing(
  block_bytes, stride, wide, monkeypatch
):
  monkeypatch.setattr(cpu_ops, '_BLOCK_BYTES', block_bytes)
  check_conv((6, 6), 8, 4, 3, stride, 6, 'float64')


@pytest.mark.parametrize('stride', [1, 2])
def test_products_for_amx_are_the_same_convolution(stride, wide, monkeypatch):
  monkeypatch.setattr(cpu_ops, '_has_amx', lambda: True)
  check_conv((6, 6), 66, 65, 3, stride, 2, 'bfloat16')


def check_norm(shape, has_shortcut, relu, dtype):
  x, shortcut = draw(1, shape, shape, dtype=dtype)
  scale, bias = draw(2, shape[3:], shape[3:], dtype=np.promote_types(dtype, 'float32'))
  inputs = (x + 3, 1 + scale / 10, bias, shortcut if has_shortcut else None)
  native, cpu = (
    pulled_back(lambda *a, ops=ops: ops.batch_norm(*a, relu, 1e-5), inputs)
    for ops in (native_ops, cpu_ops)
  )
  assert_close(cpu, native, TOLERANCE[dtype])


@pytest.mark.parametrize('dtype', list(TOLERANCE))
@pytest.mark.parametrize('relu', [False, True])
@pytest.mark.parametrize('has_shortcut', [False, True])
def test_norms_and_their_gradients_are_equal(has_shortcut, relu, dtype, wide):
  check_norm((4, 5, 3, 7), has_shortcut, relu, dtype)


def test_a_shortcut_is_computed_once():
  def loss(x, kernels):
    for kernel in kernels:
      y = cpu_ops.conv(x, kernel)
      x = cpu_ops.batch_norm(y, jnp.ones(8), jnp.zeros(8), x, True, 1e-5)[0]
    return x.sum()

  def flops(num_blocks):
    kernels = [jax.ShapeDtypeStruct((1, 1, 8, 8), 'float32')] * num_blocks
    image = jax.ShapeDtypeStruct((4, 8, 8, 8), 'float32')
    return jax.jit(jax.grad(loss, 1)).lower(image, kernels).compile().cost_analysis()

  two, four, eight = (flops(n)['flops'] for n in (2, 4, 8))
  # Repeated at each later block, they would grow with the square of the blocks.
  assert eight - four == pytest.approx(2 * (four - two), rel=0.1)


@settings(max_examples=6)
@given(
  shape=st.tuples(*[st.integers(1, 5)] * 4).filter(lambda s: math.prod(s[:3]) > 1),
  has_shortcut=st.booleans(),
  relu=st.booleans(),
)
def test_norms_of_any_small_shape_are_equal(shape, has_shortcut, relu):
  with jax.enable_x64(True):
    check_norm(shape, has_shortcut, relu, 'float64')


def test_a_norm_whose_scale_is_zero_passes_gradients_on_alike(wide):
  # As each block starts: many sums are exactly zero, where ReLU has no slope.
  x, shortcut = draw(3, (2, 4, 4, 3), (2, 4, 4, 3))
  inputs = (x, jnp.zeros(3), jnp.zeros(3), jnp.maximum(shortcut, 0))
  for shortcut in (inputs[3], None):
    native, cpu = (
      pulled_back(
        lambda *a, ops=ops: ops.batch_norm(*a, True, 1e-5), (*inputs[:3], shortcut)
      )
      for ops in (native_ops, cpu_ops)
    )
    assert_close(cpu, native, TOLERANCE['float64'])


def check_pool(shape, dtype):
  # Rounded, so that many windows hold their maximum twice; and clipped, as after ReLU.
  (x,) = draw(4, shape, dtype=dtype)
  x = jnp.maximum(jnp.round(2 * x), 0)
  native, cpu = (pulled_back(ops.max_pool, (x,)) for ops in (native_ops, cpu_ops))
  # A pixel sums up to four gradients, in bfloat16 in another order.
  assert_close(cpu, native, TOLERANCE[dtype])


@pytest.mark.parametrize('dtype', list(TOLERANCE))
@pytest.mark.parametrize('size', [(8, 8), (9, 7), (1, 2)])
def test_pooling_and_its_gradient_are_equal(size, dtype, wide):
  check_pool((3, *size, 4), dtype)


@settings(max_examples=6)
@given(shape=st.tuples(*[st.integers(1, 7)] * 4))
def test_pooling_of_any_small_shape_is_equal(shape):
  with jax.enable_x64(True):
    check_pool(shape, 'float64')


@pytest.mark.parametrize(
  ('function', 'shapes'), gradients.differentiable(cpu_ops, relu=True)
)
def test_gradients_are_those_of_finite_differences(function, shapes, wide):
  # Central differences with a step of 1e-6 err by about the step's square and by
  # rounding over the step: 1e-12 and 1e-10 of numbers near 10.
  measured, found = gradients.derivatives(function, shapes, 'float64', 1e-6)
  assert found == pytest.approx(measured, rel=1e-6)


def random_variables(model):
  """Returns float64 variables of a size that keeps activations near 1."""
  rng = np.random.default_rng(0)

  def draw_leaf(leaf):
    numbers = rng.normal(size=leaf.shape)
    if leaf.ndim == 1:
      return jnp.asarray(1 + numbers / 10)
    return jnp.asarray(numbers * math.sqrt(2 * leaf.shape[-1] / leaf.size))

  return jax.tree.map(draw_leaf, jax.eval_shape(model.init, jax.random.key(0)))


@pytest.mark.parametrize(
  ('form', 'depth', 'size'),
  [('small', 20, 12), pytest.param('imagenet', 50, 33, marks=pytest.mark.slow)],
)
def test_whole_networks_have_equal_gradients_and_statistics(form, depth, size, wide):
  config = base.get_config()
  config.model.form, config.model.depth, config.model.width = form, depth, 8
  config.model.dtype = 'float64'
  config.data.image_size = size
  (images,) = draw(8, (4, size, size, 3))
  variables = random_variables(models.build(config))

  def gradients(ops):
    config.model.ops = ops
    model = models.build(config)

    def loss(params):
      logits, stats = model.apply(variables | {'params': params}, images, True)
      chosen = jax.nn.log_softmax(logits)[jnp.arange(4), jnp.arange(4)]
      return -chosen.mean(), stats

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables['params'])

  # Fifty layers of batch norm amplify the last bits of float64, and some gradients are
  # zero but for them.
  assert_close(gradients('cpu'), gradients('native'), 1e-10, floor=1e-13)


def test_gradients_of_a_batch_over_four_devices_are_those_of_one(wide, monkeypatch):
  monkeypatch.setattr(cpu_ops, '_BLOCK_BYTES', 2**14)  # two blocks of eight images
  x, kernel, grad = draw(10, (16, 8, 8, 8), (3, 3, 8, 8), (16, 8, 8, 8))

  def gradients(x, kernel, grad):
    return jax.vjp(cpu_ops.conv, x, kernel)[1](grad)

  mesh = sharding.make_mesh()
  assert mesh.shape['data'] == 4
  whole, split = sharding.replicated(mesh), sharding.split_batch(mesh)
  over_four = jax.jit(
    gradients, in_shardings=(split, whole, split), out_shardings=(split, whole)
  )(x, kernel, grad)
  alone = jax.jit(gradients)(x, kernel, grad)
  assert_close(over_four, alone, TOLERANCE['float64'])


def test_forms_are_chosen_by_platform_unless_named():
  assert [choose_ops('auto', p) for p in ('cpu', 'gpu', 'tpu')] == [
    'cpu',
    'native',
    'native',
  ]
  names = ['native', 'cpu', 'onednn']
  assert [choose_ops(name, 'cpu') for name in names] == names
  with pytest.raises(
    UserError, match=r'for CPUs, and this is a tpu; use model\.ops=auto'
  ):
    choose_ops('onednn', 'tpu')


def test_what_a_cpu_can_do_does_not_change_with_its_clock():
  flags = cpu_ops.cpu_flags()
  assert flags.isdisjoint((':', 'MHz', 'model', 'processor'))
  if platform.machine() in ('x86_64', 'AMD64') and sys.platform == 'linux':
    assert 'sse2' in flags
