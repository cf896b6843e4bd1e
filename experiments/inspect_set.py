"""Looks at an image set and writes down what is in it."""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from analysis import document, files
from scaling.data import survey
from scaling.data.split import Split
from scaling.data.survey import RARE, Images, Labels, Tell

IMAGES = 2_000  # decoded of each part, where not all are
LABELS = 1_000_000  # read of each part, where they cost little
RECORDS = 50_000  # likewise, where the image comes along
_SHEET = 40  # images of the contact sheet
_LONGEST = 160  # pixels there
_SHOWN = 20  # corrupt files in the report; all are in corrupt.csv
_MOST_LABELS = 8  # rows of the histogram
_NAME = 32  # letters of a class's name in a table


@dataclasses.dataclass(frozen=True)
class Part:
  """What was found in a part."""

  split: Split
  labels: Labels
  images: Images


def look(split: Split, *, whole: bool, costly: bool, tell: Mapping[str, Tell]) -> Part:
  """Returns what is in a part.

  Args:
    split: the part.
    whole: look at every image rather than at samples.
    costly: labels cannot be had without the images.
    tell: what to call with the progress of 'labels' and 'images'.
  """
  everything = split.num_images
  num_labels = everything if whole else RECORDS if costly else LABELS
  num_images = everything if whole else IMAGES
  return Part(
    split,
    survey.read_labels(split, survey.sample(split, num_labels), tell['labels']),
    survey.read_images(split, survey.sample(split, num_images), tell['images']),
  )


def blocks(parts: Mapping[str, Part]) -> list[document.Block]:
  """Returns the report on a set.

  Args:
    parts: by name, the training part first.
  """
  names = list(parts)
  per_image = [part.labels.per_image for part in parts.values()]
  several = any(len(found) != 2 or found[0] for found in per_image)
  rows = [_label_rows(part, several) | _image_rows(part) for part in parts.values()]
  labels = list(dict.fromkeys(label for one in rows for label in one))
  table = [[label, *(one.get(label, '') for one in rows)] for label in labels]
  found: list[document.Block] = [
    document.Paragraph(_lead(parts), lead=True),
    document.Table(['', *names], table, note=_note(parts)),
    document.Heading('Classes'),
    _class_table(parts),
  ]
  corrupt = [
    [name, where, reason]
    for name, part in parts.items()
    for where, reason in part.images.corrupt
  ]
  if corrupt:
    more = len(corrupt) - _SHOWN
    found += [
      document.Heading('Corrupt images'),
      document.Table(
        ['part', 'image', 'reason'],
        corrupt[:_SHOWN],
        note=f'and {more:,} more' if more > 0 else '',
      ),
    ]
  found += [document.Heading('In a config'), document.Code(_fields(parts), brief=True)]
  return found


def _lead(parts: Mapping[str, Part]) -> str:
  first = next(iter(parts.values()))
  counts = ', '.join(f'{p.split.num_images:,} {name}' for name, p in parts.items())
  text = f'{counts} images in {first.split.num_classes:,} classes'
  if corrupt := sum(len(part.images.corrupt) for part in parts.values()):
    seen = sum(part.images.num_images for part in parts.values())
    text += f'; {corrupt:,} of the {seen:,} looked at are corrupt'
  return text + '.'


def _note(parts: Mapping[str, Part]) -> str:
  note = 'a / b / c: smallest, median and largest.'
  seen = [one for part in parts.values() for one in (part.labels, part.images)]
  if any(one.num_images < one.num_full for one in seen):
    note += (
      ' Samples are random, and numbers from a sample are those of the sample: ? is '
      'what it cannot tell. --all reads everything.'
    )
  return note


def _read(found: Labels | Images) -> str:
  sampled = found.num_images < found.num_full
  return f'a sample of {found.num_images:,}' if sampled else 'all'


def _label_rows(part: Part, several: bool) -> dict[str, str]:
  labels, split = part.labels, part.split
  counts, order = labels.counts, np.argsort(-labels.counts, kind='stable')
  rows = {
    'images': f'{split.num_images:,}',
    'labels read of': _read(labels),
    'labels an image, mean': f'{labels.mean:.4g}',
  }
  per_image = labels.per_image
  if several:
    for num in np.flatnonzero(per_image):
      if num < _MOST_LABELS:
        rows[f'images with {_plural(int(num), "label")}'] = f'{per_image[num]:,}'
    if more := int(per_image[_MOST_LABELS:].sum()):
      rows[f'images with {_MOST_LABELS} labels or more'] = f'{more:,}'
  rows |= {
    'classes with images': f'{int((counts > 0).sum()):,}',
    'classes without images': f'{int((counts == 0).sum()):,}',
    'largest class': f'{counts[order[0]]:,}',
    'median class': f'{np.median(counts):,.10g}',
    'smallest class': f'{counts[order[-1]]:,}',
  }
  for images in RARE:
    known = labels.num_images == labels.num_full
    found = f'{labels.rarer_than(images):,}' if known else '?'
    rows[f'classes below {images} images'] = found
  return rows


