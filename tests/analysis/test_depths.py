"""Curves of several depths together: pooling by simulation, and who beats whom."""

import numpy as np
import pytest
from curves import points_of

from analysis.depths import Together, crossings, exponents, floors, together
from analysis.fit import Fit, fit
from analysis.plateau import LAW, Scaled
from analysis.prediction import Refusal

RUNS = 40
FLOORS = (0.12, 0.09, 0.06)


def simulate(
  rng: np.random.Generator, floor: float, c: float, num_sizes: int = 8, seeds: int = 1,
  relative: float = 0.02,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
  """Errors floor + 0.5 (n / 100)^-c from 100 to 10,000 images."""
  sizes = np.repeat(np.geomspace(100, 10_000, num_sizes).round(), seeds)
  curve = floor + 0.5 * (sizes / 100) ** -c
  return sizes, curve * (1 + relative * rng.standard_normal(len(sizes)))


def family(rng: np.random.Generator, cs, **options) -> list[Scaled]:
  pairs = zip(FLOORS, cs, strict=True)
  return [points_of(*simulate(rng, floor, c, **options)) for floor, c in pairs]


def fitted(rng: np.random.Generator, floor: float, c: float, **options) -> Fit:
  seed = int(rng.integers(1000))
  found = fit(*simulate(rng, floor, c, **options), kind='error', laws=(LAW,), rng=seed)
  assert isinstance(found, Fit)
  return found


def alone(curve: Scaled) -> tuple[float, float]:
  """Interval of the exponent of one curve, by brute force on a fine grid."""
  cs = np.geomspace(0.01, 3, 1000)
  squares = []
  for c in cs:
    design = np.stack([np.ones_like(curve.x), curve.x**-c], 1)
    root = np.sqrt(curve.weights)
    a, b = np.linalg.lstsq(design * root[:, None], curve.y * root, rcond=None)[0]
    if a < 0:
      design = design[:, 1:]
      a, b = (
        0.0,
        np.linalg.lstsq(design * root[:, None], curve.y * root, rcond=None)[0][0],
      )
    squares.append(curve.weights @ (curve.y - a - b * curve.x**-c) ** 2)
  inside = cs[np.array(squares) - curve.squares <= curve.limit]
  return float(inside[0]), float(inside[-1])


@pytest.fixture(scope='module')
def equal() -> list[tuple[list[Scaled], object]]:
  rng = np.random.default_rng(0)
  curves = [family(rng, (0.45, 0.45, 0.45)) for _ in range(RUNS)]
  return [(group, exponents(group, 0.9)) for group in curves]


def _coverage(draws: np.ndarray, truth) -> np.ndarray:
  lo, hi = np.quantile(draws, [0.05, 0.95], axis=0)
  return (lo <= truth) & (truth <= hi)


def test_a_shared_exponent_is_found_and_better_known(equal):
  shared = [found.shared for _, found in equal]
  # Nominal 90%; 3 binomial standard errors at 40 runs are 14 points.
  inside = np.mean([s.lo <= 0.45 <= s.hi for s in shared])
  assert 0.90 - 3 * np.sqrt(0.09 / RUNS) <= inside
  assert np.median([s.value for s in shared]) == pytest.approx(0.45, rel=0.03)
  width = np.mean([np.log(s.hi / s.lo) for s in shared[:5]])
  for index in range(3):
    ends = [alone(group[index]) for group, _ in equal[:5]]
    assert width < 0.8 * np.mean([np.log(hi / lo) for lo, hi in ends])


def test_the_equality_test_holds_its_level(equal):
  p = np.array([found.p_equal for _, found in equal])
  assert (p < 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / RUNS)
  # And is no dead test: half of the p-values lie below one half.
  assert abs((p < 0.5).mean() - 0.5) <= 3 * np.sqrt(0.25 / RUNS)


def test_the_equality_test_rejects_when_they_differ():
  rng = np.random.default_rng(1)
  p = [exponents(family(rng, (0.3, 0.5, 0.75)), 0.9).p_equal for _ in range(10)]
  assert np.mean(np.array(p) < 0.05) >= 0.9


def test_partial_pooling_covers_where_exponents_are_equal(equal):
  inside = [_coverage(found.each, 0.45) for _, found in equal]
  # Nominal 90%, asked for 85 to 95%; 120 dependent intervals add 3 points either way.
  assert 0.82 <= np.mean(inside) <= 0.98
  at_floor = []
  for group, found in equal:
    for index, curve in enumerate(group):
      floor, _ = floors(curve, found.each[:, index], np.random.default_rng(index))
      at_floor.append(_coverage(floor, FLOORS[index]))
  assert 0.82 <= np.mean(at_floor) <= 0.98


def test_partial_pooling_covers_where_exponents_differ():
  rng = np.random.default_rng(2)
  cs = np.array([0.35, 0.45, 0.6])
  inside = [_coverage(exponents(family(rng, cs), 0.9).each, cs) for _ in range(RUNS)]
  assert 0.82 <= np.mean(inside) <= 0.98


def test_partial_pooling_draws_towards_the_others_and_is_more_accurate(equal):
  raw = np.array([[curve.best.shape[0, 0] for curve in group] for group, _ in equal])
  pooled = np.array([np.median(found.each, axis=0) for _, found in equal])
  spread = np.log(pooled).std(axis=1) / np.log(raw).std(axis=1)
  assert np.median(spread) < 0.9
  assert np.abs(np.log(pooled / 0.45)).mean() < 0.95 * np.abs(np.log(raw / 0.45)).mean()


def test_tau_grows_with_the_differences(equal):
  rng = np.random.default_rng(3)
  far = [np.median(exponents(family(rng, (0.3, 0.5, 0.75)), 0.9).tau) for _ in range(5)]
  near = [np.median(found.tau) for _, found in equal]
  assert np.median(far) > 2 * np.median(near)
  assert all((found.tau >= 0).all() for _, found in equal)


def test_a_poor_curve_borrows_and_a_rich_one_does_not():
  rng = np.random.default_rng(4)
  rich = [points_of(*simulate(rng, f, 0.5, 12, 4, 0.01)) for f in (0.1, 0.08)]
  poor = points_of(*simulate(rng, 0.09, 0.5, 6, 1, 0.05))
  found = exponents([*rich, poor], 0.9)
  lo, hi = alone(poor)
  own = np.quantile(found.each[:, 2], [0.05, 0.95])
  assert np.log(own[1] / own[0]) < 0.6 * np.log(hi / lo)
  lo, hi = alone(rich[0])
  own = np.quantile(found.each[:, 0], [0.05, 0.95])
  assert np.log(own[1] / own[0]) > 0.6 * np.log(hi / lo)


def test_noiseless_curves_return_their_exponents():
  rng = np.random.default_rng(5)
  cs = (0.3, 0.4, 0.5)
  fits = {
    depth: fitted(rng, floor, c, relative=0.0)
    for depth, floor, c in zip((18, 50, 101), FLOORS, cs, strict=True)
  }
  found = together(fits)
  assert isinstance(found, Together)
  for key, floor, c in zip(found.keys, FLOORS, cs, strict=True):
    pooled = found.pooled[key]
    # The weights allow for an error of 1e-9 of the data.
    assert pooled.exponent.value == pytest.approx(c, rel=1e-4)
    assert pooled.floor.value == pytest.approx(floor, abs=1e-4)
    assert pooled.amplitude.value == pytest.approx(0.5 * 100**c, rel=1e-3)
    gain = 0.5 * 100**-c * (1 - 2**-c)
    assert pooled.gain.value == pytest.approx(gain, rel=1e-3)
  assert found.p_equal < 1e-6


def test_together_reports_every_curve_and_the_contrast():
  rng = np.random.default_rng(6)
  cs = {101: (0.06, 0.6), 18: (0.12, 0.3), 50: (0.09, 0.45)}
  fits: dict = {key: fitted(rng, f, c, seeds=2) for key, (f, c) in cs.items()}
  fits[8] = Refusal('all', '3 distinct sizes')
  found = together(fits)
  assert isinstance(found, Together)
  assert found.keys == (18, 50, 101)
  assert list(found.refused) == [8]
  assert '8: 3 distinct sizes' in found.words
  assert found.p_equal < 0.05
  assert 'differ' in found.words
  for key, (floor, c) in cs.items():
    pooled = found.pooled[key]
    for estimate in (pooled.alone, pooled.exponent, pooled.floor, pooled.gain):
      assert estimate.lo <= estimate.value <= estimate.hi
    assert pooled.exponent.value == pytest.approx(c, rel=0.25)
    assert pooled.floor.value == pytest.approx(floor, abs=0.05)
    # From the fit itself, which polishes on another grid.
    ends = fits[key].laws[LAW].intervals['c']
    assert (pooled.alone.lo, pooled.alone.hi) == pytest.approx(ends, rel=1e-3)
  contrast = found.contrast
  assert (contrast.first, contrast.last, contrast.size) == (18, 101, 10_000)
  assert contrast.exponent.lo <= 0.3 <= contrast.exponent.hi
  shallow, deep = (0.5 * 100**-c * (1 - 2**-c) for c in (0.3, 0.6))
  # One draw of the noise may miss its 90% interval; coverage is measured elsewhere.
  width = contrast.gain.hi - contrast.gain.lo
  assert abs(contrast.gain.value - (deep - shallow)) < width
  assert contrast.gain.hi < 0
  assert '101 gains less than 18' in contrast.words


def test_an_accuracy_gives_what_its_error_gives():
  rng = np.random.default_rng(7)
  data = {key: simulate(rng, 0.1, 0.4) for key in ('a', 'b')}
  kinds = {}
  for kind in ('error', 'accuracy'):
    kinds[kind] = together(
      {
        key: fit(n, y if kind == 'error' else 1 - y, kind=kind, laws=(LAW,))
        for key, (n, y) in data.items()
      }
    )
  left, right = kinds['error'], kinds['accuracy']
  assert isinstance(left, Together)
  assert isinstance(right, Together)
  assert right.shared.value == pytest.approx(left.shared.value, rel=1e-6)
  gains = (right.contrast.gain.value, left.contrast.gain.value)
  # Both are medians of draws, which a rounding may move by one rank.
  assert gains[0] == pytest.approx(gains[1], abs=1e-4)


def test_one_curve_is_refused_and_the_others_named():
  rng = np.random.default_rng(8)
  found = together({50: fitted(rng, 0.1, 0.4), 101: Refusal('all', '2 sizes only')})
  assert isinstance(found, Refusal)
  assert '1 usable curve' in found.reason
  assert '101: 2 sizes only' in found.reason
  assert isinstance(together({}), Refusal)


def test_kinds_do_not_mix():
  rng = np.random.default_rng(9)
  sizes, errors = simulate(rng, 0.1, 0.4)
  accuracy = fit(sizes, 1 - errors, laws=(LAW,))
  with pytest.raises(ValueError, match='one kind'):
    together({1: accuracy, 2: fitted(rng, 0.1, 0.4)})


def test_crossings_name_the_better_curve():
  rng = np.random.default_rng(10)
  fits = {
    'small': fitted(rng, 0.15, 0.6, seeds=3, relative=0.01),
    'refused': Refusal('all', 'no runs'),
    'middle': fitted(rng, 0.1, 0.6, seeds=3, relative=0.01),
    'bad': fitted(rng, 0.3, 0.6, seeds=3, relative=0.01),
  }
  found = crossings(fits)
  pairs = [(crossing.better, crossing.worse) for crossing in found]
  assert pairs == [('middle', 'small'), ('middle', 'bad'), ('small', 'bad')]
  assert all(crossing.comparison.probability[-1] > 0.95 for crossing in found)
  assert found[0].words.startswith('middle beats small from ')
  assert crossings({'small': fits['small']}) == ()


def test_a_crossing_is_where_the_truth_crosses():
  rng = np.random.default_rng(11)
  sizes = np.repeat(np.geomspace(100, 10_000, 8).round(), 3)

  def curve(floor: float, amplitude: float, c: float, seed: int) -> Fit:
    error = floor + amplitude * (sizes / 100) ** -c
    error = error * (1 + 0.01 * rng.standard_normal(len(sizes)))
    found = fit(sizes, error, kind='error', laws=(LAW,), rng=seed)
    assert isinstance(found, Fit)
    return found

  # 0.2 + 0.3 (n/100)^-0.5 = 0.05 + 0.6 (n/100)^-0.5 at n = 400.
  (found,) = crossings({18: curve(0.2, 0.3, 0.5, 0), 50: curve(0.05, 0.6, 0.5, 1)})
  assert (found.better, found.worse) == (50, 18)
  comparison = found.comparison
  assert comparison.crossing == pytest.approx(400, rel=0.15)
  assert 'images on (' in found.words
