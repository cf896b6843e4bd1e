"""Is the gain from more images an artefact of test images that were trained on?

The paper searched JFT-300M for the test images of its benchmarks, left out what it found
and tested again, without training again. Here the largest subset is searched for its own
test images (docs/dedup.md), and both the accuracy and what more images added to it are
taken with and without those found.
"""

import contextlib
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from analysis import duplicates
from analysis.claims import Verdict, on_par, said
from analysis.contrasts import Estimate, means, together, with_arms
from analysis.document import Table
from experiments.paper.scales import Scale
from experiments.paper.study import Figure, Findings, PaperStudy

CHANGE, GAIN_CHANGE = 'dedup/change', 'dedup/gain_change'
ARMS = {
  'test/top1': 'all test images',
  'dedup/clean': 'without a duplicate',
  'dedup/duplicated': 'with a duplicate',
}
MARGIN = 0.005  # within which leaving out changes nothing
FALSE_RATE = 0.001  # of images without a duplicate, as `scaling dedup` takes it
PUBLISHED = Table(
  ['published', 'overlap', 'accuracy when left out', 'source'],
  [list(row) for row in duplicates.PUBLISHED],
  'Other detectors and other thresholds, so to be compared in size only.',
)


def fields(config: ConfigDict, scale: Scale) -> dict[str, Any]:
  return {
    'train.epochs': 0.0,
    'train.steps': scale.steps(scale.sizes[-1], config.train.batch_size),
    'data.subset_seed': 0,  # one subset to search, whatever the seed of the run
  }


def sweep(config: ConfigDict, scale: Scale) -> list[dict[str, Any]]:
  del config
  return [
    {'data.num_images': n, 'seed': seed}
    for n in (scale.sizes[0], scale.sizes[-1])
    for seed in range(scale.seeds)
  ]


def measure(
  table: Any,
  config: ConfigDict,
  scale: Scale,
  workdir: pathlib.Path,
  folder: pathlib.Path,
  data_dir: str | None,
) -> list[dict[str, Any]]:
  """Searches the largest subset, and returns what each cell scores without the finds."""
  from scaling import sharding, trained
  from scaling.data import sources
  from scaling.evals.predictions import predict

  train, test = sources.load(config.data, data_dir)
  # In the images as they are: the smaller ones that networks may see tell less apart.
  found = sources.load_as_found(config.data, data_dir)
  copied = _search(config, scale, train, found, folder)
  mesh = sharding.make_mesh()
  cells = table.drop_duplicates('cell').to_dict('records')
  right = {}
  for cell in cells:
    own, variables = trained.load(workdir / cell['path'])
    right[cell['num_images'], cell['seed']] = predict(
      own, variables, test, mesh
    ).correct
  rows = []
  for cell in cells:
    correct = right[cell['num_images'], cell['seed']]
    found = duplicates.effect(correct, copied, MARGIN)
    rows += [
      cell | {'metric': metric, 'value': share.value, 'num_test': share.num}
      for metric, share in (
        ('dedup/clean', found.clean),
        ('dedup/duplicated', found.duplicated),
      )
    ]
    first = right.get((scale.sizes[0], cell['seed']))
    if cell['num_images'] == scale.sizes[-1] and found.duplicated.num:
      rows += _changed(cell, CHANGE, correct, copied)
      if first is not None:
        rows += _changed(cell, GAIN_CHANGE, correct * 1.0 - first, copied)
  return rows


def _search(
  config: ConfigDict,
  scale: Scale,
  train: Any,
  parts: tuple[Any, Any],
  folder: pathlib.Path,
) -> Any:
  """Returns which test images are in the largest subset; writes which, and a page.

  Args:
    config: of the study.
    scale: of the study.
    train: training part that the subsets are taken from.
    parts: training and test images to look at, in the same order.
    folder: of the study's page.
  """
  from experiments import dedup_report, progress
  from scaling.data import pipeline, split
  from scaling.dedup import find

  largest = config.data.copy_and_resolve_references()
  largest.num_images = scale.sizes[-1]
  subset = pipeline.make_subset(train, largest)
  whole, test = parts
  searched = split.take(whole, subset.ids, subset.num_images)
  with contextlib.ExitStack() as bars:
    found = find.find(
      searched,
      test,
      fpr=FALSE_RATE,
      tell=lambda doing: bars.enter_context(progress.working(doing, 'images')),
    )
  name = config.data.name
  sets = (
    dedup_report.Set(f'{name}, {subset.num_images:,} training images', searched),
    dedup_report.Set(f'{name} test', test),
  )
  blocks = dedup_report.blocks(*sets, found, fpr=FALSE_RATE)
  title = f'Near-duplicates of {sets[1].name} in {sets[0].name}'
  (folder / 'dedup').mkdir(parents=True, exist_ok=True)
  dedup_report.write(folder / 'dedup', title, blocks, *sets, found)
  return found.duplicated()


