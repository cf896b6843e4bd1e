"""What a network's head sees of a set's images."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from numpy.typing import NDArray

from scaling import models, sharding
from scaling.data import augment, images, pipeline
from scaling.data.split import Split
from scaling.data.subsets import Ids, halves


def features(
  config: ConfigDict, variables: Any, split: Split, ids: Ids, mesh: Mesh
) -> NDArray[np.float32]:
  """Returns the features of images in evaluation mode, `[N, F]`, on every process.

  Args:
    config: of the network; `data` says size, channels and normalisation.
    variables: `{'params', 'batch_stats'}` on the mesh.
    split: of images that fit the network.
    ids: `[N]`, of the images.
    mesh: to compute on.
  """
  return outputs('features', config, variables, split, ids, mesh)


def logits(
  config: ConfigDict, variables: Any, split: Split, ids: Ids, mesh: Mesh
) -> NDArray[np.float32]:
  """Returns the logits of images in evaluation mode, `[N, C]`; see `features`."""
  found = outputs('logits', config, variables, split, ids, mesh)
  return found[:, : config.data.num_classes]


def outputs(
  what: str,
  config: ConfigDict,
  variables: Any,
  split: Split,
  ids: Ids,
  mesh: Mesh,
) -> NDArray[np.float32]:
  """Returns 'features' or 'logits' of images, `[N, ...]`."""
  run = jax.jit(
    functools.partial(_run, config, what), out_shardings=sharding.replicated(mesh)
  )
  found = []
  for batch, num in _batches(config, split, ids):
    placed = pipeline.place(batch, split, mesh)
    found.append(np.asarray(run(variables, placed['image']))[:num])
  return np.concatenate(found)


def _run(config: ConfigDict, what: str, variables: Any, pixels: jax.Array) -> jax.Array:
  data, dtype = config.data, jnp.dtype(config.model.dtype)
  pixels = augment.normalize(pixels, data.mean, data.std, dtype)
  model = models.build(config)
  if what == 'features':
    return model.features(variables, pixels)
  return model.apply(variables, pixels, False)[0]


def _batches(
  config: ConfigDict, split: Split, ids: Ids
) -> Iterator[tuple[dict[str, np.ndarray], int]]:
  """Yields this process's rows of batches of one size, the last filled up, and counts."""
  size = config.log.eval_batch_size
  rows = sharding.process_rows(size)
  for start in range(0, len(ids), size):
    wanted = ids[start : start + size]
    own = np.resize(wanted, size)[rows]  # rows of padding repeat images
    batch: dict[str, np.ndarray] = {'id': halves(own)}
    if split.generate is None:
      batch['image'] = images.read(own, split, config.data, None, None)[0]
    yield batch, len(wanted)
