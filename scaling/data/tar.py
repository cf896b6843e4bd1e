"""Tar files of images and labels in the layout of WebDataset, read at random.

`data_dir` has files `train*.tar` and `test*.tar`. The members of one image follow each
other and share a name: `0017.jpg` beside `0017.cls`, which holds its class number, or
several with commas between, or beside `0017.json`, whose field `data.label_key` does.
`classes.txt` may name the classes, one a line.

Streams of such files are shuffled through a buffer, which makes neither nested subsets
nor an exact resume. So the files are indexed once: where each image lies, and its labels.
`data_dir` may also be `gs://`, `s3://` or what else fsspec reads.
"""

import os
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from scaling.data import tar_index
from scaling.data.examples import pad_labels
from scaling.data.split import Split, fingerprint, read_classes
from scaling.data.subsets import Ids
from scaling.errors import UserError

_EXTRAS = {'gs': 'gcs', 'gcs': 'gcs', 's3': 's3'}


def at_hand(data: ConfigDict, data_dir: str | None) -> bool:
  """Returns whether there are files of both parts."""
  try:
    fs, folder = _open(data_dir)
    return all(_list(fs, folder, p) for p in (data.train_split, data.test_split))
  except UserError:
    return False


def load(data: ConfigDict, data_dir: str | None) -> tuple[Split, Split]:
  """Returns the training and the test part, indexing their files the first time.

  Raises:
    UserError: for files that are missing, torn, without labels or changed since they
      were indexed, and for a store that cannot be reached.
  """
  fs, folder = _open(data_dir)
  return (
    _split(fs, folder, data.train_split, data),
    _split(fs, folder, data.test_split, data),
  )


def _open(data_dir: str | None) -> tuple[Any, str]:
  """Returns the file system and the folder in it."""
  import fsspec

  if not data_dir:
    raise UserError(
      "data.source='tar' needs --data_dir=FOLDER with train*.tar and test*.tar in it"
    )
  try:
    return fsspec.url_to_fs(os.path.expanduser(data_dir))
  except ImportError as error:
    extra = _EXTRAS.get(data_dir.partition('://')[0], 'test')
    raise UserError(
      f"--data_dir={data_dir}: {error}; run `pip install 'scaling[{extra}]'`"
    ) from error
  except Exception as error:
    raise _unreachable(data_dir, error) from error


def _unreachable(path: str, error: Exception) -> UserError:
  words = (str(error).splitlines() or [''])[0] or type(error).__name__
  return UserError(f'{path} cannot be read ({words}); check the name and your access')


def _list(fs: Any, folder: str, prefix: str) -> dict[str, int]:
  """Returns the bytes of each file of a part, by path."""
  try:
    fs.invalidate_cache()
    found = fs.glob(f'{folder}/{prefix}*.tar', detail=True)
  except Exception as error:
    raise _unreachable(folder, error) from error
  return {path: int(found[path]['size']) for path in sorted(found)}


def _split(fs: Any, folder: str, prefix: str, data: ConfigDict) -> Split:
  sizes = _list(fs, folder, prefix)
  if not sizes:
    raise UserError(
      f'{folder} has no {prefix}*.tar; pass --data_dir, or set data.train_split and'
      ' data.test_split to how its files begin'
    )
  home = tar_index.home_of(fs, folder, prefix, data.label_key)
  paths = list(sizes)
  try:
    if not (home / 'files.json').exists():
      tar_index.write(home, fs, sizes, data.label_key)
    file, start, length, labels = tar_index.load(home, fs, sizes)
  except UserError:
    raise
  except Exception as error:  # of the store
    raise _unreachable(folder, error) from error
  names = _classes(fs, folder, data.num_classes)

  def where(image: int) -> str:
    return f'the image at byte {start[image]} of {paths[file[image]]}'

  def encoded(ids: Ids) -> list[bytes]:
    ids = np.asarray(ids)
    which, first = file[ids], start[ids].astype(np.int64)
    return _read(fs, [paths[i] for i in which], first, first + length[ids])

  return Split(
    num_images=len(file),
    num_classes=len(names),
    labels=lambda ids: pad_labels(
      [
        [label for label in row if label >= 0]
        for row in labels[np.asarray(ids)].tolist()
      ],
      len(names),
      data.max_labels,
      lambda row: where(int(ids[row])),
    ),
    images=None,
    encoded=encoded,
    label_names=names,
    fingerprint=fingerprint(
      [(os.path.basename(path), size) for path, size in sizes.items()],
      len(file),
      names,
    ),
    where=where,
  )


def _read(fs: Any, paths: list[str], starts: Ids, ends: Ids) -> list[bytes]:
  try:
    return tar_index.read(fs, paths, starts, ends)
  except Exception as error:
    raise _unreachable(paths[0], error) from error


def _classes(fs: Any, folder: str, num_classes: int) -> tuple[str, ...]:
  path = f'{folder}/classes.txt'
  try:
    if not fs.exists(path):
      return tuple(str(label) for label in range(num_classes))
    return read_classes(fs.cat_file(path).decode(), path)
  except (OSError, UnicodeDecodeError) as error:
    raise _unreachable(path, error) from error
