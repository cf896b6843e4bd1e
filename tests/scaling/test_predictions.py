"""What a cell says of each test image, and the table of it."""

import csv

import numpy as np
import pytest

from scaling import sharding, trained
from scaling.data import sources
from scaling.evals import predictions
from scaling.train import train


@pytest.fixture(scope='module')
def cell(tiny_config, tmp_path_factory):
  folder = tmp_path_factory.mktemp('cell')
  config = tiny_config()
  return folder, config, train(config, folder)


def test_as_many_are_right_as_the_cell_was_told(cell):
  folder, config, last = cell
  _, test = sources.load(config.data, None)
  found = predictions.predict(*trained.load(folder), test, sharding.make_mesh())
  assert found.correct.mean() == last['test/top1']
  assert ((found.confidence > 0) & (found.confidence <= 1)).all()


def test_the_layout_of_the_blocks_changes_nothing(cell):
  folder, config, _ = cell
  _, test = sources.load(config.data, None)
  config, variables = trained.load(folder)
  found = []
  for scan in (False, True):
    config.model.scan = scan
    found.append(predictions.predict(config, variables, test, sharding.make_mesh()))
  np.testing.assert_array_equal(found[0].predicted, found[1].predicted)
  # Sums are taken in another order.
  np.testing.assert_allclose(found[0].confidence, found[1].confidence, rtol=1e-5)


def test_any_of_several_labels_is_right():
  labels = np.array([[0, 2], [1, -1], [0, -1]], np.int32)
  predicted = np.array([2, 0, 0])
  found = predictions.Predictions(labels, predicted, np.full(3, 0.5, np.float32))
  assert found.correct.tolist() == [True, False, True]


def test_the_table_says_the_same(tmp_path):
  labels = np.array([[0, 2], [1, -1]], np.int32)
  found = predictions.Predictions(labels, np.array([2, 0]), np.array([0.5, 0.25]))
  predictions.write_csv(tmp_path / 'p.csv', found)
  with (tmp_path / 'p.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert [row['label'] for row in rows] == ['0 2', '1']
  assert [row['correct'] for row in rows] == ['1', '0']
  assert [float(row['confidence']) for row in rows] == [0.5, 0.25]
