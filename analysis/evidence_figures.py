"""What a fitted curve rests on: residuals, tested forecasts, its ridge, its targets.

In the style of `analysis.curve_figures`; each figure is a pure function of a fit.
"""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis import words
from analysis.curve import Curve
from analysis.drawing import CHOSEN, FORECAST, forecast, mark_window, unit_of, view_of
from analysis.figures import (
  GREY,
  Axes,
  End,
  Figure,
  colours,
  end_labels,
  lay_out,
  new_figure,
  round_ticks,
  size_axis,
  styled,
  value_ticks,
)
from analysis.laws import LAWS
from analysis.prediction import Refusal
from analysis.ridge import COVERAGES, ridge

_MOST_FANS = 6
_MOST_TARGETS = 12
# Of ever reaching a target; below it the median of the images needed is infinite.
_EVEN = 0.5


def residual_figure(
  fit: Curve, *, title: str = '', metric: str = '', note: str = ''
) -> Figure:
  """How far runs lie from the chosen law and size means from the forecast.

  Args:
    fit: whose.
    title: above the axes.
    metric: words on the value axis.
    note: under the title.
  """
  points, best = fit.points, fit.best
  unit = unit_of(fit.kind)
  sizes, values = fit.runs[0], fit.runs[1]
  means = unit * (points.means - best.curve(points.sizes))
  runs = unit * (values - best.curve(sizes))
  at, said = forecast(fit, float(points.sizes[-1]))
  # Both are smooth in the logarithm of the size, and the grid is finer than the sizes.
  expected = np.interp(np.log(points.sizes), np.log(at), said.value, left=np.nan)
  other = unit * (points.means - expected)
  grid = np.geomspace(points.sizes[0], points.sizes[-1], 120)
  band = 2 * unit * np.sqrt(best.noise.run_variance(grid, best.points))
  inside = (points.sizes >= fit.window[0]) & (points.sizes <= fit.window[1])
  repeats = len(values) > len(points.sizes)
  with styled():
    figure, axes = new_figure(title, note)
    axes.set_xscale('log')
    axes.axhline(0, color=GREY, lw=0.8, zorder=2)
    noise = axes.fill_between(grid, -band, band, color=GREY, alpha=0.13, lw=0, zorder=1)
    handles: list[tuple[Any, str]] = [(noise, '±2 sd of one run')]
    law = axes.plot(
      points.sizes, means, 'o', color=CHOSEN, ms=4, mec='white', mew=0.5, zorder=5
    )[0]
    handles.append((law, f'mean less {LAWS[fit.law].title}'))
    if repeats:
      single = axes.plot(sizes, runs, '.', color=CHOSEN, ms=2.5, alpha=0.45, zorder=4)
      handles.append((single[0], 'one run less the same'))
    hollow = axes.plot(
      points.sizes, other, 'D', color=FORECAST, ms=3.4, mfc='none', mew=0.8, zorder=4.5
    )[0]
    handles.append((hollow, 'mean less the forecast'))
    # Sizes outside the window may lie far off, but they were left out for that reason:
    # they widen the axis by at most as much again as what was fitted.
    held = np.concatenate([means[inside], runs[sizes >= fit.window[0]], band])
    reach = float(np.abs(held).max())
    rest = np.concatenate([means, runs, other[np.isfinite(other)]])
    widest = float(np.abs(rest).max())
    reach = max(reach, min(widest, 2 * reach)) if reach > 1e-9 * unit else widest
    reach = 1.08 * max(reach, 1e-6 * unit)
    far = int((np.abs(np.concatenate([means, other])) > reach).sum())
    axes.set_ylim(-1.2 * reach, reach)
    axes.set_xlim(float(points.sizes[0]) / 1.25, float(points.sizes[-1]) * 1.25)
    size_axis(axes)
    value_ticks(axes)
    axes.set_xlabel('training images (log scale)')
    unit_name = metric or fit.kind
    unit_name += '' if fit.kind == 'loss' else ', points'
    axes.set_ylabel(f'measured − fitted ({unit_name})')
    lay_out(figure, axes, handles)
    mark_window(axes, fit.window, True)
    if far:
      axes.text(
        0.99,
        0.99,
        f'{far} of {2 * len(means)} means are out of view',
        size=6,
        color=GREY,
        ha='right',
        va='top',
        transform=axes.transAxes,
      )
  return figure


