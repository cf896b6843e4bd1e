"""The sections of a report that look ahead: flat yet? how do depths compare? what next?"""

from collections.abc import Hashable, Mapping, Sequence

from analysis import words
from analysis.depths import Together, crossings, together
from analysis.document import Block, Heading, Paragraph, Table
from analysis.fit import Fit
from analysis.fit_table import Fits
from analysis.groups import Key
from analysis.laws import Kind
from analysis.plateau import Plateau, plateau
from analysis.spend import Goal, next_runs

_AHEAD = 10  # times the largest size: what the default forecast goal asks
_MAX_CURVES = 12  # beyond it nobody reads the pairs


def plateau_blocks(fits: Fits, names: Mapping[Key, str], kind: Kind) -> list[Block]:
  """Is the curve flat yet: floor, tests, and the next doubling."""
  rows = []
  for key, found in fits.items():
    answer = plateau(found) if isinstance(found, Fit) else None
    if not isinstance(answer, Plateau):
      continue
    floor = words.interval(answer.floor_lo, answer.floor_hi, kind)
    if answer.upper_bound_only:
      floor = f'at most {words.score(answer.floor_hi, kind)}'
    gain = words.interval(answer.gain_lo, answer.gain_hi, kind, True)
    rows.append(
      [
        names[key],
        answer.verdict,
        f'{words.gain(answer.gain, kind)} ({gain})',
        floor,
        f'{answer.p_floor:.2g}',
      ]
    )
  if not rows:
    return []
  unit = '' if kind == 'loss' else ' (points)'
  return [
    Heading('Is it flat yet?'),
    Table(
      [
        'curve',
        'verdict',
        f'next doubling{unit}',
        'floor of the error',
        'p (floor = 0)',
      ],
      rows,
      'Floor: the error with unlimited data under the power law with floor, by profile '
      'likelihood; where it cannot be told from 0 only its upper end means something. '
      'p: of an error that falls to 0, corrected for the bound.',
    ),
  ]


def together_blocks(fits: Mapping[Hashable, Fit], label: str) -> list[Block]:
  """Several curves of one family: exponents, and from where on which is better."""
  if not 2 <= len(fits) <= _MAX_CURVES:
    return []
  answer = together(fits)
  if not isinstance(answer, Together):
    return []
  rows = [
    [
      f'{label} {key}',
      *(
        words.estimate(one.value, one.lo, one.hi)
        for one in (pooled.alone, pooled.exponent, pooled.floor)
      ),
    ]
    for key, pooled in answer.pooled.items()
  ]
  return [
    Heading('The curves together'),
    Table(
      ['curve', 'exponent alone', 'exponent pooled', 'floor pooled'],
      rows,
      'Power law with floor; exponents drawn towards each other as far as the data say '
      'they are alike, floors separate.',
    ),
    Paragraph(answer.words, lead=True),
    *(Paragraph(crossing.words, lead=True) for crossing in crossings(fits)),
  ]


def spend_blocks(
  fits: Fits, names: Mapping[Key, str], budget: float | None, kind: Kind
) -> list[Block]:
  """Which runs, for `budget` images, would narrow each goal most."""
  if not budget:
    return []
  blocks: list[Block] = [Heading(f'Where to spend {words.images(budget)} images')]
  for key, found in fits.items():
    if not isinstance(found, Fit):
      continue
    ahead = _AHEAD * float(found.points.sizes[-1])
    goals: tuple[Goal, ...] = ('exponent', 'floor', ('forecast', ahead))
    for goal in goals:
      options = next_runs(found, goal, budget)
      if not isinstance(options, Sequence):
        blocks.append(Paragraph(f'{names[key]}: {options.reason}.', lead=True))
      elif options:
        blocks.append(Paragraph(f'{names[key]}: {options[0].words}.', lead=True))
  return blocks
