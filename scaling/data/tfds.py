"""Prepared TFDS sets, read without TensorFlow from their ArrayRecord files.

TFDS's own decoding costs several times what the codec does, so the records are parsed
here: TFDS tells where they are and what their features mean. A set whose images share
one square shape is decoded into memory once; of any other, the records are read batch by
batch.
"""

import collections
import os
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from scaling.data.decode import decode
from scaling.data.split import Split, fingerprint, in_memory
from scaling.data.subsets import Ids
from scaling.errors import UserError

_READ = 1024  # records at a time


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
  train, test = (
    _split(builder, name, data) for name in (data.train_split, data.test_split)
  )
  return train, test


def _folder(data_dir: str | None) -> str:
  folder = data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  return os.path.expanduser(folder)


def _split(builder: Any, name: str, data: ConfigDict) -> Split:
  image, label_names = _check_features(builder, data)
  try:
    info = builder.info.splits[name]
  except ValueError as error:
    raise UserError(
      f'{name!r} is no split of {data.name}; set data.train_split and data.test_split'
      f' from {", ".join(builder.info.splits)}'
    ) from error

  def where(image_id: int) -> str:
    return f'image {image_id} of {data.name}, split {name},'

  def pad(labels: list[list[int]], ids: Ids) -> NDArray[np.int32]:
    return _pad_labels(
      labels, len(label_names), data.max_labels, lambda row: where(ids[row])
    )

  height, width, channels = image.shape
  if channels is not None and height is not None and height == width:
    images = np.empty((info.num_examples, *image.shape), np.uint8)
    labels = []
    for i, record in enumerate(_read_all(info)):
      encoded, values = _parse(record, data)
      images[i] = decode(encoded, channels, where(i))
      labels.append(values)
    return in_memory(images, pad(labels, np.arange(len(labels))), label_names)

  records = _random_access(info, data)
  files = [
    (pathlib.Path(part.filename).name, part.skip, part.take)
    for part in info.file_instructions
  ]
  return Split(
    num_images=info.num_examples,
    num_classes=len(label_names),
    labels=lambda ids: pad([labels for _, labels in records(ids)], ids),
    images=None,
    encoded=lambda ids: [encoded for encoded, _ in records(ids)],
    label_names=label_names,
    fingerprint=fingerprint(
      builder.info.full_name, builder.info.dataset_size, files, label_names
    ),
    where=where,
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


def _parse(record: bytes, data: ConfigDict) -> tuple[bytes, list[int]]:
  """Returns the encoded image and the labels of a record."""
  from tensorflow_datasets.proto import tf_example_pb2

  example = tf_example_pb2.Example.FromString(record)  # pyright: ignore
  feature = example.features.feature
  encoded = feature[data.image_key].bytes_list.value[0]
  return encoded, list(feature[data.label_key].int64_list.value)


def _read_all(info: Any) -> Iterator[bytes]:
  """Yields the records of a split in order."""
  from array_record.python.array_record_module import ArrayRecordReader

  for part in info.file_instructions:
    # Without these options a chunk of records takes four times as long to read.
    reader = ArrayRecordReader(
      part.filename, options='readahead_buffer_size:0,max_parallelism:0'
    )
    stop = part.skip + part.take
    if reader.num_records() < stop:
      raise UserError(
        f'{part.filename} has {reader.num_records()} readable records of'
        f' {part.examples_in_shard}; prepare the set anew'
      )
    for start in range(part.skip, stop, _READ):
      yield from reader.read(start, min(start + _READ, stop))
    reader.close()


def _random_access(info: Any, data: ConfigDict) -> Callable[[Ids], list]:
  """Returns a function from ids to parsed records that remembers its last batches.

  An image and its labels are in one record; a batch asks for the two in turn, and must
  not read everything twice.
  """
  from array_record.python.array_record_data_source import ArrayRecordDataSource

  source = ArrayRecordDataSource(info.file_instructions)
  recent = collections.OrderedDict()
  lock = threading.Lock()

  def records(ids: Ids) -> list:
    key = np.asarray(ids, np.int64).tobytes()
    with lock:
      if key not in recent:
        recent[key] = [
          _parse(record, data) for record in source.__getitems__(list(ids))
        ]
        if len(recent) > 2:
          recent.popitem(last=False)
      return recent[key]

  return records


def _pad_labels(
  labels: list[list[int]],
  num_classes: int,
  max_labels: int,
  where: Callable[[int], str],
) -> NDArray[np.int32]:
  """Returns the distinct labels of each image `[B, K]`, then -1."""
  table = np.full((len(labels), max_labels), -1, np.int32)
  for row, values in enumerate(labels):
    distinct = list(dict.fromkeys(values))
    if len(distinct) > max_labels:
      most = max(len(set(values)) for values in labels)
      raise UserError(
        f'data.max_labels={max_labels} is too few: {where(row)} has {len(distinct)};'
        f' set it to {most} or more'
      )
    if wrong := [value for value in distinct if not 0 <= value < num_classes]:
      raise UserError(
        f'{where(row)} has label {wrong[0]}, outside 0..{num_classes - 1}; use a split'
        ' with labels, or prepare the set anew'
      )
    table[row, : len(distinct)] = distinct
  return table
