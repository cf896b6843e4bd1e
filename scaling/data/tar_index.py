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
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling import files
from scaling.errors import UserError

LOG = logging.getLogger('scaling')

_IMAGES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif')
_THREADS = 16
_SAMPLED = 32  # images by whose content a file is known again
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
  parts, tables = [], []
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
    scans = threads.map(lambda path: scan(fs, path, sizes[path], label_key), sizes)
    for i, (starts, lengths, found) in enumerate(scans):
      parts.append((np.full(len(starts), i, np.int32), starts, lengths))
      tables.append(found)
      if time.monotonic() - said > 5:
        said = time.monotonic()
        LOG.info('indexed %d of %d, %.0f s', i + 1, len(sizes), said - started)
  file, start, length = (np.concatenate(part) for part in zip(*parts, strict=True))
  width = max(table.shape[1] for table in tables)
  labels = np.concatenate(
    [
      np.pad(table, ((0, 0), (0, width - table.shape[1])), constant_values=-1)
      for table in tables
    ]
  )
  temporary = home.with_name(f'{home.name}.{os.getpid()}')
  shutil.rmtree(temporary, ignore_errors=True)
  temporary.mkdir(parents=True)
  for name, array in zip(ARRAYS, (file, start, length, labels), strict=True):
    np.save(temporary / f'{name}.npy', array)
  told = {
    'bytes': {os.path.basename(path): size for path, size in sizes.items()},
    'content': _content(fs, list(sizes), file, start, length),
  }
  (temporary / 'files.json').write_text(json.dumps(told, indent=1), encoding='utf-8')
  try:
    temporary.rename(home)
  except OSError:  # another process was faster
    shutil.rmtree(temporary)


def load(
  home: pathlib.Path, fs: Any, sizes: dict[str, int]
) -> tuple[NDArray[Any], ...]:
  """Returns the arrays of an index that is of these files.

  Raises:
    UserError: for an index that is torn or of other files.
  """
  try:
    told = json.loads((home / 'files.json').read_text(encoding='utf-8'))
    known, content = dict(told['bytes']), told['content']
    arrays = [np.load(home / f'{name}.npy', mmap_mode='r') for name in ARRAYS]
    if len(set(map(len, arrays))) > 1:
      raise ValueError('its arrays are of different lengths')
  except (OSError, ValueError, TypeError, KeyError, EOFError) as error:
    raise UserError(f'{home} is no whole index ({error}); remove it') from error
  now = {os.path.basename(path): size for path, size in sizes.items()}
  for name in sorted(known.keys() | now.keys()):
    if known.get(name) != now.get(name):
      here = f'has {now[name]} bytes' if name in now else 'is missing'
      raise UserError(
        f'{name} {here}, where the index {home} has {known.get(name)}; fetch the file'
        ' anew, or remove the index if the set was changed on purpose'
      )
  if _content(fs, list(sizes), *arrays[:3]) != content:
    raise UserError(
      f'the files beside the index {home} are others than it was made of, of the same '
      'size; fetch them anew, or remove the index if the set was changed on purpose'
    )
  return tuple(arrays)


def read(
  fs: Any, paths: list[str], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> list[bytes]:
  """Returns a part of each file; from a store all at the same time."""
  if 'file' not in fs.protocol:
    return fs.cat_ranges(paths, starts.tolist(), ends.tolist(), on_error='raise')
  found = []
  for path, start, end in zip(paths, starts.tolist(), ends.tolist(), strict=True):
    with open(path, 'rb', buffering=0) as file:
      found.append(os.pread(file.fileno(), end - start, start))
  return found


def _content(
  fs: Any,
  paths: list[str],
  file: NDArray[np.int32],
  start: NDArray[np.int64],
  length: NDArray[np.int64],
) -> list[int]:
  """Returns checksums of some images with all that lies around each, labels too."""
  if not len(file):
    return []
  rows = np.unique(np.linspace(0, len(file) - 1, _SAMPLED).astype(np.int64))
  before, after = np.maximum(rows - 1, 0), np.minimum(rows + 1, len(file) - 1)
  begins = np.where(
    (before < rows) & (file[before] == file[rows]), start[before] + length[before], 0
  )
  ends = np.where(
    (after > rows) & (file[after] == file[rows]),
    start[after],
    start[rows] + length[rows],
  )
  found = read(fs, [paths[i] for i in file[rows]], begins, ends)
  return [zlib.crc32(part) for part in found]


def scan(
  fs: Any, path: str, size: int, label_key: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
  """Returns the first byte, the length and the labels `[N, K]` of each image of a file.

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
  table = np.full((len(labels), max(map(len, labels), default=1) or 1), -1, np.int32)
  for row, values in zip(table, labels, strict=True):
    row[: len(values)] = values
  return np.array(starts, np.int64), np.array(lengths, np.int64), table


def _labels(content: bytes, suffix: str, label_key: str) -> list[int] | None:
  """Returns the class numbers of a label file; None for a .json without any."""
  if suffix == 'cls':
    found = [int(word) for word in content.decode().replace(',', ' ').split()]
  else:
    fields = json.loads(content)
    value = fields.get(label_key) if isinstance(fields, dict) else None
    if value is None:
      return None
    found = value if isinstance(value, list) else [value]
  for label in found:
    if type(label) is not int or not 0 <= label < 2**31:
      raise ValueError(f'{label!r} is none')
  return found
