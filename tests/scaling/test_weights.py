"""Weights in files: there and back, and what is said of files that do not fit."""

import json
import re

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from configs import base
from scaling import config as config_lib
from scaling import models, weights
from scaling.errors import UserError


def make(name, depth, width, size=32, classes=10, **fields):
  config = base.get_config()
  config.data.image_size, config.data.num_classes = size, classes
  config.model.update(dict(name=name, depth=depth, width=width, **fields))
  config_lib.check(config)
  return config


def resnet(depth=18, width=4, **fields):
  return make('resnet', depth, width, form='imagenet', **fields)


def assert_equal(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    assert (type(a), a.dtype) == (np.ndarray, np.float32)
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
  ('config', 'name'),
  [
    (resnet(18), 'layer1.0.conv1.weight'),
    (resnet(50, bottleneck_factor=2), 'layer4.0.downsample.1.running_var'),
    (make('bit', 14, 32), 'resnet/block1/unit01/a/standardized_conv2d/kernel'),
    (make('resnet', 8, 4), 'params/stage1_block1/Conv_0/kernel'),
    (make('vit', 2, 32, heads=2, positions='learnt', pool='token'), 'params/token'),
    (make('xception', 15, 4), 'batch_stats/stem1_norm/mean'),
  ],
  ids=lambda value: f'{value.model.name}' if hasattr(value, 'model') else None,
)
def test_there_and_back_every_leaf_is_equal(config, name, random_variables, tmp_path):
  variables = random_variables(models.build(config))
  paths = {tmp_path / 'weights.npz', tmp_path / 'weights.safetensors'}
  for path in paths:
    assert name in weights.write_weights(path, config, variables)
    assert_equal(weights.read_weights(path, config), variables)
  assert set(tmp_path.iterdir()) == paths


def test_stacked_blocks_and_outputs_that_fill_the_head_up_stay_at_home(
  random_variables, tmp_path
):
  path = tmp_path / 'weights.safetensors'
  ours = resnet(34, classes=7, head_multiple=8, head_bias=-10.0, scan=True)
  variables = random_variables(models.build(ours))
  weights.write_weights(path, ours, variables)
  assert safetensors.numpy.load_file(path)['fc.weight'].shape == (7, 32)
  variables['params']['head']['kernel'][:, 7] = 0
  variables['params']['head']['bias'][7] = -10
  assert_equal(
    weights.read_weights(path, ours), jax.device_get(models.unstack(variables))
  )
  theirs = weights.read_weights(path, resnet(34, classes=7))
  assert theirs['params']['head']['kernel'].shape == (32, 7)


def test_a_file_says_what_made_it(random_variables, tmp_path):
  path, config = tmp_path / 'weights.safetensors', make('bit', 14, 32)
  weights.write_weights(path, config, random_variables(models.build(config)))
  with safetensors.safe_open(path, 'np') as file:
    about = file.metadata()
  assert (about['network'], about['names']) == ('bit14', 'big_transfer')
  assert json.loads(about['config']) == config_lib.plain(config)
  assert json.loads(about['versions'])['numpy'] == np.__version__


@pytest.mark.parametrize('dtype', [np.float16, ml_dtypes.bfloat16])
def test_halves_are_widened(dtype, random_variables, tmp_path):
  path, config = tmp_path / 'weights.safetensors', make('bit', 14, 32)
  halves = jax.tree.map(
    lambda leaf: leaf.astype(dtype), random_variables(models.build(config))
  )
  weights.write_weights(path, config, halves)
  assert safetensors.numpy.load_file(path)['resnet/group_norm/gamma'].dtype == dtype
  expected = jax.tree.map(lambda leaf: leaf.astype(np.float32), halves)
  assert_equal(weights.read_weights(path, config), expected)


@pytest.fixture
def written(request, random_variables, tmp_path):
  """A file of a ResNet-18 and its arrays as they lie there."""
  path = tmp_path / f'weights.{getattr(request, "param", "safetensors")}'
  config = resnet()
  weights.write_weights(path, config, random_variables(models.build(config)))
  return path, arrays_of(path)


def arrays_of(path):
  if path.suffix == '.npz':
    return dict(np.load(path))
  return safetensors.numpy.load_file(path)


