"""Our own input, as `experiments.benchmarks.input` times it.

Each function returns one that makes the next batch, as those of `input_peers` do.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.benchmarks import input_peers
from experiments.benchmarks.input_peers import MIN_AREA, PIXELS, Next


def data_of(**fields: Any) -> ConfigDict:
  from configs import base

  data = base.get_config().data
  data.update(fields)
  return data


def train_batches(split: Any, data: ConfigDict, batch_size: int) -> Next:
  """Returns our batches, step after step."""
  from scaling.data import pipeline

  subset = pipeline.make_subset(split, data)
  step = -1

  def batch() -> dict[str, np.ndarray]:
    nonlocal step
    step += 1
    return pipeline.train_batch(
      step, split=split, data=data, subset=subset, batch_size=batch_size, seed=0
    )

  return batch


def jpeg(folder: pathlib.Path, batch_size: int) -> Next:
  """Returns our batches, flipped here too, though training flips on the device."""
  import cv2

  from scaling.data import sources

  data = data_of(
    source='folder',
    name='photos',
    num_classes=2,
    image_size=PIXELS,
    min_crop_area=MIN_AREA,
  )
  split, _ = sources.load(data, str(folder))
  batch, rng = train_batches(split, data, batch_size), np.random.default_rng(0)

  def flipped() -> dict[str, np.ndarray]:
    rows = batch()
    for row in np.flatnonzero(rng.random(batch_size) < 0.5):
      cv2.flip(rows['image'][row], 1, dst=rows['image'][row])
    return rows

  return flipped


def memory(
  images: NDArray[np.uint8], labels: NDArray[np.int64], batch_size: int
) -> Next:
  """Returns our batches of arrays."""
  from scaling.data import split

  table = split.one_label(labels, 1)
  whole = split.in_memory(images, table, [str(label) for label in range(10)])
  return train_batches(whole, data_of(name='arrays'), batch_size)


def records(folder: pathlib.Path, batch_size: int, level: str) -> Next:
  """Returns batches of records at random: bytes, or image and label, or with pixels."""
  from scaling.data.decode import decode
  from scaling.data.examples import Example, parse
  from scaling.data.records import Records, Shard

  info = input_peers.builder_of(folder).info.splits['train']
  source = Records(
    [
      Shard(part.filename, part.skip, part.take, part.examples_in_shard)
      for part in info.file_instructions
    ]
  )
  rng = np.random.default_rng(0)

  def raw() -> list[bytes]:
    return source(rng.integers(len(source), size=batch_size))

  def parsed() -> list[Example]:
    return [parse(record, 'image', 'label') for record in raw()]

  def decoded() -> list[tuple[NDArray[np.uint8], Sequence[int] | None]]:
    return [(decode(image, 3, 'a record'), labels) for image, labels in parsed()]

  return {'bytes': raw, 'parsed': parsed, 'decoded': decoded}[level]


def computed(batch_size: int) -> Next:
  """Returns images alone, as `Split.images` computes them."""
  from scaling.data import sources

  data = data_of(source='procedural', name='procedural')
  split, _ = sources.load(data)
  images, rng = split.images, np.random.default_rng(0)
  assert images is not None
  return lambda: images(rng.integers(split.num_images, size=batch_size))


def placed(batch_size: int, cores: int) -> Next:
  """Returns whole batches on a device for each core, as they are trained on."""
  import jax

  from configs import base
  from scaling import sharding
  from scaling.data import pipeline, sources

  sharding.use_cores(cores, [batch_size])
  config = base.get_config()
  config.data.update(source='procedural', name='procedural')
  config.train.batch_size = batch_size
  split, _ = sources.load(config.data)
  subset, mesh = pipeline.make_subset(split, config.data), sharding.make_mesh()
  step = -1

  def batch() -> dict[str, Any]:
    nonlocal step
    step += 1
    return jax.block_until_ready(
      pipeline.placed_batch(step, config=config, split=split, subset=subset, mesh=mesh)
    )

  return batch


def training(batch_size: int, cores: int) -> Next:
  """Returns our training step of ResNet-20, to be kept busy."""
  from experiments.benchmarks.contenders import jax_step
  from experiments.benchmarks.nets import NETS, make_config
  from scaling import sharding

  sharding.use_cores(cores, [batch_size])
  config = make_config(NETS['resnet20-32px'], 'float32', batch_size, 'auto')
  return jax_step(config)[0]
