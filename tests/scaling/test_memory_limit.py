"""How much memory a process may have."""

import os

import pytest

from scaling import cores

MACHINE = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


@pytest.fixture
def system(tmp_path):
  """Returns a function that makes what the kernel says of the groups of this process."""

  def make(groups, files):
    (tmp_path / 'proc' / 'self').mkdir(parents=True)
    (tmp_path / 'proc' / 'self' / 'cgroup').write_text(groups)
    for name, text in files.items():
      path = tmp_path / 'sys' / 'fs' / 'cgroup' / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(text)
    return tmp_path

  return make


@pytest.mark.parametrize(
  ('groups', 'files', 'expected'),
  [
    ('0::/\n', {}, MACHINE),
    ('0::/\n', {'memory.max': 'max\n'}, MACHINE),
    ('0::/\n', {'memory.max': '4096000\n'}, 4096000),
    ('0::/a/b\n', {'a/memory.max': '5000', 'a/b/memory.max': '9000'}, 5000),
    ('0::/a/b\n', {'memory.max': '9000', 'a/b/memory.max': '5000'}, 5000),
    ('0::/not/seen/here\n', {'memory.max': '7000'}, 7000),
    ('5:cpu:/x\n4:memory:/x\n', {'memory/x/memory.limit_in_bytes': '6000'}, 6000),
    ('4:memory:/x\n', {'memory/memory.limit_in_bytes': '9223372036854771712'}, MACHINE),
    ('4:cpu:/x\n', {'memory/x/memory.limit_in_bytes': '6000'}, MACHINE),
  ],
)
def test_the_least_that_a_group_or_the_machine_has(system, groups, files, expected):
  assert cores.memory_bytes(system(groups, files)) == expected


def test_a_machine_that_says_nothing_of_groups(tmp_path):
  assert cores.memory_bytes(tmp_path) == MACHINE


def test_here():
  assert 2**28 < cores.memory_bytes() <= MACHINE
