"""The fitter of surfaces: recovery, intervals that cover, flags, refusals."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surfaces import (
  IMAGES,
  PARAMS,
  ROSENFELD,
  TRUTH,
  VISION,
  additive,
  fitted,
  noisy,
  rosenfeld,
)

from analysis.allocation import optimal_allocation
from analysis.prediction import Refusal
from analysis.surface import fit_surface
from analysis.surface_laws import SURFACE_LAWS

# The optimum


@settings(max_examples=25)
@given(
  floor=st.floats(0, 2),
  model=st.floats(0.2, 2),
  data=st.floats(0.2, 2),
  alpha=st.floats(0.15, 1.2),
  beta=st.floats(0.15, 1.2),
  loss=st.sampled_from(['huber', 'squares']),
  residual=st.sampled_from(['log', 'value']),
)
def test_recovers_a_noiseless_additive_law(
  floor, model, data, alpha, beta, loss, residual
):
  truth = {
    'E': floor,
    'A': model * 1e9**alpha,
    'B': data * 1.7e10**beta,
    'alpha': alpha,
    'beta': beta,
  }
  values = additive(IMAGES, PARAMS, truth)
  found = fitted(
    IMAGES, PARAMS, values, draws=20, num_starts=8, loss=loss, residual=residual
  )
  assert found.params['alpha'] == pytest.approx(alpha, abs=1e-5)
  assert found.params['beta'] == pytest.approx(beta, abs=1e-5)
  assert found.params['E'] == pytest.approx(floor, abs=1e-5)
  assert found.params['A'] == pytest.approx(truth['A'], rel=1e-3)
  assert found.params['B'] == pytest.approx(truth['B'], rel=1e-3)


@pytest.mark.parametrize('loss', ['huber', 'squares'])
@pytest.mark.parametrize('chance', [None, 0.9])
def test_recovers_a_noiseless_rosenfeld_law(loss, chance):
  errors = rosenfeld(*VISION)
  found = fitted(
    *VISION, errors, law='rosenfeld', kind='error', loss=loss, chance=chance, draws=20
  )
  # As far as rounding of the errors goes on this grid.
  assert found.params == pytest.approx(ROSENFELD, rel=1e-8)
  np.testing.assert_allclose(found.curve(*VISION), errors, rtol=1e-10)
  if chance:
    assert found.intervals['e_0'] == (0.9, 0.9)
    assert found.standard_errors['e_0'] == 0
    assert (found.correlation[-1] == 0).all()


def test_the_unit_of_the_values_does_not_matter():
  values = noisy(additive(IMAGES, PARAMS), 0.01, 0)
  first = fitted(IMAGES, PARAMS, values, residual='value', delta=0.01)
  second = fitted(IMAGES, PARAMS, 1e6 * values, residual='value', delta=1e4)
  for name in ('alpha', 'beta'):
    assert second.params[name] == pytest.approx(first.params[name], rel=1e-9)
    assert second.intervals[name] == pytest.approx(first.intervals[name], rel=1e-6)
  assert second.params['A'] == pytest.approx(1e6 * first.params['A'], rel=1e-7)
  assert second.objective == pytest.approx(1e12 * first.objective, rel=1e-9)
  # Draws follow from the seed alone.
  again = fitted(IMAGES, PARAMS, values, residual='value', delta=0.01)
  assert (again.draws == first.draws).all()
  other = fitted(IMAGES, PARAMS, values, residual='value', delta=0.01, rng=1)
  assert other.params == pytest.approx(first.params, rel=1e-9)
  assert not (other.draws == first.draws).all()


def test_evidence_of_the_optimum_comes_with_the_fit():
  found = fitted(IMAGES, PARAMS, noisy(additive(IMAGES, PARAMS), 0.01, 1))
  starts = found.starts
  assert starts.tried == len(starts.objectives) == 32
  assert starts.agree == 32
  assert starts.gradient <= 1e-10 * starts.gradient_scale
  assert found.flags == ()
  assert found.covariance.shape == (5, 5)
  np.testing.assert_allclose(np.diag(found.correlation), 1)
  assert found.window_images == (IMAGES[0], IMAGES[-1])
  assert found.window_params == (PARAMS[0], PARAMS[-1])
  assert (found.num_points, found.dof) == (36, 31)


# Flags, refusals, errors


def test_a_floor_at_zero_is_flagged():
  truth = {**TRUTH, 'E': 0.0}
  values = np.maximum(additive(IMAGES, PARAMS, truth) - 0.02, 1e-3)
  found = fitted(IMAGES, PARAMS, values)
  assert 'parameter at bound: E' in found.flags
  assert found.params['E'] == found.intervals['E'][0] == 0
  assert found.intervals['E'][1] >= 0


def test_a_model_size_that_does_not_help_is_flagged():
  values = 1.8 + 2100 * IMAGES**-0.37 + 0.02 * np.log10(PARAMS)
  found = fitted(IMAGES, PARAMS, values)
  assert 'parameter at bound: A' in found.flags
  assert 'exponent unidentified: alpha' in found.flags
  assert found.params['A'] == 0


def test_sizes_that_move_together_are_flagged():
  images = np.geomspace(1e9, 1e12, 20)
  values = noisy(additive(images, images / 20), 0.005, 0)
  assert 'ill-conditioned' in fitted(images, images / 20, values).flags


def test_short_axes_are_flagged():
  narrow = PARAMS ** (1 / 3)
  found = fitted(IMAGES, narrow, noisy(additive(IMAGES, narrow), 0.005, 0))
  assert 'unidentified: model sizes span less than a decade' in found.flags


def test_an_unseen_chance_level_is_flagged():
  images, params = VISION[0] * 1e4, VISION[1] * 1e2
  errors = noisy(rosenfeld(images, params), 0.02, 0)
  found = fitted(images, params, errors, law='rosenfeld', kind='error')
  assert any('e_0' in flag or 'guessing' in flag for flag in found.flags)


@pytest.mark.parametrize(
  ('keep', 'reason'),
  [
    (np.arange(6), '1 distinct model sizes; .* at least 3'),
    (np.arange(36) % 6 < 2, '2 distinct data sizes; .* at least 3'),
    ([0, 7, 14, 21, 28], '5 distinct points; .* 5 parameters need at least 6'),
    ([], '0 distinct data sizes'),
  ],
)
def test_refuses_what_the_runs_cannot_carry(keep, reason):
  values = additive(IMAGES, PARAMS)
  found = fit_surface(IMAGES[keep], PARAMS[keep], values[keep])
  assert isinstance(found, Refusal)
  assert found.law == 'additive'
  assert re.search(reason, found.reason)


def test_refuses_values_that_carry_nothing():
  flat = fit_surface(IMAGES, PARAMS, np.full(36, 2.0))
  assert isinstance(flat, Refusal)
  assert 'all 36 values are equal' in flat.reason
  guesses = fit_surface(
    IMAGES,
    PARAMS,
    np.linspace(0.05, 0.11, 36),
    law='rosenfeld',
    kind='accuracy',
    chance=0.1,
  )
  assert isinstance(guesses, Refusal)
  assert 'no better than chance' in guesses.reason


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'law': 'chinchilla'}, "law='chinchilla' is not one of additive, rosenfeld"),
    ({'kind': 'score'}, "kind='score' is not one of"),
    ({'residual': 'ratio'}, "residual='ratio' is not one of log, value"),
    ({'loss': 'mean'}, "loss='mean' is not one of huber, squares"),
    ({'num_images': IMAGES[:5]}, 'three equally long lists'),
    ({'num_images': -IMAGES}, r'num_images\[0\]=-1e\+09 must be finite and positive'),
    ({'num_params': 0 * PARAMS}, r'num_params\[0\]=0 must be finite and positive'),
    ({'num_params': PARAMS * np.nan}, r'num_params\[0\]=nan must be finite'),
    ({'values': np.full(36, np.nan)}, r'values\[0\]=nan must be finite; leave out'),
    ({'values': np.arange(36.0)}, r"values\[0\]=0 must be a positive loss.*'value'"),
    ({'values': np.arange(36.0) - 9}, r'values\[0\]=-9 must be a positive loss.*back'),
    ({'values': np.arange(36.0), 'kind': 'error'}, 'divide a percentage by 100'),
    ({'values': np.ones(36), 'kind': 'accuracy'}, 'positive accuracy, below 1'),
    ({'delta': 0.0}, "delta=0.0 must be positive; use loss='squares'"),
    ({'chance': 0.1}, "chance=0.1 has no place in law='additive'"),
    ({'chance': -1, 'law': 'rosenfeld'}, 'chance=-1 must be a possible loss'),
    ({'draws': 3}, 'draws=3 must be at least 20'),
    ({'level': 90}, 'level=90 in'),
    ({'num_starts': 1}, 'num_starts=1 must be at least 2'),
  ],
)
def test_unusable_input_is_named_with_a_way_out(changes, message):
  usable = {
    'num_images': IMAGES,
    'num_params': PARAMS,
    'values': additive(IMAGES, PARAMS),
  }
  with pytest.raises(ValueError, match=message):
    fit_surface(**{**usable, **changes})


# What a fit says


def test_bands_nest_and_keep_to_fractions():
  errors = np.minimum(noisy(rosenfeld(*VISION), 0.05, 0), 0.95)
  options = {'law': 'rosenfeld', 'loss': 'squares', 'draws': 100}
  found = fitted(*VISION, errors, kind='error', chance=0.9, **options)
  images = np.geomspace(10, 1e9, 20)
  bands = found.predict(images, 1e6)
  assert (bands.lo <= bands.curve_lo).all()
  assert (bands.curve_lo <= bands.value).all()
  assert (bands.value <= bands.curve_hi).all()
  assert (bands.curve_hi <= bands.hi).all()
  assert (bands.lo >= 0).all()
  assert (bands.hi <= 1).all()
  np.testing.assert_array_equal(bands.value, found.curve(images, 1e6))
  # An accuracy is the same fit seen from the other side.
  turned = fitted(*VISION, 1 - errors, kind='accuracy', chance=0.1, **options)
  accuracy = turned.predict(images, 1e6)
  for mine, theirs in (
    ('value', 'value'),
    ('curve_lo', 'curve_hi'),
    ('curve_hi', 'curve_lo'),
    ('lo', 'hi'),
    ('hi', 'lo'),
  ):
    # 1 - (1 - error) rounds errors of 0.1 at 1e-16; the fit amplifies that.
    np.testing.assert_allclose(
      getattr(accuracy, mine), 1 - getattr(bands, theirs), atol=1e-8
    )
  with pytest.raises(ValueError, match='num_params must be finite positive'):
    found.predict(100.0, 0.0)


def coverage(loss, repeats, draws):
  """Share of simulated sweeps whose intervals hold the truth, by quantity."""
  mean = additive(IMAGES, PARAMS)
  far_images, far_params = 1e12, 5e10
  far = additive(far_images, far_params)
  hits = dict.fromkeys([*TRUTH, 'curve', 'run', 'num_params'], 0)
  exact = SURFACE_LAWS['additive']
  budget = 6 * far_images * far_params
  ratio = TRUTH['alpha'] * TRUTH['A'] / (TRUTH['beta'] * TRUTH['B'])
  total = TRUTH['alpha'] + TRUTH['beta']
  best = ratio ** (1 / total) * (budget / 6) ** (TRUTH['beta'] / total)
  rng = np.random.default_rng(5)
  for repeat in range(repeats):
    found = fitted(
      IMAGES,
      PARAMS,
      noisy(mean, 0.005, repeat),
      loss=loss,
      draws=draws,
      num_starts=2,
      rng=repeat,
    )
    for name in exact.names:
      lo, hi = found.intervals[name]
      hits[name] += lo <= TRUTH[name] <= hi
    bands = found.predict(far_images, far_params)
    run = far * np.exp(0.005 * rng.standard_normal())
    hits['curve'] += bands.curve_lo[0] <= far <= bands.curve_hi[0]
    hits['run'] += bands.lo[0] <= run <= bands.hi[0]
    lo, hi = optimal_allocation(found, budget).intervals['num_params']
    hits['num_params'] += lo <= best <= hi
  return {name: hit / repeats for name, hit in hits.items()}


def test_intervals_cover_roughly():
  shares = coverage('squares', repeats=60, draws=100)
  # Four standard deviations of 60 intervals below the nominal 90%.
  assert min(shares.values()) >= 0.75, shares


@pytest.mark.soak
@pytest.mark.parametrize(('loss', 'most'), [('squares', 0.95), ('huber', 0.97)])
def test_intervals_cover_at_their_level(loss, most):
  """Measured: 0.91 to 0.93 for squares, 0.92 to 0.96 for huber.

  With delta = 1e-3 that is a median regression, whose bootstrap scatters more than it
  does itself where the points are few.
  """
  shares = coverage(loss, repeats=400, draws=200)
  # One standard deviation of 400 intervals at 0.9 is 0.015.
  assert min(shares.values()) >= 0.87, shares
  assert max(shares.values()) <= most, shares
