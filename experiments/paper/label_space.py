"""Is the gain from more images, or from more classes?

The paper trained on the same images once with all labels and once with the few classes
that another task has, and found the two on par. Here neighbouring classes are merged.
Both networks are judged on another set by their frozen features.
"""

from typing import Any

from ml_collections import ConfigDict

from analysis.claims import on_par, said
from analysis.contrasts import differences, overall, with_arms
from analysis.document import Table
from experiments.paper import target
from experiments.paper.scales import Scale
from experiments.paper.study import Figure, Findings, PaperStudy

MERGED = 8  # classes that become one
MARGIN = 0.02  # within which two are on par
PUBLISHED = Table(
  ['classes of the same images', 'found'],
  [['941 against 18,291', 'on par; the bars were not read as numbers']],
  'As reported of the paper (section on label spaces).',
)


def fields(config: ConfigDict, scale: Scale) -> dict[str, Any]:
  found = {
    'train.epochs': 0.0,
    'train.steps': scale.steps(scale.sizes[-1], config.train.batch_size),
    **target.fields(config, scale),
  }
  if config.data.source == 'procedural' and config.data.num_classes < 10 * MERGED:
    found['data.num_classes'] = 10 * MERGED
  return found


def sweep(config: ConfigDict, scale: Scale) -> list[dict[str, Any]]:
  many = config.data.num_classes
  spaces = (
    {},
    {'data.merge_classes': MERGED, 'data.num_classes': -(-many // MERGED)},
  )
  return [
    {'data.num_images': n, 'seed': seed, **space}
    for n in scale.sizes
    for space in spaces
    for seed in scale.seeds_of(n)
  ]


def judge(table: Any, config: ConfigDict, scale: Scale) -> Findings:
  many = config.data.num_classes
  names = {1: f'{many:,} classes', MERGED: f'{-(-many // MERGED):,} classes'}
  rows = with_arms(
    table, target.METRIC, lambda row: names.get(row['data.merge_classes'])
  )
  sides = {'arm': names[1]}, {'arm': names[MERGED]}
  gaps = differences(rows, *sides, ['num_images'])
  return Findings(
    [
      on_par(
        'The same images with few or many classes transfer alike',
        'on par, 941 against 18,291 classes',
        overall(rows, *sides, ['num_images']),
        what='many minus few, mean over sizes',
        margin=MARGIN,
      )
    ],
    [
      Figure(
        'label_space',
        rows,
        'num_images',
        'training images (log scale)',
        target.WORDS,
        'Frozen features on another set, against the images of pre-training.',
      )
    ],
    [
      Table(
        ['images', 'many minus few classes'],
        [[f'{n:,}', said(gaps[(n,)]) if (n,) in gaps else '–'] for n in scale.sizes],
      )
    ],
  )


STUDY = PaperStudy(
  'More classes',
  'Does a larger label space, or do more images make better features?',
  PUBLISHED,
  fields,
  sweep,
  judge,
)
