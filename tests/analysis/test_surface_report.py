"""Surfaces fitted to a table, and what is written about them."""

import json

import numpy as np
import pandas as pd
import pytest
from surfaces import VISION_IMAGES, VISION_PARAMS, noisy, rosenfeld

from analysis.surface_report import write_surface_report


@pytest.fixture
def table():
  errors = np.minimum(noisy(rosenfeld(VISION_IMAGES, VISION_PARAMS), 0.02, 0), 0.99)
  columns = {'num_images': VISION_IMAGES, 'num_params': VISION_PARAMS, 'value': errors}
  return pd.DataFrame({'net': 'a', **columns})


def test_writes_fits_audit_and_answers(table, tmp_path):
  few = table.iloc[:3].assign(net='b')
  sizes = pd.DataFrame(
    {'net': ['a', 'c', 'b'], 'num_images': [1e5, 1e3, 1e3], 'num_params': 1e6}
  )
  report = write_surface_report(
    tmp_path, pd.concat([table, few]), group=['net'], kind='error', sizes=sizes
  )
  assert {path.name for path in report.paths} == {
    'surfaces.csv',
    'predictions.csv',
    'audit.json',
    'surface.md',
  }
  assert set(report.paths) == set(tmp_path.iterdir())
  fits = pd.read_csv(tmp_path / 'surfaces.csv')
  assert fits['net'].tolist() == ['a', 'a', 'b', 'b']
  status = fits.set_index(['net', 'law'])['status']
  # Far from the additive law's home: these runs begin near chance.
  assert status['a'].to_dict() == {'additive': 'fitted', 'rosenfeld': 'chosen'}
  assert set(status['b']) == {'refused'}
  found = pd.read_csv(tmp_path / 'predictions.csv')
  assert found['size'].tolist() == [1e5, 1e3, 1e3]
  assert found['value'].notna().tolist() == [True, False, False]
  assert found['lo'][0] < found['value'][0] < found['hi'][0]
  assert found['reason'][1] == 'no such group in the table'
  assert 'distinct' in found['reason'][2]
  audit = json.loads((tmp_path / 'audit.json').read_text())
  assert audit['surfaces'][0]['laws']['rosenfeld']['starts']['tried'] == 32


def test_a_known_chance_is_for_the_law_that_has_one(table, tmp_path):
  write_surface_report(tmp_path, table, kind='error', chance=0.9)
  fits = pd.read_csv(tmp_path / 'surfaces.csv').set_index('law')
  assert (fits['status'] != 'refused').all()
  assert fits['e_0']['rosenfeld'] == 0.9
