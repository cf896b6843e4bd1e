"""What a resolved config says: its checks, its identity and the values derived from it.

A config holds what makes a cell the cell it is, so its hash is the cell's identity.
Derived values are functions here rather than fields, so that they cannot disagree.
"""

import difflib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from scaling import architectures
from scaling.errors import UserError

_CHOICES = {
  'data.source': (
    'digits',
    'tfds',
    'array_record',
    'tar',
    'folder',
    'csv',
    'idx',
    'made_up',
    'procedural',
  ),
  'data.subset': ('uniform', 'balanced'),
  'data.corrupt': ('stop', 'skip'),
  'data.procedural.wrong_among': ('siblings', 'all'),
  'init.part': ('weights', 'state'),
  'init.head': ('new', 'kept'),
  'model.name': ('resnet', 'bit', 'vit', 'xception'),
  'model.form': ('small', 'imagenet'),
  'model.dtype': ('float32', 'bfloat16'),
  'model.ops': ('auto', 'native', 'cpu', 'onednn'),
  'model.positions': ('sincos', 'learnt'),
  'model.pool': ('mean', 'token'),
  'train.loss': ('softmax', 'sigmoid'),
  'optim.name': ('sgd', 'rmsprop', 'adamw', 'lars', 'lamb'),
  'optim.schedule': (
    'cosine',
    'linear',
    'step',
    'exponential',
    'rsqrt',
    'constant',
  ),
  'checkpoint.best': (
    'none',
    'test/top1',
    'test/top5',
    'test/loss',
    'test/map100',
    'test/weighted_map100',
  ),
}
_POSITIVE = (
  'data.num_classes',
  'data.max_labels',
  'data.merge_classes',
  'data.image_size',
  'data.channels',
  'model.width',
  'model.bottleneck_factor',
  'model.head_multiple',
  'model.patch_size',
  'train.batch_size',
  'train.accumulate_steps',
  'log.every_steps',
  'log.eval_batch_size',
  'checkpoint.keep',
  'optim.decay_images',
  'optim.decay_rate',
  'optim.timescale',
  'transfer.draws',
  'transfer.num_classes',
  'optim.eps',
  'optim.rms_eps',
  'optim.trust',
)
_NOT_NEGATIVE = (
  'data.num_images',
  'data.pad_crop',
  'model.heads',
  'model.mlp_dim',
  'model.ghost_batch',
  'log.eval_every_steps',
  'checkpoint.every_steps',
  'checkpoint.every_seconds',
  'checkpoint.keep_every_steps',
  'init.step',
  'transfer.probe_images',
  'optim.lr',
  'optim.weight_decay',
  'optim.clip_norm',
  'optim.warmup_steps',
  'train.mixup',
)
_SHARES = (
  'data.min_crop_area',
  'train.label_smoothing',
  'train.ema_decay',
  'optim.momentum',
  'optim.rms_decay',
  'optim.b2',
  'optim.warmup_fraction',
  'optim.cooldown_fraction',
)
# Fields of several numbers, and of several whole ones.
_NUMBERS = ('data.mean', 'data.std', 'optim.step_fractions')
_COUNTS = ('checkpoint.keep_steps', 'transfer.shots')
_LARGEST = 2**31 - 1  # of the counts that a program holds in 32 bits

# Fields that no compiled program depends on. A new field is taken to matter until it is
# named here: that costs a compilation, where forgetting it would train the wrong thing.
_NOT_COMPILED = (
  'name',
  'smoke',
  'seed',
  'data.source',
  'data.name',
  'data.train_split',
  'data.test_split',
  'data.test_fraction',
  'data.image_key',
  'data.label_key',
  'data.hierarchy',
  'data.adapt',
  'data.merge_classes',
  'data.num_images',
  'data.subset',
  'data.subset_seed',
  'data.order_seed',
  'data.resize_short',
  'data.corrupt',
  'data.made_up_train',
  'data.made_up_test',
  'data.procedural.num_train',
  'data.procedural.num_test',
  'data.procedural.seed',
  'data.procedural.exponent',
  'data.procedural.zipf',
  'data.procedural.more_objects',
  'data.procedural.wrong',
  'data.procedural.missing',
  'data.procedural.wrong_among',
  'data.procedural.branching',
  'data.procedural.ancestors',
  'data.procedural.parts',
  'data.procedural.pose',
  'data.procedural.noise',
  'init.cell',
  'init.file',
  'init.step',
  'init.part',
  'init.head',
  'transfer.source',
  'transfer.name',
  'transfer.train_split',
  'transfer.test_split',
  'transfer.label_key',
  'transfer.num_classes',
  'transfer.procedural_seed',
  'transfer.shots',
  'transfer.draws',
  'transfer.probe_images',
  'train.epochs',
  'train.steps',
  'optim.lr',
  'optim.warmup_steps',
  'optim.warmup_fraction',
  'optim.cooldown_fraction',
  'optim.decay_images',
  'log.every_steps',
  'log.eval_every_steps',
  'checkpoint.every_steps',
  'checkpoint.every_seconds',
  'checkpoint.keep',
  'checkpoint.keep_every_steps',
  'checkpoint.keep_steps',
  'checkpoint.best',
)


