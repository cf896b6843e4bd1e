"""Do more images help in spite of wrong and missing labels?

A fifth of the labels of JFT-300M is wrong, and how many are missing nobody knows.
Computed images have a known share: wrong at random, wrong between neighbours, and,
with several labels an image, missing.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from analysis.claims import above, said
from analysis.contrasts import differences, whole_gain, with_arms
from analysis.document import Table
from experiments.paper.scales import Scale
from experiments.paper.study import Figure, Findings, PaperStudy

WRONG = (0.0, 0.1, 0.2, 0.4)
MISSING = (0.0, 0.6)
_BRANCHING = 5
PUBLISHED = Table(
  ['fact', 'value'],
  [
    ['wrong labels of JFT-300M', 'about 20% [T], also BiT (arXiv 1912.11370)'],
    ['missing labels', 'unknown [T]'],
    ['more images in spite of it', 'help, log-linearly [T]'],
  ],
)


def fields(config: ConfigDict, scale: Scale) -> dict[str, Any]:
  from scaling.errors import UserError

  if config.data.source != 'procedural':
    raise UserError(
      f'label_noise plants wrong labels in computed images, and data.source is '
      f'{config.data.source}; use --config=procedural'
    )
  return {
    'train.epochs': 0.0,
    'train.steps': scale.steps(scale.sizes[-1], config.train.batch_size),
  }


def sweep(config: ConfigDict, scale: Scale) -> list[dict[str, Any]]:
  del config
  arms = [{'data.procedural.wrong': wrong} for wrong in WRONG]
  arms += [
    {'data.procedural.wrong': wrong, 'data.procedural.branching': _BRANCHING}
    for wrong in WRONG[2:]
  ]
  arms += [
    {
      'train.loss': 'sigmoid',
      'data.max_labels': 3,
      'data.procedural.more_objects': 0.66,
      'data.procedural.missing': missing,
    }
    for missing in MISSING
  ]
  return [
    {'data.num_images': n, 'seed': seed, **arm}
    for n in scale.sizes
    for arm in arms
    for seed in scale.seeds_of(n)
  ]


def _wrong(row: Mapping[str, Any]) -> str | None:
  if row['train.loss'] != 'softmax':
    return None
  share = row['data.procedural.wrong']
  near = ' between neighbours' if row['data.procedural.branching'] else ''
  return f'{share:.0%} wrong{near}' if share else 'all true'


def _missing(row: Mapping[str, Any]) -> str | None:
  if row['train.loss'] != 'sigmoid':
    return None
  share = row['data.procedural.missing']
  return f'{share:.0%} missing' if share else 'all there'


def judge(table: Any, config: ConfigDict, scale: Scale) -> Findings:
  del config
  kinds = [f'data.procedural.{name}' for name in ('wrong', 'branching', 'missing')]
  table = table.sort_values(kinds, kind='stable')
  wrong = with_arms(table, 'test/top1', _wrong)
  missing = with_arms(table, 'test/map100', _missing)
  gains = {}
  for rows in (wrong, missing):
    for arm in dict.fromkeys(rows['arm']):
      gains[arm] = whole_gain(rows[rows['arm'] == arm])
  fifth, two_fifths = f'{WRONG[2]:.0%} wrong', f'{WRONG[3]:.0%} wrong'
  both = {'arm': f'{fifth} between neighbours'}, {'arm': fifth}
  claims = [
    above(
      f'More images help with {arm} labels',
      published,
      gains.get(arm),
      what=f'from {scale.sizes[0]:,} to {scale.sizes[-1]:,} images',
    )
    for arm, published in (
      (fifth, '20% are wrong, and more images help [T]'),
      (two_fifths, ''),
      (f'{MISSING[1]:.0%} missing', 'the share is unknown, and more images help [T]'),
    )
  ]
  cost = differences(wrong, {'arm': 'all true'}, {'arm': fifth}, ['num_images'])
  near = differences(wrong, *both, ['num_images'])
  return Findings(
    claims,
    [
      Figure(
        'label_noise',
        wrong,
        'num_images',
        'training images (log scale)',
        'test top-1 accuracy',
        'Accuracy against images with a share of the training labels wrong. Test '
        'labels are true.',
      ),
      Figure(
        'missing_labels',
        missing,
        'num_images',
        'training images (log scale)',
        'test mAP at 100',
        'Several labels an image: some of the further ones missing in training.',
      ),
    ],
    [
      Table(
        ['images', 'cost of 20% wrong', 'between neighbours minus at random'],
        [
          [
            f'{n:,}',
            said(cost[(n,)]) if (n,) in cost else '–',
            said(near[(n,)]) if (n,) in near else '–',
          ]
          for n in scale.sizes
        ],
      ),
      Table(
        ['labels', 'gain from the smallest to the largest size'],
        [[arm, said(each) if each else '–'] for arm, each in gains.items()],
      ),
    ],
  )


STUDY = PaperStudy(
  'Wrong labels',
  'Do more images help in spite of wrong and missing labels?',
  PUBLISHED,
  fields,
  sweep,
  judge,
  # What it plants, it plants in computed images.
  configs={'gpu': 'procedural', 'pod': 'procedural_jft'},
)
