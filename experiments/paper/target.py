"""The other set that studies of transfer judge on, and how networks are tuned to it."""

from typing import Any

from ml_collections import ConfigDict

from experiments.paper.scales import Scale

METRIC, WORDS = 'transfer/10_shot', '10-shot accuracy on another set'


def fields(config: ConfigDict, scale: Scale) -> dict[str, Any]:
  """Returns the fields that judge frozen features on the target set.

  A computed set has another one of its kind as target, with other classes; a set of
  files the handwritten digits, which are always at hand. --config.transfer.FIELD names
  another.
  """
  del scale
  if config.transfer.source:
    return {}
  if config.data.source == 'procedural':
    return {
      'transfer.source': 'procedural',
      'transfer.name': 'other_procedural',  # tells its cells from those of the first
      'transfer.procedural_seed': 1,
      'transfer.num_classes': config.data.num_classes,
    }
  return {'transfer.source': 'digits', 'transfer.name': 'digits'}


def scratch(config: ConfigDict, num_images: int) -> dict[str, Any]:
  """Returns the overrides of a cell that is trained on the target set alone.

  It has the study's own schedule and length: one for tuning would end long before
  random weights have learnt.

  Args:
    config: of the study; `transfer` names the target.
    num_images: target images.
  """
  own = config.transfer
  found = {
    'data.source': own.source,
    'data.name': own.name,
    'data.train_split': own.train_split,
    'data.test_split': own.test_split,
    'data.label_key': own.label_key,
    'data.num_classes': own.num_classes,
    'data.max_labels': 1,
    'data.hierarchy': '',
    'data.class_weights': '',
    'data.adapt': True,
    'data.num_images': num_images,
    'transfer.source': '',
    'train.loss': 'softmax',
  }
  if own.source == 'procedural':
    found['data.procedural.seed'] = own.procedural_seed
  return found


def tuning(config: ConfigDict, scale: Scale, num_images: int) -> dict[str, Any]:
  """Returns the overrides of a cell that goes on from another on the target set.

  The schedule is that of BiT-HyperRule (Kolesnikov et al. 2020, section 3.3): its
  length depends on the number of target images alone, the rate falls to a tenth at 30,
  60 and 90% of it, mixup of 0.1 from 20,000 images on, no weight decay. Batch and rate
  are the study's own, and the shortest length is that of the scale.

  Args:
    config: of the study; `transfer` names the target.
    scale: of the study.
    num_images: target images.
  """
  longer = 1 if num_images < 20_000 else 20 if num_images < 500_000 else 40
  return {
    **scratch(config, num_images),
    'train.epochs': 0.0,
    'train.steps': longer * scale.finetune_steps,
    'train.mixup': 0.0 if num_images < 20_000 else 0.1,
    'optim.schedule': 'step',
    'optim.step_fractions': (0.3, 0.6, 0.9),
    'optim.weight_decay': 0.0,
  }
