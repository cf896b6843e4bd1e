"""Custom calls of the CPU: equal to XLA's, over devices too, and to themselves resumed."""

import concurrent.futures
import functools
import importlib.metadata
import json

import gradients
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradients import assert_close
from runs import SCHEDULE, assert_same_run, rows_of, stop_after

from scaling import cores, sharding
from scaling.errors import Stopped, UserError
from scaling.models import native_ops, onednn, onednn_ops
from scaling.models.layers import BatchNorm
from scaling.packing import Pack
from scaling.train import train

CONVS = [
  # size of the images, channels in and out, kernel, stride, images
  ((8, 8), 16, 16, 3, 1, 8),
  ((9, 7), 3, 8, 3, 1, 4),
  ((9, 7), 8, 5, 3, 2, 3),
  ((1, 1), 8, 4, 3, 2, 2),
  ((9, 8), 8, 12, 1, 2, 4),
  ((5, 7), 4, 3, 1, 3, 2),
  ((16, 15), 3, 8, 7, 2, 4),
  ((9, 7), 4, 3, 3, 4, 2),
  ((6, 6), 65, 66, 3, 1, 2),
]
# As in test_ops: another order of sums, and in bfloat16 one unit of rounding.
TOLERANCE = {'float32': 1e-5, 'bfloat16': 2**-6}


@pytest.fixture(scope='module', autouse=True)
def _installed():
  try:
    onednn.build()
  except UserError as error:
    pytest.skip(str(error))


draw = functools.partial(gradients.draw, dtype='float32')


def pulled_back(ops, x, kernel, grad, stride=1):
  y, pull = jax.vjp(lambda *both: ops.conv(*both, stride), x, kernel)
  return y, *pull(grad.astype(y.dtype))


@pytest.mark.parametrize('dtype', list(TOLERANCE))
@pytest.mark.parametrize('shape', CONVS)
def test_convolutions_and_their_gradients_are_equal(shape, dtype):
  image, num_in, num_out, size, stride, count = shape
  x, kernel = draw(
    0, (count, *image, num_in), (size, size, num_in, num_out), dtype=dtype
  )
  out = native_ops.conv(x, kernel, stride).shape
  (grad,) = draw(1, out, dtype=dtype)
  ours, native = (
    jax.jit(pulled_back, static_argnums=(0, 4))(ops, x, kernel, grad, stride)
    for ops in (onednn_ops, native_ops)
  )
  assert_close(ours, native, TOLERANCE[dtype])


@pytest.mark.parametrize(
  ('function', 'shapes'), gradients.differentiable(onednn_ops, relu=False)
)
def test_gradients_are_those_of_finite_differences(function, shapes):
  # In float32 rounding over the step is about 1e-5; a convolution is bilinear, so its
  # central difference is exact, and of a norm it errs by some squares of the step.
  measured, found = gradients.derivatives(function, shapes, 'float32', 2e-3)
  assert found == pytest.approx(measured, rel=1e-3)


def test_without_bfloat16_in_hardware_it_is_computed_in_float32(monkeypatch):
  monkeypatch.setattr(onednn_ops, '_has_bfloat16', lambda: False)
  inputs = draw(0, (2, 6, 6, 8), (3, 3, 8, 4), (2, 6, 6, 4), dtype='bfloat16')
  text = jax.jit(pulled_back, static_argnums=0).lower(onednn_ops, *inputs).as_text()
  calls = [line for line in text.splitlines() if 'scaling_onednn_Convolve' in line]
  assert len(calls) == 3
  assert not any('bf16' in line for line in calls)
  ours, native = (pulled_back(ops, *inputs) for ops in (onednn_ops, native_ops))
  assert_close(ours, native, TOLERANCE['bfloat16'])


def norm_pulled_back(ops, x, scale, bias, shortcut, grads, relu=True):
  def norm(*inputs):
    return ops.batch_norm(*inputs, relu, 1e-5)

  # Gradients of the running statistics too: nobody uses them, but they are promised.
  y, pull = jax.vjp(norm, x, scale, bias, shortcut)
  return *y, *jax.tree.leaves(pull((grads[0].astype(x.dtype), *grads[1:])))


def draw_norm(shape, dtype, shortcut=True):
  x, other = draw(0, shape, shape, dtype=dtype)
  scale, bias, *grads = draw(1, *[shape[-1:]] * 2, shape, *[shape[-1:]] * 2)
  return 3 * x + 1, scale, bias, other if shortcut else None, grads


