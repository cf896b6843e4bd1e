"""Reads what a cell has learnt, without its images and without compiling anything."""

import functools
import json
import pathlib
from typing import Any

import jax
from jax.sharding import SingleDeviceSharding
from ml_collections import ConfigDict

from scaling import checkpoint, models
from scaling import config as config_lib
from scaling import step as step_lib
from scaling.errors import UserError


def load(cell: pathlib.Path, step: int = 0) -> tuple[ConfigDict, Any]:
  """Returns the config and the variables of a trained cell, which may be training still.

  Args:
    cell: its folder, with config.json and checkpoints.
    step: of the checkpoint; 0: the newest that can be read whole.

  Returns:
    The config; `{'params', 'batch_stats'}` in numpy arrays, the running means of both
    where the cell has them, for those are what it was tested with. Blocks lie one by
    one; with `model.scan` the network takes `models.stack` of them.

  Raises:
    UserError: if the folder is no cell, or has no such checkpoint.
  """
  config = _config(cell)
  state = checkpoint.read(cell / 'checkpoints', _stored(config), step)
  variables = state.variables
  return config, jax.device_get(variables)


def broken(cell: pathlib.Path) -> dict[int, str]:
  """Returns {step: what is wrong} of a cell's checkpoints that cannot be read whole.

  Raises:
    UserError: if the folder is no cell.
  """
  return checkpoint.broken(cell / 'checkpoints', _stored(_config(cell)))


def _config(cell: pathlib.Path) -> ConfigDict:
  path = cell / 'config.json'
  if not path.is_file():
    raise UserError(
      f'{cell} is no cell: it has no config.json; those of a study lie in its cells/'
    )
  return ConfigDict(json.loads(path.read_text(encoding='utf-8')))


def _stored(config: ConfigDict) -> step_lib.State:
  """Returns the shapes of a checkpoint's state, to live on one device."""
  return _stored_by(config_lib.program_key(config))


@functools.lru_cache(maxsize=32)
def _stored_by(key: str) -> step_lib.State:
  config = config_lib.nested(json.loads(key))

  def stored(key: jax.Array) -> step_lib.State:
    return models.unstack(step_lib.init(config, key))

  place = SingleDeviceSharding(jax.local_devices()[0])
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
    jax.eval_shape(stored, jax.random.key(0)),
  )
