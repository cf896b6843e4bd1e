"""The two pictures of an image set: its classes by frequency, and some of its images."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.figures import (
  End,
  Figure,
  FigureCanvasAgg,
  colours,
  end_labels,
  lay_out,
  new_figure,
  size_axis,
  styled,
)

_COLUMNS = 8
_INCHES = 0.95  # of a cell of the sheet
_CAPTION = 0.3  # inches under an image
_LETTERS = 22  # of a line of it


def counts_by_rank(
  counts: Mapping[str, NDArray[np.int64]], title: str, note: str = ''
) -> Figure:
  """Images of each class against its rank in frequency, both axes logarithmic.

  Args:
    counts: of each part, `[C]` images.
    title: above the axes.
    note: under the title.
  """
  with styled():
    figure, axes = new_figure(title, note)
    axes.set_xscale('log')
    axes.set_yscale('log')
    ends: list[End] = []
    top, last = 1, 1
    for (part, found), colour in zip(
      counts.items(), reversed(colours(len(counts))), strict=True
    ):
      found = np.sort(found[found > 0])[::-1]
      if not len(found):
        continue
      ranks = np.arange(1, len(found) + 1)
      # Markers show few classes one by one, where many make a line.
      axes.plot(ranks, found, '.-' if len(found) <= 100 else '-', color=colour, ms=3)
      ends.append(End(float(found[-1]), part, colour))
      top, last = max(top, int(found[0])), max(last, len(found))
    axes.set_xlim(0.9, max(last, 2) * 1.05)
    axes.set_ylim(0.7, top * 1.5)
    size_axis(axes)
    size_axis(axes, upright=True)
    axes.set_xlabel('classes, most frequent first (log scale)')
    axes.set_ylabel('images (log scale)')
    lay_out(figure, axes, [], [end.label for end in ends])
    end_labels(axes, ends)
  return figure


def contact_sheet(
  images: Sequence[NDArray[np.uint8] | None], captions: Sequence[str], title: str
) -> Figure:
  """Small images in rows, each above its labels; a corrupt one is an empty frame.

  Args:
    images: `[h, w, C]` each.
    captions: of each image.
    title: of the sheet.
  """
  rows = max(1, -(-len(images) // _COLUMNS))
  width = _COLUMNS * _INCHES
  cell = _INCHES + _CAPTION
  height = rows * cell + 0.3
  with styled():
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    figure.text(0.01, 1 - 0.1 / height, title, va='top', size=8.5, weight='bold')
    for place, (image, caption) in enumerate(zip(images, captions, strict=True)):
      row, column = divmod(place, _COLUMNS)
      axes = figure.add_axes(
        (
          (column + 0.04) / _COLUMNS,
          1 - (0.3 + row * cell + 0.96 * _INCHES) / height,
          0.92 / _COLUMNS,
          0.92 * _INCHES / height,
        )
      )
      axes.set_xticks([])
      axes.set_yticks([])
      axes.grid(False)
      for spine in axes.spines.values():
        spine.set_visible(image is None)
      if image is None:
        axes.text(0.5, 0.5, 'corrupt', ha='center', va='center', size=6)
      else:
        shown = np.repeat(image, 3, 2) if image.shape[2] == 1 else image[..., :3]
        axes.imshow(shown, interpolation='nearest')
      axes.set_xlabel(_lines(caption), size=5, labelpad=2, va='top')
  return figure


def _lines(caption: str) -> str:
  """Returns the caption in two lines at most; `$` would begin a formula."""
  lines = textwrap.wrap(caption, _LETTERS, max_lines=2, placeholder=' …')
  return '\n'.join(lines).replace('$', r'\$')
