import os
import subprocess
import sys

import pytest

from experiments.launch import cores

HOLD = """
import sys
from experiments.launch import cores
with cores.held(1) as found:
  print(*found, flush=True)
  sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(
  not hasattr(os, 'sched_getaffinity'), reason='only Linux lets a process choose cores'
)


@pytest.fixture
def free() -> list[int]:
  """The cores that nobody holds."""
  here = cores.here()
  for number in range(len(here), 0, -1):
    with cores.held(number) as found:
      if found:
        return found
  pytest.skip('a study on this machine holds all cores')


def test_each_holder_has_cores_of_its_own(free):
  with cores.held(1) as one:
    assert one == free[:1]
    with cores.held(len(free)) as too_many:
      assert too_many == []
    with cores.held(len(free) - 1) as others:
      assert others == free[1:]
  with cores.held(len(free)) as again:
    assert again == free
  with cores.held(0) as none:
    assert none == []


def test_a_killed_holder_leaves_nothing_behind(free):
  with subprocess.Popen(
    [sys.executable, '-c', HOLD],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    assert process.stdout is not None
    assert process.stdout.readline().split() == [str(free[0])]
    with cores.held(len(free)) as found:
      assert found == []
    process.kill()
    process.wait()
    with cores.held(len(free)) as found:
      assert found == free
