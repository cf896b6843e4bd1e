"""The order of images: bijections, nesting, independence, and batches as functions."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.data.subsets import (
  Permutation,
  balanced_subset,
  batch_ids,
  uniform_numbers,
  uniform_subset,
)
from scaling.errors import UserError

HUGE = (300_000_000, 2**31 - 1, 2**31 + 1, 10**9 + 7, 2**40 - 1, 2**40)


def assert_bijection(size: int, *key: int | str) -> None:
  perm = Permutation(size, *key)
  everything = np.arange(size)
  images = perm(everything)
  assert images.dtype == np.int64
  assert (np.sort(images) == everything).all(), size
  assert (perm.inverse(images) == everything).all(), size


def chi2(counts: np.ndarray) -> float:
  """Returns chi-square over its degrees of freedom: near 1 for uniform counts."""
  expected = counts.mean()
  return float(((counts - expected) ** 2).sum() / expected / (counts.size - 1))


def test_bijection_at_every_small_size():
  for size in range(1, 3001):
    assert_bijection(size, 'small', size % 7)


@pytest.mark.parametrize('exponent', range(1, 18))
def test_bijection_around_powers_of_two(exponent):
  for size in (2**exponent - 1, 2**exponent, 2**exponent + 1):
    assert_bijection(size, exponent)


@given(st.integers(1, 20_000), st.integers(-(2**70), 2**70), st.text())
@settings(deadline=None, max_examples=25)
def test_bijection_under_any_key(size, number, word):
  assert_bijection(size, number, word)


@given(st.integers(1, 2**40), st.integers(0, 99), st.data())
@settings(deadline=None)
def test_inverse_at_any_size(size, seed, data):
  perm = Permutation(size, seed)
  positions = data.draw(st.lists(st.integers(0, size - 1), max_size=20))
  images = perm(positions)
  assert ((images >= 0) & (images < size)).all()
  assert perm.inverse(images).tolist() == positions


@pytest.mark.parametrize('size', HUGE)
def test_huge_sizes_at_random_positions(size):
  perm = Permutation(size, 3)
  some = np.random.default_rng(0).integers(0, size, 10_000)
  images = perm(some)
  assert (perm.inverse(images) == some).all()
  assert np.unique(images).size == np.unique(some).size
  # 100 bins of 100: the deviation of chi2/dof is 0.14, so 1.6 is beyond four of them.
  assert chi2(np.bincount(images * 100 // size, minlength=100)) < 1.6


def test_the_order_of_this_version_is_fixed():
  # Subsets on record rest on these numbers.
  assert Permutation(10, 'a', 1)(np.arange(10)).tolist() == [
    1,
    3,
    9,
    7,
    4,
    8,
    0,
    5,
    2,
    6,
  ]
  assert Permutation(2**40, 0)([0, 1, 2**40 - 1]).tolist() == [
    14986799271,
    982675531047,
    753645047026,
  ]
  numbers = uniform_numbers(2, seed=1, epochs=[0], ids=[5], purpose='crop')
  assert numbers.tolist() == [[0.8021421622380018, 0.799406936310249]]


def test_keys_are_neither_concatenated_nor_confused_by_type():
  orders = [
    tuple(Permutation(1000, *key)(np.arange(20)))
    for key in [(1, 23), (12, 3), ('1', 23), ('1', '23'), (123,), ('123',), ()]
  ]
  assert len(set(orders)) == len(orders)
  numpy_key = Permutation(1000, np.int64(1), np.int32(23))(np.arange(20))
  assert tuple(numpy_key) == orders[0]


def test_shapes_and_pieces_agree():
  perm = Permutation(100_000, 0)
  whole = perm(np.arange(100_000))  # more than one chunk
  assert perm(7).shape == ()
  assert perm([]).shape == (0,)
  assert (perm(np.arange(600).reshape(2, 3, 100)).ravel() == whole[:600]).all()
  assert [int(perm(i)) for i in range(99_990, 100_000)] == whole[-10:].tolist()


@pytest.mark.parametrize('value', [-1, 10])
def test_positions_outside_are_refused(value):
  with pytest.raises(ValueError, match=r'leaves 0\.\.9'):
    Permutation(10, 0)([0, value])


@pytest.mark.parametrize('size', [0, 2**40 + 1])
def test_sizes_outside_are_refused(size):
  with pytest.raises(ValueError, match='outside'):
    Permutation(size, 0)


@pytest.mark.parametrize('size', [2, 3, 4])
def test_all_orders_of_a_tiny_set_are_equally_likely(size):
  orders = list(itertools.permutations(range(size)))
  counts = dict.fromkeys(orders, 0)
  for seed in range(2400):
    counts[tuple(Permutation(size, seed)(np.arange(size)).tolist())] += 1
  # 24 orders: the deviation of chi2/dof is 0.29.
  assert chi2(np.array(list(counts.values()))) < 2.5


def test_prefixes_and_steps_are_uniform():
  size = 50_000
  images = Permutation(size, 7)(np.arange(5000))
  # 100 bins: deviation 0.14. A file sorted by class must not show in a prefix.
  assert chi2(np.bincount(images * 100 // size, minlength=100)) < 1.6
  steps = np.diff(images) % size
  assert chi2(np.bincount(steps * 100 // size, minlength=100)) < 1.6


def test_seeds_are_independent():
  size = 2000
  orders = np.stack([Permutation(size, seed)(np.arange(size)) for seed in range(30)])
  correlations = np.corrcoef(orders)[np.triu_indices(30, 1)]
  # 435 pairs of deviation 1/sqrt(2000) = 0.022.
  assert np.abs(correlations).max() < 0.1
  fixed_points = (orders[:-1] == orders[1:]).sum(1)  # Poisson with mean 1
  assert fixed_points.mean() < 2.5


def test_uniform_subsets_nest():
  large = uniform_subset(3000, 10_000, seed=4)
  for num_images in (1, 10, 299, 300, 2999):
    small = uniform_subset(num_images, 10_000, seed=4)
    ids = small.ids(np.arange(num_images))
    assert (ids == large.ids(np.arange(num_images))).all()
    assert large.contains(ids).all()
    assert small.contains(np.arange(10_000)).sum() == num_images


def test_membership_and_order_are_independent():
  size = 5000
  subset = uniform_subset(size, size, seed=1)
  members = subset.ids(np.arange(size))
  order, _ = batch_ids(0, size, subset, order_seed=1)
  # Equal seeds: the deviation of each correlation is 1/sqrt(5000) = 0.014.
  assert abs(np.corrcoef(members, order)[0, 1]) < 0.06
  other, _ = batch_ids(0, size, uniform_subset(size, size, seed=2), order_seed=1)
  assert abs(np.corrcoef(other, order)[0, 1]) < 0.06


def test_huge_subset_in_constant_memory():
  subset = uniform_subset(100_000_000, 300_000_000, seed=0)
  ids, epochs = batch_ids(2_000_000, 64, subset, order_seed=0)
  assert subset.contains(ids).all()
  assert (epochs == 1).all()
  asked = np.arange(0, 300_000_000, 30_001)
  # A binomial share of 1/3 of 10,000: its deviation is 0.005.
  assert abs(subset.contains(asked).mean() - 1 / 3) < 0.02


@given(st.integers(1, 200), st.integers(1, 70), st.integers(0, 40))
@settings(deadline=None)
def test_batches_are_pieces_of_one_stream(num_images, batch_size, step):
  subset = uniform_subset(num_images, 500, seed=0)
  ids, epochs = batch_ids(step, batch_size, subset, order_seed=5)
  assert ids.shape == epochs.shape == (batch_size,)
  stream, stream_epochs = batch_ids(0, (step + 1) * batch_size, subset, order_seed=5)
  assert (ids == stream[-batch_size:]).all()
  assert (epochs == stream_epochs[-batch_size:]).all()


def test_every_image_once_per_epoch_across_batches():
  subset = uniform_subset(103, 1000, seed=9)
  batches = [batch_ids(step, 10, subset, order_seed=2) for step in range(31)]
  ids, epochs = (np.concatenate(parts) for parts in zip(*batches, strict=True))
  members = np.sort(subset.ids(np.arange(103)))
  seen = [ids[epochs == epoch] for epoch in range(3)]
  for order in seen:
    assert (np.sort(order) == members).all()
  assert (epochs[103:] >= 1).all()
  assert not (seen[0] == seen[1]).all()
  again = batch_ids(17, 10, subset, order_seed=2)
  assert (again[0] == batches[17][0]).all()


@pytest.mark.parametrize('num_images', [1, 100, 2**14 - 1, 2**14 + 1, 10**9])
def test_batches_are_the_positions_one_by_one(num_images):
  # By the definition, around the ends of epochs and of stretches planned at once.
  subset = uniform_subset(num_images, 2 * num_images, seed=4)
  for position in (0, 16 * num_images, num_images, 2**14, 10**7):
    step = max(0, position // 60 - 1)
    ids, epochs = batch_ids(step, 60, subset, order_seed=3)
    batch_ids(step, 60, subset, order_seed=3)[0][:] = -1  # harms nobody
    assert (batch_ids(step, 60, subset, order_seed=3)[0] == ids).all()
    for row in range(60):
      epoch, place = divmod(step * 60 + row, num_images)
      rank = Permutation(num_images, 'order', 3, epoch)(place)
      assert (ids[row], epochs[row]) == (subset.ids(rank), epoch)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(0, 9))
@settings(deadline=None)
def test_balanced_subsets_nest_and_balance(labels, seed):
  labels = np.array(labels)
  available = np.bincount(labels)
  before: set[int] = set()
  for num_images in range(1, len(labels) + 1):
    subset = balanced_subset(num_images, labels, seed)
    ids = subset.ids(np.arange(num_images))
    assert before < set(ids.tolist())
    before = set(ids.tolist())
    assert (
      sorted(before) == np.flatnonzero(subset.contains(np.arange(len(labels)))).tolist()
    )
    counts = np.bincount(labels[ids], minlength=available.size)
    most = counts.max()
    # A class behind the others by more than one has nothing left to give.
    assert ((counts >= most - 1) | (counts == available)).all()


def test_balanced_choice_depends_on_the_seed():
  labels = np.arange(1000) % 10
  choices = {
    tuple(sorted(balanced_subset(50, labels, seed).ids(np.arange(50))))
    for seed in range(5)
  }
  assert len(choices) == 5


@pytest.mark.parametrize('num_images', [70_000, 0, -1])
def test_a_size_the_set_does_not_have(num_images):
  with pytest.raises(UserError, match=rf'data.num_images={num_images} .*60000 .*cifar'):
    uniform_subset(num_images, 60_000, seed=0, name='cifar10')
  with pytest.raises(UserError, match='60000 training images of cifar10; use 1 to'):
    balanced_subset(num_images, np.zeros(60_000, int), seed=0, name='cifar10')


def test_numbers_follow_from_seed_epoch_and_id_alone():
  ids = np.arange(2**33, 2**33 + 1000)
  epochs = np.arange(1000) % 3
  numbers = uniform_numbers(4, seed=1, epochs=epochs, ids=ids, purpose='crop')
  assert numbers.shape == (1000, 4)
  assert ((numbers >= 0) & (numbers < 1)).all()
  some = uniform_numbers(2, seed=1, epochs=epochs[77], ids=ids[77:78], purpose='crop')
  assert (some[0] == numbers[77, :2]).all()
  # 4,000 numbers in 50 bins: deviation 0.2.
  assert chi2(np.bincount((numbers.ravel() * 50).astype(int), minlength=50)) < 1.8
  for change in ({'seed': 2}, {'epochs': epochs + 1}, {'ids': ids + 1000}):
    how = {'seed': 1, 'epochs': epochs, 'ids': ids, 'purpose': 'crop'} | change
    other = uniform_numbers(4, **how)
    # 4,000 pairs: deviation 0.016.
    assert abs(np.corrcoef(other.ravel(), numbers.ravel())[0, 1]) < 0.07
