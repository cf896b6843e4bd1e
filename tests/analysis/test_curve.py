"""What a fitted curve answers: bands, gains, images needed."""

import numpy as np
import pytest
from curves import FEW, SIZES, bending, fitted, noisy, typical

from analysis.fit import Fit, fit


@pytest.mark.parametrize('kind', ['accuracy', 'error'])
@pytest.mark.parametrize('seed', range(4))
def test_bands_nest_and_stay_in_range(kind, seed):
  rng = np.random.default_rng(seed)
  sizes = np.repeat(SIZES[: 4 + seed], 2)
  values = np.clip(
    0.99 - 2 * sizes**-0.6 + 0.03 * rng.standard_normal(len(sizes)), 0, 1
  )
  bands = fitted(sizes, values, kind=kind).predict(np.geomspace(1, 1e12, 60))
  order = [bands.lo, bands.curve_lo, bands.value, bands.curve_hi, bands.hi]
  assert (np.diff(np.stack(order), axis=0) >= 0).all()
  assert bands.lo.min() >= 0
  assert bands.hi.max() <= 1


def test_a_new_run_varies_more_than_the_curve():
  sizes = np.repeat(SIZES, 5)
  bands = fitted(sizes, 1 - noisy(1 - bending(sizes), 0.05, 1)).predict(SIZES[2:])
  assert (bands.hi - bands.lo > 1.5 * (bands.curve_hi - bands.curve_lo)).all()


def test_predictions_are_finite_everywhere():
  sizes = np.geomspace(1, 1e12, 200)
  for bands in (typical().predict(sizes), typical().predict(float(sizes[-1]))):
    assert all(np.isfinite(band).all() for band in bands)
  # Sizes are answered each by itself, in their order.
  some = sizes[[150, 3, 77]]
  together = typical().predict(sizes).value[[150, 3, 77]]
  assert typical().predict(some).value == pytest.approx(together, rel=1e-9)
  assert np.array_equal(typical().curve(some), typical().predict(some).value)


@pytest.mark.parametrize('size', [0, -5, np.nan, np.inf])
def test_impossible_sizes_are_refused(size):
  with pytest.raises(ValueError, match='finite and positive'):
    typical().predict([100, size])


def test_the_gain_of_a_doubling_is_the_step_of_the_curve():
  found = typical()
  for size in (200.0, 6400.0, 25_600.0):
    value, lo, hi = found.gain_per_doubling(size)
    here, there = found.curve([size, 2 * size])
    # The median of differences is not quite the difference of medians.
    assert value == pytest.approx(there - here, rel=0.15)
    assert lo < value < hi
  truth = np.diff(bending([6400, 12_800]))[0]
  _, lo, hi = found.gain_per_doubling(6400)
  assert lo < truth < hi


def test_the_gain_is_positive_where_it_gets_better():
  loss = fitted(SIZES, 2 + 20 * SIZES**-0.5, kind='loss', laws=FEW)
  assert loss.gain_per_doubling(6400)[0] > 0
  worse = fitted(SIZES, 0.9 - 0.1 * np.log10(SIZES), laws=('log_linear',))
  assert worse.gain_per_doubling(6400)[0] == pytest.approx(-0.1 * np.log10(2), rel=0.01)


def test_images_for_a_reachable_target():
  sizes = np.repeat(SIZES, 3)
  found = fitted(sizes, 1 - noisy(1 - bending(sizes), 0.01, 0))
  answer = found.images_for(0.88)
  truth = 10_000  # (2 / 0.02)^2, beyond the largest size
  assert answer.lo < truth < answer.hi
  assert answer.lo < answer.size < answer.hi < 10 * truth
  assert answer.probability > 0.9
  assert answer.words.startswith('accuracy 88.0% needs ')
  # The curve itself gets there at that size.
  assert found.curve(answer.size) == pytest.approx(0.88, abs=1e-3)


def test_images_for_an_unreachable_target():
  answer = typical().images_for(0.99)
  assert np.isinf([answer.size, answer.lo, answer.hi]).all()
  assert answer.probability < 0.05
  assert 'not reachable' in answer.words
  assert answer.limit_lo < answer.limit < answer.limit_hi < 0.99
  assert answer.limit_lo < 0.9 < answer.limit_hi


def test_images_for_a_target_already_met():
  answer = typical().images_for(0.3)
  assert (answer.size, answer.lo, answer.hi) == (50, 50, 50)
  assert answer.probability == 1
  between = typical().images_for(float(bending(400)))
  assert 200 < between.lo < 400 < between.hi < 800


def test_images_for_a_loss():
  found = fitted(SIZES, 2 + 20 * SIZES**-0.5, kind='loss')
  assert found.images_for(2.2).size == pytest.approx(1e4, rel=0.1)
  assert 'not reachable' in found.images_for(0.5).words


@pytest.mark.parametrize('target', [90, -0.1, np.nan, np.inf])
def test_a_target_that_is_no_accuracy(target):
  with pytest.raises(ValueError, match=r'target=.* is no accuracy'):
    typical().images_for(target)
  if not np.isfinite(target):
    loss = fitted(SIZES, 2 + 20 * SIZES**-0.5, kind='loss', laws=FEW)
    with pytest.raises(ValueError, match='is no loss'):
      loss.images_for(target)


def test_the_curve_is_drawn_from_where_it_follows_the_data():
  rng = np.random.default_rng(3)
  sizes = np.repeat(np.geomspace(100, 51200, 10), 3)
  law = 0.08 + 5.0 * sizes**-0.45
  whole = fit(sizes, law * (1 + 0.01 * rng.standard_normal(30)), kind='error')
  assert isinstance(whole, Fit)
  assert whole.follows == 100
  # Too few updates at the two smallest sizes to leave chance.
  stuck = np.where(sizes < 300, 0.9, law)
  late = fit(sizes, stuck * (1 + 0.01 * rng.standard_normal(30)), kind='error')
  assert isinstance(late, Fit)
  assert late.follows > 200