@pytest.mark.parametrize(
  ('config', 'message'),
  [
    (
      resnet(width=8),
      'layer1.0.conv1.weight (params/stage1_block1/Conv_0/kernel) is [4, 4, 3, 3] there '
      'and [8, 8, 3, 3] here; set the fields of model to those of the file',
    ),
    (
      resnet(34),
      'layer1.2.conv1.weight (params/stage1_block3/Conv_0/kernel) is absent there and '
      '[4, 4, 3, 3] here; set the fields',
    ),
    (
      resnet(50),
      'layer1.0.conv1.weight (params/stage1_block1/Conv_0/kernel) is [4, 4, 3, 3] there '
      'and [4, 4, 1, 1] here; set the fields',
    ),
    (
      make('resnet', 8, 4),
      'params/stage1_block1/Conv_0/kernel is absent there and [3, 3, 4, 4] here',
    ),
    (
      resnet(classes=12),
      'fc.weight (params/head/kernel) is [10, 32] there and [12, 32] here; all but the '
      'head fits, and a new one could take its place',
    ),
  ],
)
def test_the_file_of_another_network_is_refused_by_its_first_difference(
  written, config, message
):
  with pytest.raises(UserError, match=re.escape(message)) as error:
    weights.read_weights(written[0], config)
  assert str(error.value).startswith(f'{written[0]} holds another network: ')


def test_a_file_with_more_or_less_than_the_network_is_refused(written):
  path, arrays = written
  more = arrays | {'layer1.2.conv1.weight': np.zeros((4, 4, 3, 3))}
  safetensors.numpy.save_file(more, path)
  with pytest.raises(UserError, match=r'layer1.2.conv1.weight is \[4, .* and absent'):
    weights.read_weights(path, resnet())
  less = {k: v for k, v in arrays.items() if k != 'bn1.running_var'}
  safetensors.numpy.save_file(less, path)
  with pytest.raises(UserError, match=r'bn1.running_var \(.*norm/var\) is absent'):
    weights.read_weights(path, resnet())


def test_a_new_head_takes_the_place_of_any_or_none(written):
  path, arrays = written
  old = weights.read_weights(path, resnet())
  config = resnet(classes=3, head_bias=-10.0, head_multiple=2)
  for there in (arrays, {k: v for k, v in arrays.items() if k[:3] != 'fc.'}):
    safetensors.numpy.save_file(there, path)
    found = weights.read_weights(path, config, head='new')
    head = {
      'bias': np.full(4, -10, np.float32),
      'kernel': np.zeros((32, 4), np.float32),
    }
    assert_equal(found, old | {'params': old['params'] | {'head': head}})


@pytest.mark.parametrize('written', ['safetensors', 'npz'], indirect=True)
@pytest.mark.parametrize('how', ['truncated', 'of another kind', 'empty', 'missing'])
def test_a_file_that_cannot_be_read_is_named(written, how):
  path, _ = written
  content = path.read_bytes()
  message = f'^{re.escape(str(path))} cannot be read as .*; is it whole'
  if how == 'missing':
    path.unlink()
    message = f'^there is no {re.escape(str(path))}$'
  else:
    path.write_bytes(
      {
        'truncated': content[:-100],
        'of another kind': b'weights, in words',
        'empty': b'',
      }[how]
    )
  with pytest.raises(UserError, match=message):
    weights.read_weights(path, resnet())


@pytest.mark.parametrize('written', ['safetensors', 'npz'], indirect=True)
def test_a_failed_write_leaves_what_was_there(written, random_variables, monkeypatch):
  path, arrays = written
  variables = random_variables(models.build(resnet()))

  def fail(*_, **__):
    raise OSError('no space left on device')

  with pytest.raises(UserError, match=r'pt must end in \.safetensors or \.npz'):
    weights.write_weights(path.with_suffix('.pt'), resnet(), variables)
  monkeypatch.setattr(np, 'savez', fail)
  monkeypatch.setattr(safetensors.numpy, 'save_file', fail)
  with pytest.raises(OSError, match='no space'):
    weights.write_weights(path, resnet(), variables)
  assert list(path.parent.iterdir()) == [path]
  assert arrays_of(path).keys() == arrays.keys()
