"""Tar files of images and labels in the layout of WebDataset, read at random.

`data_dir` has files `train*.tar` and `test*.tar`. The members of one image follow each
other and share a name: `0017.jpg` beside `0017.cls`, which holds its class number, or
several with commas between, or beside `0017.json`, whose field `data.label_key` does.
`classes.txt` may name the classes, one a line.

Streams of such files are shuffled through a buffer, which makes neither nested subsets
nor an exact resume. So the files are indexed once: where each image lies, and its labels.
`data_dir` may also be `gs://`, `s3://` or what else fsspec reads.
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
from ml_collections import ConfigDict
from numpy.typing import NDArray

from scaling.data.examples import pad_labels
from scaling.data.split import Split, fingerprint, read_classes
from scaling.data.subsets import Ids
from scaling.errors import UserError

LOG = logging.getLogger('scaling')

_IMAGES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif')
_THREADS = 16
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
  home = _index_folder(fs, folder, prefix, data.label_key)
  if not (home / 'files.json').exists():
    _write_index(home, fs, sizes, data.label_key)
  _check_index(home, sizes)
  paths = list(sizes)
  file, start, length, labels = (
    np.load(home / f'{name}.npy', mmap_mode='r') for name in _ARRAYS
  )
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
  """Returns a part of each file; from a store all at the same time."""
  try:
    if 'file' not in fs.protocol:
      return fs.cat_ranges(paths, starts.tolist(), ends.tolist(), on_error='raise')
    found = []
    for path, start, end in zip(paths, starts.tolist(), ends.tolist(), strict=True):
      with open(path, 'rb', buffering=0) as file:
        found.append(os.pread(file.fileno(), end - start, start))
    return found
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


# The index: number of the file, first byte, bytes, and labels padded with -1.
_ARRAYS = ('file', 'start', 'length', 'labels')


def _index_folder(fs: Any, folder: str, prefix: str, label_key: str) -> pathlib.Path:
  """Returns where the index is: beside the files, or in the cache if none may be."""
  name = f'.{prefix}.{label_key}.index'
  beside = pathlib.Path(folder) / name
  if 'file' in fs.protocol and (beside.exists() or os.access(folder, os.W_OK)):
    return beside
  cache = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  url = hashlib.sha256(fs.unstrip_protocol(folder).encode()).hexdigest()[:16]
  return pathlib.Path(cache) / 'scaling' / 'index' / url / name


def _write_index(
  home: pathlib.Path, fs: Any, sizes: dict[str, int], label_key: str
) -> None:
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
  for name, array in zip(_ARRAYS, (file, start, length, table), strict=True):
    np.save(temporary / f'{name}.npy', array)
  told = {os.path.basename(path): size for path, size in sizes.items()}
  (temporary / 'files.json').write_text(json.dumps(told, indent=1), encoding='utf-8')
  try:
    temporary.rename(home)
  except OSError:  # another process was faster
    shutil.rmtree(temporary)


def _check_index(home: pathlib.Path, sizes: dict[str, int]) -> None:
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
      end()
  except ValueError as error:
    raise UserError(
      f'{path}: the labels of {name} are no numbers ({error}); prepare the file anew'
    ) from error
  except (OSError, tarfile.TarError) as error:
    raise UserError(f'{path} is no whole tar file ({error}); fetch it anew') from error
  return np.array(starts, np.int64), np.array(lengths, np.int64), labels


def _labels(content: bytes, suffix: str, label_key: str) -> list[int] | None:
  """Returns the class numbers of a label file; None for a .json without any."""
  if suffix == 'cls':
    return [int(word) for word in content.decode().replace(',', ' ').split()]
  value = json.loads(content).get(label_key)
  if value is None:
    return None
  return [int(label) for label in (value if isinstance(value, list) else [value])]
