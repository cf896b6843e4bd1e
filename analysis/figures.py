"""The two figures of a study, drawn to be printed, and the parts all figures share.

Built on matplotlib's objects without pyplot, so nothing global changes and figures can
be made in any thread. One colour and one marker per depth, ordered from light to dark,
so that the order survives a grey print and colour blindness; names stand at the ends of
the curves rather than in a legend over the data.
"""

# pandas types most results as "frame or series or scalar", which no code can satisfy.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportReturnType=false, reportOperatorIssue=false, reportIndexIssue=false

import os
import pathlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis import words
from analysis.files import replacing
from analysis.fit import Fit
from analysis.law_fit import LawFit, Refusal
from analysis.laws import Kind

Key = tuple[Hashable, ...]

STYLE: dict[str, Any] = {
  'font.family': 'sans-serif',
  'font.sans-serif': ['DejaVu Sans'],  # ships with matplotlib: the same everywhere
  'font.size': 7.5,
  'axes.titlesize': 8.5,
  'axes.titlelocation': 'left',
  'axes.titleweight': 'bold',
  'axes.labelsize': 7.5,
  'axes.linewidth': 0.6,
  'axes.edgecolor': '#444444',
  'axes.labelcolor': '#222222',
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.axisbelow': True,
  'axes.grid': True,
  'axes.grid.which': 'major',
  'grid.color': '#e4e4e4',
  'grid.linewidth': 0.5,
  'xtick.labelsize': 7,
  'ytick.labelsize': 7,
  'xtick.color': '#444444',
  'ytick.color': '#444444',
  'xtick.major.width': 0.6,
  'ytick.major.width': 0.6,
  'xtick.minor.width': 0.4,
  'lines.linewidth': 1.3,
  'legend.frameon': False,
  'legend.fontsize': 6.5,
  'svg.hashsalt': 'scaling',
  'svg.fonttype': 'path',
  'savefig.facecolor': 'white',
}
_MARKERS = 'osD^vPX*'
# Inches: one column of a two-column page; the rows of the key add to the height.
_LEFT, _WIDTH, _RIGHT = 0.47, 2.31, 0.72
_TOP, _HEIGHT, _BOTTOM, _ROW = 0.42, 1.95, 0.4, 0.135
GREY = '#555555'


class End(NamedTuple):
  """The name of a curve, to stand at its end.

  Attributes:
    value: of the curve there, on the value axis.
    label: lines are kept.
    colour: of the curve.
    across: where the curve ends, as a share of the width of the axes.
  """

  value: float
  label: str
  colour: str
  across: float = 1.0


def colours(number: int, name: str = 'plasma') -> list[str]:
  """`number` colours from light to dark that colour-blind readers can order."""
  map_ = matplotlib.colormaps[name]
  places = np.linspace(0.72, 0.05, number) if number > 1 else np.array([0.3])
  return [matplotlib.colors.to_hex(map_(place)) for place in places]


def series_label(key: Key, group: Sequence[str], keys: Sequence[Key]) -> str:
  """'depth 8', naming only the columns in which the curves differ (or the first)."""
  varies = [i for i in range(len(group)) if len({k[i] for k in keys}) > 1]
  named = varies or list(range(min(1, len(group))))
  return ', '.join(
    f'{group[i]} {key[i]}' if isinstance(key[i], int | float) else str(key[i])
    for i in named
  )


