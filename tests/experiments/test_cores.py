import os
import subprocess
import sys

import pytest

from experiments.launch import cores

HOLD = """
import sys
from experiments.launch import cores
cores._CLAIM = sys.argv[1]
with cores.held(1) as found:
  print(*found, flush=True)
  sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(
  not hasattr(os, 'sched_getaffinity'), reason='only Linux lets a process choose cores'
)


@pytest.fixture
def free(monkeypatch) -> list[int]:
  """All cores, claimed by names that no study on this machine has."""
  monkeypatch.setattr(cores, '_CLAIM', f'core for a test of {os.getpid()}')
  return cores.here()


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
    [sys.executable, '-c', HOLD, cores._CLAIM],
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
