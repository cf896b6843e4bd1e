"""Workers in any order of claims, deaths and ends: no cell is lost or published twice."""

import dataclasses
import pathlib
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
  RuleBasedStateMachine,
  initialize,
  invariant,
  precondition,
  rule,
  run_state_machine_as_test,
)
from leases import END, forge, let_go

from experiments import ledger


class Workers(RuleBasedStateMachine):
  """Simulated workers on a few cells, beside a model of what the cells should say."""

  temporary: Callable[[], pathlib.Path]
  NUM_CELLS = 3

  @initialize()
  def begin(self):
    folder = self.temporary()
    self.cells = [folder / str(i) for i in range(self.NUM_CELLS)]
    for cell in self.cells:
      cell.mkdir()
    self.expected = [ledger.Status() for _ in self.cells]
    self.holders: dict[int, ledger.Lease] = {}
    self.ghosts: list[tuple[int, ledger.Lease]] = []  # those declared gone
    self.published = [0] * self.NUM_CELLS
    self.gone: set[int] = set()
    self.leaving: dict[int, ledger.Lease] = {}  # cancelled, and still saving
    self.dead: set[int] = set()  # cancelled, and nobody is left to leave

  @rule(i=st.integers(0, NUM_CELLS - 1))
  def claim(self, i):
    before = self.expected[i]
    gone = i in self.gone
    vanished = before.vanished + gone
    preemptions = before.preemptions + gone
    lease = ledger.claim(self.cells[i])
    held = i in self.holders and not gone
    if before.state in ledger.ENDED or held or i in self.leaving:
      assert lease is None
    elif vanished >= ledger.MAX_VANISHED:
      assert lease is None
      self._lose(i)
      self._expect(i, 'failed', vanished=vanished)
    else:
      assert lease is not None
      self._lose(i)
      self.holders[i] = lease
      self.dead.discard(i)
      self._expect(
        i,
        'running',
        attempts=before.attempts + 1,
        vanished=vanished,
        preemptions=preemptions,
      )

  def _expect(self, i, state, **changes):
    self.expected[i] = dataclasses.replace(self.expected[i], state=state, **changes)

  def _lose(self, i):
    self.gone.discard(i)
    if i in self.holders:
      self.ghosts.append((i, self.holders.pop(i)))

  @precondition(lambda self: set(self.holders) - self.gone)
  @rule(data=st.data(), state=st.sampled_from(sorted(END)))
  def end(self, data, state):
    i = data.draw(st.sampled_from(sorted(set(self.holders) - self.gone)))
    END[state](self.holders.pop(i))
    self.published[i] += state == 'done'
    before = self.expected[i]
    failures = before.failures + (state in ('retryable', 'failed'))
    if state == 'retryable' and failures >= ledger.MAX_FAILURES:
      state = 'failed'
    preemptions = before.preemptions + (state == 'preempted')
    self._expect(i, state, failures=failures, preemptions=preemptions)

  @precondition(lambda self: set(self.holders) - self.gone)
  @rule(data=st.data())
  def vanish(self, data):
    i = data.draw(st.sampled_from(sorted(set(self.holders) - self.gone)))
    forge(self.cells[i], start='another start')
    self.gone.add(i)

  @precondition(lambda self: self.ghosts)
  @rule(state=st.sampled_from(sorted(END)))
  def come_back(self, state):
    """A worker that was taken for dead, or cancelled, wants to publish after all."""
    _, lease = self.ghosts.pop()
    with pytest.raises(ledger.LeaseLostError):
      END[state](lease)

  @precondition(lambda self: self.leaving)
  @rule(data=st.data())
  def leave(self, data):
    i = data.draw(st.sampled_from(sorted(self.leaving)))
    self.leaving.pop(i).leave()

  @rule(i=st.integers(0, NUM_CELLS - 1), state=st.sampled_from(['failed', 'cancelled']))
  def reopen(self, i, state):
    there = self.expected[i].state == state
    assert ledger.reopen(self.cells[i], (state,)) == there
    if there:
      self.expected[i] = ledger.Status(attempts=self.expected[i].attempts)

  @rule(i=st.integers(0, NUM_CELLS - 1))
  def cancel(self, i):
    going = self.expected[i].state not in ledger.ENDED
    assert ledger.cancel(self.cells[i]) == going
    if going:
      if i in self.holders and i not in self.gone:
        self.leaving[i] = self.holders[i]
      if i in self.gone:
        self.dead.add(i)
      self._lose(i)
      self._expect(i, 'cancelled')

  @invariant()
  def every_cell_is_as_it_should_be(self):
    for i, cell in enumerate(self.cells):
      found, expected = ledger.read_status(cell), self.expected[i]
      without = {'lease': None, 'reason': None}
      assert dataclasses.replace(found, **without) == expected
      held = found.state == 'running' or i in self.leaving or i in self.dead
      assert (found.lease is not None) == held
      assert ledger.is_stale(cell, found) == (i in self.gone)
      if found.state in ('retryable', 'preempted'):
        assert found.reason in ('why', None)
      assert self.published[i] == (found.state == 'done')  # never twice

  def teardown(self):
    for lease in self.leaving.values():
      lease.leave()
    for _, lease in [*self.ghosts, *self.holders.items()]:
      let_go(lease)
    # Whatever happened, someone can finish each cell.
    for cell in self.cells:
      while ledger.read_status(cell).state != 'done':
        if ledger.read_status(cell).state == 'running':
          forge(cell, start='another start')
        lease = ledger.claim(cell)
        if lease is None:
          assert ledger.reopen(cell, ('failed', 'cancelled'))
        else:
          lease.done()


def test_no_cell_is_lost_or_published_twice(tmp_path_factory):
  Workers.temporary = staticmethod(lambda: tmp_path_factory.mktemp('workers'))
  run_state_machine_as_test(
    Workers,
    settings=settings(
      max_examples=30,
      stateful_step_count=20,
      deadline=None,
      suppress_health_check=list(HealthCheck),
    ),
  )
