"""A curve on a page: its axis of values, its runs, its forecast with both bands."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from analysis import words
from analysis.curve import Curve
from analysis.figures import Axes, colours
from analysis.prediction import Prediction, as_error

Scale = Literal['score', 'error']
FORECAST = colours(1)[0]
# Orange and purple stay apart for every kind of colour blindness and in a grey print.
CHOSEN = '#d55e00'
_DASHED = (0, (4, 2))
# Share of the height of the axes kept free at the bottom for the mark of the window.
_STRIP = 0.11


def unit_of(kind: str) -> float:
  """Of an axis per unit of the data: fractions are shown in percent."""
  return 1.0 if kind == 'loss' else 100.0


@dataclasses.dataclass(frozen=True)
class View:
  """How values of a curve stand on the y axis.

  Attributes:
    kind: of the values.
    scale: 'score' is linear, 'error' logarithmic.
    smallest: error that stands in for 0 where the axis is logarithmic; a fraction or
      in the unit of the loss.
    clipped: whether a measured error lies below `smallest`.
  """

  kind: str
  scale: Scale
  smallest: float
  clipped: bool = False

  @property
  def unit(self) -> float:
    """See `unit_of`."""
    return unit_of(self.kind)

  def shown(self, values: np.ndarray | float) -> np.ndarray:
    """Where values [S] in the unit of the data stand on the axis."""
    values = np.asarray(values, float)
    if self.scale == 'score':
      return self.unit * values
    return self.unit * np.maximum(as_error(self.kind, values), self.smallest)

  def line(self, values: np.ndarray) -> np.ndarray:
    """The same for a law, which may ask for errors below 0: nan on a log axis."""
    gone = (self.scale == 'error') & (as_error(self.kind, values) < 0)
    return np.where(gone, np.nan, self.shown(values))

  def label(self, metric: str) -> str:
    """Name of the axis with its unit."""
    name = metric or self.kind
    if self.scale == 'score':
      return name if self.kind == 'loss' else f'{name} (%)'
    name = name.replace('accuracy', 'error') if self.kind == 'accuracy' else name
    return f'{name} (log scale)' if self.kind == 'loss' else f'{name} (%, log scale)'

  @property
  def note(self) -> str:
    """What the axis does to the data, if anything."""
    if not self.clipped:
      return ''
    lowest = words.parameter(self.unit * self.smallest)
    return f'errors of 0 are drawn at {lowest}' + ('' if self.kind == 'loss' else '%')


def view_of(
  kind: str, scale: Scale, values: np.ndarray, smallest: float = 5e-4
) -> View:
  """The view of values [N]; errors of 0 go to half the smallest that is above 0.

  Args:
    kind: of the values.
    scale: of the axis.
    values: in the unit of the data.
    smallest: what stands in for 0 if there is nothing else.
  """
  if scale not in ('score', 'error'):
    raise ValueError(f"scale={scale!r} is not one of 'score', 'error'")
  errors = as_error(kind, np.asarray(values, float))
  positive = errors[errors > 1e-12]
  low = float(positive.min()) / 2 if len(positive) else smallest
  clipped = scale == 'error' and len(positive) < len(errors)
  # Forecasts may go on below the data; only measured zeros need a place near them.
  return View(kind, scale, low if clipped else low / 1e3, clipped)


def value_limits(
  view: View,
  inside: Sequence[np.ndarray],
  wished: Sequence[np.ndarray],
  strip: float = _STRIP,
) -> tuple[float, float]:
  """Ends of the y axis: all of `inside` in view, and of `wished` what costs little.

  A band or a law may run far from the data, which must not be squashed by it: it widens
  the axis by a quarter at most on either side.

  Args:
    view: of the axis.
    inside: arrays of values in the unit of the data.
    wished: the same.
    strip: share of the height to keep free at the bottom.
  """
  log = view.scale == 'error'

  def places(arrays: Sequence[np.ndarray]) -> np.ndarray:
    flat = np.concatenate([np.ravel(array) for array in [*arrays, np.empty(0)]])
    flat = view.shown(flat[np.isfinite(flat)])
    return np.log10(flat) if log else flat

  held = places(inside)
  low, high = float(held.min()), float(held.max())
  least = 0.05 if log else max(0.02 * view.unit, 0.02 * abs(high))
  if view.kind == 'loss' and not log:
    least = 0.02 * abs(high) + 1e-12
  if high - low < least:
    low, high = (low + high - least) / 2, (low + high + least) / 2
  extra = places(wished)
  if len(extra):
    span = high - low
    low = max(min(low, float(extra.min())), low - span / 4)
    high = min(max(high, float(extra.max())), high + span / 4)
  pad = 0.05 * (high - low)
  bottom, top = low - pad, high + pad
  if view.kind != 'loss':
    ends = (-np.inf, 2.0) if log else (0.0, 100.0)
    # Points at the very end of a percentage keep half their marker's room.
    bottom = max(bottom, ends[0] - pad / 2)
    top = min(top, ends[1] + pad / 2)
  bottom -= strip * (top - bottom) / (1 - strip)
  return (10**bottom, 10**top) if log else (bottom, top)


def forecast(fit: Curve, end: float) -> tuple[np.ndarray, Prediction]:
  """What all laws together say, from where they follow the data on, to `end`.

  Returns:
    Sizes [S], the largest measured among them, and the forecast there.
  """
  first, last = fit.follows, float(fit.points.sizes[-1])
  x = np.geomspace(first, last, 80)
  x[0], x[-1] = first, last
  if end > last:
    x = np.append(x, np.geomspace(last, end, 41)[1:])
  return x, fit.predict(x)


def draw_forecast(
  axes: Axes,
  view: View,
  x: np.ndarray,
  said: Prediction,
  largest: float,
  colour: str,
  strength: float = 1.0,
) -> None:
  """The forecast at sizes [S], dashed beyond `largest`, with both bands."""
  for part, dash in ((x <= largest, '-'), (x >= largest, _DASHED)):
    if part.sum() > 1:
      axes.plot(x[part], view.shown(said.value[part]), color=colour, ls=dash, zorder=3)
  for low, high, alpha in (
    (said.lo, said.hi, 0.13),
    (said.curve_lo, said.curve_hi, 0.27),
  ):
    axes.fill_between(
      x,
      view.shown(low),
      view.shown(high),
      color=colour,
      alpha=alpha * strength,
      lw=0,
      zorder=2,
    )


def draw_points(
  axes: Axes,
  view: View,
  sizes: np.ndarray,
  values: np.ndarray,
  colour: str,
  marker: str = 'o',
) -> bool:
  """Size means; where runs [N] repeat, each faint and their range as a bar.

  Returns:
    Whether any size has repeats.
  """
  if not len(sizes):
    return False
  distinct, inverse, counts = np.unique(sizes, return_inverse=True, return_counts=True)
  means = np.bincount(inverse, values) / counts
  repeats = bool((counts > 1).any())
  if repeats:
    axes.plot(
      sizes, view.shown(values), '.', color=colour, ms=2.5, alpha=0.45, zorder=4
    )
    low, high = np.full(len(distinct), np.inf), np.full(len(distinct), -np.inf)
    np.minimum.at(low, inverse, values)
    np.maximum.at(high, inverse, values)
    axes.vlines(
      distinct, view.shown(low), view.shown(high), color=colour, lw=0.8, zorder=4
    )
  axes.plot(
    distinct,
    view.shown(means),
    marker,
    color=colour,
    ms=3.8,
    mec='white',
    mew=0.5,
    zorder=5,
  )
  return repeats


def forecast_key(
  axes: Axes, level: float | None, repeats: bool, colour: str = FORECAST
) -> list[tuple[Any, str]]:
  """What points and bands mean, for `analysis.figures.lay_out`.

  Args:
    axes: any of the figure's.
    level: of the bands; None if nothing is forecast.
    repeats: whether sizes have several seeds.
    colour: of the samples.
  """
  handles: list[tuple[Any, str]] = []
  if repeats:
    line = axes.plot([], [], color=colour, marker='o', ms=3.5, lw=0.8)[0]
    handles.append((line, 'mean and range of seeds'))
  if level is not None:
    share = f'{100 * level:.0f}%'
    line = axes.plot([], [], color=colour)[0]
    handles.append((line, 'forecast (dashed: beyond data)'))
    for alpha, what in ((0.36, 'the curve'), (0.13, 'a new run')):
      patch = axes.fill([], [], color=colour, alpha=alpha, lw=0)[0]
      handles.append((patch, f'{share} band of {what}'))
  return handles


def mark_window(
  axes: Axes, window: tuple[float, float], at_right: bool, label: str = 'window'
) -> None:
  """A bracket along the x axis over the sizes that the chosen law was fitted to."""
  transform = axes.get_xaxis_transform()
  low, high = window
  axes.plot(
    [low, low, high, high],
    [0.045, 0.025, 0.025, 0.045],
    color=CHOSEN,
    lw=0.9,
    transform=transform,
    zorder=6,
    gid='window',
  )
  axes.annotate(
    label,
    (high if at_right else low, 0.025),
    (-3 if at_right else 3, 2),
    xycoords=transform,
    textcoords='offset points',
    size=6,
    color=CHOSEN,
    ha='right' if at_right else 'left',
    va='bottom',
    zorder=6,
  )
