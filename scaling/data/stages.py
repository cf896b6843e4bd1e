"""Where the time of preparing a batch goes, stage by stage, on one core."""

import time

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from scaling import sharding
from scaling.data import images, pipeline
from scaling.data.decode import CorruptError
from scaling.data.split import Split
from scaling.data.subsets import Subset, batch_ids, halves


def measure(
  steps: range, *, config: ConfigDict, split: Split, subset: Subset, mesh: Mesh
) -> dict[str, float]:
  """Returns the least seconds of each stage of a batch, with one core.

  They are `plan` (which images), `read` and `decode` (with the crop) or, where images
  are in memory, `images`, then `labels` and `place`, on the devices. Training decodes on
  all cores and prepares batches ahead.

  Args:
    steps: of the batches to measure.
    config: of the cell.
    split: the training part.
    subset: the training images.
    mesh: that batches are placed on.
  """
  data, size = config.data, config.train.batch_size
  least: dict[str, float] = {}
  clock = time.perf_counter()

  def lap(stage: str) -> None:
    nonlocal clock
    now = time.perf_counter()
    least[stage] = min(now - clock, least.get(stage, now - clock))
    clock = time.perf_counter()

  for step in steps:
    clock = time.perf_counter()
    ids, epochs = batch_ids(step, size, subset, data.order_seed)
    lap('plan')
    pixels = None
    if split.images is not None and split.generate is None:
      split.images(ids)  # those decoded at their first use are kept from then on
      clock = time.perf_counter()
      pixels = split.images(ids)
      lap('images')
    elif split.encoded is not None:
      encoded = split.encoded(ids)
      lap('read')
      numbers = images.crop_numbers(ids, epochs, data, config.seed)
      shape = (len(ids), data.image_size, data.image_size, data.channels)
      pixels = np.zeros(shape, np.uint8)
      for i, one in enumerate(encoded):
        own = None if numbers is None else numbers[i]
        try:
          images.cropped(one, data, split.where(int(ids[i])), own, pixels[i])
        except CorruptError:
          if data.corrupt == 'stop':
            raise
      lap('decode')
    labels = split.labels(ids)
    lap('labels')
    batch = {'labels': labels, 'id': halves(ids), 'epoch': epochs.astype(np.uint32)}
    if pixels is not None:
      batch['image'] = pixels
    rows = sharding.process_rows(size)
    batch = {name: values[rows] for name, values in batch.items()}
    jax.block_until_ready(pipeline.place(batch, split, mesh))
    lap('place')
  return least
