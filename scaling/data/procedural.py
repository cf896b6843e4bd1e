"""A web-scale set that anyone can have: images and labels computed from (seed, index).

Nothing is stored, so a set may have 300 million images or a trillion. Its labels have
the statistics of JFT-300M where asked for: 18,291 classes with a long tail, several
labels an image, a share of them wrong and others missing.

How fast a learner's error falls with the number of images is built in. Each class has an
endless tail of *modes*, ways in which it looks, and a learner tells an image if it has
seen its mode. With the probability of mode m or later m^-(a - 1), the share of images
whose mode is not among n seen falls as n^-(a - 1)/a (Hutter 2021, "Learning Curve
Theory"; Michaud et al. 2023, "The Quantization Model of Neural Scaling"), which is what
`data.procedural.exponent` sets.

All choices are made in 32-bit integers, alike in NumPy and on any device, so labels are
the same everywhere; pixels, computed in floats by `rendering`, agree to their rounding.
"""

import dataclasses
import functools
from types import ModuleType

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from scaling.data import hierarchy
from scaling.data.split import Split, fingerprint
from scaling.data.subsets import Ids, Permutation, halves, key_words
from scaling.data.words import mix, words
from scaling.errors import UserError

MAX_OBJECTS = 3
_FIRST_TEST = 2**40  # beyond any training index
_MODES = 2**16  # modes with an exact probability
_CHUNK = 2**16  # images whose labels are computed at a time

# What random words are for; each purpose has room for its own 2^16 of them.
_COUNT, _CLASS, _MODE, _WRONG, _KEPT = range(5)


@dataclasses.dataclass(frozen=True, eq=False)
class World:
  """What does not depend on the image.

  Attributes:
    num_classes: K.
    key: two words that all of it hangs on.
    cut: `[K]` uint32; of each slot, words below it take the slot's own rank.
    other: `[K]` int32, the rank that the other words take (Walker's alias method).
    class_of: `[K]` int32, class of each rank in frequency.
    more: `[2]` uint32; an image has so many more objects as its word reaches of these.
    mode: `[_MODES]` uint32, descending; the mode is the number of them above the word.
    tail: a - 1.
    wrong: labels that are wrong, of 2^32.
    neighbours: classes among which wrong labels stay; K for all.
    kept: labels of further objects that are kept, of 2^32.
  """

  num_classes: int
  key: NDArray[np.uint32]
  cut: NDArray[np.uint32]
  other: NDArray[np.int32]
  class_of: NDArray[np.int32]
  more: NDArray[np.uint32]
  mode: NDArray[np.uint32]
  tail: float
  wrong: int
  neighbours: int
  kept: int


def at_hand(data: ConfigDict, data_dir: str | None) -> bool:
  """Returns True: there is nothing to find."""
  del data, data_dir
  return True


def load(data: ConfigDict, data_dir: str | None) -> tuple[Split, Split]:
  """Returns the training and the test part, `[N, S, S, 3]`.

  The test part has the true labels of all objects. Training images have wrong and
  missing ones as the config says.

  Raises:
    UserError: for a field that cannot be, saying what it may be.
  """
  del data_dir
  check(data)
  world = make_world(data)
  return (
    _split(data, world, data.procedural.num_train, 0, clean=False),
    _split(data, world, data.procedural.num_test, _FIRST_TEST, clean=True),
  )


def check(data: ConfigDict) -> None:
  """Checks the fields of `data.procedural` against each other.

  Raises:
    UserError: for a field that cannot be, saying what it may be.
  """
  fields = data.procedural
  for name in ('exponent', 'wrong', 'missing'):
    if not 0 <= fields[name] < 1:
      raise UserError(
        f'data.procedural.{name}={fields[name]} must be from 0 to below 1'
      )
  if not fields.exponent > 0:
    raise UserError('data.procedural.exponent=0.0 must be above 0')
  for name in ('more_objects', 'zipf', 'pose', 'noise'):
    if not 0 <= fields[name] < 100:
      raise UserError(f'data.procedural.{name}={fields[name]} must be from 0 to 100')
  for name in ('num_train', 'num_test'):
    if not 1 <= fields[name] <= _FIRST_TEST:
      raise UserError(
        f'data.procedural.{name}={fields[name]} must be from 1 to {_FIRST_TEST}'
      )
  if data.channels != 3:
    raise UserError(f'data.channels={data.channels}, but procedural images have 3')
  if data.num_classes < 2:
    raise UserError(f'data.num_classes={data.num_classes} must be 2 or more')
  if fields.branching == 1 or not 0 <= fields.branching <= data.num_classes:
    raise UserError(
      f'data.procedural.branching={fields.branching} must be from 2 to '
      f'data.num_classes={data.num_classes}, or 0 for no hierarchy'
    )
  if fields.ancestors and not fields.branching:
    raise UserError('data.procedural.ancestors needs data.procedural.branching')
  needed = max_labels(data)
  if data.max_labels < needed:
    raise UserError(
      f'data.max_labels={data.max_labels} is too few for data.procedural, where an '
      f'image may have {needed}; set data.max_labels={needed} and train.loss=sigmoid'
    )


