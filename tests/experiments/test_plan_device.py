import json

import pytest

from experiments import plan_device, sweep
from experiments.plan_device import Device
from scaling import config as config_lib
from scaling import cost, roofline
from scaling.errors import UserError


@pytest.fixture
def cells(config):
  """Two sizes at fixed epochs, in bfloat16."""
  config.model.dtype = 'bfloat16'
  config.train.epochs, config.train.steps, config.train.batch_size = 3.0, 0, 64
  return sweep.make_cells(config, [{'data.num_images': n} for n in (640, 6400)])


def test_numbers_are_those_of_the_roofline(cells):
  device = Device('TPU v5e', 8)
  planned = plan_device.plan(cells, device, None)
  for one, cell in zip(planned, cells, strict=True):
    step = roofline.step(
      cost.network(cell.config),
      device.chip,
      batch_size=64,
      num_devices=8,
      itemsize=2,
      image_numbers=32 * 32 * 3,
    )
    assert one.name == cell.name
    assert one.steps == config_lib.num_steps(cell.config, cell.config.data.num_images)
    assert one.images_per_second == step.images_per_second
    assert one.mfu == step.mfu
    assert one.limit == step.limit
    assert one.hours == pytest.approx(one.steps * step.seconds / 3600)
    assert one.cost == pytest.approx(one.hours * 8 * 1.20)


def test_a_batch_that_cannot_be_split_is_planned_with_32_a_device(cells):
  device = Device('TPU v5e', 128)
  one, other = plan_device.plan(cells, device, None)
  assert one.batch_size == other.batch_size == 32 * 128
  assert other.steps == 5  # 3 x 6,400 / 4,096
  text = plan_device.table([one, other], device, 64)
  assert 'train.batch_size=64 cannot be split over 128 devices' in text
  assert 'cannot be split' not in plan_device.table([one, other], device, 32 * 128)


def test_too_few_cores_to_decode_limit_the_input(cells):
  device = Device('TPU v5e', 16, cores_per_host=2, images_per_core=100.0)
  one, _ = plan_device.plan(cells, device, None)
  assert one.limit == 'input'
  assert one.images_per_second == 2 * 2 * 100
  assert one.input.cores == 2
  free = plan_device.plan(cells, Device('TPU v5e', 16), None)[0]
  assert one.mfu == pytest.approx(free.mfu * 400 / free.images_per_second)


def test_price_is_listed_given_or_left_out(cells):
  a100 = Device('A100', 8)
  assert plan_device.plan(cells, a100, None)[0].cost is None
  text = plan_device.table(plan_device.plan(cells, a100, None), a100, 64)
  assert 'give --price_per_hour' in text
  paid = Device('A100', 8, price_per_hour=2.0)
  one = plan_device.plan(cells, paid, None)[0]
  assert one.cost == pytest.approx(one.hours * 16)
  free = plan_device.plan(cells, Device('TPU v5e', 8, price_per_hour=0.0), None)
  assert free[0].cost == 0


def test_table_adds_up_and_says_that_it_was_not_measured(cells):
  device = Device('TPU v5e', 8)
  planned = plan_device.plan(cells, device, None)
  text = plan_device.table(planned, device, 64)
  hours = sum(one.hours for one in planned)
  assert f'{hours:.3g} hours' in text
  assert 'Nothing of this was measured by us' in text
  data = json.loads(plan_device.as_json(planned, device, 64))
  assert data['total']['hours'] == hours
  assert data['total']['chip_hours'] == 8 * hours
  assert [one['name'] for one in data['cells']] == [cell.name for cell in cells]


def test_memory_that_does_not_suffice_is_said(cells):
  for cell in cells:
    cell.config.data.image_size, cell.config.train.batch_size = 1024, 256
  device = Device('TPU v5e', 1)
  planned = plan_device.plan(cells, device, None)
  text = plan_device.table(planned, device, 256)
  assert f'Does not fit in 16 GB a chip: {cells[0].name}, {cells[1].name}.' in text


@pytest.mark.parametrize(
  ('device', 'message'),
  [
    (Device('TPU v6', 8), 'Did you mean "TPU v6e"'),
    (Device('H100', 8, share=0.0), 'roofline_share=0'),
    (Device('H100', 8, model_devices=3), 'does not divide --num_devices=8'),
  ],
)
def test_impossible_devices_are_refused(cells, device, message):
  with pytest.raises(UserError, match=message):
    plan_device.plan(cells, device, None)


def test_a_cell_of_unknown_size_is_refused(config):
  config.train.epochs, config.train.steps = 3.0, 0
  (cell,) = sweep.make_cells(config, [{'data.num_images': 0}])
  with pytest.raises(UserError, match='num_full'):
    plan_device.plan([cell], Device('TPU v5e', 8), None)
