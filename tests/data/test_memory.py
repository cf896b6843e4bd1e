"""Images that are decoded once, and when."""

import collections
import concurrent.futures
import dataclasses
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scaling.data import memory
from scaling.data.decode import CorruptError
from scaling.data.split import Split
from scaling.errors import UserError

NUM = 12
SHAPE = (4, 4, 3)


@pytest.fixture(scope='module')
def pixels():
  return np.random.default_rng(0).integers(256, size=(NUM, *SHAPE), dtype=np.uint8)


@pytest.fixture
def stored(pixels, png):
  """A part of encoded images, and how often each was asked for."""
  asked = collections.Counter()
  files = [png(image) for image in pixels]

  def encoded(ids):
    asked.update(('image', int(i)) for i in ids)
    return [files[i] for i in ids]

  def labels(ids):
    asked.update(('label', int(i)) for i in ids)
    return (np.asarray(ids)[:, None] % 5).astype(np.int32)

  split = Split(NUM, 5, labels, None, encoded, tuple('abcde'), 'x', 'image {}'.format)
  return split, files, asked


# The counts, all that a test changes of it, start anew below.
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
  batches=st.lists(
    st.lists(st.integers(0, NUM - 1), min_size=1, max_size=20), max_size=6
  )
)
def test_each_is_decoded_once_and_only_when_asked_for(batches, stored, pixels):
  split, _, asked = stored
  part = memory.decoded(split, SHAPE)
  asked.clear()  # of a few images the content is in the fingerprint
  for ids in map(np.array, batches):
    assert (part.images(ids) == pixels[ids]).all()
    assert (part.labels(ids)[:, 0] == ids % 5).all()
  wanted = set().union(*batches)
  assert asked == {(what, i): 1 for what in ('image', 'label') for i in wanted}
  assert part.shape == SHAPE
  assert part.encoded is None
  assert part.labels(np.array([1])).dtype == np.int32


def test_what_another_thread_is_decoding_is_not_there_yet(stored, pixels, png):
  split, files, _ = stored
  # Not as before: memory that was given back may hold what another test left there.
  pixels = 255 - pixels
  files[:] = map(png, pixels)
  slowly, begun, go_on = (threading.Event() for _ in range(3))

  def slow(ids):
    if slowly.is_set() and not begun.is_set():
      begun.set()
      assert go_on.wait(60)
    return split.encoded(ids)

  part = memory.decoded(dataclasses.replace(split, encoded=slow), SHAPE)
  slowly.set()
  ids = np.array([3, 5])
  with concurrent.futures.ThreadPoolExecutor(1) as threads:
    first = threads.submit(part.images, ids)
    assert begun.wait(60)
    assert (part.images(ids) == pixels[ids]).all()
    go_on.set()
    assert (first.result() == pixels[ids]).all()


def test_threads_that_ask_at_once_get_the_same(stored, pixels):
  part = memory.decoded(stored[0], SHAPE)
  orders = [np.random.default_rng(i).permutation(NUM) for i in range(32)]
  with concurrent.futures.ThreadPoolExecutor(8) as threads:
    for order, found in zip(orders, threads.map(part.images, orders), strict=True):
      assert (found == pixels[order]).all()


def test_a_corrupt_image_is_named_when_it_is_met_and_others_are_there(stored, pixels):
  split, files, _ = stored
  files[7] = files[7][:40]
  part = memory.decoded(split, SHAPE)
  for _ in range(2):
    with pytest.raises(CorruptError, match=r'^image 7 is no readable image'):
      part.images(np.array([3, 7, 9]))
  ids = np.array([3, 9])
  assert (part.images(ids) == pixels[ids]).all()
  with pytest.raises(CorruptError, match='image 7'):
    memory.decode_all(part)


def test_an_image_of_another_shape_is_refused(stored, png):
  split, files, _ = stored
  files[5] = png(np.zeros((5, 4, 3), np.uint8))
  part = memory.decoded(split, SHAPE)
  with pytest.raises(
    UserError, match=r'image 5 has the shape \(5, 4, 3\).*\(4, 4, 3\)'
  ):
    part.images(np.array([5]))


def test_there_is_room_up_to_a_number_of_bytes(stored, monkeypatch):
  split, _, _ = stored
  monkeypatch.setattr(memory, '_MOST_BYTES', NUM * 48)
  assert memory.fits(split, SHAPE)
  assert not memory.fits(split, (4, 4, 4))
