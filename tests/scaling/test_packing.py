"""Cells that make their updates together come to what each comes to alone."""

import concurrent.futures
import dataclasses
import json
import logging
import time

import jax
import numpy as np
import pytest
from runs import SCHEDULE, assert_same_run, rows_of, state_of, stop_after

from scaling import metrics, packing, sharding, step
from scaling.errors import DivergedError, Stopped
from scaling.packing import Pack
from scaling.train import train

SEEDS = (0, 1)
TOLERANCE = 2e-5  # of what is largest: float32 in another order, through 12 updates


@pytest.fixture(scope='module')
def configs(tiny_config):
  """Of two cells of one program: other seeds, subsets, rates and lengths."""
  return [
    tiny_config(SCHEDULE | {'seed': 0}),
    tiny_config(
      SCHEDULE | {'seed': 1, 'data.num_images': 24, 'optim.lr': 0.05, 'train.steps': 20}
    ),
  ]


@pytest.fixture(scope='module')
def alone(configs, tmp_path_factory):
  """The folders of the cells, each trained by itself."""
  folders = [tmp_path_factory.mktemp(f'alone{i}') for i in range(len(configs))]
  for config, folder in zip(configs, folders, strict=True):
    train(config, folder)
  return folders


def train_side_by_side(configs, folders, pack, **options):
  """Trains cells by a thread each, and returns their last rows or errors."""
  with concurrent.futures.ThreadPoolExecutor(len(configs)) as pool:
    futures = [
      pool.submit(train, config, folder, pack=pack, **options)
      for config, folder in zip(configs, folders, strict=True)
    ]
  return [future.exception() or future.result() for future in futures]


def assert_close(config, folder, reference):
  """The same rows and weights, but for the order in which floats are summed."""
  for row, expected in zip(rows_of(folder), rows_of(reference), strict=True):
    assert row == pytest.approx(expected, rel=1e-3, abs=1e-3)
  found, expected = state_of(config, folder), state_of(config, reference)
  leaves = jax.tree_util.tree_leaves_with_path(found)
  for (path, a), b in zip(leaves, jax.tree.leaves(expected), strict=True):
    name = jax.tree_util.keystr(path)
    assert np.abs(a - b).max() <= TOLERANCE * max(1, np.abs(b).max()), name


@pytest.mark.parametrize('size', [2, 3])
def test_each_comes_to_what_it_comes_to_alone(configs, alone, tmp_path, size):
  folders = [tmp_path / str(i) for i in range(2)]
  last = train_side_by_side(configs, folders, Pack(size))
  assert [row['step'] for row in last] == [12, 20]
  for config, folder, reference in zip(configs, folders, alone, strict=True):
    assert_close(config, folder, reference)
    manifest = json.loads((folder / 'manifest.json').read_text())
    assert manifest['cells_at_once'] == size
    row = metrics.last_row(folder / 'metrics.jsonl')
    assert row['time/device_seconds'] == pytest.approx(row['time/train_seconds'] / size)


def test_a_cell_does_not_depend_on_who_is_trained_beside_it(configs, tmp_path):
  train_side_by_side(configs, [tmp_path / '0', tmp_path / '1'], Pack(2))
  for i, config in enumerate(configs):
    train(config, tmp_path / f'only{i}', pack=Pack(2))
    assert_same_run(config, tmp_path / f'only{i}', tmp_path / str(i))


def test_interrupted_it_goes_on_exactly(configs, tmp_path):
  whole, parts = [[tmp_path / f'{name}{i}' for i in range(2)] for name in 'wp']
  train_side_by_side(configs, whole, Pack(2))
  with pytest.raises(Stopped):
    train(configs[0], parts[0], pack=Pack(2), should_stop=stop_after(5))
  with pytest.raises(Stopped):
    train(configs[1], parts[1], pack=Pack(2), should_stop=stop_after(8))
  train_side_by_side(configs, parts, Pack(2))
  for config, one, other in zip(configs, parts, whole, strict=True):
    assert_same_run(config, one, other)


