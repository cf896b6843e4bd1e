"""Compiled programs that outlive their process, so that a worker starts without tracing.

JAX's own cache spares a worker the compiling, but to find a program there it has to trace
and lower it first, which takes longer than to read it. Here a program is found by what it
is made from: the config, the devices, our source, and the versions of what compiles it.

On CPUs alone, where this has been run, and for one process.
"""

import concurrent.futures
import contextlib
import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import pathlib
import pickle
import platform
import time

import jax
from jax.experimental import serialize_executable
from jax.sharding import Mesh

from scaling import files
from scaling.models import cpu_ops, onednn_ops

LOG = logging.getLogger('scaling')
_PACKAGES = 'jax', 'jaxlib', 'flax', 'optax', 'clu', 'numpy'
_SUFFIXES = '.py', '.cc', '.h'
_UNUSED_DAYS = 30  # after which a program is removed

Compiled = tuple[jax.stages.Compiled, ...]
_folder: pathlib.Path | None = None
_num_hits = 0


def _count_hit(event: str, **_: object) -> None:
  global _num_hits
  _num_hits += event == '/jax/compilation_cache/cache_hits'


jax.monitoring.register_event_listener(_count_hit)


def cache_hits() -> int:
  """Returns how many functions this process has read from JAX's cache."""
  return _num_hits


def keep_in(folder: pathlib.Path | None) -> None:
  """Keeps programs in a folder from now on; None, and unless it is called, nowhere.

  What lies there is run, so nobody else may be able to write into it.
  """
  global _folder
  _folder = folder


def find(key: str, mesh: Mesh, fsdp: bool) -> pathlib.Path | None:
  """Returns where a program lies, or will; None where it is not kept.

  Args:
    key: of the program, see `scaling.config.program_key`.
    mesh: where it runs.
    fsdp: whether the state is split over the data devices.
  """
  devices = list(mesh.devices.flat)
  if _folder is None or devices[0].platform != 'cpu' or jax.process_count() > 1:
    return None
  about = [
    key,
    dict(mesh.shape),
    [device.id for device in devices],
    fsdp,
    _makers(),
    # But for where JAX keeps and says what, all may change a program.
    {
      name: str(value)
      for name, value in jax.config.values.items()
      if 'cache' not in name and 'log' not in name
    },
    os.environ.get('XLA_FLAGS', ''),
  ]
  digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()
  return _folder / f'{digest[:32]}.program'


def read(path: pathlib.Path, mesh: Mesh, ops: str) -> Compiled | None:
  """Returns the functions of a program, or None if they are not there, or torn.

  Args:
    path: from `find`.
    mesh: where they run.
    ops: the resolved `model.ops` of the program.
  """
  try:
    content = path.read_bytes()
  except OSError:
    return None
  if ops == 'onednn':
    onednn_ops.register()  # which tracing would have done
  load = functools.partial(
    serialize_executable.deserialize_and_load,
    execution_devices=list(mesh.devices.flat),
  )
  try:
    digest, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != digest:
      raise ValueError('it is not as it was written')
    with concurrent.futures.ThreadPoolExecutor() as pool:
      compiled = tuple(pool.map(lambda one: load(*one), pickle.loads(content)))
  except Exception as error:  # whatever it is, compiling helps
    LOG.info('%s cannot be used: %s', path, error)
    with contextlib.suppress(OSError):
      path.unlink()
    return None
  with contextlib.suppress(OSError):
    os.utime(path)
  return compiled


def write(path: pathlib.Path, compiled: Compiled) -> None:
  """Keeps the functions of a program, and removes programs that are no longer used.

  What cannot be kept will be compiled again: no error.

  Args:
    path: from `find`.
    compiled: by XLA in this process. What JAX's cache held would be written without a part
      of its code, see `cache_hits`.
  """
  try:
    content = pickle.dumps([serialize_executable.serialize(one) for one in compiled])
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with files.replacing(path) as temporary:
      temporary.write_bytes(hashlib.sha256(content).digest() + content)
    unused = time.time() - _UNUSED_DAYS * 24 * 3600
    for other in path.parent.glob('*.program'):
      with contextlib.suppress(FileNotFoundError):  # others remove them too
        if other.stat().st_mtime < unused:
          other.unlink()
  except Exception as error:
    LOG.info('%s cannot be written: %s', path, error)


@functools.cache
def _makers() -> list[str]:
  """Returns what a program depends on beside what it is asked to do."""
  source = hashlib.sha256()
  for path in sorted(pathlib.Path(__file__).parent.rglob('*')):
    if path.suffix in _SUFFIXES:
      source.update(path.read_bytes())
  return [
    *(f'{name} {importlib.metadata.version(name)}' for name in _PACKAGES),
    platform.python_version(),
    platform.machine(),
    *sorted(cpu_ops.cpu_flags()),
    source.hexdigest(),
  ]