def accuracy_against_images(
  table: pd.DataFrame,
  fits: Mapping[Key, Fit | Refusal],
  title: str = '',
  *,
  group: Sequence[str] = ('depth',),
  compare: Mapping[Key, LawFit | Refusal] | None = None,
  kind: Kind = 'accuracy',
  metric: str = 'test top-1 accuracy',
  note: str = '',
  chance: float | None = None,
) -> Figure:
  """Points with seed spread, fitted curves with bands, one colour per curve.

  Args:
    table: one metric; columns num_images, value and `group`.
    fits: group values -> fit to draw with its bands, solid where it follows
      the data and
      dashed to twice the largest size. Refusals are drawn as points only.
    title: above the axes.
    group: columns that tell curves apart.
    compare: a second law, drawn as a thin dotted line without bands.
    kind: what the values are.
    metric: words on the value axis.
    note: under the title: protocol, seeds, test images.
    chance: value of a guess, drawn as a grey line.
  """
  keys, curves = _split(table, group)
  largest = float(table['num_images'].max())
  with styled():
    figure, axes = new_figure(title, note)
    axes.set_xscale('log')
    percent = 1.0 if kind == 'loss' else 100.0
    ends: list[End] = []
    any_fit = any_repeat = any_compare = False
    for colour, marker, key in zip(
      colours(len(keys)), _cycle(len(keys)), keys, strict=True
    ):
      curve = curves[key]
      any_repeat |= _points(axes, curve, 'num_images', percent, colour, marker)
      found = fits.get(key)
      last = percent * float(
        curve[curve['num_images'] == curve['num_images'].max()]['value'].mean()
      )
      if isinstance(found, Fit):
        any_fit = True
        last = _curve(axes, found, 2 * largest, percent, colour)
      other = (compare or {}).get(key)
      if isinstance(other, LawFit):
        any_compare = True
        x = np.geomspace(other.window[0], 2 * largest, 200)
        axes.plot(
          x, percent * other.curve(x), ':', color=colour, lw=0.9, alpha=0.7, zorder=3
        )
      if group:
        ends.append(End(last, series_label(key, group, keys), colour))
    _value_axis(axes, table, fits, percent, kind, metric)
    axes.set_xlim(float(table['num_images'].min()) / 1.25, 2 * largest * 1.04)
    size_axis(axes)
    axes.set_xlabel('training images (log scale)')
    if chance is not None:
      _chance(axes, percent * chance)
    _key(figure, axes, any_fit, any_repeat, any_compare, fits, [end[1] for end in ends])
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
  keys, curves = _split(table, group)
  sizes = sorted({key[0] for key in keys})  # pyright: ignore[reportArgumentType]
  colour_of = dict(zip(sizes, colours(len(sizes), 'viridis'), strict=True))
  with styled():
    figure, axes = new_figure(title, note)
    percent = 1.0 if kind == 'loss' else 100.0
    ends: list[End] = []
    any_repeat = False
    for marker, key in zip(_cycle(len(keys)), keys, strict=True):
      curve, colour = curves[key], colour_of[key[0]]
      any_repeat |= _points(axes, curve, 'depth', percent, colour, marker)
      means = percent * curve.groupby('depth')['value'].mean()
      axes.plot(means.index, means, color=colour, zorder=3)
      label = words.count(float(key[0]))  # pyright: ignore[reportArgumentType]
      label += f', width {key[1]}' if len(key) > 1 else ''
      ends.append(End(float(means.iloc[-1]), label, colour))
    depths = np.unique(table['depth'])
    axes.xaxis.set_major_locator(ticker.FixedLocator(depths))
    axes.xaxis.set_major_formatter(ticker.FixedFormatter([f'{d:g}' for d in depths]))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    pad = 0.06 * max(float(np.ptp(depths)), 1.0)
    axes.set_xlim(depths[0] - pad, depths[-1] + pad)
    _value_axis(axes, table, {}, percent, kind, metric)
    axes.set_xlabel('depth (layers)')
    _key(figure, axes, False, any_repeat, False, {}, [end[1] for end in ends])
    end_labels(axes, ends, heading='images')
  return figure


def save_figure(
  figure: Figure, stem: str | os.PathLike[str]
) -> tuple[pathlib.Path, ...]:
  """Writes STEM.png (200 dpi) and STEM.svg; equal figures give equal bytes."""
  stem = pathlib.Path(stem)
  paths = []
  with styled():
    for suffix, metadata in (('png', {'Software': None}), ('svg', {'Date': None})):
      path = stem.with_name(f'{stem.name}.{suffix}')
      with replacing(path) as temporary:
        figure.savefig(temporary, format=suffix, dpi=200, metadata=metadata)
      paths.append(path)
  return tuple(paths)


