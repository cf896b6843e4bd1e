"""Fitted learning curves, one or several: points, forecast, bands, and what they rest on.

Two scales show the same fit. On 'score' the value stands on a linear axis, as people
quote it; on 'error' what is left to gain stands on a logarithmic one, where a power law
is a straight line and a floor bends it. The line and the bands are the forecast of all
laws together; the law with the largest say is drawn apart from it, and log-linear
always, since it is the claim of the 2017 study.
"""

import dataclasses
import textwrap
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis import words
from analysis.figures import (
  GREY,
  Axes,
  End,
  Figure,
  colours,
  end_labels,
  lay_out,
  new_figure,
  series_label,
  size_axis,
  styled,
  value_ticks,
)
from analysis.fit import Fit
from analysis.law_fit import LawFit, Prediction, Refusal, as_error
from analysis.laws import LAWS

Scale = Literal['score', 'error']
FORECAST = colours(1)[0]
# Orange and purple stay apart for every kind of colour blindness and in a grey print.
CHOSEN = '#d55e00'
_CLAIM = '#222222'
_OTHER = '#a0a0a0'
_DASHED = (0, (4, 2))
_MARKERS = 'osD^vPX*'
# A law of less say than this is not worth a line.
_HEARD = 0.02
_MOST_CURVES = 8
# Share of the height of the axes kept free at the bottom for the mark of the window.
_STRIP = 0.11


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
    """Of the axis per unit of the data: fractions are shown in percent."""
    return 1.0 if self.kind == 'loss' else 100.0

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


def curve_figure(
  fit: Fit,
  *,
  scale: Scale = 'score',
  title: str = '',
  metric: str = '',
  note: str = '',
  others: bool = True,
  targets: Sequence[float] = (),
  ahead: float = 10.0,
) -> Figure:
  """One curve: runs, the forecast with both bands, and the laws behind it.

  Args:
    fit: to draw.
    scale: 'score' or 'error', see the module.
    title: above the axes.
    metric: words on the value axis.
    note: under the title: protocol, seeds, test images.
    others: whether to draw the other laws that have a say, in grey.
    targets: values, in the unit of the data, whose images needed are marked.
    ahead: the forecast ends at so many times the largest size; at least 1.
  """
  view = view_of(fit.kind, scale, fit.runs[1], fit.data.smallest)
  largest = float(fit.points.sizes[-1])
  end = largest * max(ahead, 1.0)
  with styled():
    figure, axes = new_figure(title, _joined(note, view.note))
    axes.set_xscale('log')
    axes.set_yscale('log' if scale == 'error' else 'linear')
    x, said = forecast(fit, end)
    draw_forecast(axes, view, x, said, largest, FORECAST)
    repeats = draw_points(axes, view, fit.runs[0], fit.runs[1], FORECAST)
    drawn = _law_lines(fit, end, others)
    for law, (sizes, values) in drawn.items():
      _, style = _law_style(law, fit.law)
      axes.plot(sizes, view.line(values), **style, gid=f'law-{law}')
    inside = x <= largest
    low, high = value_limits(
      view,
      [fit.runs[1], said.value, np.asarray(targets, float)],
      [said.curve_lo[inside], said.curve_hi[inside], drawn[fit.law][1]],
    )
    axes.set_ylim(low, high)
    axes.set_xlim(float(fit.points.sizes[0]) / 1.25, end * 1.04)
    size_axis(axes)
    value_ticks(axes)
    axes.set_xlabel('training images (log scale)')
    axes.set_ylabel(view.label(metric))
    for target in targets:
      _target(axes, view, fit, target)
    ends = [End(float(view.shown(said.value[-1])), 'all laws', FORECAST)]
    for law in dict.fromkeys((fit.law, 'log_linear')):
      if law in drawn:
        colour, _ = _law_style(law, fit.law)
        ends.append(_end_in_view(axes, view, *drawn[law], _law_label(law), colour))
    handles = _forecast_key(axes, fit.level, repeats)
    if set(drawn) - {fit.law, 'log_linear'}:
      handles.append((axes.plot([], [], color=_OTHER, lw=0.7)[0], 'other laws'))
    lay_out(figure, axes, handles, [name.label for name in ends])
    mark_window(axes, fit.window, fit.kind == 'accuracy' and scale == 'score')
    end_labels(axes, ends)
  return figure


