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

from scaling.data.split import Split, fingerprint, hold_out
from scaling.data.subsets import Ids
from scaling.errors import UserError

_COLUMNS = ('path', 'label')
_BETWEEN = ';'  # labels of one image
# Sizes of files to know changed ones by: all would take minutes on a shared disk.
_SIZES = 1000


@dataclass(frozen=True)
class _Listing:
  """The rows of one file, in its order.

  Attributes:
    path: of the CSV file.
    files: paths as they are written there.
    lines: of the CSV file, counted from 1.
    labels: distinct names of each image.
  """

  path: pathlib.Path
  files: list[str]
  lines: list[int]
  labels: list[tuple[str, ...]]

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
  train = _read(path, data.max_labels)
  path = _csv(data_dir, data.test_split)
  test = _read(path, data.max_labels) if path.is_file() else None
  parts = (train,) if test is None else (train, test)
  names = sorted({name for part in parts for one in part.labels for name in one})
  if not names:
    raise UserError(f'{train.path} has no label in any line; fill in the column')
  if test is not None:
    return _split(train, names, data.max_labels), _split(test, names, data.max_labels)
  ids = {name: i for i, name in enumerate(names)}
  first = [ids[one[0]] if one else len(names) for one in train.labels]
  kept, held = hold_out(np.array(first, np.int64), data.test_fraction)
  return (
    _split(train, names, data.max_labels, kept),
    _split(train, names, data.max_labels, held),
  )


def _csv(data_dir: str | None, split: str) -> pathlib.Path:
  return pathlib.Path(data_dir or '.').expanduser() / f'{split}.csv'


def _read(path: pathlib.Path, max_labels: int) -> _Listing:
  """Returns the rows of a file, its labels still by name."""
  found = _Listing(path, [], [], [])
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
        if not row:
          continue
        if len(row) != len(header):
          raise UserError(
            f'{path}, line {reader.line_num}: {len(row)} values where the header has '
            f'{len(header)}; put a value with a comma in quotes'
          )
        found.files.append(row[at_path])
        found.lines.append(reader.line_num)
        found.labels.append(_names(row[at_label]))
        if not row[at_path]:
          raise UserError(f'{found.where(-1)}: no path; fill it in or remove the line')
        if '' in found.labels[-1]:
          raise UserError(
            f'{found.where(-1)}: label {row[at_label]!r} has an empty name; write '
            f'names with one {_BETWEEN!r} between them'
          )
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f'{path} cannot be read ({error}); write it as UTF-8') from error
  except csv.Error as error:
    raise UserError(
      f'{path}, line {reader.line_num}: {error}; mend its quotes'
    ) from error
  if not found.files:
    raise UserError(f'{path} lists no images; add a line for each')
  _check_counts(found, max_labels)
  return found


def _names(cell: str) -> tuple[str, ...]:
  if not cell.strip():
    return ()
  return tuple(dict.fromkeys(name.strip() for name in cell.split(_BETWEEN)))


def _check_counts(listing: _Listing, max_labels: int) -> None:
  counts = np.array([len(one) for one in listing.labels], np.int64)
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


def _split(
  listing: _Listing, names: list[str], max_labels: int, rows: Ids | None = None
) -> Split:
  """Returns the part that the rows of a list are; by default all."""
  rows = np.arange(len(listing.files)) if rows is None else rows
  ids = {name: i for i, name in enumerate(names)}
  labels = [[ids[name] for name in listing.labels[row]] for row in rows]
  ends = np.cumsum([0] + [len(one) for one in labels])
  # With one to spare, so that there is one to look at where no image has any.
  flat = np.array([label for one in labels for label in one] + [-1], np.int32)
  written = [listing.files[row] for row in rows]
  folder = listing.path.parent

  def table(ids: Ids) -> NDArray[np.int32]:
    ids = np.asarray(ids, np.int64)
    places = ends[ids, None] + np.arange(max_labels)
    inside = places < ends[ids + 1, None]
    return np.where(inside, flat[np.where(inside, places, 0)], -1).astype(np.int32)

  def where(image_id: int) -> str:
    return os.path.join(folder, written[image_id])

  def encoded(ids: Ids) -> list[bytes]:
    return [_read_file(where(i), listing.where(int(rows[i]))) for i in ids]

  some = range(0, len(written), len(written) // _SIZES + 1)
  return Split(
    num_images=len(written),
    num_classes=len(names),
    labels=table,
    images=None,
    encoded=encoded,
    label_names=tuple(names),
    fingerprint=fingerprint(
      names, written, flat[:-1], ends, [_size(where(i)) for i in some]
    ),
    where=where,
  )


def _size(path: str) -> int:
  """Returns the bytes of a file, -1 where there is none: it is missed when it is read."""
  try:
    return os.stat(path).st_size
  except OSError:
    return -1


def _read_file(path: str, line: str) -> bytes:
  try:
    return pathlib.Path(path).read_bytes()
  except OSError as error:
    raise UserError(
      f'{path} cannot be read ({error.strerror}); {line} names it'
    ) from error
