"""Small files that several writers replace: compare-and-swap, and the store's own clock.

TensorStore makes a local disk, a shared one and an object store the same code. Its only
home.
"""

import functools
import os
import pathlib
import tempfile
import time
from typing import Any

Folder = str | pathlib.Path  # of a disk, or a URL such as gs://bucket/folder


def read(folder: Folder, name: str) -> tuple[bytes | None, bytes]:
  """Returns a file's content, None without one, and the generation it is of."""
  found = _open(str(folder)).read(name).result()
  value = found.value if found.state == 'value' else None
  return value, found.stamp.generation


def replace(folder: Folder, name: str, value: bytes, generation: bytes) -> bytes:
  """Replaces a file at once if it is still of that generation.

  Returns:
    The new generation, or b'' if somebody else was faster; nothing is written then.

  Raises:
    OSError: if it cannot be written.
  """
  try:
    written = _open(str(folder)).write(name, value, if_equal=generation).result()
  except ValueError as error:  # so TensorStore says whatever went wrong
    raise OSError(f'{folder}/{name} cannot be written: {error}') from error
  return written.generation


def age(folder: Folder, name: str, generation: bytes) -> float:
  """Returns the seconds since a file was written, by the clock of its store.

  No two machines agree on the time. On a disk both ends are stamped by its file system;
  an object store is watched instead, from the first look at this generation on. So is a
  file whose time lies ahead, as after a clock was set back.
  """
  watched = time.monotonic() - _first_seen(str(folder), name, generation)
  if '://' in str(folder):
    return watched
  folder = pathlib.Path(folder)
  written = (folder / name).stat().st_mtime
  try:
    with tempfile.NamedTemporaryFile(dir=folder) as now:
      stamped = os.stat(now.name).st_mtime - written
  except OSError:  # a folder to look at only
    stamped = time.time() - written
  return max(stamped, watched)


@functools.cache
def _first_seen(folder: str, name: str, generation: bytes) -> float:
  del folder, name, generation
  return time.monotonic()


@functools.lru_cache(maxsize=64)
def _open(folder: str) -> Any:
  import tensorstore as ts  # a quarter of the time of the commands that need none

  if '://' not in folder:
    path = os.path.abspath(folder) + '/'
    return ts.KvStore.open({'driver': 'file', 'path': path}).result()
  kind, _, rest = folder.rstrip('/').partition('://')
  endpoint = os.environ.get('AWS_ENDPOINT_URL')
  if kind != 's3' or endpoint is None:
    return ts.KvStore.open(folder.rstrip('/') + '/').result()
  bucket, _, path = rest.partition('/')
  spec = {'driver': 's3', 'bucket': bucket, 'path': path + '/', 'endpoint': endpoint}
  return ts.KvStore.open(spec).result()