def rolling_figure(
  fit: Curve, *, title: str = '', metric: str = '', note: str = ''
) -> Figure:
  """What the laws together forecast of larger sizes from the smaller ones alone.

  Each fan opens at the largest size that its forecast had seen; at most six are drawn,
  with the three sizes before the first.

  Args:
    fit: whose `held` is drawn.
    title: above the axes.
    metric: words on the value axis.
    note: under the title, before how many held-out means fell into their intervals.
  """
  view = view_of(fit.kind, 'score', fit.points.means)
  origins = sorted({held.origin for held in fit.held})
  hits = sum(held.lo <= held.observed <= held.hi for held in fit.held)
  share = f'{100 * fit.level:.0f}%'
  count = f'{hits} of {len(fit.held)} held-out means in their {share} intervals'
  if len(origins) > _MOST_FANS:
    places = np.linspace(0, len(origins) - 1, _MOST_FANS).round().astype(int)
    origins = [origins[place] for place in places]
  observed = dict(zip(fit.points.sizes.tolist(), fit.points.means, strict=True))
  with styled():
    figure, axes = new_figure(title, note, count if fit.held else '')
    axes.set_xscale('log')
    ends, lines, edges = [], [fit.points.means], []
    for colour, origin in zip(colours(max(len(origins), 1)), origins, strict=False):
      fan = sorted((h for h in fit.held if h.origin == origin), key=lambda h: h.size)
      start = float(observed[origin])
      x = np.array([origin, *(held.size for held in fan)])
      value, lo, hi = (
        np.array([start, *band])
        for band in zip(*((h.value, h.lo, h.hi) for h in fan), strict=True)
      )
      axes.fill_between(
        x, view.shown(lo), view.shown(hi), color=colour, alpha=0.16, lw=0, zorder=2
      )
      axes.plot(x, view.shown(value), color=colour, lw=1.0, zorder=3, marker='_', ms=4)
      # A fan of one size is a wedge that hides behind the others: its ends are drawn.
      axes.vlines(x[1:], view.shown(lo[1:]), view.shown(hi[1:]), color=colour, lw=0.6)
      ends.append(End(float(view.shown(value[-1])), words.count(origin), colour))
      lines.append(value)
      edges += [lo, hi]
    axes.plot(
      fit.points.sizes,
      view.shown(fit.points.means),
      'o',
      color='#222222',
      ms=3.8,
      mec='white',
      mew=0.5,
      zorder=5,
    )
    before = np.searchsorted(fit.points.sizes, origins[0]) - 3 if origins else 0
    before = max(int(before), 0)
    lines[0] = fit.points.means[before:]
    values = view.shown(np.concatenate(lines))
    span = max(float(np.ptp(values)), 0.02 * float(np.abs(values).max()), 1e-9)
    wide = view.shown(np.concatenate([*edges, lines[0]]))
    low = max(float(wide.min()), float(values.min()) - span) - 0.05 * span
    high = min(float(wide.max()), float(values.max()) + span) + 0.05 * span
    if fit.kind != 'loss':
      low, high = max(low, -2.0), min(high, 102.0)
    axes.set_ylim(low, high)
    first, last = float(fit.points.sizes[before]), float(fit.points.sizes[-1])
    axes.set_xlim(first / (last / first) ** 0.05, last * (last / first) ** 0.03)
    size_axis(axes)
    value_ticks(axes)
    axes.set_xlabel('training images (log scale)')
    axes.set_ylabel(view.label(metric))
    dot = axes.plot([], [], 'o', color='#222222', ms=3.8)[0]
    line = axes.plot([], [], color=GREY, lw=1.0)[0]
    patch = axes.fill([], [], color=GREY, alpha=0.25, lw=0)[0]
    handles = [(dot, 'measured mean')]
    if origins:
      handles += [
        (line, 'forecast from the smaller sizes'),
        (patch, f'{share} interval of it'),
      ]
    lay_out(figure, axes, handles, [end.label for end in ends])
    end_labels(axes, ends, heading='seen up to' if ends else '')
    if not origins:
      _message(axes, 'too few sizes to hold any out')
  return figure


