"""The page that figures are drawn on: style, axes, names, key. The home of matplotlib.

Built on matplotlib's objects without pyplot, so nothing global changes and figures can
be made in any thread. Colours are ordered from light to dark, so that the order survives
a grey print and colour blindness; names stand at the ends of the curves rather than in a
legend over the data.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib import colors, ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis import words
from analysis.files import replacing

STYLE: dict[Any, Any] = {
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
MARKERS = 'osD^vPX*'
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
  return [colors.to_hex(map_(place)) for place in places]


def save_figure(
  figure: Figure,
  stem: str | os.PathLike[str],
  suffixes: Sequence[str] = ('png', 'svg'),
) -> tuple[pathlib.Path, ...]:
  """Writes STEM.png (200 dpi) and STEM.svg; equal figures give equal bytes."""
  stem = pathlib.Path(stem)
  unsaid = {'png': {'Software': None}, 'svg': {'Date': None}}  # what changes by itself
  paths = []
  with styled():
    for suffix in suffixes:
      metadata = unsaid[suffix]
      path = stem.with_name(f'{stem.name}.{suffix}')
      with replacing(path) as temporary:
        figure.savefig(temporary, format=suffix, dpi=200, metadata=metadata)
      paths.append(path)
  return tuple(paths)


def styled():
  """Context in which every figure is made and written."""
  return matplotlib.rc_context(STYLE)


def new_figure(title: str, *notes: str) -> tuple[Figure, Axes]:
  """One column wide, with its title and a line of small print; see `lay_out`."""
  note = '; '.join(note for note in notes if note)
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
  ticks = np.asarray(locator.tick_values(low, high))
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