def styled():
  """Context in which every figure is made and written."""
  return matplotlib.rc_context(STYLE)


def new_figure(title: str, note: str) -> tuple[Figure, Axes]:
  """One column wide, with its title and a line of small print; see `lay_out`."""
  figure = Figure(figsize=(_LEFT + _WIDTH + _RIGHT, _TOP + _HEIGHT + _BOTTOM))
  FigureCanvasAgg(figure)
  axes = figure.add_axes((0.135, 0.2, 0.66, 0.6))
  axes.annotate(
    title,
    (0, 1),
    (6, -6),
    xycoords='figure fraction',
    textcoords='offset points',
    size=8.5 * min(1.0, 46 / max(len(title), 1)),
    weight='bold',
    va='top',
    color='#222222',
  )
  axes.annotate(
    note,
    (0, 1),
    (6, -18.5),
    xycoords='figure fraction',
    textcoords='offset points',
    size=6.3 * min(1.0, 74 / max(len(note), 1)),
    va='top',
    color=GREY,
  )
  return figure, axes


def _split(
  table: pd.DataFrame, group: Sequence[str]
) -> tuple[list[Key], dict[Key, pd.DataFrame]]:
  if not group:
    return [()], {(): table}
  curves: dict[Key, pd.DataFrame] = {}
  for key, curve in table.groupby(list(group), sort=True):
    values = key if isinstance(key, tuple) else (key,)
    curves[tuple(_plain(value) for value in values)] = curve
  return list(curves), curves


def _plain(value: Any) -> Hashable:
  value = value.item() if isinstance(value, np.generic) else value
  return int(value) if isinstance(value, float) and value.is_integer() else value


