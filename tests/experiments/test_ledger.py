import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

import pytest
from leases import END, forge, let_go

from experiments import ledger
from scaling.errors import StorageError, UserError


@pytest.fixture
def cell(tmp_path) -> pathlib.Path:
  folder = tmp_path / 'cell'
  folder.mkdir()
  return folder


@pytest.fixture
def claim():
  """`ledger.claim`, whose leases are let go after the test."""
  leases = []

  def keep(cell: pathlib.Path) -> ledger.Lease | None:
    lease = ledger.claim(cell)
    leases.append(lease)
    return lease

  yield keep
  for lease in filter(None, leases):
    let_go(lease)


@pytest.mark.parametrize('state', END)
def test_a_cell_is_claimed_and_ended(cell, claim, state):
  assert ledger.read_status(cell) == ledger.Status()
  lease = claim(cell)
  running = ledger.read_status(cell)
  assert (running.state, running.attempts, running.vanished) == ('running', 1, 0)
  assert running.lease is not None
  assert running.lease['pid'] == os.getpid()
  assert not ledger.is_stale(cell, running)
  assert claim(cell) is None
  END[state](lease)
  ended = ledger.read_status(cell)
  assert ended == ledger.Status(
    state,
    None if state == 'done' else 'why',
    attempts=1,
    failures=int(state in ('retryable', 'failed')),
    preemptions=int(state == 'preempted'),
  )
  again = claim(cell)
  assert (again is not None) == (state in ledger.WAITING)
  if again is not None:
    assert ledger.read_status(cell).attempts == 2
    assert ledger.read_status(cell).reason is None


def test_errors_and_interruptions_have_budgets_of_their_own(cell, claim):
  for _ in range(ledger.MAX_PREEMPTIONS - 1):
    claim(cell).preempted('saved')
    assert ledger.read_status(cell).state == 'preempted'
  claim(cell).failed('bad luck')
  assert ledger.read_status(cell).state == 'retryable'
  claim(cell).failed('bad luck')
  failed = ledger.read_status(cell)
  assert (failed.state, failed.failures) == ('failed', ledger.MAX_FAILURES)
  assert ledger.reopen(cell, ('failed',))
  for _ in range(ledger.MAX_PREEMPTIONS):
    claim(cell).preempted('saved')
  failed = ledger.read_status(cell)
  assert (failed.state, failed.preemptions) == ('failed', ledger.MAX_PREEMPTIONS)
  assert failed.reason == 'interrupted 100 times'
  assert claim(cell) is None


def test_a_cancelled_cell_tells_its_holder(cell, claim, monkeypatch):
  monkeypatch.setattr(ledger, 'WATCH_SECONDS', 0.02)
  lease = claim(cell)
  assert ledger.cancel(cell)
  assert lease.cancelled.wait(20)
  assert not lease.lost.is_set()
  with pytest.raises(ledger.LeaseLostError):
    lease.preempted('saved at step 3')
  assert ledger.read_status(cell).state == 'cancelled'
  assert not ledger.cancel(cell)
  assert claim(cell) is None
  assert ledger.reopen(cell, ('cancelled',))
  assert claim(cell) is None  # it may be saving still
  lease.leave()
  assert ledger.read_status(cell) == ledger.Status('pending', attempts=1)
  assert claim(cell) is not None
  lease.leave()  # of what another has by now
  assert ledger.read_status(cell).state == 'running'


def test_a_cancelled_cell_that_waits_again_still_tells_its_holder(cell, claim):
  lease = claim(cell)
  assert ledger.cancel(cell)
  assert ledger.reopen(cell, ('cancelled',))
  with pytest.raises(ledger.LeaseLostError):
    lease.done()
  assert lease.cancelled.is_set()
  assert not lease.lost.is_set()


def test_who_was_cancelled_and_is_gone_keeps_nobody_out(cell, claim):
  let_go(claim(cell))
  assert ledger.cancel(cell)
  assert ledger.reopen(cell, ('cancelled',))
  forge(cell, start='another start')
  assert claim(cell) is not None


def test_who_vanished_before_the_last_rows_is_forgotten(cell, claim):
  for _ in range(ledger.MAX_VANISHED - 1):
    let_go(claim(cell))
    forge(cell, start='another start')
  lease = claim(cell)
  (cell / 'metrics.jsonl').write_text('{"step": 100}\n')
  lease.preempted('saved')
  let_go(claim(cell))
  forge(cell, start='another start')
  assert claim(cell) is not None
  assert ledger.read_status(cell).vanished == 1


def test_a_lease_is_renewed_until_it_is_ended(cell, claim, monkeypatch):
  monkeypatch.setattr(ledger, 'RENEW_SECONDS', 0.02)
  lease = claim(cell)
  before = (cell / 'status.json').stat().st_mtime_ns
  end = time.monotonic() + 20
  while (cell / 'status.json').stat().st_mtime_ns == before:
    assert time.monotonic() < end
    time.sleep(0.01)
  lease.done()  # it knows the file that it renewed as its own
  assert ledger.read_status(cell).state == 'done'
  before = (cell / 'status.json').stat().st_mtime_ns
  time.sleep(0.1)
  assert (cell / 'status.json').stat().st_mtime_ns == before