@pytest.mark.parametrize('relu', [False, True])
@pytest.mark.parametrize('shortcut', [False, True])
@pytest.mark.parametrize('dtype', list(TOLERANCE))
@pytest.mark.parametrize(
  # Rows joined eight, four and no times; a row of more numbers than a vector has.
  'shape',
  [(8, 6, 6, 16), (2, 3, 2, 5), (3, 5, 5, 8), (2, 9, 9, 130), (1, 1, 1, 3)],
)
def test_norms_and_their_gradients_are_equal(shape, dtype, shortcut, relu):
  inputs = draw_norm(shape, dtype, shortcut)
  ours, native = (
    jax.jit(norm_pulled_back, static_argnums=(0, 6))(ops, *inputs, relu)
    for ops in (onednn_ops, native_ops)
  )
  if shape == (1, 1, 1, 3):  # a variance of 0, or what is left of one in rounding
    ours, native = ours[:2], native[:2]
  assert_close(ours, native, TOLERANCE[dtype])


def test_a_shortcut_of_another_type_is_not_misread():
  x, scale, bias, _, grads = draw_norm((2, 4, 4, 8), 'bfloat16')
  (shortcut,) = draw(5, x.shape)
  ours, native = (
    norm_pulled_back(ops, x, scale, bias, shortcut, grads)
    for ops in (onednn_ops, native_ops)
  )
  assert_close(ours[:3], native[:3], TOLERANCE['bfloat16'])


def test_threads_share_the_rows_and_give_the_same_bits_again(monkeypatch):
  inputs = draw_norm((3, 5, 7, 8), 'float32')
  x, grad = inputs[0], inputs[0][:, :3, :4]

  def run(number):
    monkeypatch.setattr(cores, 'num_cores', lambda: number * jax.device_count())
    normed = norm_pulled_back(onednn_ops, *inputs)
    return *normed, *pool_pulled_back(onednn_ops, x, grad)

  alone, shared, again = run(1), run(4), run(4)
  assert_close(shared, alone, TOLERANCE['float32'])
  for a, b in zip(shared, again, strict=True):
    np.testing.assert_array_equal(a, b)


def test_sums_over_many_pixels_lose_nothing():
  (x,) = draw(0, (64, 40, 40, 4))
  x = 100 + x
  _, mean, _ = onednn_ops.batch_norm(x, jnp.ones(4), jnp.zeros(4), None, False, 1e-5)
  expected = np.asarray(x, 'float64').mean((0, 1, 2))
  np.testing.assert_allclose(mean, expected, rtol=1e-7)


@pytest.mark.parametrize('dtype', list(TOLERANCE))
def test_not_a_number_stays_one(dtype):
  x = jnp.full((2, 4, 4, 8), jnp.nan, dtype)
  ones = jnp.ones(8)
  assert np.isnan(onednn_ops.batch_norm(x, ones, ones, None, True, 1e-5)[0]).all()
  # One pixel is in four windows.
  (x,) = draw(0, (1, 8, 8, 8), dtype=dtype)
  pooled = onednn_ops.max_pool(x.at[0, 3, 3].set(jnp.nan))
  assert np.isnan(pooled).all(-1).sum() == np.isnan(pooled).any(-1).sum() == 4


def test_bfloat16_is_rounded_as_xla_does():
  # Every second one halfway between two; some overflow, some are no numbers.
  bits = np.random.default_rng(0).integers(2**32, size=2**16, dtype=np.uint32)
  bits[::2] = bits[::2] & 0xFFFF0000 | 0x8000
  gains = jnp.asarray(bits.view(np.float32))
  gains = jnp.where(jnp.abs(gains) < 1e-30, 1, gains)
  factors = jnp.stack([jnp.zeros_like(gains), gains, jnp.zeros_like(gains)])
  x = jnp.ones((1, 1, 1, len(gains)), jnp.bfloat16)
  onednn_ops.register()
  rounded = onednn_ops._call(
    'Normalize', onednn_ops._like(x), x, factors, x[:, :0], relu=False
  )
  expected = gains.astype(jnp.bfloat16).astype('float32')
  np.testing.assert_array_equal(rounded[0, 0, 0].astype('float32'), expected)


def pool_pulled_back(ops, x, grad):
  y, pull = jax.vjp(ops.max_pool, x)
  return y, *pull(grad)


