"""Computed images: labels by the statistics that were asked for, pixels by their number."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies

from scaling.data import pipeline, procedural, rendering, sources
from scaling.data.subsets import halves
from scaling.data.words import mix, words
from scaling.errors import UserError


@pytest.fixture
def made(data):
  """A config of several labels; keywords set fields of `data.procedural`."""

  def make(num_classes=10, max_labels=1, **fields):
    data.update(source='procedural', num_classes=num_classes, max_labels=max_labels)
    data.image_size = 16
    data.procedural.update({'num_train': 4096, 'num_test': 256} | fields)
    return data

  return make


def objects(data, ids, xp=np):
  world = procedural.make_world(data)
  return procedural.objects(xp.asarray(halves(ids)), world, xp)


@given(strategies.lists(strategies.integers(0, 2**32 - 1), unique=True, min_size=2))
def test_mixing_loses_nothing(numbers):
  assert len(set(mix(np.array(numbers, np.uint32)).tolist())) == len(numbers)


def test_one_object_is_one_also_at_the_largest_word(made):
  data = made(num_train=2**40)
  _, _, present = objects(data, np.array([336_420_717_722]))  # whose word is 2^32 - 1
  assert present.tolist() == [[True, False, False]]


def test_words_are_uniform_and_of_their_number():
  state = (
    mix(np.arange(2000, dtype=np.uint32)),
    mix(np.arange(2000, dtype=np.uint32) + 9),
  )
  one = words(state, 0, 64, np)
  assert (words(state, 32, 32, np) == one[:, 32:]).all()
  share = (one[..., None] >> np.arange(32, dtype=np.uint32) & 1).mean((0, 1))
  # 128,000 tosses for each bit: deviation 0.0014.
  assert np.abs(share - 0.5).max() < 0.007
  correlation = np.corrcoef(one.T.astype(float)) - np.eye(64)
  assert np.abs(correlation).max() < 0.12  # deviation 0.022, 2,016 pairs


def test_ids_have_their_own_state(made):
  world = procedural.make_world(made())
  ids = np.concatenate(
    [np.arange(100_000), 2**32 + np.arange(1000), 2**40 + np.arange(1000)]
  )
  low, high = procedural.image_state(halves(ids), world)
  assert len(set(zip(low.tolist(), high.tolist(), strict=True))) == len(ids)


@pytest.mark.parametrize('exponent', [0.2, 0.4, 0.6])
def test_modes_fall_as_the_exponent_says(made, exponent):
  tail = exponent / (1 - exponent)
  modes = objects(made(exponent=exponent), np.arange(100_000))[1][:, 0]
  assert modes.min() == 1
  for at in (2, 3, 10, 100):
    expected = at**-tail
    # Four deviations of a share among 100,000.
    assert abs((modes >= at).mean() - expected) < 4 * np.sqrt(expected / 1e5)
  if exponent <= 0.4:
    far = (modes > procedural._MODES).mean()
    assert abs(far / procedural._MODES**-tail - 1) < 0.3


def test_devices_choose_as_the_host_does(made):
  data = made(num_classes=1000, max_labels=3, more_objects=0.7, zipf=1.0, exponent=0.3)
  ids = np.concatenate([np.arange(20_000), 2**40 + np.arange(1000)])
  here, there = objects(data, ids), objects(data, ids, jnp)
  for one, other in zip(here, there, strict=True):
    assert one.dtype == np.asarray(other).dtype
  assert (here[0] == there[0]).all()
  assert (here[2] == there[2]).all()
  exact = here[1] <= procedural._MODES
  assert exact.mean() > 0.9
  assert (here[1] == there[1])[exact].all()


def test_labels_of_jft(made):
  data = made(
    num_classes=18_291,
    max_labels=3,
    zipf=1.0,
    more_objects=0.70,
    wrong=0.2,
    missing=0.6,
    branching=8,
  )
  world = procedural.make_world(data)
  true, given_ones = procedural.given_labels(halves(np.arange(200_000)), world)
  labelled = given_ones >= 0
  assert abs(labelled.sum(1).mean() - 1.26) < 0.005  # of JFT (BiT, arXiv 1912.11370)
  assert labelled[:, 0].all()
  wrong = (given_ones != true)[labelled].mean()
  assert abs(wrong - 0.2) < 0.005
  group = np.minimum(true // 8 * 8, 18_291 - 8)
  assert (given_ones >= group)[labelled].all()
  assert (given_ones < group + 8)[labelled].all()
  assert abs((true >= 0).sum(1).mean() - 1.66) < 0.01
  # The tail, of 375M labels: some 3,000 classes have fewer than 100.
  counts = 375e6 * procedural.frequencies(18_291, 1.0)
  assert 2800 < (counts < 100).sum() < 3200
  seen = np.bincount(true[true >= 0], minlength=18_291)
  expected = seen.sum() * procedural.frequencies(18_291, 1.0)
  assert abs(np.sort(seen)[::-1][:10].sum() / expected[:10].sum() - 1) < 0.02
  order = np.argsort(-seen)[:100]
  assert np.abs(np.diff(order)).min() >= 1
  assert order.max() > 5000  # frequent classes lie anywhere


@pytest.mark.parametrize('hierarchy', [{}, {'branching': 5, 'wrong_among': 'all'}])
def test_wrong_labels_may_be_any(made, hierarchy):
  data = made(wrong=0.4, **hierarchy)
  true, given_ones = procedural.given_labels(
    halves(np.arange(50_000)), procedural.make_world(data)
  )
  wrong = given_ones[:, 0] != true[:, 0]
  assert abs(wrong.mean() - 0.4) < 0.01
  away = (given_ones[:, 0] - true[:, 0])[wrong] % 10
  counts = np.bincount(away, minlength=10)
  assert counts[0] == 0
  assert np.abs(counts[1:] / counts[1:].mean() - 1).max() < 0.08


def test_tests_have_true_labels(made):
  train, test = sources.load(
    made(wrong=0.5, missing=0.5, more_objects=1.0, max_labels=3)
  )
  data = made(max_labels=3, more_objects=1.0, wrong=0.0, missing=0.0)
  clean, same = sources.load(data)
  ids = np.arange(256)
  assert (test.labels(ids) == same.labels(ids)).all()
  assert (train.labels(ids) != clean.labels(ids)).any()
  assert (train.images(ids) == clean.images(ids)).all()
  assert (train.images(ids) != test.images(ids)).any()


def test_ancestors_are_filled_in(made):
  data = made(num_classes=30, max_labels=3, branching=3, ancestors=True)
  train, _ = sources.load(data)
  plain, _ = sources.load(made(num_classes=30, max_labels=3, ancestors=False))
  ids = np.arange(500)
  for row, (own, *_) in zip(train.labels(ids), plain.labels(ids), strict=True):
    expected = {own}
    while own >= 3:
      own = own // 3 - 1
      expected.add(own)
    assert set(row[row >= 0]) == expected


def test_images_are_a_function_of_their_number(made):
  train, _ = sources.load(made())
  images = train.images(np.array([7, 4000, 7]))
  assert images.shape == (3, 16, 16, 3)
  assert images.dtype == np.uint8
  assert (images[0] == images[2]).all()
  assert (images[0] != images[1]).any()
  assert (train.images(np.array([4000]))[0] == images[1]).all()
  many = train.images(np.arange(512)).astype(float)
  assert 120 < many.mean() < 135
  assert 15 < many.std() < 50
  assert ((many == 0) | (many == 255)).mean() < 0.02


def test_looks_belong_to_class_and_mode(made):
  data = made(noise=0.0)
  world = procedural.make_world(data)
  state = procedural.image_state(halves(np.zeros(6)), world)  # one pose for all
  classes = jnp.array([[1], [1], [1], [2], [2], [1]])
  modes = jnp.array([[1], [1], [2], [1], [2], [300_000]])

  def draw(present):
    return np.asarray(
      rendering.render(
        classes,
        modes,
        jnp.full((6, 1), present),
        tuple(map(jnp.asarray, state)),
        world.key,
        size=16,
        parts=6,
        pose=1.0,
        noise=0.0,
      )
    ).astype(float)

  images = draw(present=True)
  assert (images[0] == images[1]).all()
  for i in range(1, 6):
    for j in range(i + 1, 6):
      assert np.abs(images[i] - images[j]).mean() > 5
  assert np.abs(draw(present=False) - 127.5).max() <= 0.5


def test_noise_has_its_deviation():
  state = tuple(mix(jnp.arange(64, dtype=jnp.uint32) + k) for k in range(2))
  white = np.asarray(rendering._white(state, 64, 16))
  assert abs(white.std() - 1) < 0.01
  assert abs(white.mean()) < 0.02


def test_batches_are_drawn_where_the_ids_are(made):
  from scaling import sharding

  data = made()
  train, test = sources.load(data)
  subset = pipeline.make_subset(train, data)
  batch = pipeline.train_batch(
    3, split=train, data=data, subset=subset, batch_size=16, seed=1
  )
  assert 'image' not in batch
  mesh = sharding.make_mesh()
  placed = pipeline.place(batch, train, mesh)
  assert placed['image'].sharding.is_equivalent_to(sharding.split_batch(mesh), 4)
  ids = batch['id'][:, 0].astype(np.int64)
  # Floats on four devices and on one: their last bits may round a pixel otherwise.
  assert np.abs(np.asarray(placed['image'], int) - train.images(ids)).max() <= 1
  *_, last = pipeline.test_batches(test, data, 48)
  placed = pipeline.place(last, test, mesh)
  assert set(placed) == {'image', 'labels', 'mask'}
  assert placed['mask'].sum() == 256 - 5 * 48


def test_the_first_modes_can_be_learned(made, linear_error):
  parts = sources.load(made(exponent=0.8))  # few modes
  assert linear_error(*parts, 2000) < 0.6  # chance is 0.9


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'exponent': 0.0}, r'exponent=0\.0 must be above 0'),
    ({'exponent': 1.0}, r'exponent=1\.0 must be from 0 to below 1'),
    ({'wrong': -0.1}, r'wrong=-0\.1 must be from 0'),
    ({'zipf': float('nan')}, r'zipf=nan must be from 0 to 100'),
    ({'num_train': 0}, r'num_train=0 must be from 1 to'),
    ({'num_train': 2**41}, r'num_train=2199023255552 must be from 1 to'),
    ({'branching': 1}, r'branching=1 must be from 2 to data\.num_classes=10'),
    ({'ancestors': True}, r'ancestors needs data\.procedural\.branching'),
    ({'more_objects': 0.5}, r'set data\.max_labels=3 and train\.loss=sigmoid'),
    (
      {'branching': 2, 'ancestors': True},
      r'max_labels=1 is too few .* may have 3; set data\.max_labels=3',
    ),
  ],
)
def test_bad_fields(made, fields, message):
  with pytest.raises(UserError, match=message):
    sources.load(made(**fields))


def test_grey_images_are_refused(made):
  data = made()
  data.channels = 1
  with pytest.raises(
    UserError, match=r'data\.channels=1, but procedural images have 3'
  ):
    sources.load(data)
