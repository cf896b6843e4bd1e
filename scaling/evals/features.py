"""What a network makes of a set's images: what its head sees, or what it says."""

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
from scaling.data.skipped import Skipped
from scaling.data.split import Split
from scaling.data.subsets import Ids, halves


def outputs(
  what: str,
  config: ConfigDict,
  variables: Any,
  split: Split,
  ids: Ids,
  mesh: Mesh,
  skipped: Skipped | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
  """Returns what a network makes of images in evaluation mode, on every process.

  Args:
    what: 'features', which the head sees, or 'logits', one for each class.
    config: of the network; `data` says size, channels and normalisation.
    variables: `{'params', 'batch_stats'}` on the mesh.
    split: of images that fit the network.
    ids: `[N]`, of the images.
    mesh: to compute on.
    skipped: is told of images that cannot be read; None raises.

  Returns:
    `[N, F]` or `[N, C]`, and whether each image could be read, `[N]`.
  """
  run = jax.jit(
    functools.partial(_run, config, what), out_shardings=sharding.replicated(mesh)
  )
  found, read = [], []
  for batch, num in _batches(config, split, ids, skipped):
    placed = pipeline.place(batch, split, mesh)
    values, mask = run(variables, placed['image'], placed['mask'])
    found.append(np.asarray(values)[:num])
    read.append(np.asarray(mask)[:num])
  return np.concatenate(found), np.concatenate(read)


def _run(
  config: ConfigDict, what: str, variables: Any, pixels: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
  data, dtype = config.data, jnp.dtype(config.model.dtype)
  pixels = augment.normalize(pixels, data.mean, data.std, dtype)
  model = models.build(config)
  if what == 'features':
    return model.features(variables, pixels), mask
  # The mask comes along so that every process has that of all. The head may be padded.
  return model.apply(variables, pixels, False)[0][:, : data.num_classes], mask


def _batches(
  config: ConfigDict, split: Split, ids: Ids, skipped: Skipped | None
) -> Iterator[tuple[dict[str, np.ndarray], int]]:
  """Yields this process's rows of batches of one size, the last filled up, and counts."""
  size = config.log.eval_batch_size
  rows = sharding.process_rows(size)
  for start in range(0, len(ids), size):
    wanted = ids[start : start + size]
    own = np.resize(wanted, size)[rows]  # rows of padding repeat images
    batch = {'id': halves(own), 'mask': np.ones(len(own), bool)}
    if split.generate is None:
      batch['image'], batch['mask'] = images.read(
        own, split, config.data, None, skipped
      )
    yield batch, len(wanted)
