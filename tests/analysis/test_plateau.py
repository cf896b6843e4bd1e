"""Floors, their tests and the verdict: levels and coverage by simulation."""

import numpy as np
import pytest
from curves import points_of

from analysis.fit import Fit, fit
from analysis.plateau import (
  LAW,
  Plateau,
  floor_interval,
  floor_test,
  plateau,
  trend_test,
)
from analysis.prediction import Refusal

RUNS = 80


def simulate(
  rng: np.random.Generator, floor: float, amplitude: float, c: float, num_sizes: int = 8,
  seeds: int = 1, relative: float = 0.02,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
  """Errors floor + amplitude (n / 100)^-c from 100 to 10,000 images."""
  sizes = np.repeat(np.geomspace(100, 10_000, num_sizes).round(), seeds)
  curve = floor + amplitude * (sizes / 100) ** -c
  return sizes, curve * (1 + relative * rng.standard_normal(len(sizes)))


def answered(*data: np.ndarray, threshold: float | None = None, **options) -> Plateau:
  found = fit(*data, **({'kind': 'error', 'laws': (LAW,)} | options))
  assert isinstance(found, Fit)
  answer = plateau(found, threshold)
  assert isinstance(answer, Plateau)
  return answer


@pytest.mark.parametrize('num_sizes', [8, 12])
def test_floor_test_holds_its_level(num_sizes):
  rng = np.random.default_rng(num_sizes)
  cs = (0.25, 0.5) * (RUNS // 2)
  p = np.array(
    [floor_test(points_of(*simulate(rng, 0, 0.8, c, num_sizes))) for c in cs]
  )
  # Nominal 5%; 3 binomial standard errors at 80 runs are 7 points. Half of the
  # likelihood ratios are 0 under the null.
  assert (p < 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / RUNS)
  assert abs((p == 1).mean() - 0.5) <= 3 * np.sqrt(0.25 / RUNS)
  # A test that never rejects would pass the first line: 20% is nominal for 0.2.
  assert (p < 0.2).mean() >= 0.2 - 3 * np.sqrt(0.2 * 0.8 / RUNS)


def test_floor_test_finds_floors_and_the_more_the_steeper_the_curve():
  rng = np.random.default_rng(0)
  power = {
    c: np.mean(
      [floor_test(points_of(*simulate(rng, 0.08, 0.5, c))) < 0.05 for _ in range(40)]
    )
    for c in (0.25, 0.6)
  }
  assert power[0.6] >= 0.95
  assert 0.05 < power[0.25] < power[0.6]


@pytest.mark.parametrize(('num_sizes', 'seeds'), [(8, 1), (12, 2)])
def test_floor_interval_covers(num_sizes, seeds):
  rng = np.random.default_rng(1)
  inside = []
  for c in (0.3, 0.5) * (RUNS // 2):
    points = points_of(*simulate(rng, 0.08, 0.5, c, num_sizes, seeds))
    _, lo, hi = floor_interval(points)
    inside.append(lo <= 0.08 <= hi)
  # Nominal 90%, asked for 85 to 95%; 2 binomial standard errors are 5 points more. With
  # repeats the noise model never takes misfit below 0, which errs on the wide side.
  assert 0.80 <= np.mean(inside) <= (0.95 if seeds == 1 else 0.99) + 0.05


def test_trend_test_holds_its_level_and_sees_a_trend():
  rng = np.random.default_rng(2)
  null = [trend_test(points_of(*simulate(rng, 0.3, 0, 1))) < 0.05 for _ in range(RUNS)]
  assert np.mean(null) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / RUNS)
  trend = [
    trend_test(points_of(*simulate(rng, 0.2, 0.1, 0.5))) < 0.05 for _ in range(20)
  ]
  assert np.mean(trend) == 1


def test_a_steep_curve_is_still_rising():
  rng = np.random.default_rng(3)
  found = answered(*simulate(rng, 0.05, 0.8, 0.35, seeds=2))
  assert found.verdict == 'still rising'
  truth = 0.8 * 100**-0.35 * (1 - 2**-0.35)
  assert found.gain_lo <= truth <= found.gain_hi
  assert found.words.startswith('still rising: the next doubling from 10,000 images')
  assert found.p_trend < 1e-3


def test_a_curve_at_its_floor_is_flat():
  rng = np.random.default_rng(4)
  found = answered(
    *simulate(rng, 0.1, 0.6, 1.2, seeds=3, relative=0.01), threshold=0.005
  )
  assert found.verdict == 'flat'
  assert not found.upper_bound_only
  assert found.p_floor < 1e-3
  assert found.words.startswith('flat: ')


def test_the_verdict_waits_for_evidence():
  """The same curve: not significant is not flat."""
  rng = np.random.default_rng(5)
  found = answered(*simulate(rng, 0.2, 0.2, 0.2, num_sizes=5, relative=0.08))
  assert found.threshold == 0.005  # without repeats
  assert found.verdict == 'cannot say'
  assert answered(
    *simulate(rng, 0.2, 0.2, 0.2, num_sizes=5, relative=0.08), threshold=0.5
  ).verdict == 'flat'  # fmt: skip


def test_without_a_floor_the_interval_is_an_upper_bound():
  rng = np.random.default_rng(6)
  found = answered(*simulate(rng, 0, 0.8, 0.3))
  assert found.upper_bound_only
  assert found.floor_lo == 0
  assert found.p_floor > 0.05
  assert f'at most {100 * found.floor_hi:.1f}%' in found.words


def test_nothing_changes_is_said():
  rng = np.random.default_rng(7)
  found = answered(*simulate(rng, 0.3, 0, 1, seeds=2))
  assert found.p_trend > 0.05
  assert 'No trend' in found.words


def test_an_accuracy_says_what_its_error_says():
  sizes, errors = simulate(np.random.default_rng(8), 0.1, 0.6, 0.5, seeds=2)
  left = answered(sizes, errors)
  right = answered(sizes, 1 - errors, kind='accuracy')
  assert right.verdict == left.verdict
  # 1 - (1 - y) rounds: 1e-6 is far above that and far below any width.
  for name in (
    'floor',
    'floor_lo',
    'floor_hi',
    'p_floor',
    'gain',
    'gain_lo',
    'gain_hi',
  ):
    assert getattr(right, name) == pytest.approx(getattr(left, name), abs=1e-6)


def test_the_interval_is_that_of_the_fit():
  data = simulate(np.random.default_rng(9), 0.1, 0.6, 0.5, seeds=2)
  found = fit(*data, kind='error', laws=(LAW,))
  assert isinstance(found, Fit)
  answer = plateau(found)
  assert isinstance(answer, Plateau)
  ends = found.laws[LAW].intervals['e']  # type: ignore[union-attr]
  assert (answer.floor_lo, answer.floor_hi) == pytest.approx(ends, abs=1e-6)
  noise_sd = np.sqrt(found.evidence.v0 + found.evidence.v1 / data[0][-1])
  assert answer.threshold == pytest.approx(noise_sd)


def test_a_loss_has_no_points():
  sizes, errors = simulate(np.random.default_rng(10), 0.4, 0.6, 0.5)
  found = answered(sizes, 5 * errors, kind='loss')
  assert 'points' not in found.words
  assert '%' not in found.words
  assert found.threshold > 0


def test_refusals_and_errors():
  data = simulate(np.random.default_rng(11), 0.1, 0.6, 0.5)
  other = fit(*data, kind='error', laws=('power',))
  assert isinstance(other, Fit)
  assert plateau(other) == Refusal(LAW, f'the fit was told to leave out {LAW}')
  found = fit(*data, kind='error', laws=(LAW,))
  assert isinstance(found, Fit)
  with pytest.raises(ValueError, match='threshold=0'):
    plateau(found, 0.0)
