"""The picture of pairs: the most certain, the least certain, and those that just failed."""

import numpy as np

from analysis.figures import Figure, FigureCanvasAgg, styled
from scaling.data import survey
from scaling.data.split import Split
from scaling.dedup.find import Found, Pairs

_COLUMNS = 6  # pairs in a row
_SPREAD, _EDGE = 30, 18  # pairs over all finds, and on each side of the cut
_LONGEST = 96  # pixels of an image
_PAIR, _CELL, _HEADING = 1.25, 0.78, 0.28  # inches: width of a pair, heights


def sheet(train: Split, test: Split, found: Found, title: str) -> Figure:
  """Returns pairs side by side, in three parts, with cosine and hash distance of each.

  Args:
    train: of the second images.
    test: of the first images.
    found: the pairs.
    title: of the sheet.
  """
  num = len(found.pairs)
  spread = np.unique(np.linspace(0, max(num - _EDGE - 1, 0), _SPREAD).astype(int))
  cut = f'cosine {found.cut.cosine:.3f}, hash {found.cut.distance}'
  parts = [
    (
      f'{num:,} found, evenly from the most certain on',
      found.pairs,
      spread[spread < num],
    ),
    (
      f'the least certain of them, next to the cut ({cut})',
      found.pairs,
      np.arange(max(num - _EDGE, 0), num),
    ),
    (
      'most alike of those that failed',
      found.missed,
      np.arange(min(_EDGE, len(found.missed))),
    ),
  ]
  parts = [part for part in parts if len(part[2])]
  rows = [-(-len(which) // _COLUMNS) for _, _, which in parts]
  height = 0.3 + sum(_HEADING + num_rows * _CELL for num_rows in rows)
  with styled():
    figure = Figure(figsize=(_COLUMNS * _PAIR, height))
    FigureCanvasAgg(figure)
    figure.text(0.01, 1 - 0.08 / height, title, va='top', size=8.5, weight='bold')
    top = 0.3
    for (heading, pairs, which), num_rows in zip(parts, rows, strict=True):
      figure.text(0.01, 1 - (top + 0.06) / height, heading, va='top', size=7)
      _draw(figure, train, test, pairs, which, top + _HEADING, height)
      top += _HEADING + num_rows * _CELL
  return figure


def _draw(
  figure: Figure,
  train: Split,
  test: Split,
  pairs: Pairs,
  which: np.ndarray,
  top: float,
  height: float,
) -> None:
  images = [
    survey.thumbnails(split, ids[which], _LONGEST)
    for split, ids in ((test, pairs.test), (train, pairs.train))
  ]
  side = 0.46 * _PAIR
  for place, row in enumerate(which):
    down, across = divmod(place, _COLUMNS)
    for number in (0, 1):
      image = images[number][place]
      if image is None:
        continue
      left = (across + 0.02 + 0.48 * number) / _COLUMNS
      bottom = 1 - (top + down * _CELL + side) / height
      width = 0.46 / _COLUMNS
      axes = figure.add_axes((left, bottom, width, side / height))
      axes.set_axis_off()
      shown = np.repeat(image, 3, 2) if image.shape[2] == 1 else image[..., :3]
      axes.imshow(shown, interpolation='nearest')
    text = f'{pairs.alignment.cosine[row]:.3f}, hash {pairs.alignment.distance[row]}'
    figure.text(
      (across + 0.02) / _COLUMNS,
      1 - (top + down * _CELL + side + 0.03) / height,
      f'{text}, {pairs.kind(row)}'.removesuffix(', same frame'),
      va='top',
      size=4.5,
    )