def max_labels(data: ConfigDict) -> int:
  """Returns the most labels that an image of this config can have."""
  objects = MAX_OBJECTS if data.procedural.more_objects else 1
  levels = _ancestors(data).shape[1]
  return min(objects * levels, data.num_classes)


@functools.lru_cache(maxsize=8)
def _table(num_classes: int, branching: int) -> NDArray[np.int32]:
  children = np.arange(branching or num_classes, num_classes)
  links = np.stack([children, children // (branching or 1) - 1], axis=1)
  return hierarchy.ancestors(links, num_classes)


def _ancestors(data: ConfigDict) -> NDArray[np.int32]:
  """Returns for each class itself and, where they count, all above it, `[K, A]`."""
  fields = data.procedural
  return _table(data.num_classes, fields.branching if fields.ancestors else 0)


def frequencies(num_classes: int, zipf: float) -> NDArray[np.float64]:
  """Returns the share of images of each class, the most frequent first, `[K]`.

  A power of the rank with a cut-off near the end of the tail. At zipf=1 and 18,291
  classes about 3,000 classes have fewer than 100 of 375 million labels, as JFT's do.
  """
  ranks = np.arange(1, num_classes + 1)
  shares = ranks**-zipf
  if zipf:
    shares = shares * np.exp(-((ranks / (0.693 * num_classes)) ** 6.21))
  return shares / shares.sum()


def _alias(shares: NDArray[np.float64]) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
  """Returns Walker's tables: a rank in O(1), and with shares down to 2^-45."""
  weights, other = shares * len(shares), np.arange(len(shares), dtype=np.int32)
  small = [i for i, weight in enumerate(weights) if weight < 1]
  large = [i for i, weight in enumerate(weights) if weight >= 1]
  while small and large:
    poor, rich = small.pop(), large[-1]
    other[poor] = rich
    weights[rich] -= 1 - weights[poor]
    if weights[rich] < 1:
      small.append(large.pop())
  return _of_2_32(np.clip(weights, 0, 1)), other


def _of_2_32(shares: NDArray[np.float64]) -> NDArray[np.uint32]:
  return np.minimum(np.round(shares * 2.0**32), 2**32 - 1).astype(np.uint32)


@functools.lru_cache(maxsize=4)
def _make_world(fields: tuple, num_classes: int) -> World:
  named = dict(fields)
  cut, other = _alias(frequencies(num_classes, named['zipf']))
  seed, mean = named['seed'], named['more_objects']
  none, one = np.exp(-mean), mean * np.exp(-mean)
  tail = named['exponent'] / (1 - named['exponent'])
  everywhere = named['wrong_among'] == 'all' or not named['branching']
  return World(
    num_classes=num_classes,
    key=(key_words(2, 'procedural', seed) >> np.uint64(32)).astype(np.uint32),
    cut=cut,
    other=other,
    class_of=Permutation(num_classes, 'procedural', seed)(
      np.arange(num_classes)
    ).astype(np.int32),
    more=_of_2_32(np.array([none, none + one])),
    mode=_of_2_32(np.arange(1.0, _MODES + 1) ** -tail),
    tail=tail,
    wrong=int(named['wrong'] * 2**32),
    neighbours=num_classes if everywhere else named['branching'],
    kept=int((1 - named['missing']) * 2**32),
  )


def make_world(data: ConfigDict) -> World:
  """Returns the tables behind all images of a config."""
  return _make_world(tuple(sorted(data.procedural.items())), data.num_classes)


def image_state(ids, world: World):
  """Returns two words for each image, `[B, 2]`, from its id `[B, 2]`, uint32.

  They are 64 bits together, and no two ids share them.
  """
  low, high = ids[:, 0], ids[:, 1]
  # A Feistel network: each half is changed by a hash of the other.
  for turn in range(2):
    low = low ^ mix(high + world.key[turn])
    high = high ^ mix(low ^ world.key[1 - turn])
  return low, high


def objects(ids, world: World, xp: ModuleType):
  """Returns what is in each image.

  Args:
    ids: uint32 `[B, 2]`, the low and the high half of each id.
    world: the tables.
    xp: `numpy` or `jax.numpy`.

  Returns:
    int32 classes `[B, O]`, int32 modes `[B, O]`, counted from 1, and whether there is
    such an object, bool `[B, O]`.
  """
  state = image_state(ids, world)
  count = words(state, _COUNT << 16, 1, xp) > xp.asarray(world.more)
  present = xp.arange(MAX_OBJECTS) <= count.sum(1)[:, None]
  slot, toss = xp.split(words(state, _CLASS << 16, 2 * MAX_OBJECTS, xp), 2, axis=1)
  rank = (slot % np.uint32(world.num_classes)).astype(np.int32)
  cut, other = xp.asarray(world.cut), xp.asarray(world.other)
  rank = xp.where(toss < cut[rank], rank, other[rank])
  word = words(state, _MODE << 16, MAX_OBJECTS, xp)
  # The table descends, and 2^32 - 1 - word with it ascends.
  ascending = xp.asarray(~world.mode)
  mode = xp.searchsorted(ascending, (~word).ravel(), side='left').reshape(word.shape)
  # Beyond the table, by a float power: it may differ in the last bits between devices.
  share = (word.astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-32)
  far = xp.minimum(share ** np.float32(-1 / world.tail), np.float32(2.0**30))
  mode = xp.where(word < world.mode[-1], far.astype(np.int32), mode.astype(np.int32))
  return xp.asarray(world.class_of)[rank], xp.maximum(mode, 1), present


def given_labels(ids, world: World) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
  """Returns the true and the given class of each object, `[B, O]`, with -1 for none.

  The first object always has its label, right or wrong, for an image without any would
  teach a softmax nothing.

  Args:
    ids: uint32 `[B, 2]`.
    world: the tables.
  """
  true, _, present = objects(ids, world, np)
  state = image_state(ids, world)
  toss, by = np.split(words(state, _WRONG << 16, 2 * MAX_OBJECTS, np), 2, axis=1)
  group = world.neighbours
  first = np.minimum(true // group * group, world.num_classes - group)
  away = 1 + (by % np.uint32(group - 1)).astype(np.int32)
  wrong = first + (true - first + away) % group
  given = np.where(toss < world.wrong, wrong, true)
  kept = words(state, _KEPT << 16, MAX_OBJECTS, np) < world.kept
  kept[:, 0] = True
  return np.where(present, true, -1), np.where(present & kept, given, -1)


def _split(
  data: ConfigDict, world: World, num_images: int, first: int, *, clean: bool
) -> Split:
  # The command line looks at sources long before it needs a device.
  import jax
  import jax.numpy as jnp

  from scaling.data import rendering

  table = _ancestors(data)

  def labels(ids: Ids) -> NDArray[np.int32]:
    parts = [
      given_labels(halves(chunk), world)[0 if clean else 1]
      for chunk in np.array_split(np.asarray(ids) + first, len(ids) // _CHUNK + 1)
    ]
    return hierarchy.close(np.concatenate(parts), table, data.max_labels)

  def generate(ids: jax.Array) -> jax.Array:
    ids = ids + jnp.asarray(halves(np.array([first]))[0])  # the halves never carry
    # What no image has is not drawn.
    several = MAX_OBJECTS if data.procedural.more_objects else 1
    classes, modes, present = (x[:, :several] for x in objects(ids, world, jnp))
    return rendering.render(
      classes,
      modes,
      present,
      image_state(ids, world),
      world.key,
      size=data.image_size,
      parts=data.procedural.parts,
      pose=data.procedural.pose,
      noise=data.procedural.noise,
    )

  compiled = jax.jit(generate)
  return Split(
    num_images=num_images,
    num_classes=data.num_classes,
    labels=labels,
    images=lambda ids: np.asarray(compiled(halves(ids))),
    encoded=None,
    label_names=tuple(f'class {label}' for label in range(data.num_classes)),
    fingerprint=fingerprint(
      'procedural 1',
      sorted(data.procedural.items()),
      data.num_classes,
      data.max_labels,
      data.image_size,
      first,
    ),
    shape=(data.image_size, data.image_size, 3),
    generate=generate,
  )
