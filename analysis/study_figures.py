"""The two figures of a study: accuracy against images, and against depth."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis import words
from analysis.curve import Curve
from analysis.drawing import (
  View,
  draw_forecast,
  draw_points,
  forecast,
  forecast_key,
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
from analysis.laws import Kind
from analysis.prediction import Refusal


def accuracy_against_images(
  table: pd.DataFrame,
  fits: Mapping[Key, Curve | Refusal],
  title: str = '',
  *,
  group: Sequence[str] = ('depth',),
  kind: Kind = 'accuracy',
  metric: str = 'test top-1 accuracy',
  note: str = '',
  chance: float | None = None,
) -> Figure:
  """Points with seed spread, fitted curves with bands, one colour per curve.

  Args:
    table: one metric; columns num_images, value and `group`.
    fits: group values -> fit to draw with its bands, solid where it follows the data
      and dashed to twice the largest size; its log-linear law is dotted. Refusals are
      drawn as points only.
    title: above the axes.
    group: columns that tell curves apart.
    kind: what the values are.
    metric: words on the value axis.
    note: under the title: protocol, seeds, test images.
    chance: value of a guess, drawn as a grey line.
  """
  curves = curves_of(table, group)
  view = view_of(kind, 'score', table['value'])
  end = 2 * float(table['num_images'].max())
  with styled():
    figure, axes = new_figure(title, note)
    axes.set_xscale('log')
    ends: list[End] = []
    inside, lines = [table['value'].to_numpy(float)], []
    repeats, level = False, None
    for (key, curve), colour, marker in zip(
      curves.items(), colours(len(curves)), itertools.cycle(MARKERS), strict=False
    ):
      sizes, values = (curve[name].to_numpy(float) for name in ('num_images', 'value'))
      repeats |= draw_points(axes, view, sizes, values, colour, marker)
      last = values[sizes == sizes.max()].mean()
      found = fits.get(key)
      if isinstance(found, Curve):
        level = found.level
        x, said = forecast(found, end)
        draw_forecast(axes, view, x, said, found.points.sizes[-1], colour, 0.8)
        inside.append(found.predict([*found.points.sizes[[0, -1]], end]).value)
        last = said.value[-1]
        line = found.law_alone('log_linear')
        if isinstance(line, LawFit):
          x = np.geomspace(line.window[0], end, 200)
          y = view.shown(line.curve(x))
          lines += axes.plot(x, y, ':', color=colour, lw=0.9, alpha=0.7, zorder=3)
      if group:
        name = series_label(key, group, list(curves))
        ends.append(End(float(view.shown(last)), name, colour))
    _value_axis(axes, view, inside, metric)
    axes.set_xlim(float(table['num_images'].min()) / 1.25, end * 1.04)
    size_axis(axes)
    axes.set_xlabel('training images (log scale)')
    if chance is not None:
      _chance(axes, float(view.shown(chance)))
    handles = forecast_key(axes, level, repeats, GREY)
    if lines:
      dotted = axes.plot([], [], color=GREY, ls=':', lw=0.9)[0]
      handles.append((dotted, 'log-linear fit'))
    lay_out(figure, axes, handles, [each.label for each in ends])
    end_labels(axes, ends)
  return figure


def accuracy_against_depth(
  table: pd.DataFrame,
  title: str = '',
  *,
  kind: Kind = 'accuracy',
  metric: str = 'test top-1 accuracy',
  note: str = '',
) -> Figure:
  """Mean and seed range against depth, one line per size (and width, if several).

  Args:
    table: one metric; columns depth, num_images, value and optionally width.
    title: above the axes.
    kind: what the values are.
    metric: words on the value axis.
    note: under the title.
  """
  group = ['num_images']
  if 'width' in table and table['width'].nunique() > 1:
    group.append('width')
  curves = curves_of(table, group)
  view = view_of(kind, 'score', table['value'])
  sizes = sorted({key[0] for key in curves})
  colour_of = dict(zip(sizes, colours(len(sizes), 'viridis'), strict=True))
  with styled():
    figure, axes = new_figure(title, note)
    ends: list[End] = []
    repeats = False
    for (key, curve), marker in zip(
      curves.items(), itertools.cycle(MARKERS), strict=False
    ):
      colour = colour_of[key[0]]
      depths, values = (curve[name].to_numpy(float) for name in ('depth', 'value'))
      repeats |= draw_points(axes, view, depths, values, colour, marker)
      means = curve.groupby('depth')['value'].mean()
      axes.plot(means.index, view.shown(means), color=colour, zorder=3)
      label = words.count(float(key[0]))
      label += f', width {key[1]}' if len(key) > 1 else ''
      ends.append(End(float(view.shown(means.iloc[-1])), label, colour))
    depths = np.unique(table['depth'])
    axes.set_xticks(depths, [f'{depth:g}' for depth in depths])
    pad = 0.06 * max(float(np.ptp(depths)), 1.0)
    axes.set_xlim(depths[0] - pad, depths[-1] + pad)
    _value_axis(axes, view, [table['value'].to_numpy(float)], metric)
    axes.set_xlabel('depth (layers)')
    handles = forecast_key(axes, None, repeats, GREY)
    lay_out(figure, axes, handles, [each.label for each in ends])
    end_labels(axes, ends, heading='images')
  return figure


def _value_axis(
  axes: Axes, view: View, inside: Sequence[np.ndarray], metric: str
) -> None:
  """Limits from the data and the curves: a wild band must not squash the points."""
  shown = view.shown(np.concatenate(inside))
  low, high = float(shown.min()), float(shown.max())
  pad = 0.08 * max(high - low, 0.02 * view.unit)
  low, high = low - pad, high + pad
  if view.kind != 'loss':
    low, high = max(low, 0.0), min(high, 100.0)
  axes.set_ylim(low, high)
  value_ticks(axes)
  axes.set_ylabel(view.label(metric))


def _chance(axes: Axes, value: float) -> None:
  low, high = axes.get_ylim()
  if low <= value <= high:
    axes.axhline(value, color=GREY, lw=0.6, ls=(0, (1, 2)), zorder=1)
    axes.text(
      0.99,
      value,
      'chance',
      size=6,
      color=GREY,
      ha='right',
      va='bottom',
      transform=axes.get_yaxis_transform(),
    )
