"""A tiny run, measured."""

import dataclasses

from scaling import perf


def test_a_run_is_measured_and_leaves_nothing_behind(
  tiny_config, tmp_path, monkeypatch
):
  config = tiny_config()
  monkeypatch.chdir(tmp_path)
  said = []
  found = perf.measure(config, num_steps=2, say=said.append)
  assert len(said) == 6
  assert found.batch_size == config.train.batch_size
  assert found.steps == config.train.steps
  for name, value in dataclasses.asdict(found).items():
    if name == 'stages':
      assert list(value) == ['plan', 'images', 'labels', 'place']
      assert min(value.values()) > 0
      continue
    if name == 'ops':
      assert value == 'cpu'
      continue
    assert value > 0 or name in ('faults_per_step', 'fault_seconds'), name
  assert not list(tmp_path.iterdir())
