"""Does performance grow log-linearly with the number of training images?

The paper passed over each subset the same number of times, so that data, updates and
the fall of the learning rate grew together. Two later protocols take them apart: the
same number of updates for every subset (MLP-Mixer), and the best over several lengths
(Scaling Vision Transformers). All three are read off one grid of sizes and lengths.
"""

import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from analysis.claims import above, said, straight
from analysis.contrasts import (
  Estimate,
  bend,
  differences,
  last_gain,
  longest_best,
  together,
  with_arms,
)
from analysis.document import Table
from analysis.fit import fit
from analysis.prediction import Refusal
from analysis.words import estimate, images
from experiments.paper.scales import Scale
from experiments.paper.study import Figure, Findings, PaperStudy, metric_of

EPOCHS, STEPS, BEST = 'fixed epochs', 'fixed steps', 'best length'
_FACTOR = 4  # between two lengths
_LAW = (
  'The error as a power law of the images, which falls as images to minus the exponent. '
  'The sizes are those by which it foretold larger ones best. Only with equal updates '
  'is the exponent one of data.'
)

PUBLISHED = Table(
  ['study', 'images', 'protocol', 'found'],
  [
    ['Sun et al. 2017 [T]', 'up to 300M', EPOCHS, 'log-linear, no saturation'],
    ['MLP-Mixer (arXiv 2105.01601)', '3% to 100% of 300M', STEPS, 'still rises'],
    ['Scaling ViT (arXiv 2106.04560)', '30M to 3B', BEST, 'saturates at both ends'],
  ],
  'The values behind the curve of the paper were never published as numbers.',
)


def fields(config: ConfigDict, scale: Scale) -> dict[str, Any]:
  del config, scale
  return {'train.epochs': 0.0}


def lengths(config: ConfigDict, scale: Scale, num_images: int) -> list[int]:
  """Returns the steps that a size is trained for, the longest last."""
  batch = config.train.batch_size
  own, most = (scale.steps(n, batch) for n in (num_images, scale.sizes[-1]))
  shorter = [most // _FACTOR**k for k in (2, 1)]
  return sorted({own, most, *(steps for steps in shorter if steps > own)})


def sweep(config: ConfigDict, scale: Scale) -> list[dict[str, Any]]:
  return [
    {'data.num_images': n, 'train.steps': steps, 'seed': seed}
    for n in scale.sizes
    for seed in scale.seeds_of(n)
    for steps in lengths(config, scale, n)
  ]


def judge(table: Any, config: ConfigDict, scale: Scale) -> Findings:
  metric, words = metric_of(config)
  batch = config.train.batch_size
  most = scale.steps(scale.sizes[-1], batch)

  def own(row: Mapping[str, Any]) -> str | None:
    return EPOCHS if row['steps'] == scale.steps(row['num_images'], batch) else None

  def same(row: Mapping[str, Any]) -> str | None:
    return STEPS if row['steps'] == most else None

  arms = {
    EPOCHS: with_arms(table, metric, own),
    STEPS: with_arms(table, metric, same),
    BEST: longest_best(with_arms(table, metric, lambda _: BEST)),
  }
  verdicts = []
  for name, rows in arms.items():
    first = name == EPOCHS
    verdicts += [
      straight(
        f'Performance grows log-linearly with images ({name})',
        'log-linear up to 300M [T]' if first else '',
        bend(rows),
      ),
      above(
        f'It does not saturate at the largest size ({name})',
        'no saturation at 300M [T]' if first else '',
        last_gain(rows),
        what='gain of the last step in size',
      ),
    ]
  edge = _at_edge(table, arms[BEST], metric)
  if edge:
    verdicts = [
      v._replace(because=f'{v.because}; {edge}') if BEST in v.claim else v
      for v in verdicts
    ]
  both = together(*arms.values())
  # Of the largest size both are the same runs, whose difference says nothing of noise.
  smaller = both[both['num_images'] < scale.sizes[-1]]
  gaps = differences(smaller, {'arm': STEPS}, {'arm': EPOCHS}, ['num_images'])
  gains = {name: bend(rows) for name, rows in arms.items()}
  return Findings(
    verdicts,
    [
      Figure(
        'data_size',
        both,
        'num_images',
        'training images (log scale)',
        words,
        'Accuracy against images under three protocols. Between fixed epochs and fixed '
        'steps the data are the same: what differs is compute and annealing.',
      )
    ],
    [
      Table(
        ['images', *arms, 'steps minus epochs'],
        [
          [
            f'{n:,}',
            *(_mean(rows, n) for rows in arms.values()),
            _gap(gaps, n, scale),
          ]
          for n in scale.sizes
        ],
        'Mean over seeds. The last column is what the same images give when the '
        'smaller subset is trained as long as the largest: the part of the gain under '
        'fixed epochs that is compute and annealing rather than data. The best length '
        'is chosen by the same test images, so it is a little too good.',
      ),
      Table(
        ['protocol', 'gain from the smallest to the largest size'],
        [[name, said(found.gain) if found else '–'] for name, found in gains.items()],
      ),
      Table(
        ['protocol', 'exponent of the error', 'fitted to images', 'limits'],
        [[name, *_exponent(rows)] for name, rows in arms.items()],
        _LAW + (_built_in(config) if config.data.source == 'procedural' else ''),
      ),
    ],
  )


def _exponent(rows: Any) -> list[str]:
  """Returns in words the exponent of a power law, its window, and what limits it."""
  found = fit(rows['num_images'], rows['value'], laws=('power',))
  law = found if isinstance(found, Refusal) else found.laws['power']
  if isinstance(law, Refusal):
    return ['–', '–', law.reason]
  exponent = estimate(law.params['c'], *law.intervals['c'])
  return [exponent, ' to '.join(map(images, law.window)), '; '.join(law.flags)]


def _built_in(config: ConfigDict) -> str:
  return (
    f' These images were made with the exponent {config.data.procedural.exponent:g}, '
    'for a learner that knows each look from the first image of it on; one that needs '
    'more of them, or more updates or width than it has, falls short of it.'
  )


def _at_edge(table: Any, best: Any, metric: str) -> str:
  """Returns in words at how many sizes no longer run was worse than the best, or ''."""
  rows = table[table['metric'] == metric]
  longest = rows.groupby('num_images')['steps'].max()
  chosen = best.groupby('num_images')['steps'].max()
  num = int((chosen >= longest).sum())
  if not num:
    return ''
  return (
    f'at {num} of {len(chosen)} sizes the longest run is the best, so longer ones may be '
    'better still'
  )


def _gap(gaps: Mapping[Any, Estimate], num_images: int, scale: Scale) -> str:
  if num_images == scale.sizes[-1]:
    return 'the same runs'
  return said(gaps[(num_images,)]) if (num_images,) in gaps else '–'


def _mean(rows: Any, num_images: int) -> str:
  value = rows[rows['num_images'] == num_images]['value'].mean()
  return '–' if math.isnan(value) else f'{100 * value:.1f}%'


STUDY = PaperStudy(
  'More images',
  'Does performance grow with the logarithm of the number of images, and is it the '
  'images or the longer training?',
  PUBLISHED,
  fields,
  sweep,
  judge,
)
