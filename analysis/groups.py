"""Which rows of a table are one curve, and what that curve is called."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

Key = tuple[Any, ...]


def curves_of(table: pd.DataFrame, group: Sequence[str]) -> dict[Key, pd.DataFrame]:
  """The rows of each combination of the `group` columns, in the order of the keys."""
  if not group:
    return {(): table}
  return {key_of(key): rows for key, rows in table.groupby(list(group), sort=True)}


def key_of(values: Iterable[Any]) -> Key:
  """numpy scalars as Python's, whole floats as int: they are names here."""
  return tuple(_plain(value) for value in values)


def text_of(values: Iterable[Any]) -> tuple[str, ...]:
  """A key as text: a column may be numbers in one file and text in the other."""
  return tuple(str(value) for value in key_of(values))


def series_label(key: Key, group: Sequence[str], keys: Sequence[Key]) -> str:
  """'depth 8', naming only the columns in which the curves differ (or the first)."""
  varies = [i for i in range(len(group)) if len({k[i] for k in keys}) > 1]
  named = varies or list(range(min(1, len(group))))
  return ', '.join(
    f'{group[i]} {key[i]}' if isinstance(key[i], int | float) else str(key[i])
    for i in named
  )


def names_of(fits: Mapping[Key, Any], group: Sequence[str]) -> dict[Key, str]:
  """What each curve is called."""
  keys = list(fits)
  return {key: series_label(key, group, keys) if group else 'all' for key in keys}


def _plain(value: Any) -> Any:
  value = value.item() if isinstance(value, np.generic) else value
  return int(value) if isinstance(value, float) and value.is_integer() else value
