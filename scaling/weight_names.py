"""How others name and lay out the arrays of our networks, and how we do.

torchvision: the attributes of its `models/resnet.py`, which timm's ResNets of the same
names share; kernels are `[out, in, height, width]` and `[out, in]`. big_transfer: the
published files of BiT, whose layout is ours but for the head, a convolution there. In our
own names a leaf is called by its path, such as `params/block01/query/kernel`.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict


class Place(NamedTuple):
  """Where a leaf of ours lies in a file.

  Attributes:
    name: of the array there.
    axes: ours, in the order that they have there.
    ones: how many axes of length one it has there before them.
  """

  name: str
  axes: tuple[int, ...]
  ones: int = 0

  def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape there of a leaf of this shape here."""
    return (1,) * self.ones + tuple(ours[axis] for axis in self.axes)

  def put(self, leaf: np.ndarray) -> np.ndarray:
    """Returns a leaf as it lies there."""
    return np.ascontiguousarray(leaf.transpose(self.axes)).reshape(
      self.shape(leaf.shape)
    )

  def take(self, array: np.ndarray) -> np.ndarray:
    """The inverse of `put`."""
    return array.reshape(array.shape[self.ones :]).transpose(np.argsort(self.axes))


# From the path of a leaf and its number of axes.
Naming = Callable[[str, int], Place]


def torchvision(path: str, ndim: int) -> Place:
  """Returns where torchvision and timm have a leaf of an imagenet ResNet."""
  _, layer, *inner, leaf = path.split('/')
  if inner:
    stage, block = map(int, re.findall(r'\d+', layer))
    layer = f'layer{stage}.{block - 1}.' + re.sub(
      r'(Conv|BatchNorm)_(\d)',
      lambda found: _LAYERS[found[1]] + str(int(found[2]) + 1),
      _LAYERS.get(inner[0], inner[0]),
    )
  else:
    layer = _LAYERS[layer]
  axes = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}[ndim]
  return Place(f'{layer}.{_LEAVES[leaf]}', axes)


_LAYERS = {
  'stem': 'conv1',
  'stem_norm': 'bn1',
  'head': 'fc',
  'shortcut': 'downsample.0',
  'shortcut_norm': 'downsample.1',
  'Conv': 'conv',
  'BatchNorm': 'bn',
}
_LEAVES = {
  'kernel': 'weight',
  'scale': 'weight',
  'bias': 'bias',
  'mean': 'running_mean',
  'var': 'running_var',
}


def big_transfer(path: str, ndim: int) -> Place:
  """Returns where the published files have a leaf of a BiT."""
  _, *layers, leaf = path.split('/')
  axes = tuple(range(ndim))
  if layers == ['head']:
    return Place(f'resnet/head/conv2d/{leaf}', axes, ones=2 if ndim == 2 else 0)
  leaf = {'scale': 'gamma', 'bias': 'beta'}.get(leaf, leaf)
  name = '/'.join([*layers[:-1], '']).replace('_', '/')
  part, _, kind = layers[-1].rpartition('_')
  part = {'': '', 'root': 'root_block/', 'proj': 'a/proj/'}.get(part, f'{part}/')
  kind = {'conv': 'standardized_conv2d', 'norm': 'group_norm'}[kind]
  return Place(f'resnet/{name}{part}{kind}/{leaf}', axes)


def canonical(name: str) -> str:
  """Returns the name to know an array of a file by, or '' for what nobody here needs.

  Some files of BiT number their convolutions. torch counts the batches that a batch norm
  saw, for a way of averaging that is not ours.
  """
  if name.endswith('.num_batches_tracked'):
    return ''
  return re.sub(r'/standardized_conv2d_\d+/', '/standardized_conv2d/', name)


def own(path: str, ndim: int) -> Place:
  """Returns where files in our own names have a leaf."""
  return Place(path, tuple(range(ndim)))


def public(model: ConfigDict) -> Naming:
  """Returns the names that a network is published in, or else our own."""
  if model.name == 'resnet' and model.form == 'imagenet':
    return torchvision
  return big_transfer if model.name == 'bit' else own