@pytest.mark.parametrize('dtype', list(TOLERANCE))
@pytest.mark.parametrize(
  'shape', [(2, 8, 8, 16), (3, 7, 5, 3), (1, 1, 1, 2), (2, 1, 6, 4)]
)
def test_max_pooling_and_its_gradient_are_equal(shape, dtype):
  out = native_ops.max_pool(jnp.zeros(shape)).shape
  x, grad = draw(0, shape, out, dtype=dtype)
  x = jnp.round(2 * x)  # so that several pixels of a window are the largest
  ours, native = (pool_pulled_back(ops, x, grad) for ops in (onednn_ops, native_ops))
  np.testing.assert_array_equal(ours[0], native[0])
  assert_close(ours, native, TOLERANCE[dtype])


@pytest.mark.parametrize('hardware', [False, True])
def test_the_gradient_of_a_kernel_is_not_rounded(hardware, monkeypatch):
  if not hardware:
    monkeypatch.setattr(onednn_ops, '_has_bfloat16', lambda: False)
  x, grad = draw(0, (4, 6, 6, 8), (4, 6, 6, 4), dtype='bfloat16')
  (kernel,) = draw(1, (3, 3, 8, 4))
  kernel = kernel.astype('bfloat16').astype('float32')
  ours = pulled_back(onednn_ops, x, kernel, grad)[2]
  wide = pulled_back(native_ops, *(a.astype('float32') for a in (x, kernel, grad)))[2]
  assert ours.dtype == kernel.dtype
  assert_close([ours], [wide], TOLERANCE['float32'])


def test_float64_is_left_to_the_other_form():
  with jax.enable_x64(True):
    inputs = draw(0, (2, 5, 5, 4), (3, 3, 4, 3), (2, 5, 5, 3), dtype='float64')
    ours, native = (pulled_back(ops, *inputs) for ops in (onednn_ops, native_ops))
    assert_close(ours, native, 1e-12)
    x, scale, bias, other, grads = jax.tree.map(
      lambda each: each.astype('float64'), draw_norm((2, 4, 4, 3), 'float32')
    )
    ours, native = (
      norm_pulled_back(ops, x, scale, bias, other, grads)
      for ops in (onednn_ops, native_ops)
    )
    assert_close(ours, native, 1e-12)
    ours, native = (
      pool_pulled_back(ops, x, x[:, ::2, ::2]) for ops in (onednn_ops, native_ops)
    )
    assert_close(ours, native, 1e-12)


def test_each_device_convolves_its_own_images():
  mesh = sharding.make_mesh()
  assert mesh.shape['data'] == 4
  inputs = draw(2, (16, 8, 8, 8), (3, 3, 8, 6), (16, 8, 8, 6))
  whole, split = sharding.replicated(mesh), sharding.split_batch(mesh)
  function = jax.jit(
    lambda *arrays: pulled_back(onednn_ops, *arrays),
    in_shardings=(split, whole, split),
    out_shardings=(split, split, whole),
  )
  with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    compiled = function.lower(*inputs).compile()
  text = compiled.as_text()
  assert text.count('all-reduce(') == 1  # of the kernel's gradient
  assert 'all-gather' not in text
  assert_close(
    compiled(*inputs), pulled_back(native_ops, *inputs), TOLERANCE['float32']
  )


def test_norms_are_over_the_images_of_all_devices():
  mesh = sharding.make_mesh()
  inputs = draw_norm((16, 4, 4, 8), 'float32')
  whole, split = sharding.replicated(mesh), sharding.split_batch(mesh)

  def both(ops):
    def function(x, scale, bias, shortcut, grad):
      grads = [grad, jnp.zeros_like(scale), jnp.zeros_like(scale)]
      normed = norm_pulled_back(ops, x, scale, bias, shortcut, grads)
      return *normed, *pool_pulled_back(ops, x, grad[:, ::2, ::2])

    return function

  arrays = (*inputs[:4], inputs[4][0])
  function = jax.jit(both(onednn_ops), in_shardings=(split, whole, whole, split, split))
  with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    compiled = function.lower(*arrays).compile()
  text = compiled.as_text()
  assert text.count('all-reduce(') == 2  # of the statistics and of the gradient's sums
  assert 'all-gather' not in text
  assert_close(compiled(*arrays), both(native_ops)(*arrays), TOLERANCE['float32'])


@pytest.mark.parametrize('devices', [1, 4])
def test_groups_of_images_have_norms_of_their_own(devices):
  mesh = sharding.make_mesh(devices)
  layer = BatchNorm(train=True, ghost_batch=4, ops='onednn')
  native = BatchNorm(train=True, ghost_batch=4)
  (x,) = draw(0, (16, 4, 4, 8))
  variables = native.init(jax.random.key(0), x)

  def run(layer, x):
    return layer.apply(variables, x, mutable='batch_stats')

  x = jax.device_put(x, sharding.split_batch(mesh))
  with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    ours = jax.jit(run, static_argnums=0)(layer, x)
  expected = run(native, x)
  assert_close(jax.tree.leaves(ours), jax.tree.leaves(expected), TOLERANCE['float32'])


