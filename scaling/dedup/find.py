"""Which test images have a near-duplicate among the training images.

Nearest neighbours of an embedding are candidates. Each is aligned with its test image,
and has two votes to pass: the cosine of their frequencies, and the distance of their
hashes. Where the votes pass is measured on each set: on planted copies, which are to be
found, and on decoys, test images turned upside down, which are like any other image of
the set but copies of none.

Neighbours within a set would be the natural example of pairs that are no copies. But
where a set has copies of its own, as CIFAR-10 has, the most alike of them are just these,
and a cut above them finds nothing.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaling.data import survey
from scaling.data.split import Split
from scaling.data.subsets import Ids, Permutation
from scaling.data.survey import Tell
from scaling.dedup import neighbours, planted, thumbnails
from scaling.dedup.frequencies import Alignment, align, embed, unalike
from scaling.dedup.thumbnails import SIDE
from scaling.errors import UserError

PLANTED = 500  # copies of each kind
DECOYS = 5_000
REVERSE = 'cropped in training'  # the kind where the copy is the training image
_CHUNK = 4096  # images read at a time
_PAIRS = 512  # aligned at a time
_PASS = 0.99  # of the planted copies of every kind, that the hash lets pass
# Bits of the hash that may differ at least: copies in the wild are changed more than
# planted ones (docs/dedup.md has what other numbers find).
_DISTANCE = 12
_LEAST = 0.5  # cosine below which no pair is called alike, whatever the decoys are like

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class Cut:
  """What a pair needs to pass: more than this cosine, at most this distance."""

  cosine: float
  distance: int

  def passes(self, alignment: Alignment) -> NDArray[np.bool_]:
    """Returns which pairs have both votes, `[N]`."""
    return (alignment.cosine > self.cosine) & (alignment.distance <= self.distance)


@dataclass(frozen=True)
class Measured:
  """What became of planted copies of one kind.

  Attributes:
    kind: of change.
    num: copies.
    reached: whose original was among the candidates.
    passed: and got both votes.
  """

  kind: str
  num: int
  reached: int
  passed: int


@dataclass(frozen=True)
class Pairs:
  """Pairs of a test and a training image, most certain first.

  Attributes:
    test: `[P]` ids.
    train: `[P]` ids.
    alignment: of each.
    exact: `[P]`, whether all pixels are equal.
  """

  test: Ids
  train: Ids
  alignment: Alignment
  exact: NDArray[np.bool_]

  def __len__(self) -> int:
    return len(self.test)

  def kind(self, row: int) -> str:
    """Returns what the second image is to the first, in words."""
    if self.exact[row]:
      return 'exact'
    mirrored, cropped = self.alignment.mirrored[row], self.alignment.cropped[row]
    return (
      ' '.join(
        word for word, so in (('mirrored', mirrored), ('cropped', cropped)) if so
      )
      or 'same frame'
    )


@dataclass(frozen=True)
class Found:
  """The outcome of `find`.

  Attributes:
    num_train: images of the training part.
    num_test: images of the test part.
    unreadable: training and test images that could not be read, and were left out.
    pairs: that passed; a test image may be in several.
    missed: the best pair of each test image without a pair that passed.
    cut: what passing took.
    planted: of each kind.
    decoys: upside-down images that were searched for, and how many passed.
    others: training images that were searched for among the others, and how many found
      a duplicate there. The share bounds that of false finds from above, for the
      training part may hold duplicates.
  """

  num_train: int
  num_test: int
  unreadable: tuple[int, int]
  pairs: Pairs
  missed: Pairs
  cut: Cut
  planted: Sequence[Measured]
  decoys: tuple[int, int]
  others: tuple[int, int]

  def duplicated(self) -> NDArray[np.bool_]:
    """Returns which test images have a near-duplicate, `[N]`."""
    found = np.zeros(self.num_test, bool)
    found[self.pairs.test] = True
    return found


def check(k: int, fpr: float) -> None:
  """Refuses numbers that cannot be.

  Raises:
    UserError: for k outside 1..100 and a rate outside 0..0.5.
  """
  if not 1 <= k <= 100:
    raise UserError(f'k={k} candidates an image must be from 1 to 100')
  if not 0 < fpr <= 0.5:
    raise UserError(f'fpr={fpr:g} must be above 0 and at most 0.5')


def find(
  train: Split,
  test: Split,
  *,
  k: int = 4,
  fpr: float = 0.001,
  embed: Embed = embed,
  tell: Callable[[str], Tell] = lambda doing: lambda done, total: None,
) -> Found:
  """Returns the near-duplicates of test images among training images.

  Memory does not grow with the training images: it is about 20 kB for each test image,
  decoy and planted copy.

  Args:
    train: images to search, read once from front to back, and the candidates again.
    test: images to search for.
    k: candidates of each test image.
    fpr: share of the decoys that may pass.
    embed: maps thumbnails, uint8 `[B, SIDE, SIDE, 3]`, to float32 `[B, D]`, where near
      unit vectors make candidates: a trained network may stand here. The votes do not
      depend on it.
    tell: from what is done to what is called with the images done and those in all.

  Raises:
    UserError: for k and rates that cannot be, parts without images and a missing faiss.
  """
  check(k, fpr)
  neighbours.import_faiss()
  tests, readable = _read_tests(test, tell('test images'))
  sample, own, copies = _plant(train)
  turned = Permutation(len(tests), 'decoys')(np.arange(min(len(tests), DECOYS)))
  queries = np.concatenate([tests, tests[turned, ::-1], own])
  vectors = _views(np.concatenate([queries, *copies.values()]), embed)
  equal: list[tuple[int, int]] = []
  unreadable: list[int] = []
  stream = _stream(train, embed, _by_content(tests), equal, unreadable, tell)
  near, ids = neighbours.nearest(vectors, stream, k + 1)

  # An image of the training part is to find others there: not itself, which goes last.
  mine = slice(len(queries) - len(sample), len(queries))
  order = np.argsort(ids[mine] == sample[:, None], 1, 'stable')
  for one in (near, ids):
    one[mine] = np.take_along_axis(one[mine], order, 1)
  near, ids = near[:, :k], ids[:, :k]
  aligned = _align(queries, ids[: len(queries)], train, tell('candidates'))
  alike, decoys, others = (
    aligned.at(rows) for rows in _ranges(len(tests), len(turned), len(sample))
  )
  hits = {}
  for kind, rows in zip(copies, _ranges(*[len(sample)] * len(copies)), strict=True):
    reached = (ids[len(queries) :][rows] == sample[:, None]).any(1)
    hits[kind] = align(copies[kind][reached], own[reached])
  crops = embed(copies['cropped'])
  reached = (vectors[:, mine] * crops).sum(2).max(0) > near[mine, -1]
  hits[REVERSE] = align(own[reached], copies['cropped'][reached])
  cut = _choose(list(hits.values()), decoys, fpr)
  ids = ids[: len(tests)]
  pairs = _with_exact(
    _pairs(alike, ids, cut.passes(alike)),
    equal,
    lambda one, other: _same(test, readable[one], train, other),
  )
  failed = np.zeros(ids.shape, bool)
  failed[np.arange(len(ids)), alike.cosine.argmax(1)] = True
  failed[pairs.test] = False
  missed = _pairs(alike, ids, failed & (ids >= 0))
  return Found(
    num_train=train.num_images,
    num_test=test.num_images,
    unreadable=(len(unreadable), test.num_images - len(tests)),
    pairs=dataclasses.replace(pairs, test=readable[pairs.test]),
    missed=dataclasses.replace(missed, test=readable[missed.test]),
    cut=cut,
    planted=[
      Measured(kind, len(sample), len(one.cosine), int(cut.passes(one).sum()))
      for kind, one in hits.items()
    ],
    decoys=(len(turned), int(cut.passes(decoys).any(1).sum())),
    others=(len(sample), int(cut.passes(others).any(1).sum())),
  )


def _ranges(*sizes: int) -> list[slice]:
  """Returns the rows of parts of these sizes, one after the other."""
  ends = np.cumsum(sizes).tolist()
  return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def _read_tests(test: Split, tell: Tell) -> tuple[NDArray[np.uint8], Ids]:
  """Returns thumbnails of the test images that can be read, and their ids."""
  small = np.empty((test.num_images, SIDE, SIDE, 3), np.uint8)
  readable = np.zeros(test.num_images, bool)
  for ids in _chunks(test.num_images):
    small[ids], readable[ids] = thumbnails.read(test, ids)
    tell(int(ids[-1]) + 1, test.num_images)
  if not readable.any():
    raise UserError('none of the test images can be read')
  return small[readable], np.flatnonzero(readable)


def _plant(
  train: Split,
) -> tuple[Ids, NDArray[np.uint8], dict[str, NDArray[np.uint8]]]:
  """Returns ids of training images, their thumbnails, and those of copies of each kind."""
  kept, own = [], []
  copies: dict[str, list] = {kind: [] for kind in planted.KINDS}
  for image in survey.sample(train, PLANTED):
    (pixels,) = thumbnails.originals(train, image[None])
    if pixels is None:
      continue
    kept.append(image)
    own.append(thumbnails.thumbnail(pixels))
    for kind, made in copies.items():
      made.append(thumbnails.thumbnail(planted.plant(pixels, int(image), kind)))
  if not kept:
    raise UserError('none of the training images can be read')
  made = {kind: np.stack(images) for kind, images in copies.items()}
  return np.array(kept), np.stack(own), made


def _chunks(num_images: int) -> Iterator[Ids]:
  for start in range(0, num_images, _CHUNK):
    yield np.arange(start, min(start + _CHUNK, num_images))


def _views(images: NDArray[np.uint8], embed: Embed) -> NDArray[np.float32]:
  views = (thumbnails.view(images, number) for number in range(thumbnails.NUM_VIEWS))
  return np.stack([embed(view) for view in views])


def _digest(image: NDArray[np.uint8]) -> bytes:
  return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def _by_content(images: NDArray[np.uint8]) -> dict[bytes, list[int]]:
  rows: dict[bytes, list[int]] = {}
  for row, image in enumerate(images):
    rows.setdefault(_digest(image), []).append(row)
  return rows


def _stream(
  train: Split,
  embed: Embed,
  waiting: dict[bytes, list[int]],
  equal: list[tuple[int, int]],
  unreadable: list[int],
  tell: Callable[[str], Tell],
) -> Iterator[tuple[Ids, NDArray[np.float32]]]:
  """Yields the ids and vectors of training images, chunk by chunk.

  On the way it notes those that cannot be read, and the first one equal to each test
  image: blank images are unlike everything to their embedding, and still copies.
  """
  count = tell('training images')
  for ids in _chunks(train.num_images):
    small, readable = thumbnails.read(train, ids)
    unreadable += ids[~readable].tolist()
    ids, small = ids[readable], small[readable]
    for image, pixels in zip(ids, small, strict=True):
      equal += [(row, int(image)) for row in waiting.pop(_digest(pixels), ())]
    if len(ids):
      yield ids, embed(small)
    count(int(ids[-1]) + 1 if len(ids) else 0, train.num_images)


def _align(queries: NDArray[np.uint8], ids: Ids, train: Split, tell: Tell) -> Alignment:
  """Returns how much each query `[Q, ...]` is like each of its candidates `[Q, k]`.

  The candidates are read once, in their order in the training part.
  """
  aligned = unalike(*ids.shape)
  order = np.argsort(ids, axis=None, kind='stable')
  order = order[ids.flat[order] >= 0]
  for start in range(0, len(order), _PAIRS):
    some = order[start : start + _PAIRS]
    read, place = np.unique(ids.flat[some], return_inverse=True)
    small, _ = thumbnails.read(train, read)
    rows, columns = np.unravel_index(some, ids.shape)
    aligned.put((rows, columns), align(queries[rows], small[place]))
    tell(start + len(some), len(order))
  return aligned


def _choose(planted: Sequence[Alignment], decoys: Alignment, fpr: float) -> Cut:
  """Returns the cut that the hashes of nearly all copies pass, and few decoys do.

  Args:
    planted: `[M]` of each kind.
    decoys: `[N, k]`.
    fpr: share of the decoys that may pass.
  """
  distances = [
    np.quantile(one.distance, _PASS, method='higher')
    for one in planted
    if len(one.distance)
  ]
  distance = int(max([_DISTANCE, *distances]))
  best = np.where(decoys.distance <= distance, decoys.cosine, -1).max(1)
  allowed = int(fpr * len(best))
  return Cut(max(float(np.sort(best)[::-1][allowed]), _LEAST), distance)


def _pairs(alike: Alignment, ids: Ids, chosen: NDArray[np.bool_]) -> Pairs:
  """Returns the chosen ones of all candidates, each `[N, k]`."""
  tests = np.nonzero(chosen)[0]
  exact = np.zeros(len(tests), bool)
  return _sorted(Pairs(tests, ids[chosen], alike.at(chosen), exact))


def _sorted(pairs: Pairs) -> Pairs:
  order = np.lexsort((pairs.train, pairs.test, -pairs.alignment.cosine, ~pairs.exact))
  aligned = pairs.alignment.at(order)
  return Pairs(pairs.test[order], pairs.train[order], aligned, pairs.exact[order])


def _with_exact(
  pairs: Pairs, equal: list[tuple[int, int]], same: Callable[[int, int], bool]
) -> Pairs:
  """Returns the pairs with those of equal pixels marked, and with those not found yet.

  Args:
    pairs: that passed.
    equal: pairs of equal thumbnails.
    same: whether all pixels of two images are equal.
  """
  both = list(zip(pairs.test.tolist(), pairs.train.tolist(), strict=True))
  close = pairs.alignment.distance == 0
  exact = [near and same(*pair) for pair, near in zip(both, close, strict=True)]
  added = [pair for pair in equal if pair not in set(both) and same(*pair)]
  # Equal images without contrast have no cosine, and are alike all the same.
  num = len(both)
  aligned = unalike(num + len(added))
  aligned.put(slice(num), pairs.alignment)
  aligned.cosine[num:], aligned.distance[num:] = 1, 0
  test, train = np.array(both + added, np.int64).reshape(-1, 2).T
  return _sorted(
    Pairs(test, train, aligned, np.array(exact + [True] * len(added), bool))
  )


def _same(test: Split, image: int, train: Split, other: int) -> bool:
  """Returns whether all pixels of two images are equal; grey is a colour like others."""
  (one,) = thumbnails.originals(test, np.array([image]))
  (two,) = thumbnails.originals(train, np.array([other]))
  if one is None or two is None or one.shape[:2] != two.shape[:2]:
    return False
  return bool((one[..., :3] == two[..., :3]).all())
