"""Plain folders of ArrayRecord files, without the metadata of TFDS.

`data_dir` has files `train*.array_record*` and `test*.array_record*` of
tf.train.Examples, each with an encoded image and its class numbers, and, if classes have
names, `classes.txt` with one a line. How many records each file has is kept in an index
beside them, so that a set of thousands of files opens at once.
"""

import concurrent.futures
import contextlib
import json
import pathlib

from ml_collections import ConfigDict

from scaling.data.examples import make_split, parse
from scaling.data.records import Records, Shard, checksums, count
from scaling.data.split import Split, fingerprint, read_classes
from scaling.errors import UserError
from scaling.files import write_atomically


def at_hand(data: ConfigDict, data_dir: str | None) -> bool:
  """Returns whether there are files of both parts."""
  return bool(data_dir) and all(
    _files(pathlib.Path(data_dir).expanduser(), prefix)
    for prefix in (data.train_split, data.test_split)
  )


def load(data: ConfigDict, data_dir: str | None) -> tuple[Split, Split]:
  """Returns the training and the test part.

  Raises:
    UserError: for missing or torn files, and for an index that is not theirs.
  """
  if not data_dir:
    raise UserError(
      "data.source='array_record' needs --data_dir=FOLDER with train*.array_record* and"
      ' test*.array_record* in it'
    )
  folder = pathlib.Path(data_dir).expanduser()
  return (
    _split(folder, data.train_split, data),
    _split(folder, data.test_split, data),
  )


def _files(folder: pathlib.Path, prefix: str) -> list[pathlib.Path]:
  return sorted(folder.glob(f'{prefix}*.array_record*'))


def _split(folder: pathlib.Path, prefix: str, data: ConfigDict) -> Split:
  files = _files(folder, prefix)
  if not files:
    raise UserError(
      f'{folder} has no {prefix}*.array_record*; pass --data_dir, or set'
      ' data.train_split and data.test_split to how its files begin'
    )
  counts = _counts(folder, prefix, files)
  shards = [Shard(str(path), 0, n, n) for path in files for _, n in [counts[path.name]]]
  records, keys = Records(shards), (data.image_key, data.label_key)
  classes = folder / 'classes.txt'
  names = tuple(str(label) for label in range(data.num_classes))
  if classes.exists():
    names = read_classes(classes.read_text(encoding='utf-8'), str(classes))
  return make_split(
    lambda ids: [parse(record, *keys) for record in records(ids)],
    len(records),
    names,
    max_labels=data.max_labels,
    where=records.where,
    fingerprint=fingerprint(
      sorted(counts.items()), checksums([shard.path for shard in shards]), names
    ),
  )


def _counts(
  folder: pathlib.Path, prefix: str, files: list[pathlib.Path]
) -> dict[str, list[int]]:
  """Returns bytes and records of each file, from the index or else the files."""
  path = folder / f'{prefix}.index.json'
  sizes = {file.name: file.stat().st_size for file in files}
  if path.exists():
    try:
      known = json.loads(path.read_text(encoding='utf-8'))
      told = {name: int(size) for name, (size, _) in known.items()}
      if odd := [n for _, n in known.values() if not (isinstance(n, int) and n >= 0)]:
        raise ValueError(f'{odd[0]!r} is no number of records')
    except (OSError, ValueError, TypeError, AttributeError) as error:
      raise UserError(f'{path} is no index ({error}); remove it') from error
    if told == sizes:
      return known
    for name in sorted(told.keys() | sizes.keys()):
      if told.get(name) != sizes.get(name):
        here = f'has {sizes[name]} bytes' if name in sizes else 'is missing'
        raise UserError(
          f'{folder / name} {here}, where {path.name} has {told.get(name)}; fetch the'
          ' file anew, or remove the index if the set was changed on purpose'
        )
  with concurrent.futures.ThreadPoolExecutor(16) as threads:
    found = threads.map(count, map(str, files))
  counts = {
    name: [size, records]
    for (name, size), records in zip(sizes.items(), found, strict=True)
  }
  with contextlib.suppress(OSError):  # else it is counted again each time
    write_atomically(path, json.dumps(counts, indent=1))
  return counts