def field(config: ConfigDict, name: str) -> Any:
  """Returns the value of a dotted field name, such as `model.depth`."""
  for part in name.split('.'):
    config = config[part]
  return config


def suggest(value: str, choices: Iterable[str]) -> str:
  """Returns ' Did you mean "x"?' for the nearest choice that it is not, or nothing."""
  near = difflib.get_close_matches(value, list(choices), n=1)
  return f' Did you mean "{near[0]}"?' if near and near[0] != value else ''


def check(config: ConfigDict) -> None:
  """Checks what can be known before any data or device is touched.

  Raises:
    UserError: naming the field, its value and what it may be.
  """
  for name, choices in _CHOICES.items():
    value = field(config, name)
    if value not in choices:
      raise UserError(
        f'{name}={value!r} is unknown; use {", ".join(choices)}.'
        + suggest(value, choices)
      )
  for name in _POSITIVE:
    if not 0 < field(config, name) < math.inf:
      raise UserError(f'{name}={field(config, name)} must be above 0')
  for name in _NOT_NEGATIVE:
    if not 0 <= field(config, name) < math.inf:
      raise UserError(f'{name}={field(config, name)} must not be negative')
  for name in _SHARES:
    if not 0 <= field(config, name) < 1:
      raise UserError(f'{name}={field(config, name)} must be from 0 to below 1')
  for name in _NUMBERS:
    if not all(
      isinstance(x, int | float) and abs(x) < math.inf for x in field(config, name)
    ):
      raise UserError(f'{name}={tuple(field(config, name))} must be finite numbers')
  for name in _COUNTS:
    if not all(type(x) is int and x >= 0 for x in field(config, name)):
      raise UserError(f'{name}={tuple(field(config, name))} must be whole numbers')
  if not 0 <= config.seed < 2**32:
    raise UserError(
      f'seed={config.seed} must be from 0 to 2**32 - 1: networks of others begin with the '
      'same weights as one of these'
    )
  if not all(0 < std < math.inf for std in config.data.std):
    raise UserError(f'data.std={tuple(config.data.std)} must be above 0')
  epochs, steps = config.train.epochs, config.train.steps
  if not (math.isfinite(epochs) and min(epochs, steps) == 0 < max(epochs, steps)):
    raise UserError(
      f'exactly one of train.epochs={epochs:g} and train.steps={steps} must be above 0; '
      'set the other to 0'
    )
  for name in ('train.steps', 'train.batch_size', 'data.image_size'):
    if (number := field(config, name)) > _LARGEST:
      raise UserError(f'{name}={number} must be below 2**31')
  if config.model.ops == 'onednn' and config.model.name != 'resnet':
    raise UserError(
      f'model.ops=onednn is for model.name=resnet; a {config.model.name} has no such form, '
      'use model.ops=auto'
    )
  _check_schedule(config.optim)
  _check_init(config)
  _check_transfer(config.transfer)
  architectures.check(config)
  for name in ('mean', 'std'):
    if len(config.data[name]) != config.data.channels:
      raise UserError(
        f'data.{name}={tuple(config.data[name])} has {len(config.data[name])} values '
        f'for data.channels={config.data.channels}'
      )
  if config.train.loss == 'softmax' and config.data.max_labels != 1:
    raise UserError(
      f'data.max_labels={config.data.max_labels} needs train.loss=sigmoid; '
      'softmax takes one label an image'
    )
  if config.model.scan and config.optim.name in ('lars', 'lamb'):
    raise UserError(
      f'optim.name={config.optim.name} takes the norm of each kernel, and '
      'model.scan=True stacks them; leave model.scan out'
    )
  if config.train.loss == 'softmax' and config.data.class_weights:
    raise UserError(
      f'data.class_weights={config.data.class_weights} weighs the metrics of several '
      'labels an image; set train.loss=sigmoid, or leave it out'
    )
  best = config.checkpoint.best
  if config.train.loss == 'softmax' and best.endswith('map100'):
    raise UserError(
      f'checkpoint.best={best} needs train.loss=sigmoid; with one label an image use '
      'test/top1'
    )
  if best == 'test/weighted_map100' and not config.data.class_weights:
    raise UserError(
      f'checkpoint.best={best} needs data.class_weights; use test/map100, or name a file'
    )
  if config.train.loss == 'sigmoid' and config.train.label_smoothing:
    raise UserError('train.label_smoothing is for softmax; set it to 0 with sigmoid')
  plain(config)  # nothing is infinite or without a text


def _check_schedule(optim: ConfigDict) -> None:
  warmup, cooldown = optim.warmup_fraction, optim.cooldown_fraction
  if warmup + cooldown > 1:
    raise UserError(
      f'optim.warmup_fraction={warmup:g} and optim.cooldown_fraction={cooldown:g} are '
      'longer than the run; together they may be 1'
    )
  if optim.warmup_steps and warmup:
    raise UserError(
      f'optim.warmup_steps={optim.warmup_steps} and optim.warmup_fraction={warmup:g} '
      'both set the warm-up; set one of them to 0'
    )
  if not all(0 < fraction < 1 for fraction in optim.step_fractions):
    raise UserError(
      f'optim.step_fractions={tuple(optim.step_fractions)} must be above 0 and below 1: '
      'they are shares of the run'
    )


