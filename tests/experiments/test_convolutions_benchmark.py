"""The benchmark of single convolutions: which a network has, and its table."""

import math

import pytest

from experiments.benchmarks import convolutions, nets
from experiments.benchmarks.convolutions import Conv, Times
from scaling import cost

TINY = nets.Net('small', 8, 4, 8, 1, 10)


@pytest.mark.parametrize('net', [*nets.NETS.values(), TINY])
def test_they_are_those_of_the_network(net):
  config = nets.make_config(net, 'float32', 4, 'auto')
  found = convolutions.kinds(config)
  kernels = sum(n * math.prod(conv.kernel) for conv, n in found.items())
  assert kernels / cost.num_params(config) > 0.9  # the rest are norms and the head
  flops = sum(n * conv.flops for conv, n in found.items())
  assert flops / 4 == pytest.approx(cost.forward_flops(config), rel=0.01)


def test_one_is_timed():
  pytest.importorskip('torch')
  times = convolutions.measure(Conv((2, 6, 6, 4), (3, 3, 4, 8), 2), 'float32', 'cpu', 1)
  assert min(times) > 0
  times = convolutions.measure(Conv((2, 6, 6, 3), (3, 3, 3, 8), 1), 'float32', 'cpu', 1)
  assert times.by_images == 0
  assert str(Times(1, 2, 3, 4, 8)) == '1.00 | 2.00 | 3.00 | 4.00 | 8.00 | 2.00'


def test_a_table(monkeypatch, capsys):
  pytest.importorskip('torch')
  monkeypatch.setenv('GLIBC_TUNABLES', '')
  monkeypatch.setattr(convolutions, 'NETS', {'tiny': TINY})
  monkeypatch.setattr(convolutions, 'measure', lambda *_: Times(1, 2, 3, 4, 8))
  limits = {'gemm_float32_gflops': 400, 'memory_gbytes_per_second': 40}
  monkeypatch.setattr(convolutions, 'limits', lambda: limits)
  convolutions.main(['--net=tiny'])
  shown = capsys.readouterr().out
  assert '400 GFLOP/s in float32; memory 40 GB/s' in shown
  assert '| 8 px, 3x3, 4 to 8, stride 2 | 1 |' in shown
  lines = [line for line in shown.splitlines() if line.startswith('|')]
  assert len({line.count('|') for line in lines}) == 1
  assert '| 7.00 | 14.00 | 21.00 | 28.00 | 56.00 | 2.00 |' in lines[-1]
