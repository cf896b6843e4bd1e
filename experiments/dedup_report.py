"""Writes down which test images have near-duplicates, and how far that may be trusted."""

import collections
import csv
import io
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from analysis import document, duplicates, files
from analysis.duplicates import Effect, Share, share
from scaling.data.split import Split
from scaling.dedup.find import Found, Pairs


class Set(NamedTuple):
  """A part of an image set, and what it is called."""

  name: str
  split: Split


def blocks(
  train: Set,
  test: Set,
  found: Found,
  *,
  fpr: float,
  effect: Effect | None = None,
  labelled: bool = True,
) -> list[document.Block]:
  """Returns the report, without its picture.

  Args:
    train: that was searched.
    test: whose images were searched for.
    found: the outcome.
    fpr: that the cut was chosen for.
    effect: on an accuracy, where one is known.
    labelled: whether labels can be compared.
  """
  overlap = share(int(found.duplicated().sum()), found.num_test)
  exact = len(np.unique(found.pairs.test[found.pairs.exact]))
  lead = (
    f'{overlap.hits:,} of {overlap.num:,} test images ({_percent(overlap)}) have a '
    f'near-duplicate among the {found.num_train:,} training images; {exact:,} of them '
    'are exact copies.'
  )
  rows = [[f'best match: {kind}', f'{num:,}'] for kind, num in _kinds(found.pairs)]
  if labelled and train.split.label_names == test.split.label_names:
    rows.append(['labels agree, of pairs', _percent(_agreement(train, test, found))])
  for name, number in zip(('training', 'test'), found.unreadable, strict=True):
    if number:
      rows.append([f'unreadable {name} images, left out', f'{number:,}'])
  result: list[document.Block] = [
    document.Paragraph(lead, lead=True),
    document.Table(['test images', ''], rows),
  ]
  if effect is not None:
    result += _effect(effect)
  return [*result, *_trust(found, fpr)]


def _percent(one: Share) -> str:
  if not one.num:
    return '?'
  return f'{100 * one.value:.3g}%, {100 * one.lo:.3g} to {100 * one.hi:.3g}%'


def _best(pairs: Pairs) -> list[int]:
  """Returns the row of the best pair of each test image, most certain first."""
  return np.sort(np.unique(pairs.test, return_index=True)[1]).tolist()


def _kinds(pairs: Pairs) -> list[tuple[str, int]]:
  return collections.Counter(pairs.kind(row) for row in _best(pairs)).most_common()


def _agreement(train: Set, test: Set, found: Found) -> Share:
  rows = _best(found.pairs)
  if not rows:
    return share(0, 0)
  one = test.split.labels(found.pairs.test[rows])
  two = train.split.labels(found.pairs.train[rows])
  width = min(one.shape[1], two.shape[1])
  agree = (np.sort(one)[:, -width:] == np.sort(two)[:, -width:]).all(1)
  return share(int(agree.sum()), len(rows))


