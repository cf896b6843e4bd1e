"""Runs of a cell as the tests make them: started, stopped, read back and compared."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
from jax.sharding import Mesh

from scaling import config as config_lib
from scaling import metrics, sharding, step
from scaling.checkpoint import Checkpoints

# Rows at 2, 4, ...; tests at 0, 4, 8, 12; saves at 3, 6, 9, 12 and where it stops.
SCHEDULE = {'log.eval_every_steps': 4, 'checkpoint.every_steps': 3}


def stop_after(calls: int):
  """Returns a `should_stop` that says so when asked for the time after `calls`."""
  answers = iter([False] * calls)
  return lambda: next(answers, True)


def rows_of(workdir: pathlib.Path) -> list[dict]:
  """Returns the rows without what differs between runs."""
  return [
    {key: value for key, value in row.items() if not key.startswith('time/')}
    for row in metrics.read_rows(workdir / 'metrics.jsonl')
  ]


def placed(state: step.State, mesh: Mesh) -> step.State:
  """Returns the shapes of a state that every device of a mesh shall hold."""
  whole = sharding.replicated(mesh)
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), state
  )


def state_of(config, workdir: pathlib.Path) -> step.State:
  """Returns the newest saved state."""
  checkpoints = Checkpoints(workdir / 'checkpoints', config.checkpoint.keep)
  state = jax.eval_shape(lambda: step.init(config, jax.random.key(0)))
  found = checkpoints.restore(placed(state, sharding.make_mesh()))
  checkpoints.close()
  assert found is not None
  return found[0]


def assert_same_run(config, workdir: pathlib.Path, reference: pathlib.Path) -> None:
  assert rows_of(workdir) == rows_of(reference)
  found, expected = state_of(config, workdir), state_of(config, reference)
  assert int(found.step) == int(expected.step)
  leaves = jax.tree_util.tree_leaves_with_path(found)
  for (path, a), b in zip(leaves, jax.tree.leaves(expected), strict=True):
    assert np.array_equal(a, b), jax.tree_util.keystr(path)


def child_of(config, workdir: pathlib.Path, devices: int, **orders) -> subprocess.Popen:
  """Starts a process that trains the cell; see child.py."""
  orders |= {'workdir': str(workdir), 'config': config_lib.plain(config)}
  script = str(pathlib.Path(__file__).with_name('child.py'))
  root = str(pathlib.Path(config_lib.__file__).parents[1])
  return subprocess.Popen(
    [sys.executable, script, json.dumps(orders)],
    env={**os.environ, 'JAX_NUM_CPU_DEVICES': str(devices), 'PYTHONPATH': root},
  )


def saved_steps(workdir: pathlib.Path) -> set[int]:
  names = (path.name for path in (workdir / 'checkpoints').iterdir())
  return {int(name) for name in names if name.isdigit()}
