"""Deeper or wider: what is the same compute better spent on, at each number of images?

The talk asks it and leaves it open. A network is made deeper and, in another arm, wider
until both cost the same FLOPs.
"""

import bisect
from typing import Any

from ml_collections import ConfigDict

from analysis.claims import above, said
from analysis.contrasts import differences, overall, with_arms
from analysis.document import Table
from experiments.paper.scales import Scale
from experiments.paper.study import Figure, Findings, PaperStudy, metric_of

BASE, DEEPER, WIDER = 'base', 'deeper', 'wider'
PUBLISHED = Table(
  ['study', 'found'],
  [
    ['the talk [T]', 'an open question'],
    [
      'ViT (arXiv 2010.11929), D.2',
      'depth helps most, width least; scale all together',
    ],
    ['BiT (arXiv 1912.11370)', 'wider networks pay only with more data'],
  ],
)


def fields(config: ConfigDict, scale: Scale) -> dict[str, Any]:
  return {
    'train.epochs': 0.0,
    'train.steps': scale.steps(scale.sizes[-1], config.train.batch_size),
  }


def networks(config: ConfigDict, scale: Scale) -> dict[str, dict[str, int]]:
  """Returns depth and width of the three networks; the last two cost alike."""
  from scaling import cost

  def flops(depth: int, width: int) -> float:
    sized = config.copy_and_resolve_references()
    sized.model.depth, sized.model.width = depth, width
    return cost.forward_flops(sized)

  shallow, deep, width = scale.depths[0], scale.depths[-1], config.model.width
  target = flops(deep, width)
  # FLOPs grow with width, so a few of the many networks need to be counted.
  widths = range(width, 8 * width, max(1, width // 8))
  above = bisect.bisect_left(widths, target, key=lambda wider: flops(shallow, wider))
  near = widths[max(0, above - 1) : above + 1]
  wide = min(near, key=lambda wider: abs(flops(shallow, wider) - target))
  return {
    BASE: {'model.depth': shallow, 'model.width': width},
    DEEPER: {'model.depth': deep, 'model.width': width},
    WIDER: {'model.depth': shallow, 'model.width': wide},
  }


def sweep(config: ConfigDict, scale: Scale) -> list[dict[str, Any]]:
  return [
    {'data.num_images': n, 'seed': seed, **network}
    for n in scale.sizes
    for network in networks(config, scale).values()
    for seed in scale.seeds_of(n)
  ]


def judge(table: Any, config: ConfigDict, scale: Scale) -> Findings:
  metric, words = metric_of(config)
  arm_of = {
    (net['model.depth'], net['model.width']): name
    for name, net in networks(config, scale).items()
  }
  rows = with_arms(table, metric, lambda row: arm_of.get((row['depth'], row['width'])))
  gaps = differences(rows, {'arm': DEEPER}, {'arm': WIDER}, ['num_images'])
  flops = rows.groupby('arm')['flops'].mean().to_dict()
  return Findings(
    [
      above(
        'At equal FLOPs deeper is better than wider',
        'left open [T]',
        overall(rows, {'arm': DEEPER}, {'arm': WIDER}, ['num_images']),
        what='deeper minus wider, mean over sizes',
      ),
      above(
        'At equal FLOPs wider is better than deeper',
        'left open [T]',
        overall(rows, {'arm': WIDER}, {'arm': DEEPER}, ['num_images']),
        what='wider minus deeper, mean over sizes',
      ),
    ],
    [
      Figure(
        'width_or_depth',
        rows,
        'num_images',
        'training images (log scale)',
        words,
        'Accuracy against images for a small network and two that cost the same.',
      )
    ],
    [
      Table(
        ['images', 'deeper minus wider'],
        [[f'{n:,}', said(gaps[(n,)]) if (n,) in gaps else '–'] for n in scale.sizes],
      ),
      Table(
        ['network', 'depth', 'width', 'training FLOPs of a run'],
        [
          [name, str(d), str(w), f'{flops.get(name, float("nan")):.3g}']
          for (d, w), name in arm_of.items()
        ],
      ),
    ],
  )


STUDY = PaperStudy(
  'Deeper or wider',
  'Is the same compute better spent on depth or on width, and does the number of '
  'images change that?',
  PUBLISHED,
  fields,
  sweep,
  judge,
  num_depths=2,
)