def curves_figure(
  fits: Mapping[Any, Fit | Refusal],
  *,
  group: Sequence[str],
  scale: Scale = 'score',
  title: str = '',
  metric: str = '',
  note: str = '',
  table: pd.DataFrame | None = None,
  ahead: float = 2.0,
) -> Figure:
  """Several curves in one figure: runs, forecasts and light bands, named at their ends.

  Args:
    fits: group values -> fit or refusal, of one kind. The first eight are drawn.
    group: columns that tell the curves apart, in the order of the keys.
    scale: 'score' or 'error', see the module.
    title: above the axes.
    metric: words on the value axis.
    note: under the title.
    table: columns num_images, value and `group`; from it the runs of refused curves
      are drawn, which a refusal does not hold.
    ahead: forecasts end at so many times the largest size of all.

  Raises:
    ValueError: no curve at all, or curves of more than one kind.
  """
  if not fits:
    raise ValueError('no curve to draw')
  kinds = {found.kind for found in fits.values() if isinstance(found, Fit)}
  if len(kinds) > 1:
    raise ValueError(f'curves of {words.listed(sorted(kinds))} share no axis')
  kind = kinds.pop() if kinds else 'accuracy'
  names = {key: key if isinstance(key, tuple) else (key,) for key in fits}
  keys = list(fits)[:_MOST_CURVES]
  runs = {key: _runs(fits[key], names[key], group, table) for key in keys}
  pooled = np.concatenate([values for _, values in runs.values()])
  all_sizes = np.concatenate([sizes for sizes, _ in runs.values()])
  if not len(pooled):
    pooled, all_sizes = np.array([0.5]), np.array([1.0])
  view = view_of(kind, scale, pooled)
  end = float(all_sizes.max()) * max(ahead, 1.0)
  left_out = len(fits) - len(keys)
  more = f'{left_out} more curves are not shown' if left_out > 1 else ''
  more = more or ('1 more curve is not shown' if left_out else '')
  with styled():
    figure, axes = new_figure(title, _joined(note, more, view.note))
    axes.set_xscale('log')
    axes.set_yscale('log' if scale == 'error' else 'linear')
    axes.set_xlim(float(all_sizes.min()) / 1.25, end * 1.04)
    ends: list[End] = []
    lines, repeats, level = [pooled], False, None
    for colour, marker, key in zip(colours(len(keys)), _MARKERS, keys, strict=False):
      sizes, values = runs[key]
      repeats |= draw_points(axes, view, sizes, values, colour, marker)
      label = series_label(names[key], group, list(names.values()))
      found = fits[key]
      if isinstance(found, Fit):
        level = found.level
        x, said = forecast(found, end)
        draw_forecast(axes, view, x, said, float(sizes.max()), colour, 0.5)
        lines.append(said.value)
        ends.append(End(float(view.shown(said.value[-1])), _wrapped(label, 14), colour))
      elif len(sizes):
        last = float(view.shown(values[sizes == sizes.max()].mean()))
        # Beside its last point, from the margin its leader would cross other curves; on
        # the outer side of a curve that bends away from it.
        inner = _across(axes, float(sizes.max())) > 0.35
        rising = kind == 'accuracy' and scale == 'score'
        axes.annotate(
          f'{label} (no fit)',
          (float(sizes.max()), last),
          (-4 if inner else 4, 5 if rising else -5),
          textcoords='offset points',
          ha='right' if inner else 'left',
          va='bottom' if rising else 'top',
          size=6.5,
          color=colour,
          weight='bold',
          zorder=6,
        )
    axes.set_ylim(*value_limits(view, lines, [], strip=0.0))
    size_axis(axes)
    value_ticks(axes)
    axes.set_xlabel('training images (log scale)')
    axes.set_ylabel(view.label(metric))
    handles = _forecast_key(axes, level, repeats, GREY)
    lay_out(figure, axes, handles, [name.label for name in ends])
    end_labels(axes, ends)
  return figure


def forecast(fit: Fit, end: float) -> tuple[np.ndarray, Prediction]:
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