def _changed(
  cell: Mapping[str, Any], metric: str, values: Any, copied: Any
) -> list[dict[str, Any]]:
  change = duplicates.change_of_mean(values, copied)
  names = (metric, f'{metric}_lo', f'{metric}_hi')
  return [
    {**cell, 'metric': name, 'value': value, 'num_test': int(copied.sum())}
    for name, value in zip(names, change, strict=True)
  ]


def judge(table: Any, config: ConfigDict, scale: Scale) -> Findings:
  del config
  rows = together(
    *(
      with_arms(table, metric, lambda _, name=name: name)
      for metric, name in ARMS.items()
    )
  )
  found = means(rows, ['num_images', 'arm'])
  counts = rows.groupby(['num_images', 'arm'])['num_test'].max().to_dict()
  small, large = scale.sizes[0], scale.sizes[-1]
  copied = counts.get((large, ARMS['dedup/duplicated']), 0)
  return Findings(
    [
      _unchanged(
        'Accuracy does not change when duplicates are left out',
        _estimate(table, CHANGE),
        copied,
        f'without duplicates minus all, {large:,} images',
      ),
      _unchanged(
        'What more images add does not change when duplicates are left out',
        _estimate(table, GAIN_CHANGE),
        copied,
        f'gain from {small:,} to {large:,} images, without duplicates minus all',
      ),
    ],
    [
      Figure(
        'dedup',
        rows,
        'num_images',
        'training images (log scale)',
        'test top-1 accuracy',
        f'Near-duplicates are those of the {large:,} images.',
      )
    ],
    [
      Table(
        ['training images', *ARMS.values()],
        [
          [f'{n:,}', *(_mean(found.get((n, arm))) for arm in ARMS.values())]
          for n in (small, large)
        ],
        'Mean over seeds. Which images these are, and how far that may be trusted, is '
        'in dedup/dedup.html beside this page. Intervals of the changes are a bootstrap over '
        'test images, averaged over seeds.',
      ),
      Table(
        ['test images', 'number'],
        [[arm, f'{counts.get((large, arm), 0):,.0f}'] for arm in ARMS.values()],
      ),
    ],
  )


def _estimate(table: Any, metric: str) -> Estimate | None:
  """Returns a change with its interval, each the mean over seeds.

  All seeds are tested on the same images, so the mean is hardly surer than one.
  """
  values = [
    table[table['metric'] == name]['value']
    for name in (metric, f'{metric}_lo', f'{metric}_hi')
  ]
  if not len(values[0]):
    return None
  value, lo, hi = (float(each.mean()) for each in values)
  return Estimate(value, lo, hi, len(values[0]))


def _unchanged(
  claim: str, change: Estimate | None, copied: float, what: str
) -> Verdict:
  published = 'no significant change [T]'
  if change is not None and copied < duplicates.FEWEST:
    because = f'{copied:.0f} duplicated test images are too few, of {duplicates.FEWEST} at least'
    return Verdict(claim, published, f'{what}: {said(change)}', 'cannot say', because)
  found = on_par(claim, published, change, what=what, margin=MARGIN)
  return found._replace(because=found.because.replace('more seeds', 'more test images'))


def _mean(found: Estimate | None) -> str:
  return '–' if found is None else f'{100 * found.value:.1f}%'


STUDY = PaperStudy(
  'Duplicates',
  'Is the gain from more images an artefact of test images that were trained on?',
  PUBLISHED,
  fields,
  sweep,
  judge,
  measure,
)
