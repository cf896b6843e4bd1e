"""What each kind of network may be: its depths, widths and image sizes.

Apart from `scaling.models`, so that a config is checked before flax is loaded.
"""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from scaling.errors import UserError

# Of the two forms of a ResNet and of the others: depths that exist, by how much the
# strides divide an image's side, what the width is a multiple of and why, and the width
# to try things with.
DEPTHS: dict[str, Sequence[int]] = {
  'small': (8, 14, 20, 32, 44, 56, 110),
  'imagenet': (18, 34, 50, 101, 152),
  'bit': (14, 26, 50, 101, 152),
  'vit': range(1, 1000),
  'xception': range(15, 1000, 3),
}
_STRIDES = {'small': 4, 'imagenet': 32, 'bit': 32, 'xception': 32}
_WIDTHS = {
  'bit': (32, 'group norm has 32 groups'),
  'xception': (4, 'the middle flow is 22.75 times as wide'),
}
_SMALLEST = {'small': 8, 'imagenet': 8, 'bit': 32, 'vit': 32, 'xception': 4}


def kind(model: ConfigDict) -> str:
  """Returns the name of the network; of a ResNet its form."""
  return model.form if model.name == 'resnet' else model.name


def heads(model: ConfigDict) -> int:
  """Returns the attention heads of a ViT."""
  return model.heads or model.width // 64


def check(config: ConfigDict) -> None:
  """Checks that the network exists and that the images fit it.

  Raises:
    UserError: naming the field, its value and the way out.
  """
  model, size = config.model, config.data.image_size
  name = kind(model)
  depths = DEPTHS[name]
  if model.depth not in depths:
    known = ', '.join(map(str, depths[:10])) + (', ...' if len(depths) > 10 else '')
    raise UserError(
      f'model.depth={model.depth} is no depth of the {_called(model)}; use {known}'
    )
  if name in _WIDTHS:
    _check_multiple('model.width', model.width, *_WIDTHS[name])
  if model.bottleneck_factor != 1 and (name != 'imagenet' or model.depth < 50):
    raise UserError(
      f'model.bottleneck_factor={model.bottleneck_factor} is for the imagenet form '
      'from depth 50 on, which has bottlenecks; use 1'
    )
  if model.scan and model.name != 'resnet':
    raise UserError(
      f'model.scan=True is for a resnet, whose stages repeat a block, and not for '
      f'model.name={model.name}; leave it out'
    )
  _check_ghost_batch(config)
  if name == 'vit':
    _check_vit(model, size)
  elif size < _STRIDES[name]:
    way_out = ', or model.form=small' if name == 'imagenet' else ''
    raise UserError(
      f'data.image_size={size} is too small for the {_called(model)}, whose strides '
      f'divide it by {_STRIDES[name]}; use {_STRIDES[name]} or more{way_out}'
    )


def _check_ghost_batch(config: ConfigDict) -> None:
  model, train = config.model, config.train
  if not model.ghost_batch:
    return
  if model.name not in ('resnet', 'xception'):
    raise UserError(
      f'model.ghost_batch={model.ghost_batch} is for networks with batch norm, and '
      f'model.name={model.name} has none; use 0'
    )
  rows = train.batch_size // train.accumulate_steps
  if rows % model.ghost_batch:
    fits = [n for n in range(1, rows + 1) if rows % n == 0]
    below = max(n for n in fits if n < model.ghost_batch)
    above = [n for n in fits if n > model.ghost_batch][:1]
    parts = ' part' if train.accumulate_steps > 1 else ''
    raise UserError(
      f'model.ghost_batch={model.ghost_batch} does not divide the {rows} images of a '
      f'batch{parts}; use {" or ".join(map(str, [below, *above]))}'
    )


def _called(model: ConfigDict) -> str:
  return f'{model.form} form' if model.name == 'resnet' else f'{model.name} network'


def _check_vit(model: ConfigDict, size: int) -> None:
  patches = f'patches are of model.patch_size={model.patch_size}'
  _check_multiple(
    'data.image_size', size, model.patch_size, patches, 'set model.patch_size'
  )
  if model.heads == 0:
    _check_multiple(
      'model.width', model.width, 64, 'heads are of 64 channels', 'set model.heads'
    )
  else:
    why = f'there are model.heads={model.heads}'
    _check_multiple('model.width', model.width, model.heads, why)
  if model.positions == 'sincos':
    why = 'sines and cosines need two channels for each axis'
    _check_multiple('model.width', model.width, 4, why, 'set model.positions=learnt')


def _check_multiple(
  name: str, value: int, factor: int, why: str, otherwise: str = ''
) -> None:
  if value % factor == 0:
    return
  below = value // factor * factor
  near = [str(number) for number in (below, below + factor) if number]
  raise UserError(
    f'{name}={value} is no multiple of {factor} ({why}); use {" or ".join(near)}'
    + (f', or {otherwise}' if otherwise else '')
  )


def smallest(model: ConfigDict) -> dict[str, Any]:
  """Returns the fields that make the network as small as its kind can be.

  The image size among them is the largest that is quick to try.
  """
  name = kind(model)
  fields = {
    'model.depth': min(DEPTHS[name]),
    'model.width': _SMALLEST[name],
    'model.bottleneck_factor': 1,
    'data.image_size': 32,
  }
  if name == 'vit':
    patches = max(1, 32 // model.patch_size)
    fields |= {
      'model.heads': 2,
      'model.mlp_dim': 0,
      'data.image_size': patches * model.patch_size,
    }
  return fields
