"""Batches as functions of the step, and test batches with a mask."""

import dataclasses

import numpy as np
import pytest

from scaling.data import pipeline, sources
from scaling.data.subsets import batch_ids
from scaling.errors import UserError


@pytest.fixture
def folder(tmp_path, png):
  """A folder of 12 images in 3 classes, of different shapes and flat colours."""
  for label in range(3):
    (tmp_path / f'class{label}').mkdir()
    for number in range(4):
      colour = np.array([60 * label, 10 * number, 7], np.uint8)
      pixels = np.zeros((20 + 5 * number, 30, 3), np.uint8) + colour
      (tmp_path / f'class{label}' / f'{number}.png').write_bytes(png(pixels))
  return tmp_path


@pytest.fixture
def on_folder(data, folder):
  data.source = 'folder'
  data.num_classes = 3
  data.image_size = 8
  data.test_fraction = 0.25
  return data, *sources.load(data, str(folder))


def test_batch_in_memory(data):
  data.num_images = 100
  split, _ = sources.load(data)
  subset = pipeline.make_subset(split, data)
  how = {'split': split, 'data': data, 'subset': subset, 'batch_size': 16, 'seed': 0}
  batch = pipeline.train_batch(7, **how)
  assert {name: (x.shape, x.dtype.name) for name, x in batch.items()} == {
    'image': ((16, 32, 32, 3), 'uint8'),
    'labels': ((16, 1), 'int32'),
    'id': ((16, 2), 'uint32'),
    'epoch': ((16,), 'uint32'),
  }
  ids = batch['id'][:, 0].astype(np.int64)
  assert subset.contains(ids).all()
  assert (batch['image'] == split.images(ids)).all()
  assert (batch['labels'] == split.labels(ids)).all()
  assert batch['epoch'].tolist() == [1] * 16  # positions 112..127 of 100 images
  again = pipeline.train_batch(7, **how)
  first = pipeline.train_batch(7, rows=slice(0, None, 2), **how)
  for name in batch:
    assert (again[name] == batch[name]).all()
    assert (first[name] == batch[name][::2]).all()


def test_ids_beyond_32_bits_keep_their_high_half(data):
  data.made_up_train = 2**36
  split, _ = sources.load(data)
  subset = pipeline.make_subset(split, data)
  batch = pipeline.train_batch(
    0, split=split, data=data, subset=subset, batch_size=32, seed=0
  )
  ids = batch['id'][:, 0].astype(np.int64) + (batch['id'][:, 1].astype(np.int64) << 32)
  assert (ids == batch_ids(0, 32, subset, data.order_seed)[0]).all()
  assert batch['id'][:, 1].max() > 0


def test_batch_decoded_from_files(on_folder):
  data, train, _ = on_folder
  subset = pipeline.make_subset(train, data)
  how = {'split': train, 'data': data, 'subset': subset, 'batch_size': 9}
  centre = pipeline.train_batch(0, seed=0, **how)
  assert centre['image'].shape == (9, 8, 8, 3)
  colours = centre['image'][:, 0, 0]
  assert (colours[:, 0] == 60 * centre['labels'][:, 0]).all()
  assert (centre['image'] == colours[:, None, None]).all()


def test_host_crops_follow_from_seed_epoch_and_id(data, tmp_path, png):
  for label in range(2):
    (tmp_path / str(label)).mkdir()
    for number in range(4):
      noise = np.random.default_rng(number).integers(0, 256, (24, 24, 3), np.uint8)
      (tmp_path / str(label) / f'{number}.png').write_bytes(png(noise))
  data.update(source='folder', num_classes=2, image_size=8, min_crop_area=0.2)
  train, _ = sources.load(data, str(tmp_path))
  subset = pipeline.make_subset(train, data)

  def batch(seed, batch_size=6):
    return pipeline.train_batch(
      0, split=train, data=data, subset=subset, batch_size=batch_size, seed=seed
    )

  assert (batch(0)['image'] == batch(0)['image']).all()
  assert (batch(0)['image'] == batch(0, 12)['image'][:6]).all()
  assert (batch(1)['image'] != batch(0)['image']).any((1, 2, 3)).all()
  both = batch(0, 12)
  first, second = both['image'][:6], both['image'][6:]
  order = [both['id'][6:, 0].tolist().index(i) for i in both['id'][:6, 0]]
  assert (first != second[order]).any((1, 2, 3)).all()  # another epoch


