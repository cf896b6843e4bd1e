"""Any image set as ArrayRecord shards: which image goes where, and what is stored of it.

The records stand in a keyed random order, so any first part of them is a random subset,
and which shard has which image follows from the plan alone. So shards can be written by
any process, in any order, again after an interruption, and come out byte by byte alike.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from scaling.data.prepare.encode import ColourError, examine, png, store
from scaling.data.split import Split
from scaling.data.subsets import Ids, Permutation
from scaling.errors import UserError

PARTS: tuple[str, ...] = ('train', 'test')
_SAMPLED = 256  # images whose stored size tells how many shards there will be
READ = 32  # images at a time
_MOST_SHARDS = 99_999  # that five digits number


@dataclasses.dataclass(frozen=True)
class Options:
  """What the user asks for.

  Attributes:
    short_side: pixels; larger image files are stored as JPEGs of that. 0: as they are.
    quality: of these JPEGs.
    shard_mb: megabytes (10^6) of a shard, about.
    seed: of the order.
    channels: 1 or 3; 0 takes what the set has.
  """

  short_side: int = 0
  quality: int = 90
  shard_mb: int = 256
  seed: int = 0
  channels: int = 0

  def check(self) -> None:
    """Raises a UserError that names the flag with a value that cannot be."""
    if not 1 <= self.quality <= 95:
      raise UserError(f'--quality={self.quality} must be from 1 to 95')
    if self.short_side < 0:
      raise UserError(
        f'--short_side={self.short_side} must be 1 or more, or 0 for none'
      )
    if self.shard_mb < 1:
      raise UserError(f'--shard_mb={self.shard_mb} must be 1 or more')
    if self.channels not in (0, 1, 3):
      raise UserError(
        f'--channels={self.channels} must be 1 (grey) or 3, or 0 for what the set has'
      )


@dataclasses.dataclass(frozen=True)
class Plan:
  """All that the bytes of a shard follow from, besides the images.

  Attributes:
    name: of the prepared set.
    channels: of its images.
    height: pixels, where all images share one shape; 0: of each its own.
    width: likewise.
    several: whether images have other than one label each.
    short_side: of `Options`.
    quality: of `Options`.
    seed: of `Options`.
    num_images: of each part.
    num_shards: of each part.
  """

  name: str
  channels: int
  height: int
  width: int
  several: bool
  short_side: int
  quality: int
  seed: int
  num_images: Mapping[str, int]
  num_shards: Mapping[str, int]

  def shards(self) -> list[tuple[str, int]]:
    """Returns the part and number of every shard."""
    return [(part, shard) for part in PARTS for shard in range(self.num_shards[part])]

  def file_name(self, part: str, shard: int) -> str:
    """Returns the name that TFDS looks for."""
    total = self.num_shards[part]
    return f'{self.name}-{part}.array_record-{shard:05d}-of-{total:05d}'

  def ids(self, part: str, shard: int) -> Ids:
    """Returns the images of a shard, in the order of its records."""
    first, end = (
      number * self.num_images[part] // self.num_shards[part]
      for number in (shard, shard + 1)
    )
    return _order(self.num_images[part], self.seed)(np.arange(first, end))


def _order(num_images: int, seed: int) -> Permutation:
  return Permutation(num_images, 'prepare', seed)


def make_plan(
  name: str, splits: Mapping[str, Split], options: Options, *, skip: bool
) -> Plan:
  """Returns how a set is to be stored, having looked at some images of each part.

  Args:
    name: of the prepared set.
    splits: of `PARTS`.
    options: of the user.
    skip: whether images that cannot be decoded are passed over.

  Raises:
    UserError: for images that cannot be stored as asked for.
  """
  samples = {
    part: _order(split.num_images, options.seed)(
      np.arange(min(split.num_images, _SAMPLED))
    )
    for part, split in splits.items()
  }
  train = splits['train']
  if train.shape is not None:
    height, width, channels = train.shape
    if options.short_side:
      raise UserError(
        f'--short_side={options.short_side} is for image files; this set has its '
        f'pixels in memory, {height}x{width}, and keeps them: leave it out'
      )
    if options.channels not in (0, channels):
      raise UserError(
        f'--channels={options.channels}, but the images have {channels}; leave it out'
      )
  else:
    height, width = 0, 0
    channels = options.channels or _find_channels(splits, samples)
  draft = Plan(
    name=name,
    channels=channels,
    height=height,
    width=width,
    several=any(_has_several(split) for split in splits.values()),
    short_side=options.short_side,
    quality=options.quality,
    seed=options.seed,
    num_images={part: split.num_images for part, split in splits.items()},
    num_shards={},
  )
  num_shards = {}
  for part, split in splits.items():
    sizes = [
      len(found)
      for _, found in stored_images(split, samples[part], draft, skip=skip)
      if isinstance(found, bytes)
    ]
    if not sizes:
      raise UserError(
        f'none of {len(samples[part])} images of the {part} part can be decoded; mend '
        'the set'
      )
    total = split.num_images * sum(sizes) / len(sizes)
    num_shards[part] = min(
      max(1, round(total / (options.shard_mb * 1e6))), split.num_images, _MOST_SHARDS
    )
  return dataclasses.replace(draft, num_shards=num_shards)


def _find_channels(splits: Mapping[str, Split], samples: Mapping[str, Ids]) -> int:
  """Returns 1 where all images of the samples are grey, else 3."""
  for part, split in splits.items():
    for image in samples[part]:
      # What cannot be read is reported where it is stored.
      with contextlib.suppress(UserError):
        assert split.encoded is not None
        if not examine(split.encoded(image[None])[0], '').grey:
          return 3
  return 1


def _has_several(split: Split, chunk: int = 4096) -> bool:
  """Returns whether some image has no label or more than one."""
  for start in range(0, split.num_images, chunk):
    labels = split.labels(np.arange(start, min(start + chunk, split.num_images)))
    if ((labels >= 0).sum(1) != 1).any():
      return True
  return False


def stored_images(
  split: Split, ids: Ids, plan: Plan, *, skip: bool
) -> Iterator[tuple[int, bytes | UserError]]:
  """Yields each image's id with its stored bytes, or with why it is passed over.

  Args:
    split: the part.
    ids: of images.
    plan: how they are stored.
    skip: pass over what cannot be decoded.

  Raises:
    UserError: for an image that cannot be decoded, unless `skip`.
  """
  for start in range(0, len(ids), READ):
    some = ids[start : start + READ]
    if split.images is not None:
      for image, pixels in zip(some, split.images(some), strict=True):
        yield int(image), png(pixels)
      continue
    for image, content in zip(some, _read(split, some), strict=True):
      try:
        if isinstance(content, UserError):
          raise content
        stored = store(
          content,
          channels=plan.channels,
          short_side=plan.short_side,
          quality=plan.quality,
          where=split.where(int(image)),
        )
        yield int(image), stored.content
      except ColourError:
        raise
      except UserError as error:
        if not skip:
          raise UserError(
            f'{error}, or leave such images out by --corrupt=skip'
          ) from error
        yield int(image), error


def _read(split: Split, ids: Ids) -> list[bytes | UserError]:
  """Returns the image files, with an error for each that cannot be read."""
  assert split.encoded is not None
  try:
    return list(split.encoded(ids))
  except UserError:
    found: list[bytes | UserError] = []
    for image in ids:
      try:
        found += split.encoded(image[None])
      except UserError as error:
        found.append(error)
    return found
