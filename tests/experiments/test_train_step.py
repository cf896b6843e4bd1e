"""The benchmark of the training step: its networks, its turns and its table."""

import dataclasses
import importlib.util
import json
import subprocess
import sys

import pytest

from experiments.benchmarks import contenders, nets, train_step
from scaling import cost

TINY = nets.Net('small', 8, 4, 8, 1, 10)


@pytest.mark.parametrize(
  ('name', 'params'), [('resnet20-28px', 269_434), ('resnet50-224px', 25_557_032)]
)
def test_networks_have_their_published_sizes(name, params):
  # The grey stem of the first has 2 * 9 * 16 weights fewer than the published 269,722.
  config = nets.make_config(nets.NETS[name], 'float32', 8, 'auto')
  assert cost.num_params(config) == params


def test_our_step_is_the_compiled_one():
  config = nets.make_config(TINY, 'float32', 4, 'auto')
  run, compile_seconds = contenders.jax_step(config)
  assert compile_seconds > 0
  for _ in range(2):
    run()


def test_torch_has_the_same_parameters():
  pytest.importorskip('torch')
  from experiments.benchmarks import torch_step

  for net in (TINY, dataclasses.replace(nets.NETS['resnet50-224px'], width=8)):
    config = nets.make_config(net, 'float32', 2, 'auto')
    params = sum(p.numel() for p in torch_step.build(net).parameters())
    assert params == cost.num_params(config)
  run, _ = torch_step.make(TINY, 'float32', 2, compiled=False)
  run()


def test_ratios_are_of_speed_and_a_failure_is_named():
  case = {'net': 'n', 'dtype': 'float32', 'batch_size': 4}
  times = {'seconds_median': 3.0, 'compile_seconds': 1.0, 'steps': 2}
  rows = [
    case | {'name': 'ours', 'seconds_min': 1.0, 'cpu_seconds_min': 2.0} | times,
    case | {'name': 'torch', 'seconds_min': 2.0, 'cpu_seconds_min': 1.0} | times,
    case | {'name': 'flax', 'error': 'no memory'},
  ]
  for row in rows[:2]:
    row['images_per_second'] = 4 / row['seconds_min']
  ours, torch, flax = train_step.format_rows(rows).splitlines()
  columns = train_step.HEADER.splitlines()[0].count('|')
  assert {line.count('|') for line in (ours, torch, flax)} == {columns}
  assert '| 2.00 | 0.50 |' in ours
  assert '| 1.00 | 1.00 |' in torch
  assert 'no memory' in flax
  assert '| 4.0 |  |  |' in train_step.format_rows(rows[:1])


def test_contenders_take_turns(monkeypatch):
  turns = []

  class Fake:
    def __init__(self, cores, name, *case, tunables):
      assert (tunables == '') == (name == 'flax')
      if name == 'flax':
        raise RuntimeError('broken')
      self.name, self.seconds, self.cpu_seconds = name, [], []
      self.first = {'compile_seconds': 0.5}

    def run(self, steps):
      turns.append((self.name, steps))
      self.seconds.append(0.25)
      self.cpu_seconds.append(0.5)

    def close(self):
      turns.append((self.name, 'closed'))

  monkeypatch.setattr(train_step, 'Contender', Fake)
  rows = train_step.measure(
    ['ours', 'flax', 'torch'], 'n', 'float32', 4, cores=1, steps=3, rounds=2
  )
  assert turns == [
    *[('ours', 3), ('torch', 3)] * 2,
    ('ours', 'closed'),
    ('torch', 'closed'),
  ]
  assert rows[0]['images_per_second'] == 16
  assert rows[1]['error'] == 'broken'


def test_help_and_refusals():
  command = [sys.executable, '-m', 'experiments.benchmarks.train_step']
  shown = subprocess.run([*command, '--help'], capture_output=True, text=True)
  assert shown.returncode == 0
  assert '--quick' in shown.stdout
  wrong = subprocess.run([*command, '--rounds=0'], capture_output=True, text=True)
  assert wrong.returncode == 2
  assert '--rounds=0' in wrong.stderr


def test_a_missing_torch_is_named(capsys, monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  assert train_step.main(['--name=torch']) == 1
  assert "pip install '.[bench]'" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_prints_a_table_and_writes_it(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(train_step, 'CASES', (('resnet20-28px', 2, 1),))
  out = tmp_path / 'out.json'
  argv = ['--quick', '--name=ours', '--dtype=float32', '--cores=1', f'--out={out}']
  assert train_step.main(argv) == 0
  report = json.loads(out.read_text())
  assert [row['name'] for row in report['rows']] == ['ours']
  assert report['rows'][0]['steps'] == 2
  assert min(report['limits'].values()) > 0
  assert 'resnet20-28px' in capsys.readouterr().out
