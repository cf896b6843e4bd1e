"""Image files that CSV files list, `path,label`: files stay where they are.

Only the lists are read at first; the files are read batch by batch. An image may have
several labels, which a folder for each class cannot say.
"""

import csv
import os
import pathlib
from dataclasses import dataclass

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from scaling.data.split import Split, file_sizes, fingerprint, split_off
from scaling.data.subsets import Ids
from scaling.errors import UserError

_COLUMNS = ('path', 'label')
_BETWEEN = ';'  # labels of one image
_SIZES = 1000  # to know changed files by: all would take minutes on a shared disk


@dataclass(frozen=True)
class _Listing:
  """The rows of one file, in its order.

  Attributes:
    path: of the CSV file.
    files: paths as they are written there.
    lines: of the CSV file, counted from 1.
    names: of the labels: each combination once.
    kinds: `[N]`, which of these a row has.
  """

  path: pathlib.Path
  files: list[str]
  lines: list[int]
  names: list[tuple[str, ...]]
  kinds: NDArray[np.int64]

  def where(self, row: int) -> str:
    """Returns words that find a row, for errors."""
    return f'{self.path}, line {self.lines[row]}'


def at_hand(data: ConfigDict, data_dir: str | None) -> bool:
  """Returns whether there is a list of training images."""
  return bool(data_dir) and _csv(data_dir, data.train_split).is_file()


def load(data: ConfigDict, data_dir: str | None) -> tuple[Split, Split]:
  """Returns the training and the test part.

  They are listed in `data.train_split`.csv and `data.test_split`.csv. Without the latter
  a test part is held back, balanced by the first label of each image. Classes are all
  labels of both parts, sorted.

  Raises:
    UserError: when the list is missing, names the line that is malformed or has more
      labels than `data.max_labels`. A file that is missing is found when it is read.
  """
  if not data_dir:
    raise UserError(
      f"data.source='csv' needs --data_dir=FOLDER with {data.train_split}.csv in it"
    )
  path = _csv(data_dir, data.train_split)
  if not path.is_file():
    raise UserError(
      f'{path} is missing; write it with the columns {",".join(_COLUMNS)}, or set '
      'data.train_split'
    )
  listed = _read(path, data.max_labels)
  parts, path = [listed], _csv(data_dir, data.test_split)
  if path.is_file():
    parts.append(_read(path, data.max_labels))
  names = sorted({name for part in parts for some in part.names for name in some})
  if not names:
    raise UserError(f'{listed.path} has no label in any line; fill in the column')
  whole, *others = (_split(part, names, data.max_labels) for part in parts)
  if others:
    return whole, others[0]
  ids = {name: i for i, name in enumerate(names)}
  first = np.array([ids[some[0]] if some else len(names) for some in listed.names])
  return split_off(whole, first[listed.kinds], data.test_fraction)


def _csv(data_dir: str | None, split: str) -> pathlib.Path:
  return pathlib.Path(data_dir or '.').expanduser() / f'{split}.csv'


def _read(path: pathlib.Path, max_labels: int) -> _Listing:
  """Returns the rows of a file, its labels still by name."""
  files, lines, kinds, texts = [], [], [], {}
  try:
    # Spreadsheets put a mark in front of the text, which would be part of the header.
    with path.open(encoding='utf-8-sig', newline='') as file:
      reader = csv.reader(file, strict=True)
      header = next(reader, [])
      missing = [name for name in _COLUMNS if name not in header]
      if missing:
        raise UserError(
          f'{path}, line 1: no column {missing[0]!r} in {",".join(header)!r}; begin the '
          f'file with {",".join(_COLUMNS)}'
        )
      at_path, at_label = (header.index(name) for name in _COLUMNS)
      for row in reader:
        if len(row) != len(header):
          if not row:
            continue
          raise UserError(
            f'{path}, line {reader.line_num}: {len(row)} values where the header has '
            f'{len(header)}; put a value with a comma in quotes'
          )
        files.append(row[at_path])
        lines.append(reader.line_num)
        kinds.append(texts.setdefault(row[at_label], len(texts)))
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f'{path} cannot be read ({error}); write it as UTF-8') from error
  except csv.Error as error:
    raise UserError(
      f'{path}, line {reader.line_num}: {error}; mend its quotes'
    ) from error
  if not files:
    raise UserError(f'{path} lists no images; add a line for each')
  names = [_names(text) for text in texts]
  number = {some: i for i, some in enumerate(dict.fromkeys(names))}
  same = np.array([number[some] for some in names])  # for blanks around a name
  listing = _Listing(path, files, lines, list(number), same[kinds])
  if '' in files:
    raise UserError(
      f'{listing.where(files.index(""))}: no path; fill it in or remove the line'
    )
  for kind, text in enumerate(texts):
    if '' in names[kind]:
      raise UserError(
        f'{listing.where(kinds.index(kind))}: label {text!r} has an empty name; write '
        f'names with one {_BETWEEN!r} between them'
      )
  _check_counts(listing, max_labels)
  return listing


def _names(text: str) -> tuple[str, ...]:
  if not text.strip():
    return ()
  return tuple(dict.fromkeys(name.strip() for name in text.split(_BETWEEN)))


def _check_counts(listing: _Listing, max_labels: int) -> None:
  counts = np.array([len(one) for one in listing.names])[listing.kinds]
  if (many := np.flatnonzero(counts > max_labels)).size:
    raise UserError(
      f'data.max_labels={max_labels} is too few: {listing.where(int(many[0]))} has '
      f'{counts[many[0]]}; set it to {counts.max()} or more'
    )
  if max_labels == 1 and (none := np.flatnonzero(counts == 0)).size:
    raise UserError(
      f'{listing.where(int(none[0]))}: no label; fill it in, or set data.max_labels '
      'above 1 for images that have none'
    )


def _split(listing: _Listing, names: list[str], max_labels: int) -> Split:
  """Returns the part that the rows of a list are."""
  ids = {name: i for i, name in enumerate(names)}
  ends = np.cumsum([0, *map(len, listing.names)])
  # With one to spare, so that there is one to look at where no image has any.
  flat = np.array([ids[name] for some in listing.names for name in some] + [-1])

  def labels(rows: Ids) -> NDArray[np.int32]:
    kinds = listing.kinds[rows]
    places = ends[kinds, None] + np.arange(max_labels)
    inside = places < ends[kinds + 1, None]
    return np.where(inside, flat[np.where(inside, places, 0)], -1).astype(np.int32)

  def where(image_id: int) -> str:
    return os.path.join(listing.path.parent, listing.files[image_id])

  return Split(
    num_images=len(listing.files),
    num_classes=len(names),
    labels=labels,
    images=None,
    encoded=lambda ids: [_read_file(where(i), listing, i) for i in ids],
    label_names=tuple(names),
    fingerprint=fingerprint(
      names,
      listing.files,
      flat,
      ends,
      listing.kinds,
      file_sizes(where, len(listing.files), _SIZES),
    ),
    where=where,
  )


def _read_file(path: str, listing: _Listing, row: int) -> bytes:
  try:
    return pathlib.Path(path).read_bytes()
  except OSError as error:
    raise UserError(
      f'{path} cannot be read ({error.strerror}); {listing.where(row)} names it'
    ) from error
