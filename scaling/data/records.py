"""Records by number from ArrayRecord files: one seek and one read for each.

The reader's own ways to records at random start threads and read ahead for each of them,
which takes some forty times as long.
"""

import collections
import os
import pathlib
import threading
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from scaling.data.subsets import Ids
from scaling.errors import UserError

_OPTIONS = 'readahead_buffer_size:0,max_parallelism:0'
_OPEN = 128  # files that a thread keeps open
_CHECKED_BYTES = 2**28  # of a part's files: a tenth of a second


class Shard(NamedTuple):
  """Records `skip` to `skip + take` of a file."""

  path: str
  skip: int
  take: int
  total: int  # records that the file has to have


class Records:
  """The records of several shards in a row, by number; any thread may ask.

  Args:
    shards: in their order.
  """

  def __init__(self, shards: Sequence[Shard]):
    self._shards = list(shards)
    self._ends = np.cumsum([shard.take for shard in shards], dtype=np.int64)
    # Of a record's number in its file from its id.
    self._offsets = (
      np.array([shard.skip + shard.take for shard in shards], np.int64) - self._ends
    )
    self._own = threading.local()

  def __len__(self) -> int:
    return int(self._ends[-1]) if self._shards else 0

  def __call__(self, ids: Ids) -> list[bytes]:
    """Returns the records of these ids, in their order.

    Raises:
      UserError: naming the file that is missing or cannot be read.
    """
    ids = np.asarray(ids, np.int64)
    if ids.size and not 0 <= ids.min() <= ids.max() < len(self):
      raise IndexError(f'{ids.min()}..{ids.max()} leaves 0..{len(self) - 1}')
    order = np.argsort(ids, kind='stable')  # file by file, each from front to back
    shards = np.searchsorted(self._ends, ids[order], 'right')
    numbers = ids[order] + self._offsets[shards]
    found: list[bytes] = [b''] * len(ids)
    reader: Any = None
    last, number, path = -1, 0, ''
    try:
      for row, shard, number in zip(
        order.tolist(), shards.tolist(), numbers.tolist(), strict=True
      ):
        if shard != last:
          last, path = shard, self._shards[shard].path
          reader = self._open(self._shards[shard])
        reader.seek(number)
        found[row] = reader.read()
    except UserError:
      raise
    except Exception as error:  # the reader raises what its C++ says
      self._own.readers.pop(path, None)
      raise UserError(
        f'record {number} of {path} cannot be read ({_first_line(error)}); '
        'fetch or prepare the file anew'
      ) from error
    return found

  def where(self, record: int) -> str:
    """Returns words that find a record, for errors."""
    at = int(np.searchsorted(self._ends, record, 'right'))
    shard = self._shards[at]
    number = record - int(self._ends[at]) + shard.take + shard.skip
    return f'record {number} of {os.path.basename(shard.path)}'

  def _open(self, shard: Shard) -> Any:
    """Returns this thread's reader of a file, which no two threads may share."""
    path = shard.path
    if not hasattr(self._own, 'readers'):
      self._own.readers = collections.OrderedDict()
    readers = self._own.readers
    if path not in readers:
      if len(readers) >= _OPEN:
        readers.popitem(last=False)[1].close()
      reader = open_reader(path)
      if (found := reader.num_records()) != shard.total:
        reader.close()  # raises what is wrong with a file that cannot be read
        raise UserError(
          f'{path} has {found} records, and its index says {shard.total}; prepare the set '
          'anew, or remove the index if the file was changed on purpose'
        )
      readers[path] = reader
    readers.move_to_end(path)
    return readers[path]


def open_reader(path: str) -> Any:
  """Returns array_record's reader of a file, without threads and reading ahead."""
  from array_record.python.array_record_module import ArrayRecordReader

  return ArrayRecordReader(path, options=_OPTIONS)


def count(path: str) -> int:
  """Returns how many records a file has.

  Raises:
    UserError: for a file that is missing, torn or of another kind.
  """
  try:
    reader = open_reader(path)
    num_records = reader.num_records()
    reader.close()
  except Exception as error:
    raise UserError(
      f'{path} is no whole ArrayRecord file ({_first_line(error)}); fetch or prepare it '
      'anew'
    ) from error
  return num_records


def checksums(paths: Sequence[str]) -> list[int] | None:
  """Returns the CRC-32 of each file, or None where they are too large to read them all.

  Sets of such sizes are known by some of their images.
  """
  if sum(os.path.getsize(path) for path in paths) > _CHECKED_BYTES:
    return None
  return [zlib.crc32(pathlib.Path(path).read_bytes()) for path in paths]


def _first_line(error: Exception) -> str:
  return (str(error).splitlines() or [type(error).__name__])[0][:200]
