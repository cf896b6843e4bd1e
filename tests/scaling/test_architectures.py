"""The kinds of networks: published sizes, what they share, and what is refused."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from scaling import architectures, cost, models, optim, step, weight_names
from scaling import config as config_lib
from scaling.errors import UserError

pytestmark = pytest.mark.usefixtures('quick_compile')


def make(name, depth, width, size=224, **fields):
  config = base.get_config()
  config.data.image_size = size
  config.model.update(dict(name=name, depth=depth, width=width, **fields))
  return config


_WIDE = functools.partial(make, 'resnet', form='imagenet', bottleneck_factor=2)
_VIT = functools.partial(make, 'vit', positions='learnt', pool='token')


# Parameters of 1000-class networks as their authors' or torchvision's documentation has
# them, and as timm 1.0.31's and torchvision 0.28's networks of these names count. FLOPs
# are those that PyTorch's FlopCounterMode counts on timm's networks: two for each
# multiply-add of convolutions and products, padding included, nothing for the rest.
# timm's lists of multiply-adds, which count norms too, are up to 4% above them.
@pytest.mark.parametrize(
  ('config', 'params', 'flops'),
  [
    (_WIDE(50, 64), 68_883_240, 22_796_042_240),  # torchvision wide_resnet50_2
    (_WIDE(101, 64), 126_886_696, 45_506_101_248),  # torchvision wide_resnet101_2
    (make('bit', 50, 64), 25_549_352, 8_178_368_512),  # timm resnetv2_50x1_bit
    (make('bit', 50, 3 * 64), 217_319_080, 72_164_573_184),
    (make('bit', 101, 64), 44_541_480, 15_602_810_880),
    (make('bit', 101, 3 * 64), 387_934_888, 138_984_554_496),
    (make('bit', 152, 2 * 64), 236_335_208, 91_628_765_184),
    (make('bit', 152, 4 * 64), 936_533_224, 365_554_565_120),
    (_VIT(12, 192), 5_717_416, 2_507_366_400),  # timm vit_tiny_patch16_224
    (_VIT(12, 384), 22_050_664, 9_197_764_608),  # timm vit_small_patch16_224
    (_VIT(12, 384, patch_size=32), 22_878_952, 2_285_819_904),
    (_VIT(12, 768), 86_567_656, 35_127_656_448),  # torchvision vit_b_16
    (_VIT(24, 1024), 304_326_632, 123_109_425_152),  # torchvision vit_l_16
    # Keras: 22,910,480 with the running statistics; 22,855,952 in Chollet (2017), table
    # 3. At 299 pixels, as there; timm legacy_xception.
    (make('xception', 36, 32, 299), 22_855_952, 16_714_806_992),
  ],
  ids=lambda value: f'{value.model.name}' if hasattr(value, 'model') else None,
)
def test_parameters_and_flops_are_the_published_to_the_last_digit(
  config, params, flops
):
  config.data.num_classes = 1000
  config_lib.check(config)
  assert cost.num_params(config) == params
  assert cost.forward_flops(config) == flops


# torchvision's vit_b_32 and vit_l_32.
@pytest.mark.parametrize(
  ('depth', 'width', 'params'), [(12, 768, 88_224_232), (24, 1024, 306_535_400)]
)
def test_parameters_of_vits_with_patches_of_32(depth, width, params):
  config = _VIT(depth, width, patch_size=32)
  config.data.num_classes = 1000
  assert cost.num_params(config) == params


def test_flops_of_depthwise_convolutions_counted_by_hand():
  config = make('xception', 15, 4, 32)
  shapes = [  # side of the output, taps a channel, channels of the output
    (15, 9 * 3, 4),
    (13, 9 * 4, 8),
    *((13, 9, 8), (13, 8, 16), (13, 9, 16), (13, 16, 16), (7, 8, 16)),
    *((7, 9, 16), (7, 16, 32), (7, 9, 32), (7, 32, 32), (4, 16, 32)),
    *((4, 9, 32), (4, 32, 91), (4, 9, 91), (4, 91, 91), (2, 32, 91)),
    *((2, 9, 91), (2, 91, 91)) * 3,
    *((2, 9, 91), (2, 91, 91), (2, 9, 91), (2, 91, 128), (1, 91, 128)),
    *((1, 9, 128), (1, 128, 192), (1, 9, 192), (1, 192, 256), (1, 256, 10)),
  ]
  expected = 2 * sum(side**2 * taps * channels for side, taps, channels in shapes)
  assert cost.forward_flops(config) == expected


def test_parts_of_bit_are_those_of_the_published_files():
  config = make('bit', 50, 64)
  params = jax.eval_shape(models.build(config).init, jax.random.key(0))['params']
  found = {}
  for keys, leaf in jax.tree_util.tree_leaves_with_path({'params': params}):
    path = jax.tree_util.keystr(keys, simple=True, separator='/')
    place = weight_names.big_transfer(path, leaf.ndim)
    found[place.name.removeprefix('resnet/')] = place.shape(leaf.shape)
  # As big_transfer's PyTorch code reads them.
  expected: dict[str, tuple[int, ...]] = {
    'root_block/standardized_conv2d/kernel': (7, 7, 3, 64),
    'group_norm/gamma': (2048,),
    'group_norm/beta': (2048,),
    'head/conv2d/kernel': (1, 1, 2048, 10),
    'head/conv2d/bias': (10,),
  }
  channels = 64
  for i, units in enumerate((3, 4, 6, 3)):
    inner = 64 * 2**i
    for j in range(units):
      at = f'block{i + 1}/unit{j + 1:02d}'
      if j == 0:
        shape = (1, 1, channels, 4 * inner)
        expected[f'{at}/a/proj/standardized_conv2d/kernel'] = shape
      for layer, size, before, after in (
        ('a', 1, channels, inner),
        ('b', 3, inner, inner),
        ('c', 1, inner, 4 * inner),
      ):
        shape = (size, size, before, after)
        expected[f'{at}/{layer}/standardized_conv2d/kernel'] = shape
        expected[f'{at}/{layer}/group_norm/gamma'] = (before,)
        expected[f'{at}/{layer}/group_norm/beta'] = (before,)
      channels = 4 * inner
  assert found == expected


TINY = {
  'resnet': make('resnet', 8, 4, 16),
  'bit': make('bit', 14, 32, 32),
  'vit': make('vit', 2, 32, 16, heads=2, patch_size=8),
  'vit token': make(
    'vit', 2, 32, 16, heads=2, patch_size=8, positions='learnt', pool='token'
  ),
  'xception': make('xception', 15, 4, 32),
}


@pytest.mark.parametrize('name', TINY)
def test_every_parameter_has_a_gradient_and_evaluation_none_but_its_image(
  name, random_variables
):
  config = TINY[name]
  config_lib.check(config)
  model = models.build(config)
  variables = random_variables(model)
  size = config.data.image_size
  images = np.random.default_rng(1).normal(size=(4, size, size, 3)).astype(np.float32)
  weights = np.random.default_rng(2).normal(size=(4, 10)).astype(np.float32)

  @jax.jit
  def gradients(params):
    def value(params):
      logits, _ = model.apply(variables | {'params': params}, images, True)
      return (logits * weights).sum()

    return jax.grad(value)(params)

  for path, leaf in jax.tree_util.tree_leaves_with_path(gradients(variables['params'])):
    assert np.isfinite(leaf).all(), path
    if [key.key for key in path[-2:]] == ['key', 'bias']:
      # Adds the same to a query's products with all keys, which a softmax ignores.
      assert np.abs(leaf).max() < 1e-5  # float32 sums of terms near 1
    else:
      assert np.any(leaf), path

  evaluate = jax.jit(lambda images: model.apply(variables, images, False)[0])
  logits = evaluate(images)
  assert (logits.shape, logits.dtype) == ((4, 10), jnp.float32)
  np.testing.assert_array_equal(logits, evaluate(images))
  others = np.concatenate([images[:2], -images[2:]])
  # The same sums for each image; only the compiler's blocking may differ: float32.
  np.testing.assert_allclose(logits[:2], evaluate(others)[:2], rtol=1e-5, atol=1e-5)
  assert not np.allclose(logits[2:], evaluate(others)[2:], rtol=1e-2)


@pytest.mark.parametrize('name', ['bit', 'vit token', 'xception'])
def test_a_tiny_network_learns_in_bfloat16_with_float32_parameters(name):
  config = TINY[name].copy_and_resolve_references()
  config.model.dtype = 'bfloat16'
  config.train.batch_size = 8
  config.optim.lr = 0.02
  state = jax.jit(functools.partial(step.init, config))(jax.random.key(0))
  update = jax.jit(functools.partial(step.train_step, config))
  rng, size = np.random.default_rng(3), config.data.image_size
  batch = {
    'image': rng.integers(0, 256, (8, size, size, 3), np.uint8),
    'labels': np.arange(8, dtype=np.int32)[:, None],
    'id': np.zeros((8, 2), np.uint32),
    'epoch': np.zeros(8, np.uint32),
  }
  schedule = optim.make_schedule(config, 100)
  seen = []
  for _ in range(15):
    state, values = update(state, batch, jax.random.key(1), schedule)
    seen.append(float(values['loss']))
  # The head starts at zero, so all ten classes are equally likely, up to rounding.
  assert seen[0] == pytest.approx(math.log(10), rel=1e-6)
  assert min(seen[-3:]) < 0.7 * seen[0]
  assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype('f4')}


@pytest.mark.parametrize('form', architectures.DEPTHS)
def test_each_depth_passes_and_the_next_does_not(form):
  name, fields = form, {}
  if form in ('small', 'imagenet'):
    name, fields = 'resnet', {'form': form}
  depths = list(architectures.DEPTHS[form])
  for depth in (*depths[:5], depths[-1]):
    config_lib.check(make(name, depth, 64, **fields))
  for depth in (min(depths) - 1, max(depths) + 1, 0, -1):
    with pytest.raises(UserError, match=f'^model.depth={depth} is no depth'):
      config_lib.check(make(name, depth, 64, **fields))


@pytest.mark.parametrize(
  ('config', 'message'),
  [
    (
      make('resnet', 8, 16, 3),
      'data.image_size=3 is too small for the small form, whose strides divide it by '
      '4; use 4 or more',
    ),
    (
      make('resnet', 50, 64, 28, form='imagenet'),
      'data.image_size=28 is too small for the imagenet form, whose strides divide it '
      'by 32; use 32 or more, or model.form=small',
    ),
    (
      make('bit', 50, 64, 31),
      'data.image_size=31 is too small for the bit network, whose strides divide it by '
      '32; use 32 or more',
    ),
    (
      make('xception', 36, 32, 16),
      'data.image_size=16 is too small for the xception network, whose strides divide '
      'it by 32; use 32 or more',
    ),
    (
      make('vit', 12, 384, 100),
      'data.image_size=100 is no multiple of 16 (patches are of model.patch_size=16); '
      'use 96 or 112, or set model.patch_size',
    ),
    (
      make('vit', 12, 384, 8),
      'data.image_size=8 is no multiple of 16 (patches are of model.patch_size=16); '
      'use 16, or set model.patch_size',
    ),
    (
      make('vit', 12, 100),
      'model.width=100 is no multiple of 64 (heads are of 64 channels); use 64 or 128, '
      'or set model.heads',
    ),
    (
      make('vit', 12, 100, heads=3),
      'model.width=100 is no multiple of 3 (there are model.heads=3); use 99 or 102',
    ),
    (
      make('vit', 12, 6, heads=3),
      'model.width=6 is no multiple of 4 (sines and cosines need two channels for each '
      'axis); use 4 or 8, or set model.positions=learnt',
    ),
    (
      make('bit', 50, 80),
      'model.width=80 is no multiple of 32 (group norm has 32 groups); use 64 or 96',
    ),
    (
      make('xception', 36, 30),
      'model.width=30 is no multiple of 4 (the middle flow is 22.75 times as wide); '
      'use 28 or 32',
    ),
    (
      make('xception', 35, 32),
      'model.depth=35 is no depth of the xception network; use 15, 18, 21, 24, 27, 30, '
      '33, 36, 39, 42, ...',
    ),
    (
      make('resnet', 34, 64, form='imagenet', bottleneck_factor=2),
      'model.bottleneck_factor=2 is for the imagenet form from depth 50 on, which has '
      'bottlenecks; use 1',
    ),
    (
      make('bit', 50, 64, bottleneck_factor=2),
      'model.bottleneck_factor=2 is for the imagenet form from depth 50 on, which has '
      'bottlenecks; use 1',
    ),
  ],
)
def test_what_does_not_fit_is_named_with_its_way_out(config, message):
  with pytest.raises(UserError) as error:
    config_lib.check(config)
  assert str(error.value) == message


@pytest.mark.parametrize(
  'config',
  [
    make('resnet', 20, 16),
    make('resnet', 101, 64, form='imagenet', bottleneck_factor=2),
    make('bit', 152, 256),
    make('vit', 24, 1024, patch_size=14, mlp_dim=4096),
    make('vit', 12, 384, patch_size=56),
    make('xception', 36, 32, 299),
  ],
)
def test_the_smallest_of_a_kind_is_one(config):
  fields = architectures.smallest(config.model)
  assert 16 < fields['data.image_size'] <= 56
  config.update_from_flattened_dict(fields)
  config_lib.check(config)
  assert cost.num_params(config) < 3e6
