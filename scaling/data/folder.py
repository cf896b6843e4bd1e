"""A folder of image files, `class/file`: the form in which most own sets arrive.

Only names and sizes are read at first; the files are read batch by batch. Names are
sorted, so the id of an image does not depend on the file system.
"""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from scaling.data.split import Split, fingerprint, hold_out, one_label
from scaling.errors import UserError

_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif')


def at_hand(data: ConfigDict, data_dir: str | None) -> bool:
  """Returns whether there is a folder to look into."""
  del data
  return bool(data_dir) and pathlib.Path(data_dir).expanduser().is_dir()


def load(data: ConfigDict, data_dir: str | None) -> tuple[Split, Split]:
  """Returns the training and the test part.

  They are the sub-folders `data.train_split` and `data.test_split`. Without either, the
  classes are expected in `data_dir` itself and a test part is held back.

  Raises:
    UserError: when the folder or the images of a class are missing, or when the classes
      of the two parts differ.
  """
  if not data_dir:
    raise UserError(
      "data.source='folder' needs --data_dir=FOLDER with class/file in it"
    )
  root = pathlib.Path(data_dir).expanduser()
  if not root.is_dir():
    raise UserError(
      f'--data_dir={data_dir} is no folder; name one with class/file in it'
    )
  parts = [root / data.train_split, root / data.test_split]
  missing = [part for part in parts if not part.is_dir()]
  if len(missing) == 1:
    raise UserError(
      f'{missing[0]} is missing; add it, or set data.train_split and data.test_split'
    )
  if missing:
    names, files, labels = _list_files(root)
    train, test = (
      (names, [files[i] for i in ids], labels[ids])
      for ids in hold_out(labels, data.test_fraction)
    )
  else:
    train, test = (_list_files(part) for part in parts)
  if odd := sorted(set(train[0]) ^ set(test[0])):
    raise UserError(
      f'{parts[0]} and {parts[1]} must hold the same classes; {odd[0]!r} is in one only'
    )
  return _split(*train, data.max_labels, root), _split(*test, data.max_labels, root)


def _visible(folder: pathlib.Path) -> list[os.DirEntry]:
  with os.scandir(folder) as entries:
    return sorted(
      (entry for entry in entries if not entry.name.startswith('.')),
      key=lambda entry: entry.name,
    )


def _list_files(
  folder: pathlib.Path,
) -> tuple[list[str], list[tuple[str, int]], NDArray[np.int32]]:
  """Returns class names, the path and size of each file, and its label `[N]`."""
  names = [entry.name for entry in _visible(folder) if entry.is_dir()]
  if not names:
    raise UserError(f'{folder} has no class folders; expected class/file in it')
  files, counts = [], []
  for name in names:
    found = [
      (entry.path, entry.stat().st_size)
      for entry in _visible(folder / name)
      if entry.is_file() and entry.name.lower().endswith(_SUFFIXES)
    ]
    if not found:
      raise UserError(
        f'{folder / name} is a class without images ({" ".join(_SUFFIXES)}); add some'
        ' or remove the folder'
      )
    files += found
    counts.append(len(found))
  return names, files, np.repeat(np.arange(len(names), dtype=np.int32), counts)


def _split(
  names: Sequence[str],
  files: Sequence[tuple[str, int]],
  labels: NDArray[np.int32],
  max_labels: int,
  root: pathlib.Path,
) -> Split:
  paths = [path for path, _ in files]
  start = os.path.join(root, '')  # `relpath` takes as long as all the rest
  relative = [(path.removeprefix(start), size) for path, size in files]
  return Split(
    num_images=len(paths),
    num_classes=len(names),
    labels=one_label(labels, max_labels).__getitem__,
    images=None,
    encoded=lambda ids: [_read(paths[i]) for i in ids],
    label_names=tuple(names),
    fingerprint=fingerprint(names, relative),
    where=paths.__getitem__,
  )


def _read(path: str) -> bytes:
  try:
    with open(path, 'rb', buffering=0) as file:
      return file.read()
  except OSError as error:
    raise UserError(f'{path} cannot be read any more ({error.strerror})') from error
