"""What is in a part of a set: labels and images, all of them or a sample."""

import io

import numpy as np
import pytest

from scaling.data import survey
from scaling.data.split import Split, in_memory
from scaling.errors import UserError


@pytest.fixture
def split(png):
  """Twelve images of different sizes and kinds, the last two corrupt or gone."""
  from PIL import Image

  def jpeg(mode, size):
    file = io.BytesIO()
    Image.new(mode, size).save(file, 'JPEG')
    return file.getvalue()

  files = [png(np.zeros((10 + i, 30, 3), np.uint8)) for i in range(6)]
  files += [jpeg('L', (8, 7)), jpeg('RGB', (8, 7)), jpeg('CMYK', (9, 9))]
  files += [jpeg('RGB', (100, 50)), files[0][:40]]
  labels = np.full((12, 4), -1, np.int32)
  labels[:9, 0] = 0
  labels[9, :3] = [3, 1, 0]

  def encoded(ids):
    if max(ids) == 11:
      raise UserError('/data/11 cannot be read')
    return [files[i] for i in ids]

  return Split(
    num_images=12,
    num_classes=5,
    labels=labels.__getitem__,
    images=None,
    encoded=encoded,
    label_names=tuple('abcde'),
    fingerprint='x',
    where=lambda i: f'/data/{i}',
  )


def test_labels(split):
  told = []
  found = survey.read_labels(
    split, np.arange(12), lambda done, total: told.append((done, total))
  )
  assert found.counts.tolist() == [10, 1, 0, 1, 0]
  assert found.per_image.tolist() == [2, 9, 0, 1]
  assert found.mean == 1.0
  assert found.rarer_than(100) == 5
  assert found.rarer_than(10) == 4
  assert told == [(12, 12)]


def test_labels_of_some(split):
  found = survey.read_labels(split, np.array([0, 9]))
  assert (found.num_images, found.num_full) == (2, 12)
  assert found.counts.tolist() == [2, 1, 0, 1, 0]


def test_images(split):
  found = survey.read_images(split, np.arange(12))
  assert (found.num_images, found.num_full) == (12, 12)
  assert found.heights.tolist() == [10, 11, 12, 13, 14, 15, 7, 7, 9, 50]
  assert found.widths.tolist() == [30] * 6 + [8, 8, 9, 100]
  assert found.num_bytes[0] == len(split.encoded([0])[0])
  kinds = {'PNG RGB': 6, 'JPEG RGB': 2, 'JPEG L': 1, 'JPEG CMYK': 1}
  assert found.kinds == kinds
  assert list(found.kinds.values()) == [6, 2, 1, 1]
  (torn, torn_reason), (gone, gone_reason) = found.corrupt
  assert (torn, gone) == ('/data/10', '/data/11')
  assert torn_reason.startswith('is no readable image')
  assert gone_reason == 'cannot be read'


def test_images_in_memory():
  labels = np.zeros((5, 1), np.int32)
  split = in_memory(np.zeros((5, 8, 9, 3), np.uint8), labels, ['a'])
  found = survey.read_images(split, np.arange(4))
  assert (found.num_images, found.num_full) == (5, 5)
  assert found.heights.tolist() == [8]
  assert found.num_bytes.tolist() == [216]
  assert found.kinds == {'arrays of 3 x 8 bits': 5}
  assert found.corrupt == []


def test_samples_nest_and_ascend():
  labels = np.zeros((1000, 1), np.int32)
  split = in_memory(np.zeros((1000, 1, 1, 1), np.uint8), labels, ['a'])
  small, large = (survey.sample(split, num) for num in (50, 200))
  assert (np.diff(large) > 0).all()
  assert len(small) == 50
  assert set(small) < set(large)
  assert survey.sample(split, 1000).tolist() == list(range(1000))
  assert survey.sample(split, 5000).tolist() == list(range(1000))


def test_thumbnails(split):
  found = survey.thumbnails(split, np.array([9, 10, 0]), 20)
  assert [one if one is None else one.shape for one in found] == [
    (10, 20, 3),
    None,
    (7, 20, 3),
  ]
