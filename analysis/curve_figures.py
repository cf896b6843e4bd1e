"""Fitted learning curves, one or several: points, forecast, bands, and what they rest on.

Two scales show the same fit. On 'score' the value stands on a linear axis, as people
quote it; on 'error' what is left to gain stands on a logarithmic one, where a power law
is a straight line and a floor bends it. The line and the bands are the forecast of all
laws together; the law with the largest say is drawn apart from it, and log-linear
always, since it is the claim of the 2017 study.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import words
from analysis.curve import Curve
from analysis.drawing import (
  CHOSEN,
  FORECAST,
  Scale,
  View,
  draw_forecast,
  draw_points,
  forecast,
  forecast_key,
  mark_window,
  value_limits,
  view_of,
)
from analysis.figures import (
  GREY,
  MARKERS,
  Axes,
  End,
  Figure,
  colours,
  end_labels,
  lay_out,
  new_figure,
  size_axis,
  styled,
  value_ticks,
)
from analysis.groups import Key, curves_of, series_label
from analysis.law_fit import LawFit
from analysis.laws import LAWS
from analysis.prediction import Refusal, as_error

_CLAIM = '#222222'
_OTHER = '#a0a0a0'
# A law of less say than this is not worth a line.
_HEARD = 0.02
_MOST_CURVES = 8


def curve_figure(
  fit: Curve,
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
    figure, axes = new_figure(title, note, view.note)
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
    handles = forecast_key(axes, fit.level, repeats)
    if set(drawn) - {fit.law, 'log_linear'}:
      handles.append((axes.plot([], [], color=_OTHER, lw=0.7)[0], 'other laws'))
    lay_out(figure, axes, handles, [name.label for name in ends])
    mark_window(axes, fit.window, fit.kind == 'accuracy' and scale == 'score')
    end_labels(axes, ends)
  return figure


def curves_figure(
  fits: Mapping[Key, Curve | Refusal],
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
  kinds = {found.kind for found in fits.values() if isinstance(found, Curve)}
  if len(kinds) > 1:
    raise ValueError(f'curves of {words.listed(sorted(kinds))} share no axis')
  kind = kinds.pop() if kinds else 'accuracy'
  keys = list(fits)[:_MOST_CURVES]
  rows = {} if table is None else curves_of(table, group)
  runs = {key: _runs(fits[key], rows.get(key)) for key in keys}
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
    figure, axes = new_figure(title, note, more, view.note)
    axes.set_xscale('log')
    axes.set_yscale('log' if scale == 'error' else 'linear')
    axes.set_xlim(float(all_sizes.min()) / 1.25, end * 1.04)
    ends: list[End] = []
    lines, repeats, level = [pooled], False, None
    for colour, marker, key in zip(colours(len(keys)), MARKERS, keys, strict=False):
      sizes, values = runs[key]
      repeats |= draw_points(axes, view, sizes, values, colour, marker)
      label = series_label(key, group, list(fits))
      found = fits[key]
      if isinstance(found, Curve):
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
    handles = forecast_key(axes, level, repeats, GREY)
    lay_out(figure, axes, handles, [name.label for name in ends])
    end_labels(axes, ends)
  return figure


def _law_lines(
  fit: Curve, end: float, others: bool
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


def _target(axes: Axes, view: View, fit: Curve, target: float) -> None:
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


def _runs(
  found: Curve | Refusal, rows: pd.DataFrame | None
) -> tuple[np.ndarray, np.ndarray]:
  """Sizes and values of the runs of a curve; of a refused one as the table has them."""
  if isinstance(found, Curve):
    return found.runs[0], found.runs[1]
  if rows is None:
    return np.empty(0), np.empty(0)
  return rows['num_images'].to_numpy(float), rows['value'].to_numpy(float)


def _wrapped(label: str, width: int) -> str:
  return textwrap.fill(label, width, break_long_words=False, break_on_hyphens=False)
