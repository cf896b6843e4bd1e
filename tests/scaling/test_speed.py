"""What the rows say of speed: rates since the last row, totals over restarts."""

import json
import types

import pytest

from scaling import chips, cost, sharding, train
from scaling.clock import Clock
from scaling.speed import Speed


def test_rates_are_since_the_last_row_and_totals_over_all_starts(tiny_config):
  config, mesh = tiny_config(), sharding.make_mesh(2)
  clock = Clock()
  clock.go_on_from({'train': 3600.0, 'input_wait': 100.0})
  speed = Speed(10, clock, config, mesh)
  clock.seconds['train'] += 4.0
  clock.seconds['device'] += 4.0
  clock.seconds['input_wait'] += 1.0
  row = speed.measure(20)
  assert row['time/images_per_second'] == 10 * config.train.batch_size / 4
  assert row['time/input_wait_share'] == 0.25
  assert row['time/device_hours'] == pytest.approx(2 * 3604 / 3600)
  assert row['time/peak_memory_gib'] > 0
  assert 'time/mfu' not in row  # a CPU's peak is not known


def test_use_of_the_peak_where_it_is_known(tiny_config):
  config = tiny_config()
  device = types.SimpleNamespace(device_kind='TPU v5 lite', memory_stats=lambda: None)
  mesh = types.SimpleNamespace(
    devices=types.SimpleNamespace(flat=[device]), local_devices=[device], size=4
  )
  clock = Clock()
  speed = Speed(0, clock, config, mesh)
  clock.seconds['train'] = 2.0
  flops = cost.train_flops(config, 10) / 2.0
  assert speed.measure(10)['time/mfu'] == pytest.approx(flops / (4 * 197e12))


@pytest.mark.parametrize(
  ('kind', 'name'),
  [
    ('TPU v5 lite', 'TPU v5e'),
    ('TPU v5p', 'TPU v5p'),
    ('TPU v4', 'TPU v4'),
    ('NVIDIA H100 80GB HBM3', 'H100'),
  ],
)
def test_chips_go_by_the_names_that_jax_gives_them(kind, name):
  assert chips.of_kind(kind) is chips.CHIPS[name]
  assert chips.of_kind('cpu') is None


def test_a_profile_of_a_run_that_is_shorter(tiny_config, tmp_path, caplog):
  train.train(tiny_config(), tmp_path / 'run', profile_steps=100)
  assert list((tmp_path / 'run' / 'profile').rglob('*.xplane.pb'))
  caplog.clear()
  train.train(tiny_config({'train.steps': 4}), tmp_path / 'four', profile_steps=100)
  assert not (tmp_path / 'four' / 'profile').exists()
  assert 'no trace: 4 updates only warm up' in caplog.text


def test_a_profile_is_a_trace_of_some_updates(tiny_config, tmp_path):
  config = tiny_config({'train.steps': 12})
  row = train.train(config, tmp_path / 'run', profile_steps=2)
  assert row['step'] == 12
  assert list((tmp_path / 'run' / 'profile').rglob('*.xplane.pb'))
  rows = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
  assert json.loads(rows[-1])['train/param_norm'] > 0


def test_cells_that_share_the_devices_share_their_hours():
  clock = Clock(cells=4)
  clock.go_on_from({'train': 8.0, 'input_wait': 1.0, 'compile': 0.0, 'eval': 2.0})
  with clock.measure('train'):
    pass
  train = clock.seconds['train'] - 8
  assert clock.seconds['device'] == pytest.approx(8 + train / 4)  # alone before
  assert clock.seconds['eval'] == 2.0