def test_of_two_threads_one_gets_a_cell(tmp_path, claim):
  cells = [tmp_path / f'{i}' for i in range(40)]
  for cell in cells:
    cell.mkdir()
  start = threading.Barrier(2)
  won: list[list[str]] = [[], []]

  def race(number: int) -> None:
    for cell in cells:
      start.wait()  # both at each cell at once
      if claim(cell) is not None:
        won[number].append(cell.name)

  threads = [threading.Thread(target=race, args=(number,)) for number in range(2)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sorted(won[0] + won[1]) == sorted(cell.name for cell in cells)
  assert all(ledger.read_status(cell).attempts == 1 for cell in cells)


WORKER = """
import pathlib, sys, time
from experiments import ledger
folder, work = pathlib.Path(sys.argv[1]), sys.argv[2]
print('ready', flush=True)
sys.stdin.readline()
for cell in sorted(folder.iterdir()):
  lease = ledger.claim(cell)
  if lease is not None:
    print(cell.name, flush=True)
    if work == 'hold':
      time.sleep(600)
    lease.done()
"""


@contextlib.contextmanager
def workers(folder: pathlib.Path, work: str, number: int):
  """Processes that go through the cells of a folder, once told to on their input."""
  with contextlib.ExitStack() as stack:
    processes = [
      stack.enter_context(
        subprocess.Popen(
          [sys.executable, '-c', WORKER, str(folder), work],
          stdin=subprocess.PIPE,
          stdout=subprocess.PIPE,
          text=True,
        )
      )
      for _ in range(number)
    ]
    for process in processes:
      assert process.stdout is not None
      assert process.stdout.readline() == 'ready\n'
    try:
      yield processes
    finally:
      for process in processes:
        process.kill()


def test_of_several_processes_one_gets_a_cell(tmp_path):
  for i in range(40):
    (tmp_path / f'{i:02}').mkdir()
  with workers(tmp_path, 'end', 4) as processes:
    for process in processes:
      process.stdin.write('\n')
      process.stdin.flush()
    won = [name for process in processes for name in process.stdout.read().split()]
  assert sorted(won) == [f'{i:02}' for i in range(40)]
  for i in range(40):
    expected = ledger.Status('done', attempts=1)
    assert ledger.read_status(tmp_path / f'{i:02}') == expected


def die_over(folder: pathlib.Path) -> None:
  """Has a process claim a cell and killed over it."""
  with workers(folder, 'hold', 1) as (process,):
    process.stdin.write('\n')
    process.stdin.flush()
    assert process.stdout.readline() == 'cell\n'
    assert ledger.claim(folder / 'cell') is None  # it lives and holds the cell
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_killed_holder_is_followed_at_once_and_its_cell_given_up_in_the_end(
  cell, claim
):
  for deaths in range(1, ledger.MAX_VANISHED):
    die_over(cell.parent)
    before = ledger.read_status(cell)
    assert ledger.is_stale(cell, before)
    assert (before.attempts, before.vanished) == (deaths, deaths - 1)
    assert before.preemptions == deaths - 1
  die_over(cell.parent)
  assert claim(cell) is None
  given_up = ledger.read_status(cell)
  assert given_up.state == 'failed'
  assert given_up.vanished == ledger.MAX_VANISHED
  assert given_up.reason is not None
  assert 'vanished over it before its first row' in given_up.reason

  assert ledger.reopen(cell, ('failed',))
  assert not ledger.reopen(cell, ('failed',))  # it is failed no longer
  assert ledger.read_status(cell) == ledger.Status(attempts=ledger.MAX_VANISHED)
  assert claim(cell) is not None


def test_deaths_that_get_further_each_time_are_preemptions(cell, claim):
  for step in range(ledger.MAX_VANISHED + 2):
    assert claim(cell) is not None
    (cell / 'metrics.jsonl').write_text(json.dumps({'step': step}) + '\n')
    forge(cell, start='another start')
  status = ledger.read_status(cell)
  assert (status.vanished, status.preemptions) == (1, ledger.MAX_VANISHED + 1)
  for _ in range(ledger.MAX_VANISHED - 2):
    assert claim(cell) is not None
    forge(cell, start='another start')
  assert claim(cell) is not None  # the death that got to the last row is not counted
  forge(cell, start='another start')
  assert claim(cell) is None
  assert 'at step 6' in str(ledger.read_status(cell).reason)


def test_a_lease_that_was_taken_over_publishes_nothing(cell, claim):
  lost = claim(cell)
  forge(cell, start='another start')
  holder = claim(cell)
  assert holder is not None
  taken = ledger.read_status(cell)
  assert (taken.attempts, taken.vanished) == (2, 1)
  with pytest.raises(ledger.LeaseLostError, match='cell'):
    lost.failed('out of date')
  assert lost.lost.is_set()
  assert ledger.read_status(cell) == taken
  holder.done()
  assert ledger.read_status(cell).state == 'done'


def test_who_holds_a_cell_can_confirm_it(cell, claim):
  lease = claim(cell)
  lease.confirm()
  assert ledger.cancel(cell)
  lease.confirm()  # what was cancelled may still be saved
  assert ledger.reopen(cell, ('cancelled',))
  lease.confirm()
  assert lease.cancelled.is_set()
  forge(cell, start='another start')
  taken = (cell / 'status.json').read_bytes()
  with pytest.raises(ledger.LeaseLostError):
    lease.confirm()
  assert lease.lost.is_set()
  assert (cell / 'status.json').read_bytes() == taken


def test_a_disk_that_falters_is_asked_again(cell, claim, monkeypatch):
  lease = claim(cell)
  read, failed = ledger.store.read, []

  def falter(folder, name):
    if len(failed) < num_times:
      failed.append(name)
      raise ValueError('Stale file handle')
    return read(folder, name)

  monkeypatch.setattr(ledger.store, 'read', falter)
  monkeypatch.setattr(ledger, 'READ_AGAIN_SECONDS', (0.0, 0.0))
  num_times = 2
  lease.confirm()
  failed, num_times = [], 3
  with pytest.raises(StorageError, match='cannot be read: Stale file handle'):
    lease.confirm()
  assert not lease.lost.is_set()
  lease.confirm()


def test_a_lost_lease_says_so_while_it_is_renewed(cell, claim, monkeypatch):
  monkeypatch.setattr(ledger, 'RENEW_SECONDS', 0.02)
  lease = claim(cell)
  end = time.monotonic() + 20
  while not lease.lost.is_set():  # the forger, too, may be overtaken by a renewal
    forge(cell, start='another start')
    assert time.monotonic() < end
    time.sleep(0.01)


def test_another_process_of_the_same_number_is_not_the_holder(cell, claim):
  claim(cell)
  start = ledger._process_start(os.getpid())
  assert start is not None
  assert not ledger.is_stale(cell, ledger.read_status(cell))
  forge(cell, start=str(int(start) - 1))  # an earlier process had this number
  assert ledger.is_stale(cell, ledger.read_status(cell))


def test_a_process_that_only_waits_for_its_parent_is_gone():
  with subprocess.Popen([sys.executable, '-c', '']) as process:
    end = time.monotonic() + 20
    while ledger._process_start(process.pid) is not None:
      assert time.monotonic() < end
      time.sleep(0.01)
  assert ledger._process_start(process.pid) is None


def test_of_another_host_only_time_tells(cell, claim):
  claim(cell)
  forge(cell, host='another host', pid=1)
  status = ledger.read_status(cell)
  assert not ledger.is_stale(cell, status)
  now = time.time()
  for age, stale in (
    (ledger.STALE_SECONDS - 20, False),
    (ledger.STALE_SECONDS + 1, True),
  ):
    os.utime(cell / 'status.json', (now - age, now - age))
    assert ledger.is_stale(cell, status) == stale
  taken = claim(cell)
  assert taken is not None
  assert ledger.read_status(cell).vanished == 1
  assert [path.name for path in cell.iterdir()] == ['status.json']  # no litter


@pytest.mark.parametrize('state', ['pending', 'running', 'preempted', 'done'])
def test_only_failed_cells_are_tried_again(cell, state):
  text = json.dumps({'state': state, 'attempts': 1})
  (cell / 'status.json').write_text(text)
  assert not ledger.reopen(cell, ('failed',))
  assert (cell / 'status.json').read_text() == text


def test_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match=r'--workdir=.*file/x.*Not a directory') as error:
    ledger.check_writable(tmp_path / 'file' / 'x')
  assert '\n' not in str(error.value)
  ledger.check_writable(tmp_path / 'new' / 'folder')
  assert list((tmp_path / 'new' / 'folder').iterdir()) == []


