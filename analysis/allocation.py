"""How to split a compute budget between data and model, from a fitted surface."""

import dataclasses

import numpy as np

from analysis.prediction import Interval
from analysis.surface import SurfaceFit
from analysis.surface_bootstrap import LARGE, interval
from analysis.surface_laws import SURFACE_LAWS


@dataclasses.dataclass(frozen=True)
class Allocation:
  """How to split a compute budget between data and model.

  Attributes:
    flops: the budget.
    num_images, num_params: what to train on it.
    value: expected there, in the unit of the data.
    params_exponent: a of num_params ~ flops^a; the rest of the growth is data's.
    intervals: of the four, by name.
    in_window: whether both sizes lie inside those that were fitted.
  """

  flops: float
  num_images: float
  num_params: float
  value: float
  params_exponent: float
  intervals: dict[str, Interval]
  in_window: bool


def optimal_allocation(
  fit: SurfaceFit, flops: float, flops_per_param_image: float = 6.0
) -> Allocation:
  """The sizes that minimise the surface at flops = k x num_params x num_images.

  Hoffmann et al. 2022, eq. 4. The rule of k = 6 operations per parameter and token is
  that of dense language models, whose parameters each see a token once; a network
  that shares weights over positions spends more per image, and each further epoch
  multiplies k.

  Args:
    fit: of the additive law to losses.
    flops: budget of one training.
    flops_per_param_image: k.

  Raises:
    ValueError: another law or kind than additive and loss, a budget that is not
      positive, or a fitted surface that does not fall along both axes.
  """
  if fit.law != 'additive' or fit.kind != 'loss':
    raise ValueError(
      f'law={fit.law!r}, kind={fit.kind!r} has no closed allocation; fit '
      "law='additive' to kind='loss'"
    )
  for name, number in (
    ('flops', flops),
    ('flops_per_param_image', flops_per_param_image),
  ):
    if not (np.isfinite(number) and number > 0):
      raise ValueError(f'{name}={number} must be finite and positive')
  if not (fit.params['A'] > 0 and fit.params['B'] > 0):
    raise ValueError(
      f'A={fit.params["A"]:g} and B={fit.params["B"]:g} must be positive: the '
      'surface is flat along one axis, and the best place on it is not finite'
    )
  budget = np.log(flops / flops_per_param_image)

  def optimum(parameters: np.ndarray) -> np.ndarray:
    _, a, b, alpha, beta = np.moveaxis(parameters, -1, 0)
    with np.errstate(divide='ignore'):
      log_ratio = np.log(alpha * a) - np.log(beta * b)
    log_params = (log_ratio + beta * budget) / (alpha + beta)
    log_params = np.clip(log_params, -LARGE, LARGE)
    log_images = budget - log_params
    value = SURFACE_LAWS[fit.law].curve(
      log_images[:, None], log_params[:, None], parameters
    )
    logs = [log_images, log_params, np.log(value[:, 0])]
    return np.stack([*logs, beta / (alpha + beta)], axis=-1)

  found = optimum(np.array([list(fit.params.values())]))[0]
  lows, highs = interval(optimum(fit.draws), found, fit.level, fit.widening)
  names = ('num_images', 'num_params', 'value', 'params_exponent')
  intervals = {}
  for name, lo, hi in zip(names, lows, highs, strict=True):
    if name != 'params_exponent':
      lo, hi = np.exp(np.clip([lo, hi], -LARGE, LARGE))
    intervals[name] = (float(lo), float(hi))
  num_images, num_params, value = (float(x) for x in np.exp(found[:3]))
  return Allocation(
    flops=float(flops),
    num_images=num_images,
    num_params=num_params,
    value=value,
    params_exponent=float(found[3]),
    intervals=intervals,
    in_window=(
      fit.window_images[0] <= num_images <= fit.window_images[1]
      and fit.window_params[0] <= num_params <= fit.window_params[1]
    ),
  )
