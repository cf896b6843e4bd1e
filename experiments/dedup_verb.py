"""What `scaling dedup` does."""

import contextlib
import csv
import pathlib

import numpy as np
from numpy.typing import NDArray

from experiments import progress
from experiments.data_verbs import BY_NUMBER, CONFIG, named
from experiments.verbs import OK, Args, Verb
from scaling.errors import UserError

_PARTS = ('train', 'test')


def run_dedup(args: Args) -> int:
  from analysis import document, duplicates
  from experiments import dedup_report
  from scaling.data import sources
  from scaling.dedup import find, neighbours

  find.check(args.k, args.fpr)
  neighbours.import_faiss()
  sets, loaded = [], {}
  for place, word in zip(_PARTS, args.rest, strict=True):
    where, part = args.values[f'{place}_dir'], args.values[f'{place}_part']
    if (word, where) not in loaded:
      loaded[word, where] = sources.load_as_found(named(args, word), where)
    split = loaded[word, where][_PARTS.index(part)]
    if not split.num_images:
      raise UserError(f'{word}, {part} part: there are no images; choose another part')
    sets.append(dedup_report.Set(f'{word} {part}', split))
  train, test = sets
  correct = None
  if args.correct:
    correct = read_correct(pathlib.Path(args.correct), test.split.num_images)
  out = pathlib.Path(args.out).expanduser() if args.out else None
  if out is not None:
    # Before anything is read, for that may take long.
    out.mkdir(parents=True, exist_ok=True)
  with contextlib.ExitStack() as bars:
    found = find.find(
      train.split,
      test.split,
      k=args.k,
      fpr=args.fpr,
      tell=lambda doing: bars.enter_context(progress.working(doing, 'images')),
    )
  effect = None
  if correct is not None:
    effect = duplicates.effect(correct, found.duplicated(), args.margin / 100)
  # Numbers of unknown classes cannot be read as labels.
  labelled = not any(word.partition(':')[0] in BY_NUMBER for word in args.rest)
  blocks = dedup_report.blocks(
    train, test, found, fpr=args.fpr, effect=effect, labelled=labelled
  )
  title = f'Near-duplicates of {test.name} in {train.name}'
  print(document.to_text(title, blocks), end='')
  if out is not None:
    paths = dedup_report.write(out, title, blocks, train, test, found)
    print(f'\nwritten: {out}/ {", ".join(path.name for path in paths)}')
  return OK


def read_correct(path: pathlib.Path, num_images: int) -> NDArray[np.bool_]:
  """Returns whether each test image was classified correctly, `[N]`, from a CSV.

  Raises:
    UserError: for missing columns, and unless each id comes once, with 0 or 1.
  """
  with path.open(encoding='utf-8', newline='') as file:
    rows = csv.DictReader(file)
    missing = {'id', 'correct'} - set(rows.fieldnames or ())
    if missing:
      raise UserError(f'{path} has no column {" and ".join(sorted(missing))!r}')
    found = [(row['id'], row['correct']) for row in rows]
  known = {'0': False, '1': True, 'false': False, 'true': True}
  correct: dict[int, bool] = {}
  for image, value in found:
    number = int(image) if image.isdecimal() else -1
    if number in correct or not 0 <= number < num_images:
      raise UserError(f'{path}: id {image!r} is none of 0..{num_images - 1}, or again')
    if str(value).lower() not in known:
      raise UserError(f'{path}: id {image} has correct={value!r}; use 0 or 1')
    correct[number] = known[value.lower()]
  if len(correct) < num_images:
    raise UserError(
      f'{path} has {len(correct)} of the {num_images} test images; give a row for each'
    )
  return np.array([correct[number] for number in range(num_images)])


VERBS = {
  'dedup': Verb(
    'finds test images with a near-duplicate among training images',
    'Both sets are written as for `scaling data inspect`, and may be one set: its '
    'training part is searched for its test images. Thresholds are chosen on copies '
    'that are planted and on decoys, for --fpr. With --out it writes dedup.md, '
    'dedup.html, pairs.csv, duplicates.csv (test images to leave out) and pairs.png. '
    'Needs faiss: pip install "scaling[dedup]".',
    'scaling dedup tfds:cifar10 tfds:cifar10 --train_dir=sets --test_dir=sets --out=dups',
    (
      'config',
      'train_dir',
      'test_dir',
      'train_part',
      'test_part',
      'k',
      'fpr',
      'correct',
      'margin',
      'out',
    ),
    run_dedup,
    words=('SOURCE[:NAME] to search', 'SOURCE[:NAME] of test images'),
    config=CONFIG,
  ),
}
