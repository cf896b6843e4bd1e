"""The whole study against a truth: computed images whose error falls by a known law."""

import subprocess

import pytest
from studies import COMMAND

from analysis import results
from analysis.fit import Fit, fit


@pytest.mark.soak
def test_the_exponent_that_was_built_in_is_recovered(environment, tmp_path):
  """Seven sizes over two decades, by a network that keeps what it has seen once.

  So each look is the same in all its images, under half the noise; what turned looks and
  more noise do to the slope is in docs/data.md.
  """
  words = ['--config=procedural', f'--workdir={tmp_path / "study"}']
  words += [
    '--config.data.procedural.pose=0.0',
    '--config.data.procedural.noise=0.05',
  ]
  with (tmp_path / 'log.txt').open('w') as log:
    subprocess.run(
      [*COMMAND, 'sweep', *words], env=environment, stdout=log, stderr=log, check=True
    )
  table = results.read_study(tmp_path / 'study').table
  top1 = table[table['metric'] == 'test/top1']
  assert len(top1) == 14
  found = fit(
    top1['num_images'], 1 - top1['value'], kind='error', num_test=8000, laws=['power']
  )
  assert isinstance(found, Fit)
  low, high = found.intervals['c']
  print(f'exponent {found.best.params["c"]:.3f} ({low:.3f} to {high:.3f})')
  assert low <= 0.4 <= high
  assert high - low < 0.06  # or it would say nothing
