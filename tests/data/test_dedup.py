"""Near-duplicates: the hash, the alignment, the search, and what is found of the planted."""

import dataclasses
import os
import sys

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from scaling.data import sources
from scaling.data.split import Split, in_memory
from scaling.dedup import find, frequencies, neighbours, planted, thumbnails
from scaling.dedup.thumbnails import SIDE
from scaling.errors import UserError

CIFAR_DIR = os.environ.get('SCALING_TFDS_DIR')
seeds = strategies.integers(0, 2**32 - 1)


def smooth(num, seed, side=SIDE, channels=3):
  """Returns images with the spectrum of photographs, `[num, side, side, channels]`."""
  rng = np.random.default_rng(seed)
  radius = np.hypot(*np.meshgrid(*[np.fft.fftfreq(side)] * 2)) * side
  noise = np.fft.fft2(rng.normal(size=(num, side, side)))
  pixels = np.fft.ifft2(noise / np.maximum(radius, 1)).real
  pixels = 128 + 45 * pixels / pixels.std((1, 2), keepdims=True)
  tints = rng.uniform(0.9, 1.1, (num, 1, 1, channels))
  return np.clip(pixels[..., None] * tints, 0, 255).astype(np.uint8)


def split_of(images):
  return in_memory(images, np.zeros((len(images), 1), np.int32), ['all'])


def plant(images, ids, kind):
  """Returns thumbnails of copies."""
  made = (planted.plant(*one, kind) for one in zip(images, ids.tolist(), strict=True))
  return np.stack([thumbnails.thumbnail(copy) for copy in made])


@pytest.fixture
def few(monkeypatch):
  """Few planted copies and decoys, to be quick."""
  monkeypatch.setattr(find, 'PLANTED', 40)
  monkeypatch.setattr(find, 'DECOYS', 200)


@hypothesis.given(seeds)
@hypothesis.settings(max_examples=25)
def test_hash_of_a_mirror_image(seed):
  images = smooth(4, seed)
  bits = frequencies.hashes(images)
  mirrored = frequencies.hashes(images[:, :, ::-1])
  assert bits.shape == (4, frequencies.BITS)
  assert (frequencies.hashes(images[:, :, ::-1][:, :, ::-1]) == bits).all()
  # Waves that are odd from left to right change their sign, the others do not.
  odd = (np.arange(1, 64) % 8) % 2 == 1
  # A wave of nearly no height may round to either side.
  assert ((bits != mirrored) == odd).mean() > 0.98


@hypothesis.given(seeds, strategies.floats(0.5, 1.0), strategies.integers(0, 60))
@hypothesis.settings(max_examples=25)
def test_lighting_does_not_matter(seed, contrast, brightness):
  images = smooth(4, seed) // 2 + 32  # none is clipped below
  lit = (images * contrast + brightness).astype(np.uint8)
  found = frequencies.align(images, lit)
  assert (found.distance <= 3).all()
  assert (found.cosine > 0.99).all()
  assert not found.mirrored.any()


@hypothesis.given(seeds)
@hypothesis.settings(max_examples=10)
def test_alignment_is_symmetric(seed):
  first, second = smooth(3, seed), smooth(3, seed + 1)
  one, other = frequencies.align(first, second), frequencies.align(second, first)
  # Taken of the same crops, though in the mirror.
  np.testing.assert_allclose(one.cosine, other.cosine, atol=1e-4)


def test_alignment_finds_crops_in_the_mirror_and_nothing_else():
  images = smooth(30, 0, 64)
  ids = np.arange(30)
  whole = np.stack([thumbnails.thumbnail(image) for image in images])
  crops = plant(images[:, :, ::-1], ids, 'cropped')
  for pair in ((whole, crops), (crops, whole)):
    found = frequencies.align(*pair)
    assert found.mirrored.all()
    assert found.cropped.mean() > 0.9
    assert found.cosine.min() > 0.8
    assert np.quantile(found.distance, 0.9) <= 8
  strangers = frequencies.align(whole, np.roll(crops, 1, 0))
  assert strangers.cosine.max() < 0.7
  assert strangers.distance.min() > 8


