import json

import pytest

from experiments import plan, sweep
from scaling import cost
from scaling.errors import UserError


@pytest.fixture
def cells(config):
  """Two depths at fixed steps."""
  config.train.steps, config.train.batch_size = 30, 8
  wanted = [{'data.num_images': 50, 'model.depth': depth} for depth in (8, 14)]
  return sweep.make_cells(config, wanted)


def test_numbers_are_those_of_cost(cells):
  for planned, cell in zip(plan.plan(cells, 2e9, None), cells, strict=True):
    assert planned.name == cell.name
    assert planned.steps == 30
    assert planned.forward_flops == cost.forward_flops(cell.config)
    assert planned.train_flops == cost.train_flops(cell.config, 30)
    assert planned.seconds == planned.train_flops / 2e9


def test_fixed_epochs_take_more_steps_for_more_images(config):
  config.train.epochs, config.train.steps, config.train.batch_size = 3.0, 0, 8
  cells = sweep.make_cells(config, [{'data.num_images': n} for n in (16, 160, 0)])
  planned = plan.plan(cells, 1e9, num_full=1600)
  assert [cell.steps for cell in planned] == [6, 60, 600]
  with pytest.raises(UserError, match='num_images'):
    plan.plan(cells, 1e9, num_full=None)


def test_table_adds_up(cells):
  planned = plan.plan(cells, 1e6, None)
  *_, total = plan.table(planned, workers=2).splitlines()
  assert total.startswith(f'2 cells, {sum(c.train_flops for c in planned):.3g} FLOPs')
  hours = sum(cell.seconds for cell in planned) / 2 / 3600
  assert f'{hours:.3g} hours' in total
  assert 'with 2 workers' in total


def test_speed_of_a_named_device():
  flops, source = plan.sustained_flops('TPU v5e', 16, 0.5, None)
  assert flops == 16 * 197e12 * 0.5
  assert '16 x TPU v5e' in source
  with pytest.raises(UserError, match='Did you mean "TPU v6e"'):
    plan.sustained_flops('TPU v6', 1, 0.5, None)


def test_speed_of_a_cpu_is_measured_where_cells_are_done(tmp_path, config):
  guess, source = plan.sustained_flops('cpu', 2, 0.4, tmp_path)
  assert guess == 2 * plan.CPU_FLOPS
  assert 'guess' in source
  shared, _ = plan.sustained_flops('cpu', 2, 0.4, tmp_path, workers=2)
  assert shared == plan.CPU_FLOPS
  cells = sweep.make_cells(config, [{'seed': 0}, {'seed': 1}])
  sweep.write_study(tmp_path, config, 'x.py', cells)
  ended = (('done', 2.0), ('failed', 1e-3))
  for cell, (state, seconds) in zip(cells, ended, strict=True):
    folder = sweep.cell_folder(tmp_path, cell.name)
    (folder / 'status.json').write_text(json.dumps({'state': state, 'attempts': 1}))
    manifest = {'steps': 10, 'num_devices': 1, 'train_flops': 6e9}
    (folder / 'manifest.json').write_text(json.dumps(manifest))
    row = {'step': 10, 'time/train_seconds': seconds}
    (folder / 'metrics.jsonl').write_text(json.dumps(row))
  measured, source = plan.sustained_flops('cpu', 2, 0.4, tmp_path)
  assert measured == 3e9
  assert 'measured' in source
