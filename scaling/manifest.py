"""What made a cell, beside its config: code, versions, device and derived sizes."""

import datetime
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

import scaling
from scaling import cores, cost, step
from scaling.data.split import fingerprint
from scaling.errors import UserError
from scaling.step import Program

_PACKAGES = (
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'tensorflow-datasets',
  'ml-collections',
  'clu',
  'numpy',
)


# What the numbers of a cell may hang on, beside its config.
_MAKERS = (
  'git_commit',
  'versions',
  'python',
  'device_kind',
  'num_devices',
  'num_cores',
  'mesh',
  'fsdp',
  'cells_at_once',
  'num_processes',
  'compiler_options',
  'xla_flags',
)


@functools.cache
def git_commit() -> str | None:
  """Returns the commit of this code, with '+changes' if it was edited, or None."""
  folder = pathlib.Path(__file__).parent
  try:
    commit, changes = (
      subprocess.run(
        ['git', *command], cwd=folder, capture_output=True, text=True, check=True
      ).stdout.strip()
      for command in (['rev-parse', 'HEAD'], ['status', '--porcelain', '-uno', '.'])
    )
  except (OSError, subprocess.CalledProcessError):
    return None
  return f'{commit}+changes' if changes else commit


@functools.cache
def versions(more: tuple[str, ...] = ()) -> dict[str, str]:
  """Returns the installed version of each package that results rest on, and of more."""
  found = {name: importlib.metadata.version(name) for name in (*_PACKAGES, *more)}
  return {'scaling': scaling.__version__, **found}


def classes(names: Sequence[str]) -> str:
  """Returns how many classes, the first of them, and a digest of all."""
  first = ', '.join(names[:3])
  return f'{len(names)}: {first}{", …" if names[3:] else ""} ({fingerprint(*names)})'


def read(path: pathlib.Path) -> dict[str, Any]:
  """Returns the content of a cell's manifest.json, empty where there is none.

  Raises:
    UserError: if it cannot be read.
  """
  if not path.exists():
    return {}
  try:
    found = json.loads(path.read_bytes())
    if not isinstance(found, dict):
      raise ValueError('it holds no fields')
  except ValueError as error:
    raise UserError(
      f'{path} cannot be read ({error}); delete it and run the same command, if the image '
      'set is the one that the cell began with'
    ) from error
  return found


def earlier(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Returns what else made a cell that is gone on with, the first of it first.

  Args:
    before: its manifest until now.
    now: that which takes its place.
  """
  last = {name: before.get(name) for name in _MAKERS}
  same = not before or last == {name: now.get(name) for name in _MAKERS}
  return [*before.get('earlier', []), *([] if same else [last])]


def make(
  config: ConfigDict,
  program: Program,
  *,
  begin: int,
  steps: int,
  cells_at_once: int,
  num_full: int,
  num_test: int,
  label_names: Sequence[str],
  fingerprints: dict[str, str],
) -> dict[str, Any]:
  """Returns the content of a cell's manifest.json."""
  devices, network = program.mesh.devices, cost.network(config)
  return {
    'version': 1,
    'git_commit': git_commit(),
    'versions': versions(('onednn-cpu-gomp',) if config.model.ops == 'onednn' else ()),
    'python': platform.python_version(),
    'device_kind': devices.flat[0].device_kind,
    'num_devices': devices.size,
    'num_cores': cores.num_cores(),
    'mesh': dict(program.mesh.shape),
    'fsdp': program.fsdp,
    'cells_at_once': cells_at_once,
    'num_processes': jax.process_count(),
    'deterministic': config.train.deterministic,
    'compiler_options': step.compiler_options(config, devices.flat[0].platform),
    'xla_flags': os.environ.get('XLA_FLAGS', ''),
    'num_params': network.params,
    'flops_per_image': sum(layer.flops for layer in network.layers),
    # Of this cell: what it goes on from was paid for by another.
    'train_flops': cost.train_flops(config, steps - begin),
    'begin': begin,
    'steps': steps,
    'batch_size': config.train.batch_size,
    'examples': steps * config.train.batch_size,
    'num_full': num_full,
    'num_test': num_test,
    'classes': classes(label_names),
    **fingerprints,
    'started': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
  }