def test_views():
  images = smooth(2, 0)
  views = [thumbnails.view(images, i) for i in range(thumbnails.NUM_VIEWS)]
  assert len({view.tobytes() for view in views}) == len(views)
  assert (views[0] == images).all()
  assert (views[1] == images[:, :, ::-1]).all()
  assert {(view.shape, view.dtype.name) for view in views} == {
    ((2, SIDE, SIDE, 3), 'uint8')
  }


def chunked(vectors, size):
  ids = np.arange(len(vectors))
  return [(ids[i : i + size], vectors[i : i + size]) for i in range(0, len(ids), size)]


def unit(rng, *shape):
  vectors = rng.normal(size=shape).astype(np.float32)
  return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_search_is_exact_however_the_stream_is_cut():
  rng = np.random.default_rng(0)
  queries, vectors = unit(rng, 3, 20, 12), unit(rng, 500, 12)
  best = np.einsum('vqd,nd->vqn', queries, vectors).max(0)
  order = np.argsort(-best, 1)[:, :6]
  for size in (500, 64, 5):
    cosine, ids = neighbours.nearest(queries, chunked(vectors, size), 6)
    assert (ids == order).all()
    # The products are summed in another order.
    np.testing.assert_allclose(cosine, np.take_along_axis(best, order, 1), atol=1e-5)


def test_search_in_fewer_than_k():
  rng = np.random.default_rng(0)
  cosine, ids = neighbours.nearest(unit(rng, 2, 4, 8), chunked(unit(rng, 3, 8), 2), 5)
  assert (np.sort(ids, 1) == [-1, -1, 0, 1, 2]).all()
  assert (cosine[:, 3:] == -np.inf).all()


def test_planted_copies_are_functions_of_the_id():
  (image,) = smooth(1, 0, 48)
  for kind in planted.KINDS:
    copy, again = planted.plant(image, 3, kind), planted.plant(image.copy(), 3, kind)
    assert (copy == again).all()
    assert copy.dtype == np.uint8
    assert copy.shape != image.shape or (copy != image).any()
    other = planted.plant(image, 4, kind)
    assert kind in ('mirrored', 'half the size') or (copy != other).any()
  assert planted.plant(image[..., :1], 3, 'JPEG').shape == (48, 48, 3)


@pytest.fixture(scope='module')
def cifar():
  if not CIFAR_DIR:
    pytest.skip('SCALING_TFDS_DIR does not say where CIFAR-10 is')
  from configs import base

  data = base.get_config().data
  data.update(source='tfds', name='cifar10', train_split='train[:4000]')
  data.test_split = 'test[:500]'
  train, test = sources.load_as_found(data, CIFAR_DIR)
  return train.images(np.arange(4000)), test.images(np.arange(500))


def test_what_is_planted_in_cifar10_is_found(cifar, monkeypatch):
  monkeypatch.setattr(find, 'PLANTED', 100)
  train, test = cifar
  # Copies of a hundred training images, all changes at once, in places that are known;
  # not of those that `find` itself plants to choose its cut.
  ids = np.arange(0, 4000, 40)
  test = test.copy()
  test[:100] = plant(train[ids], ids + 10**6, 'all at once')
  found = find.find(split_of(train), split_of(test), fpr=0.003)
  hits = set(zip(found.pairs.test.tolist(), found.pairs.train.tolist(), strict=True))
  recall = len(hits & set(enumerate(ids.tolist()))) / 100
  assert recall >= 0.97
  others = found.duplicated()[100:].sum()
  # Of 50,000 training images some 5% of the test images have a duplicate; a few are
  # among the first 4,000.
  assert others <= 10
  assert not found.pairs.exact.any()
  for one in found.planted:
    assert one.reached >= 0.97 * one.num, one
    assert one.passed >= 0.95 * one.num, one
  assert found.decoys[0] == 500
  assert found.decoys[1] <= 1


def test_a_set_against_itself(few):
  images = smooth(150, 1)
  found = find.find(split_of(images), split_of(images))
  assert found.duplicated().all()
  assert found.pairs.exact.sum() == 150
  exact = found.pairs.exact
  assert (found.pairs.test[exact] == found.pairs.train[exact]).all()
  assert [found.pairs.kind(row) for row in range(150)] == ['exact'] * 150


