"""The image sets a config can name, behind one function, each checked against the config.

A set is loaded once per process and kept, for a worker trains many cells on it: they
differ in subset and seeds, which do not enter here.
"""

import functools
import pathlib
import re

from ml_collections import ConfigDict, FrozenConfigDict

from scaling import config as config_lib
from scaling.data import (
  adapt,
  array_record,
  class_weights,
  csv_files,
  digits,
  folder,
  hierarchy,
  idx,
  made_up,
  procedural,
  tar,
  tfds,
)
from scaling.data.split import Split, merge_classes, sampled
from scaling.errors import UserError

__all__ = ['Split', 'absolute', 'at_hand', 'folder_of', 'load', 'load_as_found']

_SOURCES = {
  'array_record': array_record,
  'csv': csv_files,
  'digits': digits,
  'folder': folder,
  'idx': idx,
  'made_up': made_up,
  'procedural': procedural,
  'tar': tar,
  'tfds': tfds,
}
# Where an image may have several labels, and how many is not known before it is read.
_SEVERAL = ('array_record', 'csv', 'tar', 'tfds')
_ROOM = 64  # labels of an image, at least, where nobody has said how many there are
# The fields that decide what is loaded.
_FIELDS = (
  'source',
  'name',
  'train_split',
  'test_split',
  'test_fraction',
  'image_key',
  'label_key',
  'num_classes',
  'max_labels',
  'hierarchy',
  'class_weights',
  'image_size',
  'channels',
  'adapt',
  'merge_classes',
  'made_up_train',
  'made_up_test',
  'procedural',
  'corrupt',
)


def at_hand(data: ConfigDict, data_dir: str | None = None) -> bool:
  """Returns whether `load` would find its files, without reading them."""
  return _SOURCES[data.source].at_hand(data, folder_of(data.name, data_dir))


def load(data: ConfigDict, data_dir: str | None = None) -> tuple[Split, Split]:
  """Returns the training and the test part of the set that the config names.

  Args:
    data: the `data` part of a config.
    data_dir: where the files are, see `folder_of`; each source has its own default.

  Raises:
    UserError: when the set is not there, is broken or differs from the config.
  """
  fields = FrozenConfigDict({field: data[field] for field in _FIELDS})
  return _load(fields, folder_of(data.name, data_dir))


def load_as_found(data: ConfigDict, data_dir: str | None = None) -> tuple[Split, Split]:
  """Returns both parts of a set that no config describes yet, to look at or to copy.

  The number of classes, channels, pixels and labels an image are the set's own. Sets
  that are computed follow the config as ever. Nothing is kept for a second call.

  Args:
    data: the `data` part of a config: source, name, parts and keys.
    data_dir: where the files are, see `folder_of`; each source has its own default.

  Raises:
    UserError: for a source that is not known, and when the set is not there or broken.
  """
  if data.source not in _SOURCES:
    raise UserError(
      f'{data.source!r} is no source; use {", ".join(_SOURCES)}.'
      + config_lib.suggest(data.source, _SOURCES)
    )
  data = data.copy_and_resolve_references()
  data.corrupt = 'skip'  # whoever looks finds them one by one
  folder = _on_disk(data, folder_of(data.name, data_dir))
  if data.source in _SEVERAL:
    data.max_labels = max(data.max_labels, _ROOM)
  return _SOURCES[data.source].load(data, folder)


def folder_of(name: str, data_dir: str | None) -> str | None:
  """Returns where the set of this name lies.

  Args:
    name: of a set, `data.name`.
    data_dir: one folder, or `NAME=FOLDER` for each of several sets with commas between,
      and at most one folder without a name, for all others.

  Raises:
    UserError: for two folders without a name beside others with one.
  """
  folders = _folders(data_dir)
  others = [folder for of, folder in folders if of is None]
  if len(others) > 1:
    raise UserError(
      f'--data_dir={data_dir} has {len(others)} folders without a name; write '
      'NAME=FOLDER,NAME=FOLDER for several sets'
    )
  return dict(folders).get(name, others[0] if others else None)


def absolute(data_dir: str | None) -> str | None:
  """Returns the same folders for processes that run elsewhere."""

  def whole(folder: str) -> str:
    if '://' in folder or folder.startswith('~'):  # theirs
      return folder
    return str(pathlib.Path(folder).absolute())

  folders = _folders(data_dir)
  return (
    ','.join(f'{of}={whole(one)}' if of else whole(one) for of, one in folders) or None
  )


def _folders(data_dir: str | None) -> list[tuple[str | None, str]]:
  """Returns each folder with the name of its set, None for one without."""
  if not data_dir:
    return []
  parts = data_dir.split(',')
  named = [re.fullmatch(r'([^/=]+)=(.+)', part) for part in parts]
  if not any(named):
    return [(None, data_dir)]
  return [
    (match[1], match[2]) if match else (None, part)
    for part, match in zip(parts, named, strict=True)
  ]


@functools.lru_cache(maxsize=2)
def _load(data: ConfigDict, data_dir: str | None) -> tuple[Split, Split]:
  whole = ConfigDict(data.to_dict())
  whole.num_classes *= data.merge_classes  # those of the set itself
  train, test = _SOURCES[data.source].load(whole, _on_disk(data, data_dir))
  train, test = (sampled(each) if each.encoded else each for each in (train, test))
  if data.merge_classes > 1:
    train, test = (merge_classes(each, data.merge_classes) for each in (train, test))
  if data.adapt:
    size, channels = data.image_size, data.channels
    train, test = (adapt.adapt(split, size, channels) for split in (train, test))
  _check(train, data, data.train_split)
  _check(test, data, data.test_split)
  if data.hierarchy:
    path = pathlib.Path(data_dir or '.').expanduser() / data.hierarchy
    train, test = (
      hierarchy.close_split(split, path, data.max_labels) for split in (train, test)
    )
  if data.class_weights:
    path = pathlib.Path(data_dir or '.').expanduser() / data.class_weights
    train, test = (class_weights.weigh(split, path) for split in (train, test))
  return train, test


def _on_disk(data: ConfigDict, data_dir: str | None) -> str | None:
  if data_dir and '://' in data_dir and data.source != 'tar':
    raise UserError(
      f'--data_dir={data_dir}: data.source={data.source!r} reads from a disk; mount the '
      "bucket, or use data.source='tar', which reads object stores"
    )
  return data_dir


def _check(split: Split, data: ConfigDict, part: str) -> None:
  if split.num_images == 0:
    raise UserError(f'{data.name}, {part}: there are no images; choose another part')
  if split.num_classes != data.num_classes:
    raise UserError(
      f'data.num_classes={data.num_classes} but {data.name} has {split.num_classes}'
      f' classes; set data.num_classes={split.num_classes}'
    )
  if split.shape is None:
    return
  height, width, channels = split.shape
  if channels != data.channels:
    raise UserError(
      f'data.channels={data.channels} but the images of {data.name} have {channels};'
      f' set data.channels={channels}, or data.adapt=True to change the images'
    )
  if not height == width == data.image_size:
    raise UserError(
      f'data.image_size={data.image_size} but the images of {data.name} are'
      f' {height}x{width} pixels; set data.image_size={height}, or data.adapt=True to'
      ' change the images'
    )
