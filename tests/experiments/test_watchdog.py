import subprocess
import sys
import time

import pytest

from experiments.watchdog import HUNG, watchdog

HANG = """
import pathlib, sys, threading, time
from experiments.watchdog import watchdog
folder = pathlib.Path(sys.argv[1])
def hung():
  (folder / 'said').write_text('hung')
  raise KeyError('nobody to tell')  # it ends all the same
def stuck_in_here():
  threading.Event().wait(600)
with watchdog(0.5, folder / 'log', hung) as beat:
  beat()
  stuck_in_here()
"""

# Holds the interpreter's lock: no thread of Python gets to run.
HOLD = """
import ctypes, pathlib, sys
from experiments import watchdog as w
w._LAST_SECONDS = 0.5
with w.watchdog(0.5, pathlib.Path(sys.argv[1]) / 'log', lambda: None) as beat:
  beat()
  import time
  time.sleep(0.4)  # the thread of C is armed
  ctypes.PyDLL(None).sleep(600)
"""


def run(code, folder):
  return subprocess.run(
    [sys.executable, '-c', code, str(folder)], timeout=60
  ).returncode


def test_a_process_that_gets_no_further_ends_and_says_where_it_was(tmp_path):
  assert run(HANG, tmp_path) == HUNG
  assert (tmp_path / 'said').read_text() == 'hung'
  assert 'in stuck_in_here' in (tmp_path / 'log').read_text()


def test_so_does_one_that_lets_no_thread_run(tmp_path):
  assert run(HOLD, tmp_path) == 1  # faulthandler's own
  assert 'Timeout' in (tmp_path / 'log').read_text()


def test_who_gets_further_is_left_alone(tmp_path):
  said = []
  with watchdog(0.2, tmp_path / 'log', lambda: said.append('hung')) as beat:
    end = time.monotonic() + 1
    while time.monotonic() < end:
      beat()
  assert said == []
  with (
    pytest.raises(KeyError),
    watchdog(600, tmp_path / 'log', lambda: said.append('hung')),
  ):
    raise KeyError
  assert (tmp_path / 'log').read_text() == ''
