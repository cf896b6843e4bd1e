"""A folder of image files, `class/file`: the form in which most own sets arrive.

Only names and some sizes are read at first; the files are read batch by batch. Names are
sorted, so the id of an image does not depend on the file system.
"""

import os
import pathlib

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from scaling.data.split import Split, file_sizes, fingerprint, one_label, split_off
from scaling.errors import UserError

_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif')
_SIZES = 2**17  # a quarter of a second; of larger sets only some sizes are looked at


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
    train, test = split_off(*_list(root, data.max_labels), data.test_fraction)
  else:
    train, test = (_list(part, data.max_labels)[0] for part in parts)
  if odd := sorted(set(train.label_names) ^ set(test.label_names)):
    raise UserError(
      f'{parts[0]} and {parts[1]} must hold the same classes; {odd[0]!r} is in one only'
    )
  return train, test


def _list(folder: pathlib.Path, max_labels: int) -> tuple[Split, NDArray[np.int32]]:
  """Returns the part that the images in a folder are, and the class of each, `[N]`.

  A million files take little over a second: their names are read, no more of most.
  """
  with os.scandir(folder) as entries:
    classes = sorted(
      entry.name
      for entry in entries
      if not entry.name.startswith('.') and entry.is_dir()
    )
  if not classes:
    raise UserError(f'{folder} has no class folders; expected class/file in it')
  files, counts = [], []
  for name in classes:
    with os.scandir(folder / name) as entries:
      found = sorted(
        entry.name
        for entry in entries
        if entry.name.lower().endswith(_SUFFIXES)
        and not entry.name.startswith('.')
        and entry.is_file()
      )
    if not found:
      raise UserError(
        f'{folder / name} is a class without images ({" ".join(_SUFFIXES)}); add some'
        ' or remove the folder'
      )
    files += found
    counts.append(len(found))
  labels = np.repeat(np.arange(len(classes), dtype=np.int32), counts)

  def where(image_id: int) -> str:
    return os.path.join(folder, classes[labels[image_id]], files[image_id])

  split = Split(
    num_images=len(files),
    num_classes=len(classes),
    labels=one_label(labels, max_labels).__getitem__,
    images=None,
    encoded=lambda ids: [_read(where(i)) for i in ids],
    label_names=tuple(classes),
    fingerprint=fingerprint(
      classes, files, labels, file_sizes(where, len(files), _SIZES)
    ),
    where=where,
  )
  return split, labels


def _read(path: str) -> bytes:
  try:
    with open(path, 'rb', buffering=0) as file:
      return file.read()
  except OSError as error:
    raise UserError(f'{path} cannot be read any more ({error.strerror})') from error
