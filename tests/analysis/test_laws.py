"""The laws: what is written in their formulas is what their columns compute."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.laws import KINDS, LAWS

X = np.geomspace(0.02, 50, 12)
SCALES = (1e1, 1e3, 1e8)
CASES = [(name, None) for name in LAWS]
CASES += [(name, 0.9) for name, law in LAWS.items() if law.takes_chance]
each_case = pytest.mark.parametrize(('name', 'chance'), CASES)
each_law = pytest.mark.parametrize('name', LAWS)

NAMES = {
  'constant': ['a'],
  'log_linear': ['a', 'b'],
  'logit_linear': ['a', 'b'],
  'power': ['b', 'c'],
  'power_floor': ['e', 'b', 'c'],
  'shifted_power': ['b', 'g', 'c'],
  'saturating': ['e', 'e_0', 'a', 'b', 'c'],
  'double_saturation': ['c', 'a', 'd', 'b'],
  'exponential': ['e', 'b', 'k'],
  'stretched_exponential': ['e', 'b', 'k', 'd'],
  'break': ['e', 'b', 'c0', 'c1', 'd', 'f'],
}

# By name, as the formula in the report says it: the columns know nothing of this.
FORMULAS = {
  'constant': lambda n, a: a + 0 * n,
  'log_linear': lambda n, a, b: a + b * np.log10(n),
  'logit_linear': lambda n, a, b: 1 / (1 + np.exp(a + b * np.log10(n))),
  'power': lambda n, b, c: b * n**-c,
  'power_floor': lambda n, e, b, c: e + b * n**-c,
  'shifted_power': lambda n, b, g, c: b * (1 / n + g) ** c,
  'double_saturation': lambda n, c, a, d, b: c + a * (n + d) ** -b,
  'exponential': lambda n, e, b, k: e + b * np.exp(-k * n),
  'stretched_exponential': lambda n, e, b, k, d: e + b * np.exp(-((k * n) ** d)),
  'break': lambda n, e, b, c0, c1, d, f: (
    e + b * n**-c0 * (1 + (n / d) ** (1 / f)) ** (-(c1 - c0) * f)
  ),
}


@st.composite
def coefficients_and_shape(draw):
  """Two coefficients as of an error, and where each shape lies between its bounds."""
  first = draw(st.floats(0, 0.4))
  second = draw(st.floats(0.01, 0.5))
  places = draw(st.lists(st.floats(0, 1), min_size=4, max_size=4))
  return first, second, np.array(places)


def shape_at(law, places):
  low, high = law.bounds()
  return np.clip(low * (high / low) ** places[: len(low)], low, high)


def coefficients_of(law, first, second, chance):
  """Those a law does not use are 0; a known chance ties the second to the first."""
  if chance is not None:
    return first, chance - first
  if law.linear == 2:
    return first, second
  if law.name == 'constant':
    return first, 0.0
  return 0.0, second if law.linear else 0.0


@each_case
@settings(max_examples=30)
@given(drawn=coefficients_and_shape())
def test_slopes_are_the_derivatives_by_log_shape(name, chance, drawn):
  law = LAWS[name]
  shape = shape_at(law, drawn[2])
  slopes = law.slopes(X, shape, law.columns(X, shape, chance), chance)
  assert len(slopes) == law.grid.shape[1]
  for q, slope in enumerate(slopes):
    # Four points: the error of the stencil is h^4 f'''''/30, of rounding 1e-16 / h.
    h = 1e-3
    at = {}
    for steps in (-2, -1, 1, 2):
      moved = shape.copy()
      moved[q] *= np.exp(steps * h)
      at[steps] = law.columns(X, moved, chance)
    for part in range(3):
      numeric = 8 * (at[1][part] - at[-1][part]) - (at[2][part] - at[-2][part])
      size = max(np.abs(at[1][part]).max(), 1e-300)
      # 14 = 3 ln 110 is the steepest log-column, and 14^5 h^4 / 30 = 2e-8 of its size.
      np.testing.assert_allclose(slope[part], numeric / 12 / h, atol=1e-6 * size)


@each_case
@settings(max_examples=30)
@given(drawn=coefficients_and_shape())
def test_internal_inverts_natural(name, chance, drawn):
  law = LAWS[name]
  shape = shape_at(law, drawn[2])
  first, second = coefficients_of(law, drawn[0], drawn[1], chance)
  natural = law.natural(np.array(first), np.array(second), shape, 1.0)
  assert natural.shape == (len(law.parameters),)
  back = law.internal(natural)
  # e_0 - e loses digits, and exp(-a / c) and b^(1/c) turn lost digits into 1/c times
  # as many; c is 0.02 at least.
  np.testing.assert_allclose(back[0], first, rtol=1e-12, atol=1e-15)
  np.testing.assert_allclose(back[1], second, rtol=1e-11, atol=1e-15)
  np.testing.assert_allclose(back[2], shape, rtol=1e-9)
  # The other way round, through arrays of several parameters at once.
  both = np.stack([natural, natural])
  again = law.natural(*law.internal(both), 1.0)
  np.testing.assert_allclose(again, both, rtol=1e-9, atol=1e-12)


@each_case
@settings(max_examples=30)
@given(
  drawn=coefficients_and_shape(), scale=st.floats(1, 8).map(lambda power: 10.0**power)
)
def test_natural_units_give_the_curve_of_the_columns(name, chance, drawn, scale):
  law = LAWS[name]
  shape = shape_at(law, drawn[2])
  first, second = coefficients_of(law, drawn[0], drawn[1], chance)
  offset, f, s = law.columns(X, shape, chance)
  # The offset of a known chance already holds the share of the second coefficient.
  scaled = offset + first * f + second * s
  natural = law.natural(np.array(first), np.array(second), shape, scale)
  # An exponent of 3 over eight decades: 24 ln 10 = 55 times the rounding of a product,
  # and the level of the saturating law 1/c = 10 times that.
  np.testing.assert_allclose(
    law.curve(X * scale, natural, chance), scaled, rtol=1e-11, atol=1e-13
  )
  if chance is not None:  # without being told the parameters say it themselves
    np.testing.assert_allclose(
      law.curve(X * scale, natural), scaled, rtol=1e-11, atol=1e-13
    )


@each_law
def test_entry(name):
  law = LAWS[name]
  assert law.name == name
  assert [parameter.name for parameter in law.parameters] == NAMES[name]
  for text in (law.title, law.formula, law.domain, law.source):
    assert text.strip() == text != ''
  for parameter in law.parameters:
    assert parameter.unit
    assert parameter.meaning
    assert parameter.name in law.formula
  assert law.formula.startswith('score') != law.models_error
  assert set(law.kinds) <= set(KINDS)
  # One degree of freedom is left for an interval.
  assert law.min_sizes > len(law.parameters)
  assert law.linear + law.grid.shape[1] == len(law.parameters)


@each_law
def test_grid_and_bounds(name):
  law = LAWS[name]
  low, high = law.bounds()
  assert np.isfinite(law.grid).all()
  assert (law.grid > 0).all()  # the search is in logarithms
  assert (law.grid >= low).all()
  assert (law.grid <= high).all()
  assert (low < high).all()
  assert len(np.unique(law.grid, axis=0)) == len(law.grid)
  # Every combination of the ends is a cell, so that no corner goes unseen.
  dims = law.grid.shape[1]
  at_ends = ((law.grid == low) | (law.grid == high)).all(axis=1)
  assert at_ends.sum() == 2**dims


@each_case
def test_columns_broadcast_over_shapes(name, chance):
  law = LAWS[name]
  together = law.columns(X, law.grid, chance)
  for column in together:
    assert column.shape == (len(law.grid), len(X))
    assert np.isfinite(column).all()
  for index in (0, len(law.grid) // 2, -1):
    alone = law.columns(X, law.grid[index], chance)
    for many, one in zip(together, alone, strict=True):
      assert one.shape == (len(X),)
      # Vector instructions may round the last bit of exp and log otherwise; the
      # saturating law stops its iteration when all cells have converged.
      np.testing.assert_allclose(many[index], one, rtol=1e-11, atol=1e-13)


@each_case
@settings(max_examples=30)
@given(drawn=coefficients_and_shape())
def test_more_images_never_hurt_where_coefficients_are_bounded(name, chance, drawn):
  law = LAWS[name]
  if any(law.free):
    slope = law.curve(X, np.array([0.9, -0.1])[: len(law.parameters)])
    assert (np.diff(slope) <= 0).all()  # log-linear with b < 0, as of an error
    return
  first, second = coefficients_of(law, drawn[0], drawn[1], chance)
  offset, f, s = law.columns(X, shape_at(law, drawn[2]), chance)
  curve = offset + first * f + second * s
  # A flat stretch may go up by the rounding of its level.
  assert (np.diff(curve) <= 4e-16 * np.abs(curve[:-1])).all()
  assert (curve >= 0).all()


@pytest.mark.parametrize('name', FORMULAS)
@pytest.mark.parametrize('scale', SCALES)
@settings(max_examples=30)
@given(drawn=coefficients_and_shape())
def test_formula(name, scale, drawn):
  law = LAWS[name]
  shape = shape_at(law, drawn[2])
  first, second = coefficients_of(law, drawn[0], drawn[1], None)
  natural = law.natural(np.array(first), np.array(second), shape, scale)
  sizes = X * scale
  # (n / d)^(1 / f) of the formula is up to (50 / 0.15)^10 = 1e25, which a float holds.
  np.testing.assert_allclose(
    law.curve(sizes, natural), FORMULAS[name](sizes, *natural), rtol=1e-10, atol=1e-13
  )


def test_logit_linear_is_a_line_in_log_odds():
  sizes = np.geomspace(10, 1e5, 9)
  error = LAWS['logit_linear'].curve(sizes, np.array([-3.0, 1.25]))
  odds = np.log((1 - error) / error)
  np.testing.assert_allclose(odds, -3 + 1.25 * np.log10(sizes), rtol=1e-12)


@pytest.mark.parametrize('scale', SCALES)
@settings(max_examples=100)
@given(
  e=st.floats(0, 0.4),
  span=st.floats(0.05, 0.9),
  a=st.floats(0.4, 2),
  c=st.floats(0.1, 3),
  s=st.floats(1e-3, 30),
  known=st.booleans(),
)
def test_saturating_obeys_its_implicit_formula(scale, e, span, a, c, s, known):
  law = LAWS['saturating']
  shape = np.array([c, s, a])
  natural = law.natural(np.array(e), np.array(span), shape, scale)
  e, e_0, a, b, c = natural
  sizes = X * scale
  error = law.curve(sizes, natural, float(e_0) if known else None)
  assert (error >= e).all()
  assert (error <= e_0).all()
  # Near its ends the curve has too few digits left to take the difference of.
  clear = np.minimum(error - e, e_0 - error) > 1e-5 * span
  left = (error - e)[clear] / (e_0 - error)[clear] ** a
  np.testing.assert_allclose(left, b * sizes[clear] ** -c, rtol=1e-9)


def test_saturating_without_a_rise_is_flat_at_any_size():
  """A curve that does not fall has e_0 = e; its b is 0 and not infinite."""
  law = LAWS['saturating']
  shape = np.array([[3.0, 1.0, 2.0], [0.1, 30.0, 0.4], [1.0, 1.0, 1.0]])
  natural = law.natural(np.full(3, 0.3), np.zeros(3), shape, 1e8)
  assert np.isfinite(natural).all()
  assert (natural[:, 3] == 0).all()
  assert (law.curve(np.geomspace(1, 1e12, 30), natural) == 0.3).all()
  # A rise too small for the digits of e_0 is lost, without a trace in the curve.
  natural = law.natural(np.full(3, 0.3), np.full(3, 1e-18), shape, 1e8)
  np.testing.assert_allclose(
    law.curve(np.geomspace(1, 1e12, 30), natural), 0.3, rtol=1e-15
  )


def test_saturating_runs_from_chance_to_floor():
  law = LAWS['saturating']
  natural = law.natural(np.array(0.1), np.array(0.8), np.array([1.0, 1.0, 1.0]), 1e3)
  ends = law.curve(np.array([1e-12, 1e18]), natural, 0.9)
  np.testing.assert_allclose(ends, [0.9, 0.1], atol=1e-14)


@settings(max_examples=50)
@given(
  c0=st.floats(0.02, 1.5),
  c1=st.floats(0.02, 2.5),
  d=st.floats(10, 1e8),
  f=st.floats(0.1, 0.5),
)
def test_break_has_one_slope_on_each_side(c0, c1, d, f):
  law = LAWS['break']
  parameters = np.array([0.0, 0.3 * d**c0, c0, c1, d, f])
  # 40 widths off, e^-40 of the other slope is left.
  for side, expected in ((-1, c0), (1, c1)):
    sizes = d * np.exp(side * 40 * f + np.array([-0.1, 0.1]))
    log = np.log(law.curve(sizes, parameters))
    # Two logarithms of up to 70 over a difference of 0.2.
    assert -np.diff(log)[0] / 0.2 == pytest.approx(expected, abs=1e-12 * 100)
  at_break = np.log(law.curve(d * np.exp([-1e-4, 1e-4]), parameters))
  # Half way between the two at the break; the rest is the third derivative.
  assert -np.diff(at_break)[0] / 2e-4 == pytest.approx((c0 + c1) / 2, abs=1e-5)


def test_shifted_power_ends_at_its_floor():
  parameters = np.array([2.0, 1e-4, 0.5])
  end = LAWS['shifted_power'].curve(np.array([1e15]), parameters)
  assert end[0] == pytest.approx(2.0 * 1e-4**0.5, rel=1e-9)


def test_only_a_law_that_takes_it_sees_the_chance():
  sizes = np.geomspace(10, 1e4, 5)
  parameters = np.array([0.1, 2.0, 0.5])
  law = LAWS['power_floor']
  assert np.array_equal(law.curve(sizes, parameters, 0.9), law.curve(sizes, parameters))