@pytest.fixture
def locked() -> Iterator[pathlib.Path]:
  """A folder that this process may not write to, for the time of the test."""
  # Not in tmp_path, which lies in a folder that only its owner may enter.
  folder = pathlib.Path(tempfile.mkdtemp())
  folder.chmod(0o555)
  user = os.geteuid()
  if user == 0:  # who may write anywhere
    os.seteuid(65534)
  try:
    yield folder
  finally:
    os.seteuid(user)
    folder.rmdir()


def test_folder_without_permission(locked):
  with pytest.raises(UserError, match='Permission denied'):
    ledger.check_writable(locked)


def test_who_may_only_look_is_told_all_the_same(monkeypatch):
  with tempfile.TemporaryDirectory() as name:
    cell = pathlib.Path(name)
    monkeypatch.setattr(ledger, '_host', lambda: 'elsewhere')
    lease = ledger.claim(cell)
    assert lease is not None
    monkeypatch.setattr(ledger, '_host', lambda: 'here')
    user = os.geteuid()
    cell.chmod(0o555)
    if user == 0:  # who may write anywhere
      os.seteuid(65534)
    try:
      status = ledger.read_status(cell)
      assert status.state == 'running'
      assert not ledger.is_stale(cell, status)
      with pytest.raises(OSError, match='cannot be written'):
        ledger.cancel(cell)
    finally:
      os.seteuid(user)
      cell.chmod(0o755)
      let_go(lease)