def test_one_that_fails_fails_alone(tiny_config, configs, tmp_path):
  bad = tiny_config(SCHEDULE | {'optim.lr': 1e30, 'optim.warmup_steps': 0})
  folders = [tmp_path / 'bad', tmp_path / 'good']
  error, row = train_side_by_side([bad, configs[1]], folders, Pack(2))
  assert isinstance(error, DivergedError)
  assert row['step'] == 20
  train(configs[1], tmp_path / 'only', pack=Pack(2))
  assert_same_run(configs[1], tmp_path / 'good', tmp_path / 'only')


def test_an_error_of_the_program_is_one_of_all(configs, tmp_path, monkeypatch):
  def fail(size):
    raise MemoryError(f'{size} cells')

  real = step.compile_program

  def compile_program(*args, **kwargs):
    program = real(*args, **kwargs)
    return step.Program(**(vars(program) | {'packed': fail}))

  monkeypatch.setattr(step, 'compile_program', compile_program)
  errors = train_side_by_side(configs, [tmp_path / '0', tmp_path / '1'], Pack(2))
  assert [str(error) for error in errors] == ['2 cells'] * 2


@pytest.mark.parametrize('gain', [0.9, 1.5])
def test_they_are_together_only_where_it_is_faster(
  configs, alone, tmp_path, caplog, gain
):
  asked = []

  def measured(key, measure):
    asked.append((key, measure()))
    return gain

  caplog.set_level(logging.INFO)
  folders = [tmp_path / '0', tmp_path / '1']
  train_side_by_side(configs, folders, Pack(2, measured))
  assert len(asked) == 1
  assert asked[0][1] > 0
  how = 'together' if gain > packing.WORTH else 'one by one'
  assert f'2 cells are {gain:.2f} times as fast together: {how}' in caplog.text
  for i, config in enumerate(configs):
    if gain > packing.WORTH:
      reference = tmp_path / f'only{i}'
      train(config, reference, pack=Pack(2))
    else:
      reference = alone[i]
    assert_same_run(config, folders[i], reference)


def test_what_does_not_fit_together_is_trained_one_by_one(
  configs, alone, tmp_path, caplog, monkeypatch
):
  def no_room(size):
    raise RuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 17 GB')

  compile_program = step.compile_program
  monkeypatch.setattr(
    step,
    'compile_program',
    lambda *args, **options: dataclasses.replace(
      compile_program(*args, **options), packed=no_room
    ),
  )
  folders = [tmp_path / '0', tmp_path / '1']
  last = train_side_by_side(configs, folders, Pack(2, lambda _, measure: measure()))
  assert [row['step'] for row in last] == [12, 20]
  assert '2 cells cannot be trained together: RESOURCE_EXHAUSTED' in caplog.text
  for config, folder, reference in zip(configs, folders, alone, strict=True):
    assert_same_run(config, folder, reference)


def test_compiling_for_all_is_no_training(tiny_config, tmp_path, monkeypatch):
  packed = step.compile_program(tiny_config(), sharding.make_mesh()).packed

  def slow(size):
    time.sleep(3)
    return packed(size)

  compile_program = step.compile_program
  monkeypatch.setattr(
    step,
    'compile_program',
    lambda *args, **options: dataclasses.replace(
      compile_program(*args, **options), packed=slow
    ),
  )
  row = train(tiny_config(), tmp_path, pack=Pack(2))
  assert row['time/compile_seconds'] >= 3


def test_cells_of_other_programs_do_not_wait_for_each_other(
  tiny_config, configs, alone, tmp_path
):
  other = tiny_config(SCHEDULE | {'train.batch_size': 8})
  pack = Pack(2)
  train_side_by_side([configs[0], other], [tmp_path / '0', tmp_path / '1'], pack)
  assert_close(configs[0], tmp_path / '0', alone[0])
  assert metrics.last_row(tmp_path / '1' / 'metrics.jsonl')['step'] == 12


def test_measuring_leaves_the_states_alone(tiny_config):
  config = tiny_config()
  program = step.compile_program(config, sharding.make_mesh())
  state = program.init(jax.random.key(0))
  before = jax.device_get(state)
  shapes = step.abstract_batch(config)
  batch = {name: np.zeros(like.shape, like.dtype) for name, like in shapes.items()}
  from scaling import optim

  schedule = optim.make_schedule(config, 12)
  update = (state, batch, jax.random.key(1), schedule)
  assert packing.times_as_fast(program, [update, update], rounds=1) > 0
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), before)