def _check_init(config: ConfigDict) -> None:
  init, steps = config.init, config.train.steps
  if init.cell and init.file:
    raise UserError(
      f'init.cell={init.cell} and init.file={init.file} both say what to start from; '
      'leave one of them out'
    )
  if init.step and not init.cell:
    raise UserError(f'init.step={init.step} needs init.cell, whose step it is')
  if init.part != 'state':
    return
  if not init.cell:
    raise UserError('init.part=state needs init.cell, whose state it is')
  if steps and init.step >= steps:
    raise UserError(
      f'init.step={init.step} is not before the end of the run, train.steps={steps}'
    )


def _check_transfer(transfer: ConfigDict) -> None:
  if not transfer.source:
    return
  if transfer.source not in _CHOICES['data.source']:
    raise UserError(
      f'transfer.source={transfer.source!r} is unknown; use '
      f'{", ".join(_CHOICES["data.source"])}.'
      + suggest(transfer.source, _CHOICES['data.source'])
    )
  if (
    not (transfer.shots or transfer.probe_images) or min(transfer.shots, default=1) < 1
  ):
    raise UserError(
      f'transfer.shots={tuple(transfer.shots)} must be above 0; with '
      'transfer.probe_images=0 there must be some'
    )


def protocol(config: ConfigDict) -> str:
  """Returns what is held equal over the subset sizes: 'epochs' or 'steps'."""
  return 'steps' if config.train.steps else 'epochs'


def num_steps(config: ConfigDict, num_images: int) -> int:
  """Returns the updates of a run on `num_images` images.

  Raises:
    UserError: if they are too many to count.
  """
  if config.train.steps:
    return config.train.steps
  steps = config.train.epochs * num_images / config.train.batch_size
  if steps > _LARGEST:
    raise UserError(
      f'train.epochs={config.train.epochs:g} of {num_images:,} images are {steps:.3g} '
      'updates, and there may be 2**31 - 1; take fewer, or a larger train.batch_size'
    )
  return math.ceil(steps)


def plain(value: Any, name: str = '') -> Any:
  """Returns the value in JSON's types: references resolved, tuples as lists.

  Raises:
    UserError: for a value without a stable text, such as a function or an infinity,
      with its name below the one given.
  """
  if isinstance(value, ConfigDict):
    value = value.to_dict()
  if isinstance(value, Mapping):
    return {
      str(key): plain(item, f'{name}.{key}' if name else str(key))
      for key, item in value.items()
    }
  if isinstance(value, list | tuple):
    return [plain(item, name) for item in value]
  if value is None or isinstance(value, bool | str | int):
    return value
  if isinstance(value, float) and math.isfinite(value):
    return value
  raise UserError(
    f'{name or "a config"} cannot be {value!r}: it has no stable identity'
  )


def identity(config: ConfigDict | Mapping[str, Any]) -> str:
  """Returns eight hex digits of the hash of the resolved config."""
  text = json.dumps(plain(config), sort_keys=True, separators=(',', ':'))
  return hashlib.sha256(b'scaling-cell-1\0' + text.encode()).hexdigest()[:8]


def program_key(config: ConfigDict) -> str:
  """Returns a text that is equal for configs that share compiled programs."""
  fields = flat(config)
  return json.dumps({k: v for k, v in fields.items() if k not in _NOT_COMPILED})


def cell_name(config: ConfigDict) -> str:
  """Returns a readable name that ends in the identity."""
  return (
    f'{config.model.name}{config.model.depth}-n{config.data.num_images or "all"}'
    f'-seed{config.seed}-{identity(config)}'
  )


def flat(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
  """Returns {dotted field name: plain value}."""
  out = {}

  def add(part: Mapping[str, Any], above: str) -> None:
    for key, value in part.items():
      if isinstance(value, dict):
        add(value, f'{above}{key}.')
      else:
        out[f'{above}{key}'] = value

  add(plain(config), '')
  return out


def nested(fields: Mapping[str, Any]) -> ConfigDict:
  """Returns the config of a flat mapping: the inverse of `flat`."""
  tree: dict[str, Any] = {}
  for name, value in fields.items():
    *parents, last = name.split('.')
    part = tree
    for parent in parents:
      part = part.setdefault(parent, {})
    part[last] = value
  return ConfigDict(tree)


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
  """Returns the first field that differs, as 'optim.lr is 0.1 there and 0.2 here'."""
  old, new = flat(old), flat(new)
  if json.dumps(old) == json.dumps(new):  # a fifth of the time of field by field
    return None
  for name in sorted(old.keys() | new.keys()):
    # As text, as in the identity: 1, 1.0 and True are equal in Python.
    if json.dumps(old.get(name, '(unset)')) != json.dumps(new.get(name, '(unset)')):
      return (
        f'{name} is {old.get(name, "(unset)")} there and '
        f'{new.get(name, "(unset)")} here'
      )
  return None
