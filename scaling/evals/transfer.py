"""How good a network's frozen features are for another set.

A few images of each class and a ridge classifier in closed form; many images and a
logistic classifier. Both see the features alone, so that what is measured is what the
network learnt before.
"""

import math
from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from numpy.typing import NDArray

from scaling.data import sources
from scaling.data.skipped import Skipped
from scaling.data.split import Split
from scaling.data.subsets import Ids, balanced_subset, rank_in_class
from scaling.errors import UserError
from scaling.evals import ridge
from scaling.evals.features import outputs

_PLAIN = {
  'zipf': 0.0,
  'more_objects': 0.0,
  'wrong': 0.0,
  'missing': 0.0,
  'branching': 0,
  'ancestors': False,
}
_STRENGTHS = np.logspace(-3, 2, 6)  # inverse penalties of the logistic classifier
_HELD_OUT = 0.2  # of the images, to choose one


def target(config: ConfigDict) -> ConfigDict:
  """Returns the `data` part that describes the set to judge on."""
  data = config.data.copy_and_resolve_references()
  for name in ('source', 'name', 'train_split', 'test_split', 'label_key'):
    data[name] = config.transfer[name]
  data.num_classes = config.transfer.num_classes
  data.max_labels, data.hierarchy, data.class_weights = 1, '', ''
  data.adapt, data.merge_classes = True, 1
  procedural = data.procedural
  procedural.seed = config.transfer.procedural_seed
  # One true label an image, for it is judged by that, and as many images as a set of
  # files might have.
  procedural.update(_PLAIN)
  procedural.num_train = min(procedural.num_train, 100_000)
  return data


def load(
  config: ConfigDict, train_split: Split, data_dir: str | None
) -> tuple[Split, Split]:
  """Returns both parts of the set to judge on.

  Args:
    config: of the cell.
    train_split: that the network is trained on.
    data_dir: see `scaling.data.sources.load`.

  Raises:
    UserError: when it is not there, and when its test images are those trained on.
  """
  parts = sources.load(target(config), data_dir)
  if parts[1].fingerprint == train_split.fingerprint:
    raise UserError(
      f'transfer.test_split={config.transfer.test_split!r} are the images that the '
      'network is trained on; judge on others'
    )
  return parts


def evaluate(
  config: ConfigDict,
  variables: Any,
  parts: tuple[Split, Split],
  mesh: Mesh,
  skipped: Skipped | None = None,
) -> dict[str, float]:
  """Returns `transfer/N_shot` and `transfer/probe`, top-1 accuracies on test images.

  Args:
    config: of the network.
    variables: of it, on the mesh.
    parts: training and test part of the set to judge on, from `load`.
    mesh: to compute features on.
    skipped: is told of images that cannot be read, which then do not count; None raises.
  """
  train, test = parts
  asked = config.transfer
  labels = train.labels(np.arange(train.num_images))[:, 0]
  truth = test.labels(np.arange(test.num_images))[:, 0]
  few = [few_shot(labels, max(asked.shots, default=0), d) for d in range(asked.draws)]
  many = min(asked.probe_images, train.num_images)
  probe = np.arange(0)
  if many:
    probe = balanced_subset(many, labels, 0, asked.name).ids(np.arange(many))
  used = np.unique(np.concatenate([*(ids for ids, _ in few), probe]))
  seen, read = outputs('features', config, variables, train, used, mesh, skipped)
  seen, used = seen[read], used[read]
  unseen, read = outputs(
    'features', config, variables, test, np.arange(test.num_images), mesh, skipped
  )
  unseen, truth = unseen[read], truth[read]

  def of(ids: Ids) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Returns features and labels of those of the images that could be read."""
    ids = ids[np.isin(ids, used)]
    return seen[np.searchsorted(used, ids)], labels[ids]

  found = {}
  for shots in asked.shots:
    scores = []
    for ids, rank in few:
      classify = ridge.fit(*of(ids[rank < shots]), train.num_classes)
      scores.append(float((classify(unseen).argmax(1) == truth).mean()))
    found[f'transfer/{shots}_shot'] = math.fsum(scores) / len(scores)
  if many:
    right = linear_probe(*of(probe), unseen) == truth
    found['transfer/probe'] = float(right.mean())
  return {**found, 'transfer/num_images': len(truth)}


def few_shot(labels: NDArray[np.integer], shots: int, draw: int) -> tuple[Ids, Ids]:
  """Returns ids of up to `shots` images of each class, and their ranks in the class.

  Those of rank below k are the draw of k shots, so that the draws nest.
  """
  rank = rank_in_class(labels, 'few shots', draw)
  ids = np.flatnonzero(rank < shots)
  return ids, rank[ids]


def linear_probe(
  features: NDArray[np.floating],
  labels: NDArray[np.integer],
  unseen: NDArray[np.floating],
) -> NDArray[np.integer]:
  """Returns the classes `[M]` that logistic regression gives unseen features `[M, F]`.

  The penalty is the best on a fifth of the images that is held out of each class; where
  classes are too small for that it is 1.

  Args:
    features: `[N, F]`.
    labels: `[N]`.
    unseen: `[M, F]`.
  """
  from sklearn.linear_model import LogisticRegression

  centre, scale = features.mean(0), features.std(0) + 1e-6
  features, unseen = (features - centre) / scale, (unseen - centre) / scale
  counts = np.bincount(labels)
  held = rank_in_class(labels, 'held out') < np.floor(_HELD_OUT * counts)[labels]

  def train(strength: float, rows: NDArray[np.bool_]) -> LogisticRegression:
    # A fit that has not settled is as good as one that has, and stops early.
    found = LogisticRegression(C=strength, max_iter=100, tol=1e-3)
    return found.fit(features[rows], labels[rows])

  def score(strength: float) -> float:
    return float(train(strength, ~held).score(features[held], labels[held]))

  best = max(_STRENGTHS, key=score) if held.any() else 1.0
  return np.asarray(train(best, np.ones(len(labels), bool)).predict(unseen))
