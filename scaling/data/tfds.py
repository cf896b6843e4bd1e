"""Prepared TFDS sets, read without TensorFlow from their ArrayRecord files.

TFDS's own decoding costs several times what the codec does, so the records are parsed
here: TFDS tells where they are and what their features mean. Where images share one
square shape, each is decoded once and kept in memory, if there is room for all.
"""

import concurrent.futures
import os
import pathlib
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from scaling.data import memory
from scaling.data.decode import CorruptError
from scaling.data.examples import make_split, parse
from scaling.data.records import Records, Shard, checksums, count
from scaling.data.split import Split, fingerprint
from scaling.errors import UserError


def at_hand(data: ConfigDict, data_dir: str | None) -> bool:
  """Returns whether some version of the set is prepared, without importing TFDS."""
  base = data.name.split(':')[0].split('/')[0]
  return any((pathlib.Path(_folder(data_dir)) / base).glob('**/dataset_info.json'))


def load(data: ConfigDict, data_dir: str | None) -> tuple[Split, Split]:
  """Returns the parts `data.train_split` and `data.test_split`, sub-splits included.

  Raises:
    UserError: when the set is not prepared, not as ArrayRecord, or lacks the features.
  """
  import tensorflow_datasets as tfds

  folder = _folder(data_dir)
  build = (
    f'`tfds build {data.name} --file_format=array_record --data_dir={folder}`, after'
    " `pip install 'tensorflow-datasets[tensorflow]'` in an environment of its own"
  )
  try:
    builder = tfds.builder(data.name, data_dir=folder)
    prepared = builder.is_prepared()
  except (ValueError, AssertionError) as error:  # unknown name, unknown version
    raise UserError(
      f'data.name={data.name!r} is not in {folder} and TFDS does not know it; correct'
      f' it, pass --data_dir, or prepare the set by {build}'
    ) from error
  except Exception as error:  # protobuf's own, of a description that is torn
    raise UserError(
      f'{data.name} in {folder} cannot be read ({error}); prepare the set anew'
    ) from error
  if not prepared:
    raise UserError(
      f'data.name={data.name!r} is not prepared in {folder}; pass --data_dir, or run'
      f' {build}'
    )
  file_format = getattr(builder.info.file_format, 'value', None)
  if file_format != 'array_record':
    raise UserError(
      f'data.name={data.name!r} is prepared as {file_format} in {folder}; that cannot be'
      f' read without TensorFlow, so rebuild it by {build}'
    )
  image, label_names = _check_features(builder, data)
  train, test = (
    _split(builder, name, data, label_names)
    for name in (data.train_split, data.test_split)
  )
  height, width, channels = image.shape
  if channels is None or height is None or height != width:
    return train, test
  # Both or neither, for what is decoded by the batch is cropped in the centre.
  if not all(memory.fits(part, image.shape) for part in (train, test)):
    return train, test
  pixels = memory.decoded(train, image.shape), memory.decoded(test, image.shape)
  try:
    # Each cell needs all of the second, often after its training alone.
    memory.decode_all(pixels[1])
    if data.corrupt == 'skip':
      memory.decode_all(pixels[0])
  except CorruptError:
    if data.corrupt == 'stop':
      raise
    return train, test  # where batches are decoded, images may be skipped
  return pixels


def _folder(data_dir: str | None) -> str:
  folder = data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  return os.path.expanduser(folder)


def _split(
  builder: Any, name: str, data: ConfigDict, label_names: tuple[str, ...]
) -> Split:
  try:
    info = builder.info.splits[name]
  except ValueError as error:
    raise UserError(
      f'{name!r} is no split of {data.name}; set data.train_split and data.test_split'
      f' from {", ".join(builder.info.splits)}'
    ) from error

  if info.num_examples < 0:
    raise UserError(f'{name!r} of {data.name} ends before it begins; turn it around')
  shards = [
    Shard(part.filename, part.skip, part.take, part.examples_in_shard)
    for part in info.file_instructions
  ]
  paths = [shard.path for shard in shards]
  with concurrent.futures.ThreadPoolExecutor(16) as threads:
    for shard, number in zip(shards, threads.map(count, paths), strict=True):
      if number != shard.total:
        raise UserError(
          f'{shard.path} has {number} records of {shard.total}; prepare the set anew'
        )
  records, keys = Records(shards), (data.image_key, data.label_key)
  return make_split(
    lambda ids: [parse(record, *keys) for record in records(ids)],
    info.num_examples,
    label_names,
    max_labels=data.max_labels,
    where=lambda image_id: f'image {image_id} of {data.name}, split {name},',
    fingerprint=fingerprint(
      builder.info.full_name,
      builder.info.dataset_size,
      [(pathlib.Path(path).name, skip, take) for path, skip, take, _ in shards],
      checksums(paths),
      label_names,
    ),
  )


def _check_features(builder: Any, data: ConfigDict) -> tuple[Any, tuple[str, ...]]:
  """Returns the image feature and the names of the classes."""
  from tensorflow_datasets import features

  known = builder.info.features
  for field in ('image_key', 'label_key'):
    if data[field] not in known:
      raise UserError(
        f'data.{field}={data[field]!r} is no feature of {data.name}; it has'
        f' {", ".join(sorted(known))}'
      )
  image, label = known[data.image_key], known[data.label_key]
  if not isinstance(image, features.Image) or image.np_dtype != np.uint8:
    raise UserError(
      f'data.image_key={data.image_key!r} is no 8-bit image in {data.name}; name'
      ' another feature'
    )
  if isinstance(label, features.Sequence):
    label = label.feature
  if not isinstance(label, features.ClassLabel) or not label.num_classes:
    raise UserError(
      f'data.label_key={data.label_key!r} is neither a class nor a sequence of classes'
      f' in {data.name}; name another feature'
    )
  return image, tuple(label.names)
