"""A shard of a prepared set: written beside its place, and moved there when it is whole."""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator

from scaling.data import records
from scaling.data.prepare.plans import READ, Plan, stored_images
from scaling.data.split import Split
from scaling.errors import UserError

# Of a shard: one record a chunk, to be read at random. Images are compressed already:
# zstd:3 makes files of JPEGs and small PNGs no smaller, and writes at a third to a
# fifth of the speed.
_FORMAT = 'group_size:1,uncompressed'
_FULL = 2**20  # bytes: a disk with fewer is full


@dataclasses.dataclass(frozen=True)
class Skipped:
  """An image that was left out.

  Attributes:
    image: its id in its part.
    where: words that find it.
    reason: what is wrong with it.
  """

  image: int
  where: str
  reason: str


@dataclasses.dataclass(frozen=True)
class Written:
  """A whole shard.

  Attributes:
    num_images: records in it.
    num_bytes: of all records, before compression.
    size: of the file, bytes.
    sha256: of the file.
    skipped: images that it lacks.
  """

  num_images: int
  num_bytes: int
  size: int
  sha256: str
  skipped: list[Skipped]


def write_shard(
  split: Split,
  plan: Plan,
  part: str,
  shard: int,
  *,
  folder: pathlib.Path,
  work: pathlib.Path,
  skip: bool,
  root: str = '',
  tell: Callable[[int], None] = lambda done: None,
) -> Written:
  """Writes a shard beside its place and moves it there when it is whole.

  Args:
    split: the part.
    plan: of the set.
    part: one of `PARTS`.
    shard: number in the part.
    folder: of the finished shards.
    work: folder of unfinished ones, on the same disk.
    skip: leave out what cannot be decoded.
    root: folder that names of images are made relative to.
    tell: called with the images done.

  Raises:
    UserError: for an image that cannot be decoded, unless `skip`, and when the shard
      cannot be written.
  """
  from array_record.python.array_record_module import ArrayRecordWriter

  name = plan.file_name(part, shard)
  # Another process may be at the same shard, before it learns that its parent is gone.
  temporary = work / f'{name}.{os.getpid()}'
  num_images, num_bytes, done = 0, 0, 0
  skipped: list[Skipped] = []
  ids = plan.ids(part, shard)
  try:
    with _naming(folder):
      writer = ArrayRecordWriter(str(temporary), _FORMAT)
    for start in range(0, len(ids), READ):
      some = ids[start : start + READ]
      labels = split.labels(some)
      images = stored_images(split, some, plan, skip=skip)
      for row, (image, found) in zip(labels, images, strict=True):
        where = split.where(image)
        if isinstance(found, bytes):
          record = _record(
            image=found,
            labels=[int(label) for label in row if label >= 0],
            key='labels' if plan.several else 'label',
            name=_image_name(part, image, where, root),
          )
          with _naming(folder):
            writer.write(record)
          num_images += 1
          num_bytes += len(record)
        else:
          skipped.append(Skipped(image, where, _reason(found, where)))
        done += 1
        tell(done)
    with _naming(folder):
      writer.close()
      with temporary.open('rb') as file:
        os.fsync(file.fileno())
        sha256 = hashlib.file_digest(file, 'sha256').hexdigest()
    found = records.count(str(temporary))
    if found != num_images:
      raise _full(folder, f'{found} of {num_images} records arrived in {name}')
    size = temporary.stat().st_size
    with _naming(folder):
      temporary.replace(folder / name)
  finally:
    temporary.unlink(missing_ok=True)
  return Written(num_images, num_bytes, size, sha256, skipped)


@contextlib.contextmanager
def _naming(folder: pathlib.Path) -> Iterator[None]:
  """Turns what the writer raises into words about the folder."""
  try:
    yield
  except Exception as error:  # the writer raises what its C++ says
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    raise _full(folder, reason) from error


def _full(folder: pathlib.Path, reason: str) -> UserError:
  if shutil.disk_usage(folder).free < _FULL or 'No space left' in reason:
    return UserError(
      f'the disk of {folder} is full; free some and run the same command again, which '
      'keeps the shards that are whole'
    )
  return UserError(
    f'{folder} cannot be written ({reason}); mend that and run the same command again'
  )


def _record(*, image: bytes, labels: list[int], key: str, name: str) -> bytes:
  from tensorflow_datasets.proto import tf_example_pb2

  example = tf_example_pb2.Example()  # pyright: ignore
  feature = example.features.feature
  feature['id'].bytes_list.value.append(name.encode())
  feature['image'].bytes_list.value.append(image)
  feature[key].int64_list.value.extend(labels)
  # The features are a map, whose order in the bytes is otherwise left to chance.
  return example.SerializeToString(deterministic=True)


def _image_name(part: str, image: int, where: str, root: str) -> str:
  """Returns the path below the root where the image is a file there, else its number."""
  below = os.path.join(root, '') if root else ''
  if below and where.startswith(below):
    return where[len(below) :]
  return f'{part}-{image}'


def _reason(error: UserError, where: str) -> str:
  return str(error).removeprefix(where).strip()
