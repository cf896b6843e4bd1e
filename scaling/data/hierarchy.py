"""Labels with all that they imply: an apple is a fruit.

The 2017 labels came with a hierarchy of classes, and an image of a class counts for each
class above it. Classes may have several parents.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling import config as config_lib
from scaling.data import pairs
from scaling.data.split import Split, fingerprint
from scaling.errors import UserError

Ids = NDArray[np.int32]


def ancestors(
  links: ArrayLike, num_classes: int, names: Sequence[str] | None = None
) -> Ids:
  """Returns each class and all classes above it, `[num_classes, A]`, padded with -1.

  Args:
    links: `[E, 2]` pairs of child and parent.
    num_classes: ids are below it.
    names: of the classes, for errors; else their ids.

  Raises:
    UserError: for an id that is no class, and for classes above themselves.
  """
  edges = np.asarray(links, np.int64).reshape(-1, 2)
  wrong = edges[(edges < 0) | (edges >= num_classes)]
  if wrong.size:
    raise UserError(f'the class hierarchy names {wrong[0]}, of {num_classes} classes')
  parents: list[list[int]] = [[] for _ in range(num_classes)]
  for child, parent in edges.tolist():
    parents[child].append(parent)

  above: list[set[int] | None] = [None] * num_classes
  for start in range(num_classes):
    # Depth first, without recursion: hierarchies may be deep.
    path = [start]
    on_path = {start}
    while path:
      at = path[-1]
      open_parents = [p for p in parents[at] if above[p] is None]
      looped = next((p for p in open_parents if p in on_path), None)
      if looped is not None:
        _refuse([*path[path.index(looped) :], looped], names)
      if above[at] is None and open_parents:
        path.append(open_parents[0])
        on_path.add(open_parents[0])
        continue
      above[at] = {at}.union(*(above[p] or () for p in parents[at]))
      on_path.discard(path.pop())
  width = max((len(one or ()) for one in above), default=1)
  table = np.full((num_classes, width), -1, np.int32)
  for row, one in zip(table, above, strict=True):
    row[: len(one or ())] = sorted(one or ())
  return table


def _refuse(cycle: list[int], names: Sequence[str] | None) -> None:
  words = ' -> '.join(names[one] if names else str(one) for one in cycle)
  raise UserError(f'the class hierarchy goes round: {words}; remove one of these links')


def close(labels: ArrayLike, table: Ids, max_labels: int) -> Ids:
  """Adds to each image's labels all classes above them.

  Args:
    labels: `[N, K]` ids, padded with -1.
    table: of `ancestors`.
    max_labels: room for each image.

  Returns:
    Distinct ids `[N, max_labels]`, ascending, padded with -1.

  Raises:
    UserError: if some image needs more room, saying how much, and for an id that is no
      class.
  """
  ids = np.asarray(labels, np.int64)
  if ids.size and ids.max() >= len(table):
    raise UserError(f'label {ids.max()} is none of {len(table)} classes')
  wide = np.where(ids[..., None] >= 0, table[np.maximum(ids, 0)], -1)
  wide = np.sort(wide.reshape(len(ids), ids.shape[1] * table.shape[1]), axis=1)
  new = (wide >= 0) & (np.diff(wide, axis=1, prepend=-1) != 0)
  needed = int(new.sum(1).max(initial=0))
  if needed > max_labels:
    raise UserError(
      f'data.max_labels={max_labels} is too small for labels with all classes above '
      f'them; set data.max_labels={needed}'
    )
  closed = np.full((len(ids), max_labels), -1, np.int32)
  rows, columns = np.nonzero(new)
  places = new.cumsum(1)[rows, columns] - 1
  closed[rows, places] = wide[rows, columns]
  return closed


def read_links(path: pathlib.Path, names: Sequence[str]) -> list[tuple[int, int]]:
  """Returns the pairs of child and parent that a CSV file names, one a line.

  A first line 'child,parent' is passed over.

  Args:
    path: of the file, UTF-8.
    names: of the classes, in the order of their ids.

  Raises:
    UserError: for a file that cannot be read, and naming the line that is no pair of
      classes.
  """
  ids = {name: i for i, name in enumerate(names)}
  links = []
  for where, pair in pairs.read(path, 'data.hierarchy', 'child,parent'):
    for name in pair:
      if name not in ids:
        raise UserError(
          f'{where}: {name!r} is no class of the set.' + config_lib.suggest(name, ids)
        )
    links.append((ids[pair[0]], ids[pair[1]]))
  return links


def close_split(split: Split, path: pathlib.Path, max_labels: int) -> Split:
  """Returns the part with the labels closed over the links in a file.

  Raises:
    UserError: as `read_links` and `ancestors` do, and when a class and all above it
      have no room in `max_labels`.
  """
  links = read_links(path, split.label_names)
  table = ancestors(links, split.num_classes, split.label_names)
  if (needed := table.shape[1]) > max_labels:
    deepest = split.label_names[int((table >= 0).sum(1).argmax())]
    raise UserError(
      f'data.max_labels={max_labels} is too small for {deepest!r} with all classes '
      f'above it; set data.max_labels={needed} or more'
    )
  return dataclasses.replace(
    split,
    labels=lambda ids: close(split.labels(ids), table, max_labels),
    fingerprint=fingerprint(split.fingerprint, links),
  )
