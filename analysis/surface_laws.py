"""The laws an error or a loss may follow in data size and model size together.

Each law is an additive core `floor + data term + model term`, each term a coefficient
times a size to a negative exponent, seen through a link of its own. The core is linear
in three coefficients once its two exponents are given, which is how the fitter
(`analysis.surface`) finds its start; values, first and second derivatives are what it
polishes with. A new law is a new entry of `SURFACE_LAWS`.

Sizes enter as logarithms. A law keeps its form when sizes and values change their unit,
so the same functions serve scaled units (the fitter) and natural ones (the user).

Two axes, named for vision: `num_images` is the data size, which is tokens, D, in the
papers on language models; `num_params` is the model size, N there. Rosenfeld et al.
write n for data and m for the model.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from analysis.laws import Parameter


@dataclasses.dataclass(frozen=True)
class SurfaceLaw:
  """A law of two sizes: its words, its surface and the derivatives of that.

  Attributes:
    name: key in `SURFACE_LAWS`.
    title: name in tables and figures.
    formula: plain text, in natural units; D images, N model parameters.
    parameters: in the order of every parameter array.
    floor: index of the parameter reached with unlimited data and model.
    data: indices of the coefficient and the exponent of the data size.
    model: the same for the model size.
    ceiling: index of the value of guessing, or None for a law without one.
    min_sizes: fewest distinct sizes on each axis that determine its term.
    domain: where the law can hold.
    source: who proposed it.
    curve: (log images [S], log params [S], parameters [..., P]) -> values [..., S]; the
      sizes may also differ by parameter vector, [..., S].
    value_and_jacobian: same arguments -> values [..., S] and derivatives [..., P, S].
    second_order: (log images [S], log params [S], parameters [..., P], derivatives
      [..., P, S], weights [..., S]) -> [..., P, P], the second derivatives at each
      point summed with these weights.
  """

  name: str
  title: str
  formula: str
  parameters: tuple[Parameter, ...]
  floor: int
  data: tuple[int, int]
  model: tuple[int, int]
  ceiling: int | None
  min_sizes: int
  domain: str
  source: str
  curve: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
  value_and_jacobian: Callable[
    [np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]
  ]
  second_order: Callable[
    [np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray
  ]

  @property
  def names(self) -> tuple[str, ...]:
    return tuple(parameter.name for parameter in self.parameters)

  def natural(
    self, parameters: np.ndarray, log_images: float, log_params: float, value: float
  ) -> np.ndarray:
    """Parameters [..., P] in natural units.

    Args:
      parameters: [..., P] found with sizes and values divided by the scales below.
      log_images, log_params: logarithms of the scales of the sizes.
      value: scale of the values.
    """
    natural = np.array(parameters, float)
    for (coefficient, exponent), log_size in (
      (self.data, log_images),
      (self.model, log_params),
    ):
      natural[..., coefficient] *= value * np.exp(natural[..., exponent] * log_size)
    natural[..., self.floor] *= value
    if self.ceiling is not None:
      natural[..., self.ceiling] *= value
    return natural


# Where the parameters of the two cores stand: Hoffmann et al. name the model's term
# first, Rosenfeld et al. the data's.
_FLOOR, _FIRST, _SECOND, _FIRST_EXPONENT, _SECOND_EXPONENT, _CEILING = range(6)


def _core(
  log_first: np.ndarray, log_second: np.ndarray, parameters: np.ndarray
) -> np.ndarray:
  floor, first, second, first_exponent, second_exponent = (
    parameters[..., i, None] for i in range(5)
  )
  return (
    floor
    + first * np.exp(-first_exponent * log_first)
    + second * np.exp(-second_exponent * log_second)
  )


def _core_and_jacobian(
  log_first: np.ndarray, log_second: np.ndarray, parameters: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  shape = (*parameters.shape, len(log_first))
  floor, first, second, first_exponent, second_exponent = (
    parameters[..., i, None] for i in range(5)
  )
  # Rows for all parameters of the law; that of a ceiling is left to its link.
  jacobian = np.zeros(shape)
  jacobian[..., _FLOOR, :] = 1.0
  one = jacobian[..., _FIRST, :] = np.exp(-first_exponent * log_first)
  two = jacobian[..., _SECOND, :] = np.exp(-second_exponent * log_second)
  first_term, second_term = first * one, second * two
  jacobian[..., _FIRST_EXPONENT, :] = -log_first * first_term
  jacobian[..., _SECOND_EXPONENT, :] = -log_second * second_term
  return floor + first_term + second_term, jacobian


def _core_second_order(
  log_first: np.ndarray,
  log_second: np.ndarray,
  jacobian: np.ndarray,
  weights: np.ndarray,
) -> np.ndarray:
  """Also right behind a link, whose derivative the rows of the jacobian carry."""
  num = jacobian.shape[-2]
  total = np.zeros((*jacobian.shape[:-2], num, num))
  for coefficient, exponent, log_size in (
    (_FIRST, _FIRST_EXPONENT, log_first),
    (_SECOND, _SECOND_EXPONENT, log_second),
  ):
    weighted = -log_size * weights
    mixed = np.einsum('...s,...s->...', jacobian[..., coefficient, :], weighted)
    total[..., coefficient, exponent] = total[..., exponent, coefficient] = mixed
    total[..., exponent, exponent] = np.einsum(
      '...s,...s->...', jacobian[..., exponent, :], weighted
    )
  return total


def _additive_curve(
  log_images: np.ndarray, log_params: np.ndarray, parameters: np.ndarray
) -> np.ndarray:
  return _core(log_params, log_images, parameters)


def _additive_jacobian(
  log_images: np.ndarray, log_params: np.ndarray, parameters: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  return _core_and_jacobian(log_params, log_images, parameters)


def _additive_second_order(
  log_images: np.ndarray,
  log_params: np.ndarray,
  parameters: np.ndarray,
  jacobian: np.ndarray,
  weights: np.ndarray,
) -> np.ndarray:
  del parameters
  return _core_second_order(log_params, log_images, jacobian, weights)


def _rosenfeld_curve(
  log_images: np.ndarray, log_params: np.ndarray, parameters: np.ndarray
) -> np.ndarray:
  core = _core(log_images, log_params, parameters)
  ceiling = parameters[..., _CEILING, None]
  return ceiling * core / np.hypot(core, ceiling)


def _rosenfeld_jacobian(
  log_images: np.ndarray, log_params: np.ndarray, parameters: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  core, jacobian = _core_and_jacobian(log_images, log_params, parameters)
  ceiling = parameters[..., _CEILING, None]
  radius = np.hypot(core, ceiling)
  jacobian *= ((ceiling / radius) ** 3)[..., None, :]
  jacobian[..., _CEILING, :] = (core / radius) ** 3
  return ceiling * core / radius, jacobian


def _rosenfeld_second_order(
  log_images: np.ndarray,
  log_params: np.ndarray,
  parameters: np.ndarray,
  jacobian: np.ndarray,
  weights: np.ndarray,
) -> np.ndarray:
  total = _core_second_order(log_images, log_params, jacobian, weights)
  core = _core(log_images, log_params, parameters)
  ceiling = parameters[..., _CEILING, None]
  radius = np.hypot(core, ceiling)
  # d2v/dt2 over (dv/dt)^2, then d2v/dt de_0 over dv/dt, so that both act on the rows.
  inner = np.array(jacobian)
  inner[..., _CEILING, :] = 0.0
  bend = -3 * core * radius / ceiling**3 * weights
  total += (inner * bend[..., None, :]) @ np.swapaxes(inner, -1, -2)
  mixed = 3 * core**2 / (ceiling * radius**2) * weights
  cross = np.einsum('...ps,...s->...p', inner, mixed)
  total[..., _CEILING, :] += cross
  total[..., :, _CEILING] += cross
  total[..., _CEILING, _CEILING] = np.einsum(
    '...s,...s->...', -3 * ceiling * core**3 / radius**5, weights
  )
  return total


def rosenfeld_as_published(parameters: dict[str, float]) -> dict[str, float]:
  """Rosenfeld's parameters as the paper's tables give them: with a = 1.

  error = e_0 |t / (t - i eta)| does not change when a, b, c_inf and eta are multiplied
  by one number, so one of them is free to choose. The paper chooses a = 1; here
  eta = e_0, so that t is an error: the one that there would be far from chance.

  Args:
    parameters: of a fit, by name.

  Returns:
    alpha, beta, b, c_inf, eta and e_0 (b in units of params^beta / images^alpha).

  Raises:
    ValueError: a is zero, and the paper's form has no data term to divide by.
  """
  a = parameters['a']
  if not a > 0:
    raise ValueError(f'a={a:g} must be positive; the published form divides by it')
  return {
    'alpha': parameters['alpha'],
    'beta': parameters['beta'],
    'b': parameters['b'] / a,
    'c_inf': parameters['c_inf'] / a,
    'eta': parameters['e_0'] / a,
    'e_0': parameters['e_0'],
  }


SURFACE_LAWS: dict[str, SurfaceLaw] = {
  law.name: law
  for law in (
    SurfaceLaw(
      name='additive',
      title='additive power laws',
      formula='value = E + A N^-alpha + B D^-beta',
      parameters=(
        Parameter('E', 'value', 'value with unlimited data and model'),
        Parameter('A', 'value', 'reducible by the model, at one parameter'),
        Parameter('B', 'value', 'reducible by data, at one image'),
        Parameter('alpha', '1', 'exponent of the model size'),
        Parameter('beta', '1', 'exponent of the data size'),
      ),
      floor=_FLOOR,
      data=(_SECOND, _SECOND_EXPONENT),
      model=(_FIRST, _FIRST_EXPONENT),
      ceiling=None,
      min_sizes=3,
      domain='past the chance plateau, each image seen about once; E, A, B >= 0',
      source='Hoffmann et al. 2022 (arXiv 2203.15556), approach 3, eq. 2',
      curve=_additive_curve,
      value_and_jacobian=_additive_jacobian,
      second_order=_additive_second_order,
    ),
    SurfaceLaw(
      name='rosenfeld',
      title='power laws below chance',
      formula=(
        'value = e_0 t / sqrt(t^2 + e_0^2) with t = c_inf + a D^-alpha + b N^-beta'
      ),
      parameters=(
        Parameter('c_inf', 'value', 't with unlimited data and model'),
        Parameter('a', 'value', 'part of t reducible by data, at one image'),
        Parameter('b', 'value', 'part of t reducible by the model, at one parameter'),
        Parameter('alpha', '1', 'exponent of the data size'),
        Parameter('beta', '1', 'exponent of the model size'),
        Parameter('e_0', 'value', 'value of guessing'),
      ),
      floor=_FLOOR,
      data=(_FIRST, _FIRST_EXPONENT),
      model=(_SECOND, _SECOND_EXPONENT),
      ceiling=_CEILING,
      min_sizes=3,
      domain='from the chance plateau to the floor; c_inf, a, b >= 0',
      source='Rosenfeld et al. 2020 (arXiv 1909.12673), eqs. 4 and 5, with eta = e_0',
      curve=_rosenfeld_curve,
      value_and_jacobian=_rosenfeld_jacobian,
      second_order=_rosenfeld_second_order,
    ),
  )
}
