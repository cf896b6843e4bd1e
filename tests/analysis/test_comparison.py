"""Two curves compared: who wins, from where on, and how surely."""

import numpy as np
import pytest
from curves import FEW, SIZES, bending, fitted, noisy, typical


def test_the_better_curve_wins():
  better = fitted(SIZES, 1 - noisy(0.97 - bending(), 0.01, 5), rng=1)
  found = better.compare(typical())
  assert (found.probability > 0.95).all()
  assert found.crossing == found.sizes[0]
  assert (found.lo > 0).all()
  assert found.words.startswith('better from the smallest size on')
  reverse = typical().compare(better)
  assert (reverse.probability < 0.05).all()
  assert np.isinf(reverse.crossing)
  assert 'no size up to' in reverse.words


def test_crossing_curves_cross_near_the_truth():
  """0.05 + 4 / sqrt(n) is below 0.1 + 2 / sqrt(n) from 1600 images on."""
  steeper = fitted(SIZES, 1 - noisy(0.05 + 4 * SIZES**-0.5, 0.01, 6), rng=1)
  found = steeper.compare(typical())
  assert found.crossing_lo < 1600 < found.crossing_hi
  assert found.crossing == pytest.approx(1600, rel=0.25)
  assert found.probability[0] < 0.05
  assert found.probability[-1] > 0.95
  asked = steeper.compare(typical(), [100, 20_000])
  assert np.array_equal(asked.sizes, [100, 20_000])
  truth = 0.05 - 2 * np.array([100, 20_000]) ** -0.5
  assert (asked.lo < truth).all()
  assert (truth < asked.hi).all()


def test_a_curve_does_not_beat_itself():
  found = typical().compare(typical())
  # Half, to within the shape of the draws and the weight of ties.
  assert np.median(found.probability) == pytest.approx(0.5, abs=0.05)
  assert ((found.lo <= 0) & (found.hi >= 0)).all()


def test_only_the_same_kind_compares():
  loss = fitted(SIZES, 2 + 20 * SIZES**-0.5, kind='loss', laws=FEW)
  with pytest.raises(ValueError, match='accuracy with one of loss'):
    typical().compare(loss)