def test_disjoint_sets(few):
  found = find.find(split_of(smooth(600, 2)), split_of(smooth(300, 3)))
  assert found.duplicated().sum() <= 1
  assert len(found.missed) >= 299
  assert (np.diff(found.missed.alignment.cosine) <= 0).all()


def test_the_same_input_gives_the_same_output(few):
  sets = split_of(smooth(300, 4)), split_of(smooth(80, 4, 40))
  one, two = find.find(*sets), find.find(*sets)
  for a, b in zip(
    dataclasses.astuple(one.pairs) + dataclasses.astuple(one.missed),
    dataclasses.astuple(two.pairs) + dataclasses.astuple(two.missed),
    strict=True,
  ):
    np.testing.assert_equal(a, b)
  assert (one.cut, one.planted, one.decoys) == (two.cut, two.planted, two.decoys)


def test_chunks_do_not_matter(few, monkeypatch):
  sets = split_of(smooth(300, 5)), split_of(smooth(60, 5))
  one = find.find(*sets)
  monkeypatch.setattr(find, '_CHUNK', 37)
  monkeypatch.setattr(find, '_PAIRS', 11)
  two = find.find(*sets)
  assert (one.pairs.test == two.pairs.test).all()
  assert (one.pairs.train == two.pairs.train).all()
  np.testing.assert_allclose(
    one.pairs.alignment.cosine, two.pairs.alignment.cosine, atol=1e-5
  )


def files_of(images, png, broken=()):
  """Returns a part of image files, of which some cannot be read."""
  files = [png(image[..., 0] if image.shape[2] == 1 else image) for image in images]
  for number in broken:
    files[number] = files[number][:50]
  return Split(
    num_images=len(files),
    num_classes=1,
    labels=lambda ids: np.zeros((len(ids), 1), np.int32),
    images=None,
    encoded=lambda ids: [files[i] for i in ids],
    label_names=('all',),
    fingerprint='',
  )


def test_files_of_other_sizes_and_colours_and_broken_ones(few, png):
  images = smooth(120, 6, 96)
  grey = smooth(120, 6, 96).mean(3, keepdims=True).astype(np.uint8)
  train = files_of(images, png, broken=[0, 7])
  small = [thumbnails.crop(image, (0, 0, 96, 96), 48) for image in grey[:40]]
  test = files_of(small, png, broken=[3])
  found = find.find(train, test)
  assert found.unreadable == (2, 1)
  wanted = set(range(40)) - {0, 3, 7}
  assert set(found.pairs.test.tolist()) == wanted
  assert (found.pairs.test == found.pairs.train).all()
  assert not found.pairs.exact.any()


def test_blank_images_are_copies_of_each_other(few):
  train, test = smooth(100, 7), smooth(30, 8)
  train[50], test[10], test[11] = 77, 77, 78
  found = find.find(split_of(train), split_of(test))
  assert (found.pairs.test[0], found.pairs.train[0]) == (10, 50)
  assert found.pairs.exact.tolist()[:1] == [True]
  assert not found.duplicated()[11]
  assert 10 not in found.missed.test


def test_an_own_embedding(few):
  seen = []

  def embed(images):
    seen.append((images.dtype.name, images.shape[1:]))
    return frequencies.embed(images)

  images = smooth(60, 9)
  found = find.find(split_of(images), split_of(images[:20]), embed=embed)
  assert set(seen) == {('uint8', (SIDE, SIDE, 3))}
  assert found.duplicated().all()


def test_bad_input(few, monkeypatch, png):
  split = split_of(smooth(8, 0))
  for fields, message in (
    ({'k': 0}, 'k=0'),
    ({'k': 101}, 'k=101'),
    ({'fpr': 0.0}, 'fpr=0'),
    ({'fpr': 0.6}, 'fpr=0.6'),
    ({'fpr': float('nan')}, 'fpr=nan'),
  ):
    with pytest.raises(UserError, match=message):
      find.find(split, split, **fields)
  broken = files_of(smooth(2, 0), png, broken=[0, 1])
  with pytest.raises(UserError, match='none of the test images'):
    find.find(split, broken)
  with pytest.raises(UserError, match='none of the training images'):
    find.find(broken, split)
  monkeypatch.setitem(sys.modules, 'faiss', None)
  with pytest.raises(UserError, match=r"pip install 'scaling\[dedup\]'"):
    find.find(split, split)