def ridge_figure(
  fit: Curve, *, title: str = '', metric: str = '', note: str = ''
) -> Figure:
  """The ridge of exponent against floor, its optimum, and the bootstrap draws.

  Args:
    fit: whose power law with floor is drawn, in the window it was fitted to.
    title: above the axes.
    metric: words for the floor.
    note: under the title.
  """
  found = ridge(fit)
  unit = unit_of(fit.kind)
  with styled():
    figure, axes = new_figure(title, note)
    name = (metric or fit.kind).replace('accuracy', 'error')
    axes.set_xlabel(f'floor e ({name}{"" if fit.kind == "loss" else ", %"})')
    axes.set_ylabel('exponent c (log scale)')
    axes.set_yscale('log')
    if isinstance(found, Refusal):
      axes.grid(False)
      axes.set_xticks([])
      axes.tick_params(left=False, labelleft=False, which='both')
      lay_out(figure, axes, [])
      _message(axes, found.reason)
      return figure
    law = found.law
    x = unit * found.floors
    axes.set_xlim(x[0] - 0.03 * (x[-1] - x[0]), x[-1] + 0.03 * (x[-1] - x[0]))
    pad = (found.exponents[-1] / found.exponents[0]) ** 0.03
    axes.set_ylim(found.exponents[0] / pad, found.exponents[-1] * pad)
    shades = colours(3, 'viridis')[::-1]
    handles = []
    excess = np.maximum(found.excess, 0.0)
    axes.contourf(
      x,
      found.exponents,
      excess,
      levels=[0.0, *found.limits],
      colors=shades,
      alpha=0.22,
      zorder=2,
    )
    axes.contour(
      x,
      found.exponents,
      excess,
      levels=list(found.limits),
      colors=shades,
      linewidths=0.9,
      zorder=3,
    )
    for colour, coverage in zip(shades, COVERAGES, strict=True):
      patch = axes.fill([], [], fc=(colour, 0.22), ec=colour, lw=0.9)[0]
      handles.append((patch, f'{100 * coverage:.0f}% region'))
    if len(law.draws):
      dots = axes.plot(
        unit * law.draws[:, 0], law.draws[:, 2], '.', color=GREY, ms=2, alpha=0.5
      )[0]
      handles.append((dots, 'bootstrap draw'))
    axes.plot(
      [unit * law.params['e']],
      [law.params['c']],
      '*',
      color=CHOSEN,
      ms=8,
      mec='white',
      mew=0.5,
      zorder=6,
      clip_on=False,
      gid='optimum',
    )
    value_ticks(axes)
    star = axes.plot([], [], '*', color=CHOSEN, ms=6)[0]
    optimum = f'optimum: e = {words.score(law.params["e"], fit.kind)}, c = '
    handles.append((star, optimum + words.parameter(law.params['c'])))
    window = ' to '.join(words.count(size) for size in law.window)
    handles.append((axes.plot([], [], alpha=0)[0], f'sizes {window}'))
    lay_out(figure, axes, handles)
  return figure


