"""Claims set beside measurements: holds, does not hold, cannot say.

A claim is never confirmed by a point estimate: the interval decides, and where it is too
wide the verdict says so, and what would narrow it.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from analysis import words
from analysis.contrasts import LEVEL, Bend, Estimate
from analysis.document import Block, Heading, Item, Items
from analysis.laws import Kind

Answer = Literal['holds', 'does not hold', 'cannot say']
_STRAIGHT = 0.1  # of the gain: a bend below it is none
REPEAT = 'no run was repeated with another seed'


class Verdict(NamedTuple):
  """What became of a claim.

  Attributes:
    claim: in words.
    published: numbers with their source, or ''.
    measured: the same quantity here, with its interval.
    answer: the verdict.
    because: the rule that decided.
  """

  claim: str
  published: str
  measured: str
  answer: Answer
  because: str


def above(
  claim: str,
  published: str,
  found: Estimate | None,
  *,
  what: str,
  kind: Kind = 'accuracy',
  margin: float = 0.0,
) -> Verdict:
  """Judges the claim that a difference is above `margin`.

  Args:
    claim: in words.
    published: see `Verdict`.
    found: the difference; None where nothing was measured.
    what: names the difference.
    kind: of the values.
    margin: in the unit of the data.
  """
  if found is None or found.num == 0:
    return Verdict(claim, published, '', 'cannot say', 'no finished cells compare it')
  measured = f'{what}: {said(found, kind)}'
  if not math.isfinite(found.hi):
    return Verdict(claim, published, measured, 'cannot say', REPEAT)
  if found.lo > margin:
    return Verdict(claim, published, measured, 'holds', 'the interval is above it')
  if found.hi <= margin:
    return Verdict(
      claim, published, measured, 'does not hold', 'the interval is not above it'
    )
  return Verdict(
    claim, published, measured, 'cannot say', 'the interval has both; more seeds'
  )


def on_par(
  claim: str,
  published: str,
  found: Estimate | None,
  *,
  what: str,
  margin: float,
  kind: Kind = 'accuracy',
) -> Verdict:
  """Judges the claim that a difference is less than `margin` either way.

  Args:
    claim: in words.
    published: see `Verdict`.
    found: the difference.
    what: names it.
    margin: in the unit of the data.
    kind: of the values.
  """
  if found is None or found.num == 0:
    return Verdict(claim, published, '', 'cannot say', 'no finished cells compare it')
  measured = f'{what}: {said(found, kind)}'
  if not math.isfinite(found.hi):
    return Verdict(claim, published, measured, 'cannot say', REPEAT)
  size = f'{words.gain(margin, kind, False)}{words.points(kind)}'
  if -margin < found.lo and found.hi < margin:
    because = f'the interval is within {size}'
    return Verdict(claim, published, measured, 'holds', because)
  if found.lo >= margin or found.hi <= -margin:
    because = f'the interval is beyond {size}'
    return Verdict(claim, published, measured, 'does not hold', because)
  because = f'the interval has less and more than {size}; more seeds'
  return Verdict(claim, published, measured, 'cannot say', because)


def straight(
  claim: str, published: str, found: Bend | None, *, kind: Kind = 'accuracy'
) -> Verdict:
  """Judges the claim that a curve is a line in log(size), by how far it bends."""
  if found is None:
    because = 'fewer than four sizes have a result'
    return Verdict(claim, published, '', 'cannot say', because)
  middle, limit = found.middle, _STRAIGHT * found.gain.value
  measured = (
    f'bend in the middle: {said(middle, kind)}, of a gain of {said(found.gain, kind)}'
  )
  if not math.isfinite(middle.hi):
    return Verdict(claim, published, measured, 'cannot say', REPEAT)
  if found.gain.lo <= 0:
    because = 'there may be no gain to be log-linear'
    return Verdict(claim, published, measured, 'cannot say', because)
  share = f'a tenth of the gain ({words.gain(limit, kind, False)})'
  if -limit < middle.lo and middle.hi < limit:
    return Verdict(claim, published, measured, 'holds', f'it is less than {share}')
  if middle.lo >= limit or middle.hi <= -limit:
    because = f'it is more than {share}'
    return Verdict(claim, published, measured, 'does not hold', because)
  because = f'the interval has less and more than {share}; more seeds'
  return Verdict(claim, published, measured, 'cannot say', because)


def said(found: Estimate, kind: Kind = 'accuracy') -> str:
  """Returns a difference in words, with its interval."""
  value = f'{words.gain(found.value, kind)}{words.points(kind)}'
  if not math.isfinite(found.hi):
    return f'{value} (no interval)'
  return f'{value} ({words.interval(found.lo, found.hi, kind, True)})'


def verdict_blocks(verdicts: Sequence[Verdict]) -> list[Block]:
  """Returns the claims, each with its verdict and why."""
  items = []
  for v in verdicts:
    told = (('published', v.published), ('measured here', v.measured), ('', v.because))
    items.append(Item(v.answer, v.claim, [each for each in told if each[1]]))
  note = (
    f'Intervals are {100 * LEVEL:.0f}% and speak of new runs on the same test images. '
    '[T]: the talk; [C]: calculated from its numbers; other sources are named.'
  )
  return [Heading('Claims'), Items(items, note)]
