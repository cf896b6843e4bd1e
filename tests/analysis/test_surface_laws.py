"""The laws of two sizes: their words, their derivatives, their units."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surfaces import IMAGES, PARAMS, ROSENFELD, VISION, rosenfeld

from analysis.surface_laws import SURFACE_LAWS, rosenfeld_as_published


@pytest.mark.parametrize('law', SURFACE_LAWS.values(), ids=lambda law: law.name)
def test_a_law_is_described_in_full(law):
  assert len(set(law.names)) == len(law.parameters)
  assert all(p.unit and p.meaning for p in law.parameters)
  places = [law.floor, *law.data, *law.model]
  places += [] if law.ceiling is None else [law.ceiling]
  assert sorted(places) == list(range(len(law.parameters)))
  assert all((law.title, law.formula, law.domain, law.source))


scaled_parameters = st.tuples(
  st.floats(0.05, 1),
  st.floats(0.05, 2),
  st.floats(0.05, 2),
  st.floats(0.05, 1.5),
  st.floats(0.05, 1.5),
  st.floats(0.3, 3),
)


@settings(max_examples=40)
@given(values=scaled_parameters, name=st.sampled_from(sorted(SURFACE_LAWS)))
def test_derivatives_are_those_of_the_curve(values, name):
  law = SURFACE_LAWS[name]
  theta = np.array(values[: len(law.parameters)])
  sizes = np.array([-2.0, -0.5, 0.0, 1.0, 2.5]), np.array([1.0, -2.0, 0.5, 2.0, -1.0])
  weights = np.array([0.3, -1.0, 0.7, 0.2, -0.4])
  value, jacobian = law.value_and_jacobian(*sizes, theta)
  second = law.second_order(*sizes, theta, jacobian, weights)
  np.testing.assert_allclose(value, law.curve(*sizes, theta), rtol=1e-14)
  step = 1e-5
  for p in range(len(theta)):
    shift = step * (np.arange(len(theta)) == p)
    slope = law.curve(*sizes, theta + shift) - law.curve(*sizes, theta - shift)
    # Central differences: step^2 times a third derivative, here up to a few hundred,
    # and rounding of 1e-16 / step.
    np.testing.assert_allclose(jacobian[p], slope / (2 * step), rtol=1e-6, atol=1e-7)
    up = law.value_and_jacobian(*sizes, theta + shift)[1] @ weights
    down = law.value_and_jacobian(*sizes, theta - shift)[1] @ weights
    np.testing.assert_allclose(
      second[p], (up - down) / (2 * step), rtol=1e-5, atol=1e-6
    )


@settings(max_examples=30)
@given(values=scaled_parameters, name=st.sampled_from(sorted(SURFACE_LAWS)))
def test_natural_units_draw_the_same_surface(values, name):
  law = SURFACE_LAWS[name]
  theta = np.array(values[: len(law.parameters)])
  logs = np.log(IMAGES), np.log(PARAMS)
  scales = 21.0, 19.0, 2.5
  natural = law.natural(theta, *scales)
  scaled = law.curve(logs[0] - scales[0], logs[1] - scales[1], theta)
  # Exponents times logarithms of sizes: 30 roundings' worth.
  np.testing.assert_allclose(law.curve(*logs, natural), 2.5 * scaled, rtol=1e-13)


def test_rosenfeld_is_the_published_form():
  law = SURFACE_LAWS['rosenfeld']
  values = law.curve(
    np.log(VISION[0]), np.log(VISION[1]), np.array(list(ROSENFELD.values()))
  )
  np.testing.assert_allclose(values, rosenfeld(*VISION), rtol=1e-13)
  published = rosenfeld_as_published(ROSENFELD)
  t = (
    VISION[0] ** -published['alpha']
    + published['b'] * VISION[1] ** -published['beta']
    + published['c_inf']
  )
  envelope = published['e_0'] * np.abs(t / (t - 1j * published['eta']))
  np.testing.assert_allclose(values, envelope, rtol=1e-13)
  with pytest.raises(ValueError, match='a=0 must be positive'):
    rosenfeld_as_published({**ROSENFELD, 'a': 0.0})
