"""Differences between arms: that their intervals cover, and what they refuse."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis.claims import above, on_par, straight, verdict_blocks
from analysis.contrasts import (
  Bend,
  Estimate,
  bend,
  differences,
  last_gain,
  longest_best,
  means,
  overall,
  together,
  trend,
  whole_gain,
  with_arms,
)
from analysis.document import to_text

SIZES = (100, 200, 400, 800, 1600)


def study(rng, curve, *, gap=0.0, seeds=3, noise=0.01, subset=0.02):
  """Two arms on shared subsets, `gap` apart; subsets differ more than runs do."""
  rows = []
  for size in SIZES:
    for seed in range(seeds):
      shared = curve(size) + subset * rng.normal()
      for arm in ('a', 'b'):
        value = shared + gap * (arm == 'b') + noise * rng.normal()
        rows.append({'arm': arm, 'num_images': size, 'seed': seed, 'value': value})
  return pd.DataFrame(rows).assign(metric='test/top1', steps=10)


def line(size):
  return 0.2 + 0.1 * math.log2(size / 100)


def share_that_covers(estimate, truth, repeats=200):
  rng = np.random.default_rng(0)
  hits = [(found := estimate(rng)).lo <= truth <= found.hi for _ in range(repeats)]
  return sum(hits) / repeats


def widening(rng, seeds=3):
  """A study whose arms come apart by 0.02 with each doubling."""
  table = study(rng, line, seeds=seeds)
  apart = 0.02 * np.log2(table['num_images'] / 100) * (table['arm'] == 'b')
  return table.assign(value=table['value'] + apart)


def change(table):
  return trend(differences(table, {'arm': 'b'}, {'arm': 'a'}, ['num_images']))


def test_a_trend_needs_two_sizes_and_repeats():
  rng = np.random.default_rng(0)
  assert change(widening(rng).query('num_images == 100')) is None
  alone = change(widening(rng, seeds=1))
  assert math.isinf(alone.hi)
  assert alone.value == pytest.approx(0.02, abs=0.02)


def test_a_trend_without_noise_is_exact():
  table = widening(np.random.default_rng(0))
  table['value'] = 0.02 * np.log2(table['num_images']) * (table['arm'] == 'b')
  uneven = table.query('seed < 2 or num_images < 500')
  found = change(uneven)
  assert found.value == pytest.approx(0.02, rel=1e-9)
  assert found.hi - found.lo < 1e-9
  assert found.num == 13


@pytest.mark.parametrize(
  ('estimate', 'truth'),
  [
    (lambda rng: change(widening(rng)), 0.02),
    (
      lambda rng: differences(
        study(rng, line, gap=0.03), {'arm': 'b'}, {'arm': 'a'}, ['num_images']
      )[(400,)],
      0.03,
    ),
    (
      lambda rng: overall(
        study(rng, line, gap=0.03), {'arm': 'b'}, {'arm': 'a'}, ['num_images']
      ),
      0.03,
    ),
    (lambda rng: last_gain(study(rng, line).query('arm == "a"')), 0.1),
    (lambda rng: whole_gain(study(rng, line).query('arm == "a"')), 0.4),
    (lambda rng: bend(study(rng, line).query('arm == "a"')).middle, 0.0),
    (lambda rng: means(study(rng, line), ['num_images', 'arm'])[(200, 'b')], 0.3),
  ],
)
def test_intervals_cover_as_often_as_they_say(estimate, truth):
  # 200 draws of a share of 0.9 lie within 0.05 of it with probability 0.98.
  assert share_that_covers(estimate, truth) == pytest.approx(0.9, abs=0.06)


def test_pairs_are_narrower_than_their_subsets_differ():
  rng = np.random.default_rng(1)
  table = study(rng, line, subset=0.2, noise=0.001)
  found = differences(table, {'arm': 'b'}, {'arm': 'a'}, ['num_images'])[(400,)]
  assert found.hi - found.lo < 0.02
  assert found.num == 3


def test_only_settings_that_both_have_are_compared():
  table = study(np.random.default_rng(0), line)
  table = table[~((table['arm'] == 'b') & (table['num_images'] > 400))]
  found = differences(table, {'arm': 'b'}, {'arm': 'a'}, ['num_images'])
  assert list(found) == [(100,), (200,), (400,)]
  nothing = overall(table, {'arm': 'b'}, {'arm': 'c'}, ['num_images'])
  assert (nothing.num, nothing.hi) == (0, math.inf)


def test_without_repeats_there_is_no_interval():
  table = study(np.random.default_rng(0), line, seeds=1)
  one = table.query('arm == "a" and num_images < 300')
  assert math.isinf(means(one, ['num_images'])[(100,)].hi)
  assert above('c', '', whole_gain(one), what='gain').answer == 'cannot say'


def test_a_parabola_is_seen_to_bend():
  rng = np.random.default_rng(2)

  def curve(size):
    x = math.log2(size / 100) / 4
    return 0.2 + 0.4 * x + 0.4 * x * (1 - x)

  found = bend(study(rng, curve, subset=0.0).query('arm == "a"'))
  assert found.middle.value == pytest.approx(0.1, abs=0.02)
  assert found.gain.value == pytest.approx(0.4, abs=0.03)
  assert straight('c', '', found).answer == 'does not hold'
  level = bend(study(rng, line, subset=0.0, noise=0.002).query('arm == "a"'))
  assert straight('c', '', level).answer == 'holds'
  assert bend(study(rng, line).query('num_images < 500')) is None


def test_best_length_of_each_size():
  table = pd.DataFrame(
    {
      'num_images': [100, 100, 100, 100, 200, 200],
      'steps': [5, 5, 9, 9, 5, 9],
      'value': [0.1, 0.3, 0.25, 0.2, 0.5, 0.4],
      'seed': [0, 1, 0, 1, 0, 0],
    }
  )
  assert set(
    zip(*(longest_best(table)[c] for c in ('num_images', 'steps')), strict=True)
  ) == {
    (100, 9),
    (200, 5),
  }


def test_arms_are_named_and_the_rest_left_out():
  table = study(np.random.default_rng(0), line)
  more = together(table, table.assign(metric='test/loss'))
  found = with_arms(more, 'test/top1', lambda row: 'x' if row['seed'] else None)
  assert len(found) == 20
  assert set(found['arm']) == {'x'}


GOOD, BAD, WIDE = (
  Estimate(0.05, 0.02, 0.08, 3),
  Estimate(-0.05, -0.08, -0.02, 3),
  Estimate(0.05, -0.02, 0.12, 3),
)
NONE = Estimate(0.05, -math.inf, math.inf, 1)


@pytest.mark.parametrize(
  ('found', 'answer'),
  [
    (GOOD, 'holds'),
    (BAD, 'does not hold'),
    (WIDE, 'cannot say'),
    (NONE, 'cannot say'),
    (None, 'cannot say'),
  ],
)
def test_verdict_that_a_difference_is_above_zero(found, answer):
  assert above('c', '', found, what='x').answer == answer


@pytest.mark.parametrize(
  ('found', 'answer'),
  [
    (Estimate(0.001, -0.004, 0.006, 3), 'holds'),
    (GOOD, 'does not hold'),
    (BAD, 'does not hold'),
    (WIDE, 'cannot say'),
    (NONE, 'cannot say'),
    (None, 'cannot say'),
  ],
)
def test_verdict_that_two_are_on_par(found, answer):
  assert on_par('c', '', found, what='x', margin=0.01).answer == answer


@pytest.mark.parametrize(
  ('found', 'because'),
  [
    (None, 'fewer than four sizes'),
    (Bend(GOOD, NONE), 'no run was repeated'),
    (Bend(WIDE, Estimate(0.0, -0.001, 0.001, 9)), 'no gain'),
    (Bend(GOOD, Estimate(0.001, -0.02, 0.02, 9)), 'more seeds'),
  ],
)
def test_when_a_line_cannot_be_told(found, because):
  verdict = straight('c', '', found)
  assert verdict.answer == 'cannot say'
  assert because in verdict.because


def test_terminal_says_each_claim_in_full():
  claim = (
    'A claim that is so long that no table of a terminal would ever show all of it'
  )
  text = to_text('t', verdict_blocks([above(claim, '1.9 [T]', GOOD, what='gain')]))
  assert claim in text
  assert 'HOLDS' in text
  assert '+5.00 points (+2.00 to +8.00)' in text