def _law_lines(
  fit: Fit, end: float, others: bool
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Sizes and values of the laws to draw; each begins at its own window."""
  lines = {}
  for law, found in fit.laws.items():
    heard = others and fit.weights.get(law, 0.0) >= _HEARD
    if isinstance(found, LawFit) and (heard or law in (fit.law, 'log_linear')):
      x = np.geomspace(found.window[0], end, 120)
      lines[law] = x, found.curve(x)
  return lines


def _law_style(law: str, chosen: str) -> tuple[str, dict[str, Any]]:
  dotted: Any = ':' if law == 'log_linear' else '-'
  if law == chosen:
    style = {'color': CHOSEN, 'lw': 0.9, 'ls': dotted, 'zorder': 3.5}
  elif law == 'log_linear':
    style = {'color': _CLAIM, 'lw': 1.0, 'ls': dotted, 'zorder': 3.2}
  else:
    style = {'color': _OTHER, 'lw': 0.6, 'alpha': 0.7, 'ls': '-', 'zorder': 2.5}
  return style['color'], style


def _law_label(law: str) -> str:
  if law == 'log_linear':
    return 'log-linear\n(2017)'
  return _wrapped(LAWS[law].title, 11)


def _end_in_view(
  axes: Axes, view: View, sizes: np.ndarray, values: np.ndarray, label: str, colour: str
) -> End:
  """The name of a line, at the last place where it can be seen."""
  low, high = axes.get_ylim()
  shown = view.line(values)
  seen = np.flatnonzero((shown >= low) & (shown <= high))
  last = int(seen[-1]) if len(seen) else len(sizes) - 1
  across = 1.0 if last == len(sizes) - 1 else _across(axes, float(sizes[last]))
  # A line that is nowhere in view, or ends in nothing, is named at the edge it left by.
  value = float(shown[last]) if np.isfinite(shown[last]) else low
  return End(value, label, colour, across)


def _across(axes: Axes, size: float) -> float:
  low, high = np.log(axes.get_xlim())
  return float((np.log(size) - low) / (high - low))


def _target(axes: Axes, view: View, fit: Fit, target: float) -> None:
  """A line at a target, the images needed as a bar on it, and both in words."""
  found = fit.images_for(target)
  place = float(view.shown(target))
  first, last = axes.get_xlim()
  axes.axhline(place, color=GREY, lw=0.6, ls=(0, (1, 1.5)), zorder=1.5)
  if found.lo < last:
    bar = [max(found.lo, first), min(found.hi, last)]
    axes.plot(bar, [place, place], color=CHOSEN, lw=1.4, alpha=0.8, zorder=4.5)
  if first < found.size < last:
    axes.plot([found.size], [place], '|', color=CHOSEN, ms=7, mew=1.4, zorder=4.6)
  needed = 'never' if np.isinf(found.size) else words.count(found.size)
  ends = f'{words.count(found.lo)} to {words.count(found.hi)}'.replace('?', 'never')
  shown = float(as_error(view.kind, np.array(target)))
  named = words.score(shown if view.scale == 'error' else target, view.kind)
  # The curve runs from the left, on the other side of the line that it has yet to reach.
  axes.annotate(
    f'{named}: {needed}' + ('' if np.isinf(found.lo) else f' ({ends})'),
    (first, place),
    (3, 1),
    xycoords='data',
    textcoords='offset points',
    size=6,
    color=GREY,
    va='bottom',
    zorder=4.2,
    bbox={'facecolor': 'white', 'alpha': 0.7, 'lw': 0, 'pad': 0.3},
  )


def _forecast_key(
  axes: Axes, level: float | None, repeats: bool, colour: str = FORECAST
) -> list[tuple[Any, str]]:
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


def _runs(
  found: Fit | Refusal,
  key: tuple[Hashable, ...],
  group: Sequence[str],
  table: pd.DataFrame | None,
) -> tuple[np.ndarray, np.ndarray]:
  """Sizes and values of the runs of a curve; of a refused one as the table has them."""
  if isinstance(found, Fit):
    return found.runs[0], found.runs[1]
  if table is None:
    return np.empty(0), np.empty(0)
  mine = np.ones(len(table), bool)
  for column, value in zip(group, key, strict=True):
    mine &= (table[column] == value).to_numpy()
  sizes, values = (table[name].to_numpy(float) for name in ('num_images', 'value'))
  return sizes[mine], values[mine]


def _wrapped(label: str, width: int) -> str:
  return (
    '\n'.join(
      textwrap.wrap(label, width, break_long_words=False, break_on_hyphens=False)
    )
    or label
  )


def _joined(*notes: str) -> str:
  return '; '.join(note for note in notes if note)
