"""What devices send one another: read from a compiled program, and what it comes to.

`find` reads the collectives of an HLO text, `sent_bytes` says what a ring algorithm
sends for one, so that a model of communication can be held against the compiler's.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

_KINDS = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
)
_BITS = {'pred': 8, 's4': 4, 'u4': 4, 'bf16': 16, 'c64': 64, 'c128': 128}
_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.\-]+) .*\{$')
_INSTRUCTION = re.compile(
  r'^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*?)\)(, .*)?$'
)
_ARRAY = re.compile(r'\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]')


@dataclasses.dataclass(frozen=True)
class Collective:
  """One instruction.

  Attributes:
    kind: 'all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all' or
      'collective-permute'.
    operand_bytes: what one device puts in.
    group: devices that take part together.
    times: how often a run of the program executes it: trips of its loops.
    op_name: where it comes from, as the tracer named it.
  """

  kind: str
  operand_bytes: int
  group: int
  times: int = 1
  op_name: str = ''

  @property
  def sent_bytes(self) -> float:
    """What one device sends, over all executions."""
    return self.times * sent_bytes(self.kind, self.operand_bytes, self.group)


def sent_bytes(kind: str, operand_bytes: float, group: int) -> float:
  """Returns what one device of a group sends by the ring algorithm, the least possible.

  Args:
    kind: of the collective.
    operand_bytes: what one device puts in: of an all-gather its own part.
    group: devices that take part.
  """
  if kind == 'all-gather':
    return operand_bytes * (group - 1)
  if kind == 'collective-permute':
    return operand_bytes
  rounds = 2 if kind == 'all-reduce' else 1
  return rounds * operand_bytes * (group - 1) / group


def find(hlo: str) -> list[Collective]:
  """Returns the collectives of a compiled module, in the order of the text.

  Args:
    hlo: `compiled.as_text()`. The trips of a loop count where XLA knows them.
  """
  partitions = re.search(r'num_partitions=(\d+)', hlo)
  replicas = re.search(r'replica_count=(\d+)', hlo)
  devices = int((partitions or replicas or [1, 1])[1])
  sizes: dict[str, int] = {}
  found: list[tuple[str, str, str, str]] = []
  bodies: dict[str, tuple[str, int]] = {}  # of loops: where they stand, and trips
  for computation, name, result, operation, operands, rest in _instructions(hlo):
    sizes[name] = _bytes(result)
    kind = operation.removesuffix('-start')
    if kind in _KINDS:
      found.append((computation, kind, operands, rest))
    for body in re.findall(r'(?:body|calls|to_apply)=%?([\w.\-]+)', rest):
      trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', rest)
      bodies[body] = computation, int(trips[1]) if trips else 1

  def times(computation: str) -> int:
    if computation not in bodies:
      return 1
    outer, trips = bodies[computation]
    return trips * times(outer)

  collectives = []
  for computation, kind, operands, rest in found:
    op_name = re.search(r'op_name="([^"]*)"', rest)
    collectives.append(
      Collective(
        kind=kind,
        operand_bytes=sum(sizes[name] for name in re.findall(r'%([\w.\-]+)', operands)),
        group=_group(rest, devices),
        times=times(computation),
        op_name=op_name[1] if op_name else '',
      )
    )
  return collectives


def _instructions(hlo: str) -> Iterator[tuple[str, str, str, str, str, str]]:
  """Yields computation, name, result, operation, operands and the rest of each line."""
  computation = ''
  for line in hlo.splitlines():
    if match := _COMPUTATION.match(line):
      computation = match[2]
    elif match := _INSTRUCTION.match(re.sub(r'/\*.*?\*/', '', line)):
      yield computation, match[1], match[2], match[3], match[4], match[5] or ''


def _bytes(result: str) -> int:
  """Returns the size of an array or a tuple of arrays, such as `(f32[3,4]{1,0}, u8[])`."""
  total = 0
  for dtype, shape in _ARRAY.findall(result):
    digits = re.search(r'\d+', dtype)
    bits = _BITS.get(dtype, int(digits[0]) if digits else 8)
    elements = math.prod(int(side) for side in shape.split(',') if side)
    total += -(-elements * bits // 8)
  return total


def _group(rest: str, devices: int) -> int:
  """Returns how many devices act together, from any of XLA's three notations."""
  if match := re.search(r'replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}', rest):
    axes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
    return math.prod(int(axes[axis]) for axis in re.findall(r"'(\w+)'", match[2]))
  if match := re.search(r'replica_groups=\[\d+,(\d+)\]', rest):
    return int(match[1])
  if match := re.search(r'replica_groups=\{\{([\d,]+)\}', rest):
    return len(match[1].split(','))
  return devices
