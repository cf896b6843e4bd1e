"""A figure for the arms of a study: means and seeds against images, steps or shares."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.contrasts import means
from analysis.drawing import view_of
from analysis.figures import (
  MARKERS,
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
from analysis.laws import Kind


def arms_figure(
  table: pd.DataFrame,
  x: str,
  *,
  title: str,
  label: str,
  arms: Sequence[str] = (),
  metric: str = 'test top-1 accuracy',
  kind: Kind = 'accuracy',
  log: bool = True,
  note: str = '',
) -> Figure:
  """One line per arm through the means; a small mark for each run.

  Bars are 90% intervals of the means, with the seeds' variance pooled over the arm.

  Args:
    table: of `analysis.contrasts.with_arms`.
    x: column of the horizontal axis.
    title: above the axes.
    label: of the horizontal axis.
    arms: their order; without, as they come.
    metric: words on the value axis.
    kind: of the values.
    log: whether the horizontal axis is logarithmic.
    note: under the title.
  """
  names = [
    name for name in arms or dict.fromkeys(table['arm']) if name in set(table['arm'])
  ]
  view = view_of(kind, 'score', table['value'].to_numpy(float))
  with styled():
    figure, axes = new_figure(title, note)
    if log:
      axes.set_xscale('log')
    ends = []
    # Every second line is dashed and lies above, so that of two that coincide both show.
    styles = itertools.cycle([('-', 3.0), ((0, (3, 2)), 3.5)])
    for name, colour, marker, (style, height) in zip(
      names, colours(len(names)), itertools.cycle(MARKERS), styles, strict=False
    ):
      rows = table[table['arm'] == name]
      axes.plot(
        rows[x],
        view.shown(rows['value'].to_numpy(float)),
        marker,
        color=colour,
        ms=2.2,
        alpha=0.45,
        mew=0,
        zorder=2,
      )
      found = means(rows, [x])
      at = np.array([key[0] for key in found], float)
      middle = np.array([each.value for each in found.values()])
      half = np.array([each.hi - each.value for each in found.values()])
      axes.plot(at, view.shown(middle), color=colour, ls=style, zorder=height)
      if np.isfinite(half).all():
        axes.errorbar(
          at,
          view.shown(middle),
          yerr=view.unit * half,
          fmt='none',
          ecolor=colour,
          elinewidth=0.7,
          capsize=1.5,
          zorder=3,
        )
      ends.append(End(float(view.shown(middle[-1])), name.replace(', ', '\n'), colour))
    axes.set_xlabel(label)
    axes.set_ylabel(view.label(metric))
    value_ticks(axes)
    if log:
      size_axis(axes)
    lay_out(figure, axes, [], [end.label for end in ends])
    end_labels(axes, ends)
  return figure
