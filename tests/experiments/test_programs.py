"""When the last cell of a program is left to the workers that have compiled it."""

import json
import threading

import pytest
from leases import forge, let_go

from experiments import ledger, orders, worker
from experiments.programs import Programs

GROUPS = [['a1', 'a2'], ['b1', 'b2', 'b3']]


@pytest.fixture
def cells(tmp_path):
  found = {name: tmp_path / name for names in GROUPS for name in names}
  for cell in found.values():
    cell.mkdir()
  return found


@pytest.fixture
def clock():
  return [100.0]


@pytest.fixture
def programs(cells, clock):
  """Those of a worker that has trained a1, compiling for 7 seconds."""
  found = Programs(GROUPS, lambda: clock[0])
  row = {'step': 9, 'time/compile_seconds': 7.0}
  (cells['a1'] / 'metrics.jsonl').write_text(json.dumps(row) + '\n')
  ledger.claim(cells['a1']).done()
  found.ran(cells['a1'])
  return found


def test_the_last_cell_is_left_for_as_long_as_compiling_took(cells, programs, clock):
  ledger.claim(cells['b1']).done()
  lease = ledger.claim(cells['b2'])
  assert programs.leaves(cells['b3'])
  clock[0] += 6.9
  assert programs.leaves(cells['b3'])
  clock[0] += 0.2
  assert not programs.leaves(cells['b3'])  # they have larger cells
  lease.done()


def test_what_nobody_else_would_take_is_taken(cells, programs):
  ledger.claim(cells['b1']).done()
  assert not programs.leaves(cells['b2'])  # b3 is left to the others
  ledger.claim(cells['b2']).done()
  assert not programs.leaves(cells['b3'])  # nobody is at it


def test_cells_of_programs_that_are_compiled_are_taken(cells, programs):
  assert not programs.leaves(cells['a2'])
  lease = ledger.claim(cells['b1'])
  ledger.claim(cells['b2']).done()
  assert programs.leaves(cells['b3'])
  assert not Programs(GROUPS).leaves(cells['b3'])  # of a worker that begins
  programs.ran(cells['b1'])
  assert not programs.leaves(cells['b3'])
  lease.done()


def test_compiling_that_others_did_before_does_not_count(cells, clock):
  programs = Programs(GROUPS, lambda: clock[0])
  ledger.claim(cells['a1']).preempted('why')
  ledger.claim(cells['a1']).done()
  row = {'step': 9, 'time/compile_seconds': 300.0}
  (cells['a1'] / 'metrics.jsonl').write_text(json.dumps(row) + '\n')
  programs.ran(cells['a1'])
  ledger.claim(cells['b1']).done()
  lease = ledger.claim(cells['b2'])
  assert not programs.leaves(cells['b3'])
  lease.done()


def test_nothing_is_read_once_it_is_over(cells, programs, clock, monkeypatch):
  ledger.claim(cells['b1']).done()
  lease = ledger.claim(cells['b2'])
  assert programs.leaves(cells['b3'])
  clock[0] += 8
  monkeypatch.delattr(ledger, 'read_status')
  assert not programs.leaves(cells['b3'])
  lease.done()


def test_a_cell_whose_worker_is_gone_is_taken_at_once(cells, programs):
  for name in ('a2', 'b1', 'b3'):
    ledger.claim(cells[name]).done()
  lease = ledger.claim(cells['b2'])
  let_go(lease)
  forge(cells['b2'], pid=2**22 + 1)
  claims = worker.claims(
    list(cells.values()), threading.Event(), leaves=programs.leaves
  )
  cell, lease = next(claims)
  assert cell == cells['b2']
  lease.done()


def test_a_pack_leaves_no_cell(cells, monkeypatch):
  asked = []

  def claims(found, stop, after, leaves):
    del found, stop, after
    asked.append(leaves(cells['b3']))
    return iter(())

  def always(self, cell):
    del self, cell
    return True

  monkeypatch.setattr(Programs, 'leaves', always)
  monkeypatch.setattr(worker, 'claims', claims)
  told = orders.Orders(GROUPS)
  for pack in (None, object()):
    assert worker.work_alone([], told, threading.Event(), pack) == 0
  assert asked == [True, False]


def test_a_cell_that_is_left_is_claimed_in_the_end(cells, programs, clock):
  for name in ('a2', 'b1'):
    ledger.claim(cells[name]).done()
  other = ledger.claim(cells['b2'])
  claims = worker.claims(
    list(cells.values()), threading.Event(), leaves=programs.leaves
  )
  assert next(claims) is None
  clock[0] += 8
  cell, lease = next(claims)
  assert cell == cells['b3']
  lease.done()
  other.done()
  assert list(claims) == []
