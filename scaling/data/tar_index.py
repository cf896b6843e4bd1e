"""The index of tar files: where each image lies, and its labels.

Made once, by reading each file through; its arrays are mapped into memory.
"""

import concurrent.futures
import hashlib
import json
import logging
import os
import pathlib
import shutil
import tarfile
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling import files
from scaling.errors import UserError

LOG = logging.getLogger('scaling')

_IMAGES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif')
_THREADS = 16
# Number of the file, first byte, bytes, and labels padded with -1.
ARRAYS = ('file', 'start', 'length', 'labels')


def home_of(fs: Any, folder: str, prefix: str, label_key: str) -> pathlib.Path:
  """Returns where the index is: beside the files, or in the cache if none may be."""
  name = f'.{prefix}.{label_key}.index'
  beside = pathlib.Path(folder) / name
  if 'file' in fs.protocol and (beside.exists() or os.access(folder, os.W_OK)):
    return beside
  url = hashlib.sha256(fs.unstrip_protocol(folder).encode()).hexdigest()[:16]
  return files.cache_folder() / 'index' / url / name


def write(home: pathlib.Path, fs: Any, sizes: dict[str, int], label_key: str) -> None:
  LOG.info('indexing %d tar files', len(sizes))
  started = said = time.monotonic()
  parts, labels = [], []
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
    scans = threads.map(lambda path: scan(fs, path, sizes[path], label_key), sizes)
    for i, (starts, lengths, found) in enumerate(scans):
      parts.append((np.full(len(starts), i, np.int32), starts, lengths))
      labels += found
      if time.monotonic() - said > 5:
        said = time.monotonic()
        LOG.info('indexed %d of %d, %.0f s', i + 1, len(sizes), said - started)
  file, start, length = (np.concatenate(part) for part in zip(*parts, strict=True))
  width = max(map(len, labels), default=1)
  table = np.full((len(labels), max(width, 1)), -1, np.int32)
  for row, values in zip(table, labels, strict=True):
    row[: len(values)] = values
  temporary = home.with_name(f'{home.name}.{os.getpid()}')
  shutil.rmtree(temporary, ignore_errors=True)
  temporary.mkdir(parents=True)
  for name, array in zip(ARRAYS, (file, start, length, table), strict=True):
    np.save(temporary / f'{name}.npy', array)
  told = {os.path.basename(path): size for path, size in sizes.items()}
  (temporary / 'files.json').write_text(json.dumps(told, indent=1), encoding='utf-8')
  try:
    temporary.rename(home)
  except OSError:  # another process was faster
    shutil.rmtree(temporary)


def check(home: pathlib.Path, sizes: dict[str, int]) -> None:
  try:
    told = json.loads((home / 'files.json').read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise UserError(f'{home} is no whole index ({error}); remove it') from error
  now = {os.path.basename(path): size for path, size in sizes.items()}
  for name in sorted(told.keys() | now.keys()):
    if told.get(name) != now.get(name):
      here = f'has {now[name]} bytes' if name in now else 'is missing'
      raise UserError(
        f'{name} {here}, where the index {home} has {told.get(name)}; fetch the file'
        ' anew, or remove the index if the set was changed on purpose'
      )


def scan(
  fs: Any, path: str, size: int, label_key: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[list[int]]]:
  """Returns the first byte and the length of each image of a file, and its labels.

  Raises:
    UserError: for a torn file, an image without labels and labels without an image.
  """
  starts, lengths, labels = [], [], []
  name, image, found = None, None, None
  last = 0  # byte at which the last member ends

  def end() -> None:
    if name is None or (image is None and found is None):
      return
    if image is None or found is None:
      lacks = 'an image' if image is None else f'a .cls or a .json with {label_key!r}'
      raise UserError(f'{path}: {name} is without {lacks}; prepare the file anew')
    starts.append(image.offset_data)
    lengths.append(image.size)
    labels.append(found)

  try:
    with fs.open(path, 'rb') as file, tarfile.open(fileobj=file, mode='r:') as tar:
      for member in tar:
        last = tar.offset
        if not member.isfile():
          continue
        if member.offset_data + member.size > size:
          raise tarfile.ReadError(f'{member.name} ends beyond the file')
        folder, _, base = member.name.rpartition('/')
        base, _, suffix = base.partition('.')
        if name != f'{folder}/{base}':
          end()
          name, image, found = f'{folder}/{base}', None, None
        if f'.{suffix.lower()}' in _IMAGES:
          image = member
        elif suffix in ('cls', 'json'):
          content = tar.extractfile(member)
          assert content is not None
          read = _labels(content.read(), suffix, label_key)
          found = read if read is not None else found
      # The module takes a header that is torn or broken for the end.
      file.seek(last)
      if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError('it has no mark of its end')
      end()
  except ValueError as error:
    raise UserError(
      f'{path}: the labels of {name} are no class numbers ({error}); prepare the file anew'
    ) from error
  except (OSError, tarfile.TarError) as error:
    raise UserError(f'{path} is no whole tar file ({error}); fetch it anew') from error
  return np.array(starts, np.int64), np.array(lengths, np.int64), labels


def _labels(content: bytes, suffix: str, label_key: str) -> list[int] | None:
  """Returns the class numbers of a label file; None for a .json without any."""
  if suffix == 'cls':
    found = [int(word) for word in content.decode().replace(',', ' ').split()]
  else:
    value = json.loads(content).get(label_key)
    if value is None:
      return None
    found = [int(label) for label in (value if isinstance(value, list) else [value])]
  if wrong := [label for label in found if label < 0]:
    raise ValueError(f'{wrong[0]} is below 0')
  return found
