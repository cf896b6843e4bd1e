"""What the tests of the trainer share."""

import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from runs import SCHEDULE


def _random_variables(model) -> Any:
  """Returns variables without the seconds that compiling `init` takes."""
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    numbers = rng.normal(size=leaf.shape).astype(leaf.dtype)
    name = path[-1].key
    if name == 'kernel':
      return numbers * math.sqrt(2 * leaf.shape[-1] / leaf.size)
    return 1 + numbers / 10 if name in ('scale', 'var') else numbers / 10

  shapes = jax.eval_shape(model.init, jax.random.key(0))
  return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope='session')
def random_variables() -> Callable[..., Any]:
  """`_random_variables`."""
  return _random_variables


@pytest.fixture(scope='session')
def config(tiny_config):
  return tiny_config(SCHEDULE)


@pytest.fixture(scope='session')
def undisturbed(config, tmp_path_factory) -> pathlib.Path:
  """The folder of a run that nothing disturbed; not to be changed."""
  workdir = tmp_path_factory.mktemp('undisturbed')
  from scaling.train import train

  train(config, workdir)
  return workdir