def _cycle(number: int) -> str:
  return (_MARKERS * (number // len(_MARKERS) + 1))[:number]


def _points(
  axes: Axes, curve: pd.DataFrame, x: str, percent: float, colour: str, marker: str
) -> bool:
  """Single seeds faint, their range as a bar, their mean on top."""
  values = curve.groupby(x)['value']
  summary = percent * values.agg(['mean', 'min', 'max'])
  repeats = bool((values.size() > 1).any())
  if repeats:
    axes.plot(
      curve[x],
      percent * curve['value'],
      '.',
      color=colour,
      ms=2.5,
      alpha=0.45,
      zorder=4,
    )
    axes.vlines(
      summary.index, summary['min'], summary['max'], color=colour, lw=0.8, zorder=4
    )
  axes.plot(
    summary.index,
    summary['mean'],
    marker,
    color=colour,
    ms=3.8,
    mec='white',
    mew=0.5,
    zorder=5,
  )
  return repeats


def _curve(axes: Axes, found: Fit, end: float, percent: float, colour: str) -> float:
  """Draws a fit with its bands; returns its value at the end."""
  first, last = found.follows, float(found.points.sizes[-1])
  for lo, hi, dash in (
    (first, last, '-'),
    (last, end, (0, (4, 2))),
  ):
    x = np.geomspace(lo, hi, 120)
    bands = found.predict(x)
    axes.plot(x, percent * bands.value, color=colour, ls=dash, zorder=3)
    for low, high, alpha in (
      (bands.lo, bands.hi, 0.10),
      (bands.curve_lo, bands.curve_hi, 0.22),
    ):
      axes.fill_between(
        x, percent * low, percent * high, color=colour, alpha=alpha, lw=0, zorder=2
      )
  return percent * float(found.predict(end).value[0])


def _value_axis(
  axes: Axes,
  table: pd.DataFrame,
  fits: Mapping[Key, Fit | Refusal],
  percent: float,
  kind: str,
  metric: str,
) -> None:
  """Limits from the data and the curves: a wild band must not squash the points."""
  values = [percent * table['value'].to_numpy(float)]
  end = 2 * float(table['num_images'].max())
  values += [
    percent * f.predict([*f.points.sizes[[0, -1]], end]).value
    for f in fits.values()
    if isinstance(f, Fit)
  ]
  low, high = np.concatenate(values).min(), np.concatenate(values).max()
  pad = 0.08 * max(high - low, 0.02 * percent)
  low, high = low - pad, high + pad
  if kind != 'loss':
    low, high = max(low, 0.0), min(high, 100.0)
  axes.set_ylim(low, high)
  axes.yaxis.set_major_locator(ticker.MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
  axes.set_ylabel(metric if kind == 'loss' else f'{metric} (%)')


def size_axis(axes: Axes, upright: bool = False) -> None:
  """Ticks of a logarithmic axis of images, at round counts; `upright` for the y axis."""
  axis = axes.yaxis if upright else axes.xaxis
  low, high = sorted(axes.get_ylim() if upright else axes.get_xlim())
  decades = np.log10(high / low)
  steps = (1, 2, 5) if decades <= 2.3 else (1, 3) if decades <= 3.6 else (1,)
  stride = max(1, round(decades / 7))
  powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
  ticks = [s * 10.0**p for p in powers if p % stride == 0 for s in steps]
  ticks = [tick for tick in ticks if low <= tick <= high]
  axis.set_major_locator(ticker.FixedLocator(ticks))
  axis.set_major_formatter(ticker.FixedFormatter([words.count(t) for t in ticks]))
  axis.set_minor_locator(ticker.LogLocator(subs=list(range(2, 10))))
  axis.set_minor_formatter(ticker.NullFormatter())


def round_ticks(low: float, high: float, number: int) -> np.ndarray:
  """At most about `number` round values from `low` to `high`."""
  locator = ticker.MaxNLocator(number, steps=[1, 2, 2.5, 5, 10])
  ticks = locator.tick_values(low, high)
  slack = 1e-9 * (high - low)
  return ticks[(ticks >= low - slack) & (ticks <= high + slack)]


def value_ticks(axes: Axes) -> None:
  """About five round values on the y axis, linear or logarithmic."""
  low, high = sorted(axes.get_ylim())
  ticks = round_ticks(low, high, 6)
  if axes.get_yscale() == 'log':
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
      found = [s * 10.0**p for p in powers for s in steps]
      found = [tick for tick in found if low <= tick <= high]
      if len(found) >= 4:
        ticks = np.array(found)
        break
    axes.yaxis.set_minor_locator(ticker.NullLocator())
  axes.yaxis.set_major_locator(ticker.FixedLocator(list(ticks)))
  # Nine digits tell ticks apart and hide the rounding of binary fractions.
  labels = [f'{tick:.9g}'.replace('-', '−') for tick in ticks]
  axes.yaxis.set_major_formatter(ticker.FixedFormatter(labels))


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


def end_labels(axes: Axes, ends: Sequence[End], heading: str = '') -> None:
  """Names at the right of the curves, pushed apart so that none overlap."""
  if not ends:
    return
  figure = axes.get_figure()
  assert isinstance(figure, Figure)
  line = 8.5 / (72 * axes.get_position().height * figure.get_size_inches()[1])
  to_share = axes.transData + axes.transAxes.inverted()
  # Far out of view, a logarithm of nothing or beyond: the edge is as near as a name gets.
  low, high = sorted(axes.get_ylim())
  heights = [
    float(to_share.transform((axes.get_xlim()[1], min(max(end.value, low), high)))[1])
    for end in ends
  ]
  order = sorted(range(len(ends)), key=lambda i: (heights[i], i))
  lines = np.array([ends[i].label.count('\n') + 1 for i in order])
  gap = line * (lines[:-1] + lines[1:]) / 2
  places = np.array([heights[i] for i in order])
  for _ in range(200):  # relaxes overlaps; a handful of labels settle in a few rounds
    overlap = gap - np.diff(places)
    if (overlap <= 1e-9 * line).all():
      break
    push = np.maximum(overlap, 0) / 2
    places[:-1] -= push
    places[1:] += push
  # None above the axes, where the title is.
  top = 1 + line * (0.3 - lines[-1] / 2 - bool(heading))
  for i in reversed(range(len(places))):
    places[i] = min(places[i], top)
    top = places[i] - (gap[i - 1] if i else 0)
  for place, i in zip(places, order, strict=True):
    axes.annotate(
      ends[i].label,
      (ends[i].across, heights[i]),
      (1.045, place),
      xycoords='axes fraction',
      textcoords='axes fraction',
      size=7,
      color=ends[i].colour,
      weight='bold',
      va='center',
      linespacing=1.0,
      annotation_clip=False,
      arrowprops={
        'arrowstyle': '-',
        'color': ends[i].colour,
        'lw': 0.5,
        'shrinkA': 1,
        'shrinkB': 0,
        'relpos': (0, 0.5),  # from the side, or steep lines run through other names
      },
    )
  if heading:
    axes.text(
      1.045,
      places[-1] + line * (lines[-1] + 1) / 2,
      heading,
      size=6.5,
      color=GREY,
      va='center',
      transform=axes.transAxes,
    )


def _key(
  figure: Figure,
  axes: Axes,
  any_fit: bool,
  any_repeat: bool,
  any_compare: bool,
  fits: Mapping[Key, Fit | Refusal],
  labels: Sequence[str],
) -> None:
  """The key of a study's figures."""
  handles: list[Any] = []
  if any_repeat:
    handles.append(
      (
        Line2D([], [], color=GREY, marker='o', ms=3.5, lw=0.8),
        'mean and range of seeds',
      )
    )
  if any_fit:
    found = next(f for f in fits.values() if isinstance(f, Fit))
    level = f'{100 * found.level:.0f}%'
    handles += [
      (Line2D([], [], color=GREY), 'fit (dashed: beyond the data)'),
      (Patch(color=GREY, alpha=0.32, lw=0), f'{level} band of the curve'),
      (Patch(color=GREY, alpha=0.10, lw=0), f'{level} band of a new run'),
    ]
  if any_compare:
    handles.append((Line2D([], [], color=GREY, ls=':', lw=0.9), 'log-linear fit'))
  lay_out(figure, axes, handles, labels)


def lay_out(
  figure: Figure,
  axes: Axes,
  handles: Sequence[tuple[Any, str]],
  labels: Sequence[str] = (),
  columns: int = 2,
) -> None:
  """The key under the axes, and with it the size of the figure.

  Args:
    figure, axes: of `new_figure`.
    handles: an artist and what it stands for.
    labels: names that will stand at the ends of the curves.
    columns: of the key.
  """
  bottom = _BOTTOM + _ROW * -(-len(handles) // columns) + (0.05 if handles else 0)
  height = _TOP + _HEIGHT + bottom
  # Long names at the ends of the curves widen the figure rather than run out of it.
  longest = max(
    (len(line) for label in labels for line in label.split('\n')), default=0
  )
  width = _LEFT + _WIDTH + max(_RIGHT, 0.16 + 0.067 * longest)
  figure.set_size_inches(width, height)
  axes.set_position((_LEFT / width, bottom / height, _WIDTH / width, _HEIGHT / height))
  # Wide ticks push the name of the axis off the page: the axes give way.
  beside = axes.yaxis.get_tightbbox()
  over = max(0.0, 0.03 - beside.x0 / figure.dpi) if beside else 0.0
  left, across = _LEFT + over, _WIDTH - over
  axes.set_position((left / width, bottom / height, across / width, _HEIGHT / height))
  if handles:
    figure.legend(
      [handle for handle, _ in handles],
      [label for _, label in handles],
      loc='lower left',
      bbox_to_anchor=(0.01, 0.0),
      ncols=columns,
      columnspacing=1.2,
      handlelength=1.8,
      labelcolor='#333333',
    )
