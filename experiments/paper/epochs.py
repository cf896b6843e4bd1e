"""Does longer training on the same images keep helping what is transferred?

The paper passed over JFT-300M four times and over ImageNet many times. Networks are
trained on a large and a small subset for several lengths, and judged on another set by
their frozen features.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from analysis.claims import above
from analysis.contrasts import last_gain, whole_gain, with_arms
from analysis.document import Table
from experiments.paper import target
from experiments.paper.scales import Scale
from experiments.paper.study import Figure, Findings, PaperStudy

LARGE, SMALL = 'large set', 'small set'
EPOCHS = {LARGE: (1.3, 2.6, 4.0, 8.0), SMALL: (3.0, 6.0, 12.0, 150.0)}
PUBLISHED = Table(
  ['pre-training', 'epochs', 'COCO mAP'],
  [
    ['JFT-300M', '1.28 / 2.56 / 3.84 [C]', '… / … / 36.8 [T]'],
    ['ImageNet', 'many', '34.5 [T]'],
  ],
  'The values at the shorter lengths are not in the talk and are left out.',
)


def fields(config: ConfigDict, scale: Scale) -> dict[str, Any]:
  return {'train.epochs': 0.0, **target.fields(config, scale)}


def _sizes(scale: Scale) -> dict[str, int]:
  return {LARGE: scale.sizes[-1], SMALL: scale.sizes[0]}


def sweep(config: ConfigDict, scale: Scale) -> list[dict[str, Any]]:
  batch = config.train.batch_size
  return [
    {'data.num_images': n, 'train.steps': scale.steps(n, batch, epochs), 'seed': seed}
    for arm, n in _sizes(scale).items()
    for epochs in EPOCHS[arm]
    for seed in range(scale.seeds)
  ]


def judge(table: Any, config: ConfigDict, scale: Scale) -> Findings:
  del config
  arms = {n: name for name, n in _sizes(scale).items()}

  def arm(row: Mapping[str, Any]) -> str | None:
    return arms.get(row['num_images'])

  rows = with_arms(table, target.METRIC, arm)
  verdicts = []
  for name in EPOCHS:
    own = rows[rows['arm'] == name]
    first, *_, before, last = (f'{epochs:g}' for epochs in EPOCHS[name])
    verdicts += [
      above(
        f'Longer training on the {name} transfers better',
        'each pass helped [T]' if name == LARGE else '',
        whole_gain(own, 'steps'),
        what=f'{last} against {first} epochs',
      ),
      above(
        f'The longest training on the {name} still helps',
        '',
        last_gain(own, 'steps'),
        what=f'{last} against {before} epochs',
      ),
    ]
  return Findings(
    verdicts,
    [
      Figure(
        'epochs',
        rows,
        'epochs',
        'passes over the set (log scale)',
        target.WORDS,
        'Frozen features on another set, against the passes of pre-training.',
      )
    ],
    [],
  )


STUDY = PaperStudy(
  'More passes',
  'Does longer pre-training on the same images keep helping another task?',
  PUBLISHED,
  fields,
  sweep,
  judge,
)
