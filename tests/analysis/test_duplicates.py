"""Accuracy with and without the duplicated test images."""

import numpy as np
import pytest
import scipy.stats

from analysis import duplicates


def made(clean, copied):
  """Returns arrays from (right, wrong) of the images without and with a duplicate."""
  correct = np.repeat([True, False, True, False], [*clean, *copied])
  return correct, np.arange(len(correct)) >= sum(clean)


@pytest.mark.parametrize(('hits', 'num'), [(0, 10), (3, 10), (10, 10), (450, 10_000)])
def test_share_is_wilsons(hits, num):
  found = duplicates.share(hits, num)
  wanted = scipy.stats.binomtest(hits, num).proportion_ci(0.9, 'wilson')
  # Two ways to write one formula.
  np.testing.assert_allclose(found[2:], wanted, atol=1e-12)
  assert found.value == hits / num


def test_share_of_nothing():
  found = duplicates.share(0, 0)
  assert found[2:] == (0, 1)
  assert np.isnan(found.value)


def test_parts_add_up():
  found = duplicates.effect(*made((8000, 2000), (450, 50)))
  assert (found.whole.hits, found.whole.num) == (8450, 10_500)
  assert found.clean.value == 0.8
  assert found.duplicated.value == 0.9
  assert found.change == pytest.approx(0.8 - 8450 / 10_500)
  assert found.lo < found.change < found.hi < 0
  assert found.verdict.startswith('changes by −0.48 points (−0.5')


def test_no_change():
  found = duplicates.effect(*made((9000, 1000), (360, 40)))
  assert found.change == 0
  assert found.lo < 0 < found.hi
  assert found.verdict == 'no significant change'


@pytest.mark.parametrize(
  ('clean', 'copied', 'reason'),
  [
    ((900, 100), (5, 4), '9 duplicated images are too few'),
    ((900, 100), (0, 0), '0 duplicated images are too few'),
    ((0, 0), (50, 4), 'no image is without a duplicate'),
    ((50, 30), (25, 15), 'wider than ±0.5'),
  ],
)
def test_cannot_say(clean, copied, reason):
  found = duplicates.effect(*made(clean, copied))
  assert found.verdict.startswith('cannot say: ')
  assert reason in found.verdict


def test_a_wider_margin_can_say_more():
  assert duplicates.effect(*made((50, 30), (25, 15)), margin=0.2).verdict == (
    'no significant change'
  )


def test_the_change_is_paired():
  found = duplicates.effect(*made((9000, 1000), (280, 20)))
  alone = found.whole.hi - found.whole.lo
  assert found.hi - found.lo < alone / 5


def test_the_interval_holds_the_truth_nine_times_in_ten():
  rng = np.random.default_rng(0)
  truth = 0.8 - (0.95 * 0.8 + 0.05 * 0.9)
  held = 0
  for seed in range(400):
    duplicated = rng.random(2000) < 0.05
    correct = rng.random(2000) < np.where(duplicated, 0.9, 0.8)
    found = duplicates.effect(correct, duplicated, seed=seed)
    held += found.lo <= truth <= found.hi
  # Four standard errors of 400 trials at 0.9.
  assert abs(held / 400 - 0.9) < 0.06


def test_the_seed_alone_decides():
  arrays = made((900, 100), (90, 10))
  assert duplicates.effect(*arrays) == duplicates.effect(*arrays)
  assert duplicates.effect(*arrays).lo != duplicates.effect(*arrays, seed=1).lo


@pytest.mark.parametrize(
  ('correct', 'duplicated', 'message'),
  [
    ([True], [True, False], 'not of one length'),
    ([], [], 'not of one length'),
    ([1, 0], [True, False], 'boolean'),
  ],
)
def test_bad_input(correct, duplicated, message):
  with pytest.raises(ValueError, match=message):
    duplicates.effect(np.array(correct), np.array(duplicated))


def test_change_of_a_mean_is_that_of_a_plain_bootstrap():
  rng = np.random.default_rng(0)
  duplicated = rng.random(800) < 0.2
  values = rng.integers(-1, 2, 800) + 0.0  # right only in the first run, in both, ...
  values[duplicated] += 1
  change, lo, hi = duplicates.change_of_mean(values, duplicated)
  assert change == pytest.approx(values[~duplicated].mean() - values.mean())
  drawn = rng.integers(0, 800, (4000, 800))
  kept = ~duplicated[drawn]
  plain = (values[drawn] * kept).sum(1) / kept.sum(1) - values[drawn].mean(1)
  # Two bootstraps of some thousands of draws differ by a few hundredths of their width.
  np.testing.assert_allclose(
    [lo, hi], np.quantile(plain, [0.05, 0.95]), atol=0.05 * (hi - lo)
  )
