"""What a cell's weights start from: random numbers, another cell, or a file."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from scaling import checkpoint, manifest, trained, weights
from scaling.errors import UserError
from scaling.step import Program, State


def first_state(
  config: ConfigDict, workdir: pathlib.Path, program: Program, key: jax.Array
) -> State:
  """Returns the state of a cell before its own first update.

  Args:
    config: of the cell.
    workdir: its folder; the cell that it starts from lies beside it.
    program: of the cell.
    key: of the random weights.

  Raises:
    UserError: when that cell or file is missing, or of another network: it names the
      first leaf that differs.
  """
  init = config.init
  if init.cell and init.part == 'state':
    saved = source(config, workdir) / 'checkpoints'
    return program.load(checkpoint.read(saved, program.stored, init.step))
  state = program.init(key)
  if init.cell:
    folder = source(config, workdir)
    return _with(program, state, trained.load(folder, init.step)[1], init, folder)
  if init.file:
    head = 'new' if init.head == 'new' else 'file'
    read = weights.read_weights(init.file, config, head)
    return _with(program, state, read, init, init.file)
  return state


def check_source(
  config: ConfigDict, workdir: pathlib.Path, names: Sequence[str]
) -> None:
  """Refuses to start from a cell that is not there, or to keep a head of other classes.

  Args:
    config: of the cell.
    workdir: its folder.
    names: of its classes.

  Raises:
    UserError: when that cell has not been trained, or on other classes.
  """
  init = config.init
  if not init.cell:
    return
  path = source(config, workdir) / 'manifest.json'
  if (init.part == 'weights' and init.head == 'new') or not path.is_file():
    return
  there = json.loads(path.read_text(encoding='utf-8')).get('classes')
  here = manifest.classes(names)
  if there not in (None, here):
    way = 'use init.head=new' if init.part == 'weights' else 'start from its weights'
    raise UserError(
      f'init.cell={init.cell} has other classes: {there} there, {here} here; {way}'
    )


def source(config: ConfigDict, workdir: pathlib.Path) -> pathlib.Path:
  """Returns the folder of the cell that this one starts from.

  Raises:
    UserError: when it has not been trained, to its end where no step of it is named.
  """
  folder = workdir.absolute().parent / config.init.cell
  if not (folder / 'checkpoints').is_dir():
    raise UserError(
      f'init.cell={config.init.cell} has not been trained: {folder} has no checkpoints; '
      'train it first, in the same study'
    )
  about = folder / 'manifest.json'
  if config.init.step == 0 and about.is_file():
    steps = json.loads(about.read_text(encoding='utf-8'))['steps']
    saved = [path.name for path in (folder / 'checkpoints').iterdir()]
    last = max((int(name) for name in saved if name.isdigit()), default=0)
    if last < steps:
      raise UserError(
        f'init.cell={config.init.cell} ended at step {last} of {steps}; train it to its '
        'end, or name a step to start from in init.step'
      )
  return folder


def _with(
  program: Program, state: State, variables: Any, init: ConfigDict, where: Any
) -> State:
  """Returns the state with other weights, all but the head if that is to be new."""
  stored = program.store(state)
  own = {'params': stored.params, 'batch_stats': stored.batch_stats}
  if init.head == 'new':
    head = own['params']['head']
    variables = {**variables, 'params': {**variables['params'], 'head': head}}
  difference = first_difference(variables, own)
  if difference is not None:
    kept = "; init.head='new' leaves the head out" if '/head/' in difference else ''
    raise UserError(f'{where} holds another network: {difference}{kept}')
  placed = jax.tree.map(
    lambda new, old: jax.device_put(np.asarray(new), old.sharding), variables, own
  )
  ema = None if stored.ema is None else jax.tree.map(lambda leaf: leaf.copy(), placed)
  return program.load(
    dataclasses.replace(
      stored, params=placed['params'], batch_stats=placed['batch_stats'], ema=ema
    )
  )


def first_difference(there: Any, here: Any) -> str | None:
  """Returns the first leaf whose shape differs, in words, or None."""
  old, new = (
    {
      jax.tree_util.keystr(path, simple=True, separator='/'): list(leaf.shape)
      for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    for tree in (there, here)
  )
  for path in dict.fromkeys([*new, *old]):
    if old.get(path) != new.get(path):
      return (
        f'{path} is {old.get(path, "absent")} there and {new.get(path, "absent")} here'
      )
  return None
