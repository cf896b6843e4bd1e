"""Does one run with cooldowns give the whole curve of examples seen?

A run at a constant rate does not know where it will end. From its checkpoints short
branches let the rate fall to zero, one for each length: the curve of a Scaling Vision
Transformers study for the price of little more than its longest run. The other arm
pays for a run of each length, with a cosine.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from analysis.claims import on_par, said
from analysis.contrasts import Estimate, differences, overall, together, with_arms
from analysis.document import Table
from analysis.fit import fit
from analysis.prediction import Refusal
from configs.cooldowns import cooldowns
from experiments.paper.scales import Scale
from experiments.paper.study import Figure, Findings, PaperStudy, metric_of

BRANCHES, SEPARATE = 'one run with cooldowns', 'separate runs'
MARGIN = 0.01
FRACTION = 0.2
PUBLISHED = Table(
  ['study', 'found'],
  [['Scaling ViT (arXiv 2106.04560), 3.5', 'several lengths come from one run']],
)


def _lengths(config: ConfigDict, scale: Scale) -> list[int]:
  most = scale.steps(scale.sizes[-1], config.train.batch_size)
  return [most // 2**k for k in reversed(range(5))]


def fields(config: ConfigDict, scale: Scale) -> dict[str, Any]:
  warmup = max(1, _lengths(config, scale)[0] // 10)
  return {
    'data.num_images': scale.sizes[-1],
    'train.epochs': 0.0,
    'optim.warmup_fraction': 0.0,
    'optim.warmup_steps': warmup,
  }


def sweep(config: ConfigDict, scale: Scale) -> list[dict[str, Any]]:
  lengths = _lengths(config, scale)
  cells = []
  for seed in range(scale.seeds):
    cells += [
      {'seed': seed, **cell} for cell in cooldowns(lengths, FRACTION, seed=seed)
    ]
    cells += [
      {'seed': seed, 'train.steps': steps, 'optim.schedule': 'cosine'}
      for steps in lengths
    ]
  return cells


def judge(table: Any, config: ConfigDict, scale: Scale) -> Findings:
  metric, words = metric_of(config)
  lengths = set(_lengths(config, scale))

  def arm(row: Mapping[str, Any]) -> str | None:
    if row['init.cell'] and row['steps'] in lengths:
      return BRANCHES
    return SEPARATE if row['optim.schedule'] == 'cosine' else None

  rows = with_arms(table, metric, arm)
  sides = {'arm': BRANCHES}, {'arm': SEPARATE}
  gaps = differences(rows, *sides, ['steps'])
  every = with_arms(table, metric, lambda row: arm(row) or BRANCHES)
  flops = every.groupby('arm')['flops'].sum().to_dict()
  same = _fits(rows)
  share = flops.get(BRANCHES, 0.0) / flops[SEPARATE] if SEPARATE in flops else None
  return Findings(
    [
      on_par(
        'One run with cooldowns gives the curve of separate runs',
        'several lengths from one run (arXiv 2106.04560)',
        overall(rows, *sides, ['steps']),
        what='cooldowns minus separate, mean over lengths',
        margin=MARGIN,
      ),
      on_par(
        'Both are the same fit',
        '',
        same[-1][1] if same else None,
        what=f'fitted curves, cooldowns minus separate, at {same[-1][0]:,.0f} examples'
        if same
        else '',
        margin=MARGIN,
      ),
    ],
    [
      Figure(
        'schedule',
        together(rows),
        'examples_seen',
        'examples seen (log scale)',
        words,
        'Accuracy against examples seen, from one run with cooldowns and from separate '
        'runs.',
      )
    ],
    [
      Table(
        ['steps', 'cooldowns minus separate'],
        [[f'{n:,}', said(each)] for (n,), each in gaps.items()],
        '' if share is None else f'The cooldowns cost {share:.0%} of the FLOPs.',
      ),
      Table(
        ['examples seen', 'fit of the cooldowns minus fit of separate runs'],
        [[f'{at:,.0f}', said(each)] for at, each in same],
        'Each is fitted by all laws, weighed by how well they foretold longer runs.',
      ),
    ],
  )


def _fits(rows: Any) -> list[tuple[float, Estimate]]:
  """Returns how the fitted curves differ at each number of examples; [] without fits."""
  curves = []
  for i, arm in enumerate((BRANCHES, SEPARATE)):
    own = rows[rows['arm'] == arm]
    if not len(own):
      return []
    found = fit(own['examples_seen'], own['value'], rng=i)
    if isinstance(found, Refusal):
      return []
    curves.append(found)
  first, second = curves
  at = np.unique(rows['examples_seen'])
  found = first.compare(second, at)
  return [
    (float(n), Estimate(float(value), float(lo), float(hi), len(rows)))
    for n, value, lo, hi in zip(at, found.difference, found.lo, found.hi, strict=True)
  ]


STUDY = PaperStudy(
  'One run for all lengths',
  'Does one run at a constant rate, with short cooldowns, give the whole curve of '
  'examples seen?',
  PUBLISHED,
  fields,
  sweep,
  judge,
)
