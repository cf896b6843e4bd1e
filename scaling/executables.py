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
import threading
import time
import zlib

import jax
from jax.experimental import serialize_executable
from jax.sharding import Mesh

from scaling import cores, files
from scaling.models import cpu_ops, onednn_ops

LOG = logging.getLogger('scaling')
_PACKAGES = 'jax', 'jaxlib', 'flax', 'optax', 'clu', 'numpy'
_SUFFIXES = '.py', '.cc', '.h'
_FLAGS = 'XLA_', 'FLAX_'  # how those of the environment begin; JAX's are in its config
_UNUSED_DAYS = 30  # after which a program is removed

Compiled = tuple[jax.stages.Compiled, ...]
_folder: pathlib.Path | None = None
_of_thread = threading.local()


def keep_in(folder: pathlib.Path | None) -> None:
  """Keeps programs in a folder from now on; None, and unless it is called, nowhere.

  What lies there is run: files of others, or that others can write, are not read.
  """
  global _folder
  _folder = folder
  if folder is not None:
    _makers()  # now, for the source may change before the first program is made of it


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
    str(mesh.axis_types),
    [device.id for device in devices],
    fsdp,
    # XLA splits loops over the cores, and oneDNN's calls say how many each device has.
    cores.num_cores(),
    jax.local_device_count(),
    _makers(),
    # But for where JAX keeps and says what, all may change a program.
    {
      name: str(value)
      for name, value in jax.config.values.items()
      if 'cache' not in name and 'log' not in name
    },
    sorted(pair for pair in os.environ.items() if pair[0].startswith(_FLAGS)),
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
    with path.open('rb') as file:
      about = os.fstat(file.fileno())
      if about.st_uid != os.getuid() or about.st_mode & 0o022:
        LOG.info('%s is not read, for others can write it', path)
        return None
      content = file.read()
  except OSError:
    return None
  digest, content = content[:32], content[32:]
  if hashlib.sha256(content).digest() != digest:
    LOG.info('%s is removed, for it is torn', path)
    with contextlib.suppress(OSError):
      path.unlink()
    return None
  if ops == 'onednn':
    onednn_ops.register()  # which tracing would have done
  load = functools.partial(
    serialize_executable.deserialize_and_load,
    execution_devices=list(mesh.devices.flat),
  )
  try:
    with concurrent.futures.ThreadPoolExecutor() as pool:
      functions = pickle.loads(zlib.decompress(content))
      compiled = tuple(pool.map(lambda one: load(*one), functions))
  except Exception as error:  # whatever it is, compiling helps
    LOG.info('%s cannot be used: %s', path, error)
    return None
  with contextlib.suppress(OSError):
    os.utime(path)
  return compiled


def compile(
  lowered: jax.stages.Lowered, options: dict[str, bool | str]
) -> tuple[jax.stages.Compiled, bool]:
  """Returns a compiled function, and whether it was compiled now and may be kept.

  XLA:CPU would write one that JAX's cache held without a part of its code.
  """
  _of_thread.hits = 0
  compiled = lowered.compile(options)
  return compiled, _of_thread.hits == 0


def _count_hit(event: str, **_: object) -> None:
  if event == '/jax/compilation_cache/cache_hits':
    _of_thread.hits = getattr(_of_thread, 'hits', 0) + 1


jax.monitoring.register_event_listener(_count_hit)


def write(path: pathlib.Path, compiled: Compiled) -> None:
  """Keeps the functions of a program, and removes programs that are no longer used.

  What cannot be kept will be compiled again: no error.
  """
  try:
    functions = [serialize_executable.serialize(one) for one in compiled]
    content = zlib.compress(pickle.dumps(functions), 1)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with files.replacing(path) as temporary:
      temporary.write_bytes(hashlib.sha256(content).digest() + content)
      temporary.chmod(0o600)
    _remove_unused(path.parent)
  except Exception as error:
    LOG.info('%s cannot be written: %s', path, error)


def _remove_unused(folder: pathlib.Path) -> None:
  """Removes what was not used for long, or is beyond the size that JAX's cache may have."""
  room = jax.config.values['jax_compilation_cache_max_size']
  oldest = time.time() - _UNUSED_DAYS * 24 * 3600
  found = []
  for path in folder.glob('*.program*'):  # with what a killed worker has begun
    with contextlib.suppress(FileNotFoundError):  # others remove them too
      found.append((path.stat(), path))
  used = 0
  for about, path in sorted(found, key=lambda pair: -pair[0].st_mtime):
    used += about.st_size
    if about.st_mtime < oldest or 0 < room < used:
      path.unlink(missing_ok=True)


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
