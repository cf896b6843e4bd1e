"""What a trained cell says of each test image."""

import csv
import io
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from numpy.typing import NDArray

from scaling import files, models, sharding
from scaling.data.skipped import Skipped
from scaling.data.split import Split
from scaling.evals.features import outputs


class Predictions(NamedTuple):
  """Predictions of N images, in the order of their ids.

  Attributes:
    labels: `[N, K]` true classes, then -1.
    predicted: `[N]` class of the highest logit; -1 where the image cannot be read.
    confidence: `[N]` its probability, by softmax or sigmoid as the cell was trained.
  """

  labels: NDArray[np.int32]
  predicted: NDArray[np.int64]
  confidence: NDArray[np.float32]

  @property
  def correct(self) -> NDArray[np.bool_]:
    """Whether the class is one of the true ones, `[N]`."""
    return self.read & (self.labels == self.predicted[:, None]).any(1)

  @property
  def read(self) -> NDArray[np.bool_]:
    """Whether the image could be read, `[N]`."""
    return self.predicted >= 0


def predict(
  config: ConfigDict,
  variables: Any,
  split: Split,
  mesh: Mesh,
  skipped: Skipped | None = None,
) -> Predictions:
  """Returns what a network says of all images of a part.

  Args:
    config: of the cell.
    variables: `{'params', 'batch_stats'}`, from `scaling.trained.load`.
    split: of images that fit the network, such as the cell's test part.
    mesh: to compute on.
    skipped: is told of images that cannot be read; None raises.
  """
  if config.model.scan:
    variables = models.stack(variables)
  placed = jax.device_put(variables, sharding.replicated(mesh))
  ids = np.arange(split.num_images)
  scores, read = outputs('logits', config, placed, split, ids, mesh, skipped)
  predicted = scores.argmax(1)
  as_shares = jax.nn.softmax if config.train.loss == 'softmax' else jax.nn.sigmoid
  confidence = np.asarray(as_shares(scores))[ids, predicted]
  return Predictions(split.labels(ids), np.where(read, predicted, -1), confidence)


def write_csv(path: pathlib.Path, found: Predictions) -> None:
  """Writes a row per image: id, label, predicted, confidence, correct (0 or 1).

  Several labels of an image have spaces between them. Images that could not be read have
  no row.
  """
  text, correct = io.StringIO(), found.correct
  table = csv.writer(text, lineterminator='\n')
  table.writerow(['id', 'label', 'predicted', 'confidence', 'correct'])
  for number in np.flatnonzero(found.read):
    labels = ' '.join(str(label) for label in found.labels[number] if label >= 0)
    confidence = f'{found.confidence[number]:.6g}'
    table.writerow(
      [number, labels, found.predicted[number], confidence, int(correct[number])]
    )
  files.write_atomically(path, text.getvalue())
