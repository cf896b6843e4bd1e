"""What the shipped configs resolve to, and what their first updates compute, on record.

A change that alters either on purpose renews the files, and its diff then shows what it
changed: `pytest tests/test_golden.py --renew-golden`.
"""

import importlib
import json
import pathlib

import jax
import numpy as np
import pytest

import configs
from experiments import sweep
from scaling import config as config_lib
from scaling import models, optim, sharding, step
from scaling.data import pipeline, sources
from scaling.evals import classify

FOLDER = pathlib.Path(__file__).with_name('golden')
NAMES = sorted(
  path.stem
  for path in pathlib.Path(configs.__file__).parent.glob('*.py')
  if 'def get_sweep' in path.read_text()
)
RENEW = 'if it is meant: pytest tests/test_golden.py --renew-golden'
UPDATES = 3  # the head starts at zero and lets nothing below it learn in the first


def resolved(config) -> str:
  """Returns every field, and every parameter with whether it decays."""
  params = jax.eval_shape(models.build(config).init, jax.random.key(0))['params']
  decays = jax.tree.leaves(optim.decays(params))
  lines = [
    f'{name} = {json.dumps(value)}' for name, value in config_lib.flat(config).items()
  ]
  for (path, leaf), decay in zip(
    jax.tree_util.tree_leaves_with_path(params), decays, strict=True
  ):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    lines.append(f'{name} {list(leaf.shape)}{" decays" if decay else ""}')
  return '\n'.join(lines) + '\n'


def first_updates(config, mesh) -> dict[str, float]:
  """Returns the metrics of the first updates and of a test after them.

  `moved/` is how far each part of the network is from where it started: the loss alone
  tells little of the gradients deep down.
  """
  train_split, test_split = sources.load(config.data)
  program = step.compile_program(config, mesh)
  subset = pipeline.make_subset(train_split, config.data)
  init_key, key = sharding.put_keys(config.seed, 2, mesh)
  schedule = optim.make_schedule(config, UPDATES)
  state = program.init(init_key)
  start = jax.device_get(state.params)
  found = {}
  for done in range(UPDATES):
    batch = pipeline.placed_batch(
      done, config=config, split=train_split, subset=subset, mesh=mesh
    )
    state, values = program.train_step(state, batch, key, schedule)
    found |= {f'update{done}/{name}': float(value) for name, value in values.items()}
  for part, now in jax.device_get(state.params).items():
    change = [
      a - b for a, b in zip(*map(jax.tree.leaves, (now, start[part])), strict=True)
    ]
    found[f'moved/{part}'] = float(np.sqrt(sum((leaf**2).sum() for leaf in change)))
  tests = pipeline.test_batches(test_split, config.data, config.log.eval_batch_size)
  put = (pipeline.place(batch, test_split, mesh) for batch in tests)
  # A hit more or less is one rounding where two logits are nearly equal.
  found['test/loss'] = classify.evaluate(program, state, put)['test/loss']
  return found


def shrunk(name: str, monkeypatch):
  """Returns a small cell of a study, on pixels that are the same on all machines."""
  everywhere = ('digits', 'made_up')
  monkeypatch.setattr(
    sources, 'at_hand', lambda data, data_dir=None: data.source in everywhere
  )
  config = importlib.import_module(f'configs.{name}').get_config()
  config.smoke = True
  config, wanted = sweep.shrink(config, None)
  config = sweep.make_cells(config, wanted)[0].config
  # In bfloat16 another order of the same sums changes the third digit, and hides all
  # that this looks for; the type that is trained in stands in the resolved config.
  config.model.dtype = 'float32'
  # At the rate of jft three updates would be lost in the rounding of the weights.
  config.optim.lr = max(config.optim.lr, 0.1)
  return config


@pytest.mark.parametrize('name', NAMES)
def test_config_resolves_as_on_record(name, request):
  found = resolved(importlib.import_module(f'configs.{name}').get_config())
  path = FOLDER / f'{name}.txt'
  if request.config.getoption('--renew-golden'):
    path.write_text(found)
  assert found == path.read_text(), RENEW


@pytest.mark.slow
@pytest.mark.usefixtures('quick_compile')
@pytest.mark.parametrize('name', NAMES)
def test_first_updates_are_as_on_record(name, request, monkeypatch):
  found = first_updates(shrunk(name, monkeypatch), sharding.make_mesh())
  path = FOLDER / f'{name}.json'
  if request.config.getoption('--renew-golden'):
    path.write_text(json.dumps(found, indent=2) + '\n')
  expected = json.loads(path.read_text())
  assert found.keys() == expected.keys(), RENEW
  # One device against four, which sum in another order, differ by 1.4e-6 at most; other
  # formulations of the same float32 mathematics may by ten times that. A rule of the
  # recipe misread (a decay, an epsilon, a padding) moves some value by more than 1e-3.
  for key, value in expected.items():
    assert found[key] == pytest.approx(value, rel=1e-4), (key, RENEW)
