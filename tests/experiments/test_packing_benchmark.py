"""The benchmark of packing trains the same cells in both forms."""

import json

import pytest

from experiments.benchmarks import packing

pytestmark = pytest.mark.usefixtures('quick_compile')


def test_packed_cells_are_those_alone(tiny_config):
  found = packing.benchmark(tiny_config(), num_cells=2, rounds=3)
  # Sums in another order, through three updates.
  assert 0 < found['difference'] < 1e-4
  assert len(found['ratios']) == 3
  assert found['ratios'][0] <= found['ratio'] <= found['ratios'][-1]
  assert found['alone'] > 0 < found['packed']


def test_the_command_prints_a_row_and_writes_it(
  tiny_config, monkeypatch, tmp_path, capsys
):
  class Tiny:
    get_config = staticmethod(tiny_config)

  monkeypatch.setattr(packing, 'CASES', {'tiny': (Tiny, {}), 'left out': (Tiny, {})})
  out = tmp_path / 'packing.json'
  assert packing.main(['--cells=2', '--rounds=1', '--case=tiny', f'--out={out}']) == 0
  assert list(json.loads(out.read_text())) == ['tiny']
  assert len(capsys.readouterr().out.splitlines()) == 2