def images_figure(
  fit: Curve,
  targets: Sequence[float] | None = None,
  *,
  title: str = '',
  metric: str = '',
  note: str = '',
) -> Figure:
  """Images needed against the target, and the probability of ever getting there.

  The better targets are on the right. Where the curve more likely never reaches a
  target than ever, the line of medians stops.

  Args:
    fit: that answers.
    targets: in the unit of the data; default about ten from what half the sizes
      reach to where the curve may end.
    title: above the axes.
    metric: words on the target axis.
    note: under the title.
  """
  better = 1 if fit.kind == 'accuracy' else -1
  goals = _targets(fit) if targets is None else np.unique(np.asarray(targets, float))
  if not len(goals):
    raise ValueError('no target; give at least one value of the curve')
  found = [fit.images_for(float(goal)) for goal in goals[::better]]
  unit = unit_of(fit.kind)
  x = unit * np.array([answer.target for answer in found])
  median, lo, hi = (
    np.array([getattr(answer, end) for answer in found]) for end in ('size', 'lo', 'hi')
  )
  chance = np.array([answer.probability for answer in found])
  first, last = float(fit.points.sizes[0]), float(fit.points.sizes[-1])
  finite = np.concatenate([median, lo])
  finite = finite[np.isfinite(finite)]
  # Beyond ten thousand times the data a number of images says no more than 'never'.
  top = min(max(finite.max(initial=10 * last), 10 * last) * 3, 1e4 * last)
  bottom = min(first, finite.min(initial=first)) / 1.5
  with styled():
    figure, axes = new_figure(title, note)
    axes.set_yscale('log')
    axes.set_ylim(bottom, top)
    pad = 0.04 * max(float(np.ptp(x)), 0.01 * abs(float(x[0])), 1e-9)
    axes.set_xlim(x[0] - better * pad, x[-1] + better * pad)
    size_axis(axes, upright=True)
    ever = np.isfinite(lo)
    axes.fill_between(
      x[ever],
      lo[ever],
      np.minimum(hi[ever], 10 * top),
      color=FORECAST,
      alpha=0.2,
      lw=0,
      zorder=2,
    )
    likely = np.isfinite(median) & (chance >= _EVEN)
    axes.plot(
      x[likely], median[likely], color=FORECAST, marker='o', ms=3, mec='white', mew=0.4
    )
    axes.axhline(last, color=GREY, lw=0.7, ls=(0, (1, 1.5)), zorder=1.5)
    axes.annotate(
      'largest measured',
      (1, last),
      (-3, -1.5),
      xycoords=axes.get_yaxis_transform(),
      textcoords='offset points',
      size=6,
      color=GREY,
      ha='right',
      va='top',
    )
    axes.set_ylabel('images (log scale)')
    line = axes.plot([], [], color=FORECAST, marker='o', ms=3)[0]
    patch = axes.fill([], [], color=FORECAST, alpha=0.2, lw=0)[0]
    handles = [(line, 'median'), (patch, f'{100 * fit.level:.0f}% interval')]
    lay_out(figure, axes, handles)
    below = _second_panel(figure, axes)
    below.plot(x, 100 * chance, color=CHOSEN, marker='o', ms=2.5, mec='white', mew=0.3)
    below.axhline(100 * _EVEN, color=GREY, lw=0.6, ls=(0, (1, 1.5)), zorder=1.5)
    below.set_ylim(-6, 106)
    below.set_yticks([0, 50, 100])
    below.set_ylabel('ever (%)', color=CHOSEN)
    below.set_xlim(axes.get_xlim())
    low, high = sorted(axes.get_xlim())
    ticks = round_ticks(low, high, 6)
    for each in (axes, below):
      each.set_xticks(ticks)
    axes.set_xticklabels([])
    below.set_xticklabels([f'{tick:.9g}' for tick in ticks])
    name = metric or fit.kind
    below.set_xlabel(
      f'target: {name} (lower to the right)'
      if fit.kind == 'loss'
      else f'target: {name} (%' + (')' if better > 0 else ', lower to the right)')
    )
    if not likely.all():
      _never(axes, x, median, likely, top)
  return figure


def _targets(fit: Curve) -> np.ndarray:
  """[T] round targets from what half of the sizes reach to where the curve may end."""
  start = float(fit.points.means[len(fit.points.means) // 2])
  ends = fit.images_for(float(np.clip(start, 0, None)))
  stop = ends.limit_hi if fit.kind == 'accuracy' else max(ends.limit_lo, 0.0)
  if fit.kind != 'loss':
    stop = float(np.clip(stop, 0.0, 1.0))
  low, high = sorted((start, stop))
  if high - low < 1e-9 * max(abs(high), 1.0):
    return np.array([start])
  ticks = round_ticks(low, high, _MOST_TARGETS)
  return ticks if len(ticks) > 1 else np.array([low, high])


def _second_panel(figure: Figure, axes: Axes) -> Axes:
  """Splits the axes in two: a low panel under what is left of them."""
  place = axes.get_position()
  share = place.height * 0.24
  axes.set_position(
    (place.x0, place.y0 + 1.35 * share, place.width, place.height - 1.35 * share)
  )
  return figure.add_axes((place.x0, place.y0, place.width, share))


def _never(
  axes: Axes, x: np.ndarray, median: np.ndarray, likely: np.ndarray, top: float
) -> None:
  """An arrow from the last likely target to beyond every number of images."""
  bottom = axes.get_ylim()[0]
  at = int(np.flatnonzero(likely)[-1]) if likely.any() else 0
  start = median[at] if likely.any() else np.sqrt(bottom * top)
  start = min(float(start), top / (top / bottom) ** 0.12)
  axes.annotate(
    '',
    (float(x[at]), top),
    (float(x[at]), start),
    arrowprops={'arrowstyle': '-|>', 'color': FORECAST, 'lw': 1.0, 'ls': '--'},
  )
  axes.annotate(
    'never',
    (float(x[at]), top),
    (0, 1),
    textcoords='offset points',
    size=7,
    weight='bold',
    color=FORECAST,
    ha='center',
    va='bottom',
    annotation_clip=False,
  )


def _message(axes: Axes, text: str) -> None:
  lines = textwrap.fill(text, 36)
  axes.text(0.5, 0.5, lines, size=7, color=GREY, ha='center', transform=axes.transAxes)
