"""IDX files: the MNIST family, as Debian's dataset packages install it.

The format is a magic number, the counts and the raw bytes, so numpy reads it whole; the
work is in telling which file is broken, and how.
"""

import gzip
import math
import pathlib
import zlib

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from scaling.data.split import Split, in_memory, one_label
from scaling.errors import UserError

_SHARE = pathlib.Path('/usr/share/datasets')  # of Debian's dataset-* packages


def at_hand(data: ConfigDict, data_dir: str | None) -> bool:
  """Returns whether all four files are there."""
  folder = _folder(data, data_dir)
  return all(
    _find(folder, prefix, kind)
    for prefix in (data.train_split, data.test_split)
    for kind in ('images-idx3', 'labels-idx1')
  )


def load(data: ConfigDict, data_dir: str | None) -> tuple[Split, Split]:
  """Returns the training and the test part, `[N, H, W, 1]`.

  Raises:
    UserError: naming the file that is missing, truncated or at odds with another.
  """
  folder = _folder(data, data_dir)
  train, test = (
    _read_part(folder, prefix, data.name)
    for prefix in (data.train_split, data.test_split)
  )
  num_classes = 1 + max(int(labels.max(initial=0)) for _, labels in (train, test))
  names = [str(label) for label in range(num_classes)]
  return (
    in_memory(train[0], one_label(train[1], data.max_labels), names),
    in_memory(test[0], one_label(test[1], data.max_labels), names),
  )


def _folder(data: ConfigDict, data_dir: str | None) -> pathlib.Path:
  return pathlib.Path(data_dir).expanduser() if data_dir else _SHARE / data.name


def _find(folder: pathlib.Path, prefix: str, kind: str) -> pathlib.Path | None:
  names = (f'{prefix}-{kind}-ubyte', f'{prefix}-{kind}-ubyte.gz')
  return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_part(
  folder: pathlib.Path, prefix: str, name: str
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
  """Returns the images `[N, H, W, 1]` and labels `[N]` behind one prefix."""
  arrays, paths = [], []
  for kind in ('images-idx3', 'labels-idx1'):
    path = _find(folder, prefix, kind)
    if path is None:
      raise UserError(
        f'data.name={name!r} has no {folder}/{prefix}-{kind}-ubyte[.gz]; run'
        f' `apt-get install dataset-{name}` or pass --data_dir=FOLDER with the files'
      )
    arrays.append(_read(path, num_dims=int(kind[-1])))
    paths.append(path)
  images, labels = arrays
  if len(images) != len(labels):
    raise UserError(
      f'{paths[0]} has {len(images)} images but {paths[1].name} {len(labels)} labels;'
      ' fetch both anew'
    )
  return images[..., None], labels


def _read(path: pathlib.Path, num_dims: int) -> NDArray[np.uint8]:
  try:
    content = path.read_bytes()
    if path.suffix == '.gz':
      content = gzip.decompress(content)
  except (OSError, EOFError, zlib.error) as error:
    raise UserError(f'{path} cannot be read ({error}); fetch it anew') from error
  header = 4 + 4 * num_dims
  magic = bytes((0, 0, 8, num_dims))  # 8: unsigned bytes
  if content[:4] != magic or len(content) < header:
    raise UserError(
      f'{path} starts with {content[:4].hex()!r}, not {magic.hex()!r}: no IDX file of'
      f' {num_dims}-d bytes; fetch it anew'
    )
  shape = [int(size) for size in np.frombuffer(content[4:header], '>u4')]
  if len(content) - header != math.prod(shape):
    raise UserError(
      f'{path} has {len(content) - header} bytes of data where its header promises'
      f' {math.prod(shape)}; fetch it anew'
    )
  return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