def _image_rows(part: Part) -> dict[str, str]:
  images = part.images
  rows = {'images looked at': _read(images)}
  if len(images.heights):
    short = np.minimum(images.heights, images.widths)
    rows |= {
      'height, pixels': _spread(images.heights),
      'width, pixels': _spread(images.widths),
      'shorter side, pixels': _spread(short),
      'bytes an image': _spread(images.num_bytes),
    }
  total = max(1, sum(images.kinds.values()))
  for kind, count in images.kinds.items():
    rows[kind] = f'{100 * count / total:.3g}%'
  if images.turned:
    rows['to be turned (Exif)'] = f'{images.turned:,}'
  rows['corrupt'] = f'{len(images.corrupt):,}'
  rows['fingerprint'] = part.split.fingerprint
  return rows


def _spread(values: NDArray[np.int64]) -> str:
  low, middle, high = int(values.min()), np.median(values), int(values.max())
  return f'{low:,}' if low == high else f'{low:,} / {middle:,.0f} / {high:,}'


def _plural(number: int, word: str) -> str:
  return f'{number} {word}' + ('' if number == 1 else 's')


def _class_table(parts: Mapping[str, Part]) -> document.Table:
  """Returns the most and the least frequent classes of the training part."""
  first = next(iter(parts.values()))
  order = np.argsort(-first.labels.counts, kind='stable')
  ranks = range(len(order))
  cut = len(order) > 12
  shown = [*ranks[:6], *ranks[-6:]] if cut else list(ranks)
  rows = []
  for rank in shown:
    name = first.split.label_names[order[rank]]
    name = name if len(name) <= _NAME else name[: _NAME - 1] + '…'
    counts = [f'{part.labels.counts[order[rank]]:,}' for part in parts.values()]
    rows.append([f'{rank + 1:,}', name, *counts])
    if cut and rank == 5:
      rows.append(['…', *[''] * (1 + len(parts))])
  return document.Table(['rank', 'class', *parts], rows)


def _fields(parts: Mapping[str, Part]) -> str:
  """Returns the lines of a config that follow from the set."""
  first = next(iter(parts.values()))
  most = max(len(part.labels.per_image) - 1 for part in parts.values())
  lines = [
    f'data.num_classes = {first.split.num_classes}',
    f'data.max_labels = {max(most, 1)}',
  ]
  if first.split.shape is not None:
    height, _, channels = first.split.shape
    lines += [f'data.channels = {channels}', f'data.image_size = {height}']
  elif first.images.kinds:
    modes = {kind.split()[1] for part in parts.values() for kind in part.images.kinds}
    lines.append(f'data.channels = {1 if modes <= {"1", "L", "LA"} else 3}')
  if most > 1:
    lines.append("train.loss = 'sigmoid'")
  return '\n'.join(lines)


def write(
  folder: pathlib.Path, title: str, parts: Mapping[str, Part]
) -> Sequence[pathlib.Path]:
  """Writes inspect.md, labels.csv, the two figures and, if any, corrupt.csv."""
  from analysis import figures
  from experiments import data_figures

  folder.mkdir(parents=True, exist_ok=True)
  text = document.to_markdown(title, blocks(parts))
  text += '\n![Images of each class](labels.png)\n\n![Some images](samples.png)\n'
  paths = [files.write_text(folder / 'inspect.md', text)]
  names = next(iter(parts.values())).split.label_names
  counts = {name: part.labels.counts for name, part in parts.items()}
  paths.append(
    _write_csv(
      folder / 'labels.csv',
      ['class', *counts],
      list(zip(names, *counts.values(), strict=True)),
    )
  )
  corrupt = [
    (name, where, reason)
    for name, part in parts.items()
    for where, reason in part.images.corrupt
  ]
  if corrupt:
    header = ['part', 'image', 'reason']
    paths.append(_write_csv(folder / 'corrupt.csv', header, corrupt))
  figure = data_figures.counts_by_rank(counts, f'{title}: images of each class')
  paths += figures.save_figure(figure, folder / 'labels', ('png',))
  first = next(iter(parts.values())).split
  ids = survey.sample(first, min(_SHEET, first.num_images))
  captions = [
    ', '.join(names[label] for label in row if label >= 0) or 'no label'
    for row in first.labels(ids)
  ]
  sheet = data_figures.contact_sheet(
    survey.thumbnails(first, ids, _LONGEST), captions, title
  )
  paths += figures.save_figure(sheet, folder / 'samples', ('png',))
  return paths


def _write_csv(
  path: pathlib.Path, header: Sequence[str], rows: Sequence
) -> pathlib.Path:
  text = io.StringIO()
  csv.writer(text, lineterminator='\n').writerows([header, *rows])
  return files.write_text(path, text.getvalue())
