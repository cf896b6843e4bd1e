"""Sets whose images and labels lie in the same record: read together, asked for apart."""

import collections
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling.data.split import Split
from scaling.data.subsets import Ids
from scaling.errors import UserError

Example = tuple[bytes, Sequence[int] | None]  # encoded image, labels
Read = Callable[[Ids], list[Example]]


@functools.cache
def _protobuf() -> tuple[Any, type[Exception]]:
  """Returns the message and its error: an import for each record doubles its time."""
  from google.protobuf.message import DecodeError
  from tensorflow_datasets.proto import tf_example_pb2

  return tf_example_pb2.Example, DecodeError  # pyright: ignore


def parse(record: bytes, image_key: str, label_key: str) -> Example:
  """Returns the encoded image and the labels of a tf.train.Example.

  If the record is none, or has no such image, they are empty and None: which image that
  is, and whether to go on without it, is known where it is decoded.
  """
  example_type, decode_error = _protobuf()
  try:
    example = example_type.FromString(record)
    feature = example.features.feature
    encoded = feature[image_key].bytes_list.value[0]
  except (decode_error, IndexError):
    return b'', None
  return encoded, list(feature[label_key].int64_list.value)


def make_split(
  read: Read,
  num_images: int,
  label_names: Sequence[str],
  *,
  max_labels: int,
  where: Callable[[int], str],
  fingerprint: str,
) -> Split:
  """Returns the part whose examples `read` returns.

  Args:
    read: maps ids `[B]` to their examples; any thread may call it.
    num_images: how many.
    label_names: of the classes.
    max_labels: room for the labels of an image.
    where: maps one id to words that find its image.
    fingerprint: of the content.
  """
  read = remembered(read)
  names = tuple(label_names)

  def labels(ids: Ids) -> NDArray[np.int32]:
    found = [labels for _, labels in read(ids)]
    return pad_labels(found, len(names), max_labels, lambda row: where(int(ids[row])))

  return Split(
    num_images=num_images,
    num_classes=len(names),
    labels=labels,
    images=None,
    encoded=lambda ids: [encoded for encoded, _ in read(ids)],
    label_names=names,
    fingerprint=fingerprint,
    where=where,
  )


def remembered(read: Read) -> Read:
  """Returns `read` with its last two batches kept: labels are asked for after images."""
  recent: collections.OrderedDict[bytes, list[Example]] = collections.OrderedDict()
  lock = threading.Lock()

  def answer(ids: Ids) -> list[Example]:
    key = np.asarray(ids, np.int64).tobytes()
    with lock:
      if key not in recent:
        recent[key] = read(ids)
        if len(recent) > 2:
          recent.popitem(last=False)
      return recent[key]

  return answer


def pad_labels(
  labels: Sequence[Sequence[int] | None],
  num_classes: int,
  max_labels: int,
  where: Callable[[int], str],
) -> NDArray[np.int32]:
  """Returns the distinct labels of each image `[B, K]`, then -1; None has none.

  Raises:
    UserError: for more labels than there is room for, none where each has one, or one
      that is no class.
  """
  table = np.full((len(labels), max_labels), -1, np.int32)
  for row, values in enumerate(labels):
    if values is None:
      continue
    distinct = list(dict.fromkeys(values))
    if max_labels == 1 and not distinct:
      raise UserError(
        f'{where(row)} has no label; correct data.label_key, or set data.max_labels above '
        '1 for images that have none'
      )
    if len(distinct) > max_labels:
      most = max(len(set(values or ())) for values in labels)
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