def test_cells_that_are_packed_have_kernels_of_their_own():
  inputs = draw(3, (3, 4, 6, 6, 8), (3, 3, 3, 8, 5), (3, 4, 6, 6, 5))
  ours = jax.jit(jax.vmap(lambda *each: pulled_back(onednn_ops, *each)))(*inputs)
  for i in range(3):
    expected = pulled_back(native_ops, *(array[i] for array in inputs))
    assert_close([each[i] for each in ours], expected, TOLERANCE['float32'])
  x, grad = inputs[0], inputs[0][:, :, ::2, ::2]
  scale, bias = draw(4, (3, 8), (3, 8))

  def normed(ops, x, scale, bias, grad):
    grads = (x, jnp.zeros_like(scale), jnp.zeros_like(scale))
    return *norm_pulled_back(ops, x, scale, bias, x, grads), *pool_pulled_back(
      ops, x, grad
    )

  inputs = x, scale, bias, grad
  ours = jax.jit(jax.vmap(lambda *each: normed(onednn_ops, *each)))(*inputs)
  for i in range(3):
    expected = normed(native_ops, *(array[i] for array in inputs))
    assert_close([each[i] for each in ours], expected, TOLERANCE['float32'])


@pytest.fixture(scope='module')
def config(tiny_config):
  return tiny_config(SCHEDULE | {'model.ops': 'onednn', 'train.ema_decay': 0.9})


@pytest.fixture(scope='module')
def undisturbed(config, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('undisturbed')
  train(config, workdir)
  return workdir


def test_a_run_stopped_and_resumed_ends_equal(config, undisturbed, tmp_path):
  for calls in (5, 2):
    with pytest.raises(Stopped):
      train(config, tmp_path, should_stop=stop_after(calls))
  train(config, tmp_path)
  assert_same_run(config, tmp_path, undisturbed)
  manifest = json.loads((tmp_path / 'manifest.json').read_text())
  assert 'onednn-cpu-gomp' in manifest['versions']


@pytest.mark.parametrize('scan', [False, True])
def test_a_run_is_that_of_the_other_forms(scan, tiny_config, tmp_path):
  for ops in ('onednn', 'native'):
    fields = {'model.ops': ops, 'model.scan': scan, 'model.depth': 14}
    train(tiny_config(SCHEDULE | fields), tmp_path / ops)
  found, expected = (rows_of(tmp_path / ops) for ops in ('onednn', 'native'))
  for row, other in zip(found, expected, strict=True):
    # Twelve float32 updates.
    assert row == pytest.approx(other, rel=1e-3, abs=1e-3)


def test_two_cells_are_trained_side_by_side(config, undisturbed, tmp_path):
  pack, other = Pack(2), config.copy_and_resolve_references()
  other.seed = 7
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    futures = [
      pool.submit(train, each, tmp_path / str(each.seed), pack=pack)
      for each in (config, other)
    ]
    [future.result() for future in futures]
  rows = rows_of(tmp_path / str(config.seed))
  for row, expected in zip(rows, rows_of(undisturbed), strict=True):
    assert row == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_it_is_built_once_and_by_several_at_a_time(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  with concurrent.futures.ThreadPoolExecutor(3) as pool:
    paths = set(pool.map(lambda _: onednn.build(), range(3)))
  (path,) = paths
  assert list((tmp_path / 'scaling').iterdir()) == [path]  # nothing is left behind
  written = path.stat().st_mtime_ns
  assert onednn.build() == path
  assert path.stat().st_mtime_ns == written


def test_what_is_missing_is_named(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  monkeypatch.setenv('CXX', 'g++ -include absent.h')
  with pytest.raises(UserError, match=r'compiled by g\+\+ -include absent.h: .*absent'):
    onednn.build()
  monkeypatch.delenv('CXX')
  monkeypatch.setenv('PATH', str(tmp_path))
  with pytest.raises(
    UserError, match=r'needs a C\+\+ compiler .*apt-get install g\+\+'
  ):
    onednn.build()

  def absent(name):
    raise importlib.metadata.PackageNotFoundError(name)

  monkeypatch.setattr(importlib.metadata, 'files', absent)
  with pytest.raises(UserError, match=r"pip install 'scaling\[onednn\]'"):
    onednn.build()
