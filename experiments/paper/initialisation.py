"""What should a network start from: nothing, the small set, the large one, or both?

Of the paper's detectors the best began on ImageNet, went on to JFT-300M and then to the
task. The small set here is the smallest subset, the large one the largest.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from analysis.claims import above, said
from analysis.contrasts import differences, means, with_arms
from analysis.document import Table
from experiments.paper import target
from experiments.paper.scales import Scale
from experiments.paper.study import Figure, Findings, PaperStudy

RANDOM, SMALL, LARGE, BOTH = 'random', 'small set', 'large set', 'small, then large'
TARGET_IMAGES = (100, 250, 500, 1000)
PUBLISHED = Table(
  ['start', 'mAP@.5', 'mAP@[.5,.95]'],
  [
    ['ImageNet', '53.6', '34.3'],
    ['300M', '56.9', '36.7'],
    ['ImageNet + 300M', '58.0', '37.4'],
  ],
  'COCO test-dev, Faster R-CNN with ResNet-101 [T].',
)


def fields(config: ConfigDict, scale: Scale) -> dict[str, Any]:
  found = target.fields(config, scale)
  return {
    'train.epochs': 0.0,
    'train.steps': scale.steps(scale.sizes[-1], config.train.batch_size),
    **found,
    'transfer.source': '',  # only fine-tuned here
  }


def _starts(config: ConfigDict, scale: Scale, seed: int) -> dict[str, Any]:
  """Returns by arm the cell that the target's cells start from."""
  batch = config.train.batch_size
  small = {
    'data.num_images': scale.sizes[0],
    'train.steps': scale.steps(scale.sizes[0], batch, 4 * scale.epochs),
    'seed': seed,
  }
  large = {'data.num_images': scale.sizes[-1], 'seed': seed}
  both = {**large, 'init.cell': small, 'init.head': 'kept'}
  return {RANDOM: None, SMALL: small, LARGE: large, BOTH: both}


def sweep(config: ConfigDict, scale: Scale) -> list[dict[str, Any]]:
  with_target = config.copy_and_resolve_references()
  with_target.update_from_flattened_dict(target.fields(config, scale))
  cells = []
  for seed in range(scale.seeds):
    for start in _starts(config, scale, seed).values():
      for n in TARGET_IMAGES:
        if start is None:
          cells.append({'seed': seed, **target.scratch(with_target, n)})
        else:
          tuning = target.tuning(with_target, scale, n)
          cells.append({'seed': seed, 'init.cell': start, **tuning})
  return cells


def judge(table: Any, config: ConfigDict, scale: Scale) -> Findings:
  about = {row['cell']: row for row in table.to_dict('records')}

  def arm(row: Mapping[str, Any]) -> str | None:
    if row['data.name'] != config.transfer.name:
      return None
    first = about.get(row['init.cell'])
    if first is None:
      return RANDOM
    if first['init.cell']:
      return BOTH
    return SMALL if first['num_images'] == scale.sizes[0] else LARGE

  rows = with_arms(table, 'test/top1', arm)
  pairs = (
    (LARGE, RANDOM, ''),
    (LARGE, SMALL, '36.7 against 34.3 mAP [T]'),
    (BOTH, LARGE, '37.4 against 36.7 mAP [T]'),
  )
  found = means(rows, ['num_images', 'arm'])
  arms = (RANDOM, SMALL, LARGE, BOTH)
  gaps = {
    f'{first} minus {second}': differences(
      rows, {'arm': first}, {'arm': second}, ['num_images']
    )
    for first, second, _ in pairs
  }
  return Findings(
    [
      above(
        f'{first.capitalize()}: a better start than {second}',
        published,
        gaps[f'{first} minus {second}'].get((TARGET_IMAGES[-1],)),
        what=f'on {TARGET_IMAGES[-1]:,} target images',
      )
      for first, second, published in pairs
    ],
    [
      Figure(
        'initialisation',
        rows,
        'num_images',
        'target images (log scale)',
        'accuracy on the target set',
        'Accuracy against target images for four starts.',
      )
    ],
    [
      Table(
        ['target images', *arms],
        [
          [f'{n:,}', *(_mean(found.get((n, arm))) for arm in arms)]
          for n in TARGET_IMAGES
        ],
      ),
      Table(
        ['target images', *gaps],
        [
          [
            f'{n:,}',
            *(said(gap[(n,)]) if (n,) in gap else '–' for gap in gaps.values()),
          ]
          for n in TARGET_IMAGES
        ],
        'Runs of one seed are compared pair by pair.',
      ),
    ],
  )


def _mean(found: Any) -> str:
  return '–' if found is None else f'{100 * found.value:.1f}%'


STUDY = PaperStudy(
  'Starts',
  'What should a network start from: nothing, a small set, a large one, or both?',
  PUBLISHED,
  fields,
  sweep,
  judge,
)
