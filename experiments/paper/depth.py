"""Do deeper networks gain more from more images?

The claim is an interaction: not that deeper is better, but that the gain from more data
grows with depth.
"""

from typing import Any

from ml_collections import ConfigDict

from analysis.claims import above, said
from analysis.contrasts import differences, trend, whole_gain, with_arms
from analysis.document import Table
from experiments.paper.scales import Scale
from experiments.paper.study import Figure, Findings, PaperStudy, metric_of

PUBLISHED = Table(
  ['layers', 'ImageNet', 'JFT-300M', 'gain'],
  [
    ['50', '31.6', '33.5', '+1.9'],
    ['101', '34.5', '36.8', '+2.3'],
    ['152', '34.7', '37.7', '+3.0'],
  ],
  'COCO minival*, mAP@[.5,.95], fine-tuned from either set [T]; gains [C].',
)


def fields(config: ConfigDict, scale: Scale) -> dict[str, Any]:
  return {
    'train.epochs': 0.0,
    'train.steps': scale.steps(scale.sizes[-1], config.train.batch_size),
  }


def sweep(config: ConfigDict, scale: Scale) -> list[dict[str, Any]]:
  del config
  return [
    {'data.num_images': n, 'model.depth': depth, 'seed': seed}
    for n in scale.sizes
    for depth in scale.depths
    for seed in scale.seeds_of(n)
  ]


def judge(table: Any, config: ConfigDict, scale: Scale) -> Findings:
  metric, words = metric_of(config)
  rows = with_arms(table, metric, lambda row: f'depth {row["depth"]:g}')
  shallow, deep = scale.depths[0], scale.depths[-1]
  ends = {depth: whole_gain(rows[rows['depth'] == depth]) for depth in scale.depths}
  wins = differences(rows, {'depth': deep}, {'depth': shallow}, ['num_images'])
  return Findings(
    [
      above(
        'Deeper networks gain more from more images',
        'gains +1.9, +2.3, +3.0 for 50, 101, 152 layers [C]',
        trend(wins),
        what=f'gain per doubling, depth {deep} minus {shallow}',
      ),
      above(
        f'Depth {deep} is better than depth {shallow} at the largest size',
        '37.7 against 33.5 mAP [T]',
        wins.get((scale.sizes[-1],)),
        what='difference',
      ),
    ],
    [
      Figure(
        'depth',
        rows,
        'num_images',
        'training images (log scale)',
        words,
        'Accuracy against images for each depth, all trained for the same steps.',
      )
    ],
    [
      Table(
        ['images', f'depth {deep} minus depth {shallow}'],
        [[f'{n:,}', said(wins[(n,)]) if (n,) in wins else '–'] for n in scale.sizes],
        'Runs of one seed have the same images, and are compared pair by pair.',
      ),
      Table(
        ['depth', f'gain from {scale.sizes[0]:,} to {scale.sizes[-1]:,} images'],
        [[str(d), said(each) if each else '–'] for d, each in ends.items()],
      ),
    ],
  )


STUDY = PaperStudy(
  'More depth',
  'Do deeper networks gain more from more images?',
  PUBLISHED,
  fields,
  sweep,
  judge,
  num_depths=2,
)
