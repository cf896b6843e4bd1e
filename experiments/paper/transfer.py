"""Do networks that saw more images transfer better, frozen and fine-tuned?

Each network is judged on another set: its frozen features with a few images of each
class and with many, and fine-tuned with a new head by a schedule that depends on the
target alone. The baseline is the same network trained on the target from scratch, for
as long as the others were trained before.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from analysis.claims import above, said
from analysis.contrasts import (
  differences,
  last_gain,
  overall,
  together,
  whole_gain,
  with_arms,
)
from analysis.document import Table
from experiments.paper import target
from experiments.paper.scales import Scale
from experiments.paper.study import Figure, Findings, PaperStudy

TUNED, SCRATCH = 'fine-tuned', 'from scratch'
TARGET_IMAGES = 500
PUBLISHED = Table(
  ['start', 'ImageNet top-1', 'top-5'],
  [
    ['checkpoint of He et al.', '76.4', '92.9'],
    ['random', '77.5', '93.9'],
    ['JFT-300M', '79.2', '94.7'],
  ],
  'ResNet-101, single model and crop [T].',
)


def fields(config: ConfigDict, scale: Scale) -> dict[str, Any]:
  return {
    'train.epochs': 0.0,
    'train.steps': scale.steps(scale.sizes[-1], config.train.batch_size),
    **target.fields(config, scale),
  }


def sweep(config: ConfigDict, scale: Scale) -> list[dict[str, Any]]:
  tuning = target.tuning(config, scale, TARGET_IMAGES)
  scratch = target.scratch(config, TARGET_IMAGES)
  cells = []
  for depth in scale.depths[:2]:
    for n in scale.sizes:
      for seed in scale.seeds_of(n):
        first = {'data.num_images': n, 'model.depth': depth, 'seed': seed}
        tuned = {'init.cell': first, 'model.depth': depth, 'seed': seed, **tuning}
        cells += [first, tuned]
    cells += [
      {'model.depth': depth, 'seed': seed, **scratch} for seed in range(scale.seeds)
    ]
  return cells


def judge(table: Any, config: ConfigDict, scale: Scale) -> Findings:
  depth = scale.depths[0]
  # A fine-tuned cell is placed at the images that its first cell saw.
  seen = dict(zip(table['cell'], table['num_images'], strict=True))

  def tuned(row: Mapping[str, Any]) -> str | None:
    return f'{TUNED}, depth {row["depth"]:g}' if row['init.cell'] else None

  def frozen(row: Mapping[str, Any]) -> str:
    return f'depth {row["depth"]:g}'

  fine = with_arms(table, 'test/top1', tuned)
  fine = fine.assign(num_images=[seen[cell] for cell in fine['init.cell']])
  scratch = with_arms(
    table,
    'test/top1',
    lambda row: SCRATCH if _is_scratch(row, config) else None,
  )
  features = with_arms(table, target.METRIC, frozen)
  probe = with_arms(table, 'transfer/probe', frozen)
  own = fine[fine['depth'] == depth]
  # The same runs from scratch stand against each size.
  from_scratch = scratch[scratch['depth'] == depth]
  both = together(
    own.assign(arm=TUNED), *(from_scratch.assign(num_images=n) for n in scale.sizes)
  )
  won = differences(both, {'arm': TUNED}, {'arm': SCRATCH}, ['num_images'])
  one = features[features['depth'] == depth]
  shots = sorted(
    {m for m in table['metric'] if m.endswith('_shot')}, key=lambda m: int(m[9:-5])
  )
  deeper = overall(
    features, {'depth': scale.depths[1]}, {'depth': depth}, ['num_images']
  )
  return Findings(
    [
      above(
        'Fine-tuned from the largest set is better than from scratch',
        '79.2 against 77.5 top-1 [T]',
        won.get((scale.sizes[-1],)),
        what=f'on {TARGET_IMAGES} target images',
      ),
      above(
        'Frozen features get better with more images',
        'clearest when features are frozen [T]',
        whole_gain(one),
        what=f'10-shot, {scale.sizes[0]:,} to {scale.sizes[-1]:,} images',
      ),
      above(
        'Frozen features still get better at the largest size',
        'no saturation [T]',
        last_gain(one),
        what='10-shot, last step in size',
      ),
      above(
        'Deeper networks have better features',
        '',
        deeper,
        what=f'10-shot, depth {scale.depths[1]} minus {depth}, mean over sizes',
      ),
    ],
    [
      Figure(
        'transfer_frozen',
        features,
        'num_images',
        'pre-training images (log scale)',
        target.WORDS,
        'Frozen features on another set: ridge regression on ten images a class.',
      ),
      Figure(
        'transfer_probe',
        probe,
        'num_images',
        'pre-training images (log scale)',
        'linear probe accuracy on another set',
        'Frozen features on another set: logistic regression on many images.',
      ),
      Figure(
        'transfer_tuned',
        fine,
        'num_images',
        'pre-training images (log scale)',
        'accuracy on another set',
        f'Fine-tuned on {TARGET_IMAGES} images of another set.',
      ),
    ],
    [
      Table(
        ['pre-training images', 'fine-tuned minus from scratch'],
        [[f'{n:,}', said(won[(n,)]) if (n,) in won else '–'] for n in scale.sizes],
        f'Depth {depth}, on {TARGET_IMAGES} target images.',
      ),
      Table(
        ['images a class', 'gain of frozen features from the smallest to the largest'],
        [[m[9:-5], _gain(table, m, frozen, depth)] for m in shots],
        f'Depth {depth}.',
      ),
    ],
  )


def _is_scratch(row: Mapping[str, Any], config: ConfigDict) -> bool:
  return not row['init.cell'] and row['data.name'] == config.transfer.name


def _gain(table: Any, metric: str, arm: Any, depth: int) -> str:
  rows = with_arms(table, metric, arm)
  found = whole_gain(rows[rows['depth'] == depth])
  return said(found) if found else '–'


STUDY = PaperStudy(
  'Transfer',
  'Do networks that saw more images transfer better to another task?',
  PUBLISHED,
  fields,
  sweep,
  judge,
  num_depths=2,
)
