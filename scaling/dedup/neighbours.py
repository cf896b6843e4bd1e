"""Nearest neighbours in a stream of vectors, in bounded memory. The home of faiss."""

from collections.abc import Iterable
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from scaling.data.subsets import Ids
from scaling.errors import UserError


def import_faiss() -> ModuleType:
  """Returns faiss.

  Raises:
    UserError: when it is not installed.
  """
  try:
    import faiss
  except ImportError:
    raise UserError(
      "the search for near-duplicates needs faiss; run `pip install 'scaling[dedup]'`"
    ) from None
  return faiss


def nearest(
  queries: NDArray[np.float32],
  stream: Iterable[tuple[Ids, NDArray[np.float32]]],
  k: int,
) -> tuple[NDArray[np.float32], Ids]:
  """Returns the k best images of a stream for each query, by the best of its views.

  The search is exact, and holds one chunk of the stream at a time: k candidates of each
  view are 12 V Q k bytes. Cosines depend in their last bit on how the stream is cut.

  Args:
    queries: `[V, Q, D]`, unit vectors of V views of each query.
    stream: ids `[B]` and their unit vectors `[B, D]`; no id comes twice.
    k: of each query.

  Returns:
    Cosines `[Q, k]`, descending, and ids `[Q, k]`; -1 and -inf where there are fewer.
  """
  faiss = import_faiss()
  num_views, num, _ = queries.shape
  cosine = np.full((num_views, num, k), -np.inf, np.float32)
  ids = np.full((num_views, num, k), -1, np.int64)
  for chunk, vectors in stream:
    for number, asked in enumerate(queries):
      found, place = faiss.knn(
        asked, vectors, min(k, len(chunk)), faiss.METRIC_INNER_PRODUCT
      )
      cosine[number], ids[number] = _best(
        np.concatenate([cosine[number], found], 1),
        np.concatenate([ids[number], chunk[place]], 1),
        k,
      )
  cosine, ids = (np.concatenate(list(one), 1) for one in (cosine, ids))
  # Two views may have found the same image: of each id only the best stays.
  order = np.lexsort((-cosine, ids))
  cosine, ids = (np.take_along_axis(one, order, 1) for one in (cosine, ids))
  again = np.pad(ids[:, 1:] == ids[:, :-1], ((0, 0), (1, 0)))
  return _best(np.where(again, -np.inf, cosine), np.where(again, -1, ids), k)


def _best(
  cosine: NDArray[np.float32], ids: Ids, k: int
) -> tuple[NDArray[np.float32], Ids]:
  order = np.argsort(-cosine, 1, 'stable')[:, :k]
  return np.take_along_axis(cosine, order, 1), np.take_along_axis(ids, order, 1)