def test_test_batches_are_padded_and_masked(data):
  data.made_up_test = 10
  _, test = sources.load(data)
  batches = list(pipeline.test_batches(test, data, 4))
  assert [batch['mask'].tolist() for batch in batches] == [
    [1, 1, 1, 1],
    [1, 1, 1, 1],
    [1, 1, 0, 0],
  ]
  assert {batch['image'].shape for batch in batches} == {(4, 32, 32, 3)}
  assert batches[-1]['labels'][2:].tolist() == [[-1], [-1]]
  assert batches[-1]['mask'].dtype == np.float32
  labels = np.concatenate([batch['labels'] for batch in batches])[:10]
  assert (labels == test.labels(np.arange(10))).all()


def test_processes_feed_their_rows_of_a_test_batch(data):
  data.made_up_test = 10
  _, test = sources.load(data)
  whole = list(pipeline.test_batches(test, data, 4))
  halves = [
    list(pipeline.test_batches(test, data, 4, slice(*ends)))
    for ends in ((0, 2), (2, 4))
  ]
  for batch, first, second in zip(whole, *halves, strict=True):
    for name, rows in batch.items():
      assert (np.concatenate([first[name], second[name]]) == rows).all(), name


def test_a_process_without_images_in_the_last_batch_fills_it_up(on_folder):
  data, _, test = on_folder
  (batch,) = pipeline.test_batches(test, data, 8, slice(4, 8))  # there are three
  assert batch['mask'].tolist() == [0, 0, 0, 0]
  assert batch['image'].shape == (4, 8, 8, 3)
  assert (batch['labels'] == -1).all()


def test_test_batches_from_files(on_folder):
  data, _, test = on_folder
  (batch,) = pipeline.test_batches(test, data, 5)
  assert batch['mask'].tolist() == [1, 1, 1, 0, 0]
  assert (batch['image'][:3, 0, 0, 0] == 60 * batch['labels'][:3, 0]).all()


def test_a_corrupt_file_is_named(data, folder):
  data.update(source='folder', num_classes=3, image_size=8, test_fraction=0.25)
  for path in folder.glob('class1/*'):
    path.write_bytes(path.read_bytes()[:50])
  train, _ = sources.load(data, str(folder))
  subset = pipeline.make_subset(train, data)
  with pytest.raises(UserError, match=r'class1/\d\.png is no readable image'):
    pipeline.train_batch(0, split=train, data=data, subset=subset, batch_size=9, seed=0)


def test_subsets_of_the_config(data):
  split, _ = sources.load(data)
  assert pipeline.make_subset(split, data).num_images == 4096
  data.num_images = 40
  data.subset = 'balanced'
  ids = pipeline.make_subset(split, data).ids(np.arange(40))
  assert np.bincount(split.labels(ids)[:, 0]).tolist() == [4] * 10
  data.num_images = 5000
  with pytest.raises(
    UserError, match=r'num_images=5000 is more than the 4096 .*made_up'
  ):
    pipeline.make_subset(split, data)


def test_what_cannot_be_balanced(data):
  data.update(subset='balanced', num_classes=50, made_up_train=20)
  split, _ = sources.load(data)
  with pytest.raises(UserError, match=r"class 'class \d+' of made_up has no training"):
    pipeline.make_subset(split, data)
  unlabelled = dataclasses.replace(
    split, labels=lambda ids: np.where(ids[:, None] == 3, -1, split.labels(ids))
  )
  with pytest.raises(UserError, match='image 3 of made_up has no label'):
    pipeline.make_subset(unlabelled, data)
  data.max_labels = 2
  with pytest.raises(UserError, match=r'data\.max_labels=2; use'):
    pipeline.make_subset(split, data)