def _trust(found: Found, fpr: float) -> list[document.Block]:
  """Returns how the cut was chosen, and what it finds and does not."""
  num_decoys, passed = found.decoys
  false = share(passed, num_decoys)
  rows = []
  for one in found.planted:
    recall = share(one.passed, one.num)
    # Of as many decoys as copies; each end takes the worse, or better, of both rates.
    precision = [
      f'{100 * right / (right + wrong):.4g}%' if right + wrong else '?'
      for right, wrong in (
        (recall.value, false.value),
        (recall.lo, false.hi),
        (recall.hi, false.lo),
      )
    ]
    rows.append(
      [
        one.kind,
        f'{one.num:,}',
        f'{one.reached:,}',
        f'{one.passed:,}',
        _percent(recall),
        '{}, {} to {}'.format(*precision),
      ]
    )
  overlap = int(found.duplicated().sum())
  expected = false.hi * found.num_test
  few = ''
  if fpr * num_decoys < 1:
    few = (
      f' A rate of {fpr:g} cannot be seen in {num_decoys:,} decoys: the cut lets none '
      'pass, and all that is known of the rate is its interval.'
    )
  return [
    document.Heading('How far to trust this'),
    document.Paragraph(
      f'A pair passes with a cosine above {found.cut.cosine:.3f} and at most '
      f'{found.cut.distance} of 63 bits of the hash different, both after alignment. The '
      'distance is 12, or more where one in a hundred of the planted copies of some kind '
      f'needs it; the cosine is the least with which at most {fpr:g} of the decoys pass.'
    ),
    document.Table(
      ['planted copies', 'number', 'candidates', 'found', 'recall', 'precision'],
      rows,
      note='Training images changed and searched for; in the last row the training image '
      'is the crop. Precision is among as many copies as decoys. Intervals are of 90%.',
    ),
    document.Table(
      ['searched for without a copy', 'number', 'found', 'share'],
      [
        [
          'test images upside down (decoys)',
          f'{num_decoys:,}',
          f'{passed:,}',
          _percent(false),
        ],
        [
          'training images, among the others',
          f'{found.others[0]:,}',
          f'{found.others[1]:,}',
          _percent(share(found.others[1], found.others[0])),
        ],
      ],
      note='A training part may hold duplicates of its own, so the second share is an '
      'upper bound of false finds, and no more. Decoys have no duplicates, but are less '
      'alike than two pictures of one kind of thing may be, so the first may be too low.'
      f'{few} By the upper end of its interval {expected:,.0f} of the {overlap:,} finds '
      'would be false; whether likenesses pass as well, only the picture tells.',
    ),
  ]


def _effect(effect: Effect) -> list[document.Block]:
  rows = [
    [name, f'{one.num:,}', _percent(one)]
    for name, one in (
      ('all', effect.whole),
      ('without a duplicate', effect.clean),
      ('with a duplicate', effect.duplicated),
    )
  ]
  return [
    document.Heading('Accuracy'),
    document.Paragraph(
      f'Leaving out the test images with a duplicate: {effect.verdict}.', lead=True
    ),
    document.Table(
      ['test images', 'number', 'accuracy'],
      rows,
      note='Intervals are of 90%. That of the change is a bootstrap over test images, '
      'of which both accuracies are taken.',
    ),
    document.Table(
      ['published', 'overlap', 'accuracy when left out', 'source'],
      duplicates.PUBLISHED,
      note='Other detectors and other thresholds, so to be compared in size only.',
      brief=False,
    ),
  ]


def write(
  folder: pathlib.Path,
  title: str,
  blocks: Sequence[document.Block],
  train: Set,
  test: Set,
  found: Found,
) -> Sequence[pathlib.Path]:
  """Writes dedup.md, dedup.html, pairs.csv, duplicates.csv, pairs.png and pairs.svg."""
  from analysis import figures
  from experiments import dedup_sheet

  figure = dedup_sheet.sheet(train.split, test.split, found, title)
  png, svg = figures.save_figure(figure, folder / 'pairs')
  caption = 'Test image on the left, training image on the right, with their cosine.'
  picture = document.Picture('pairs', svg.read_text(encoding='utf-8'), caption)
  whole = [*blocks, document.Heading('Pairs'), picture]
  pairs, rows = found.pairs, _best(found.pairs)
  return [
    files.write_text(folder / 'dedup.md', document.to_markdown(title, whole)),
    files.write_text(folder / 'dedup.html', document.to_html(title, whole)),
    _write_csv(folder / 'pairs.csv', train.split, test.split, pairs, range(len(pairs))),
    _write_csv(folder / 'duplicates.csv', train.split, test.split, pairs, rows),
    png,
    svg,
  ]


def _write_csv(
  path: pathlib.Path, train: Split, test: Split, pairs: Pairs, rows: Sequence[int]
) -> pathlib.Path:
  text = io.StringIO()
  table = csv.writer(text, lineterminator='\n')
  table.writerow(
    ['test_id', 'train_id', 'cosine', 'hash_distance', 'kind', 'test', 'train']
  )
  for row in rows:
    one, two = int(pairs.test[row]), int(pairs.train[row])
    table.writerow(
      [
        one,
        two,
        f'{pairs.alignment.cosine[row]:.4f}',
        pairs.alignment.distance[row],
        pairs.kind(row),
        test.where(one),
        train.where(two),
      ]
    )
  return files.write_text(path, text.getvalue())
