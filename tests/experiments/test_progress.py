import dataclasses

import pytest

from experiments import ledger, progress
from experiments.duration import duration
from experiments.status import Progress

CELL = Progress(
  name='a',
  status=ledger.Status('running'),
  stale=False,
  images=0,
  total_images=1000,
  work=2.0,
  row={},
)


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [
    (0, '0 s'),
    (45.4, '45 s'),
    (59.7, '1 min 0 s'),
    (60, '1 min 0 s'),
    (200, '3 min 20 s'),
    (239.8, '4 min 0 s'),
    (3599.9, '1 h 0 min'),
    (5 * 3600 + 600, '5 h 10 min'),
    (47 * 3600 + 3599, '47 h 59 min'),
    (12 * 86400, '12 days'),
    (1234 * 86400, '1,234 days'),
  ],
)
def test_duration(seconds, text):
  assert duration(seconds) == text


@pytest.fixture
def clock(monkeypatch):
  """The time, to be set by hand."""
  now = [100.0]
  monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
  return now


def test_off_a_terminal_it_is_plain_lines_now_and_then(capsys, clock):
  with progress.display() as display:
    display.show([CELL, CELL])
    clock[0] += 1
    display.show([CELL, CELL])  # too soon for another line
    clock[0] += progress.PLAIN_SECONDS
    done = dataclasses.replace(CELL, status=ledger.Status('done'), images=1000)
    display.show([done, dataclasses.replace(CELL, images=100)])
    clock[0] += progress.PLAIN_SECONDS
    failed = dataclasses.replace(CELL, status=ledger.Status('failed'), images=100)
    display.show([done, failed])
  out, err = capsys.readouterr()
  assert out == ''
  assert '\x1b' not in err
  lines = err.splitlines()
  assert len(lines) == 3
  assert lines[0] == '0/2 cells · starting: importing and compiling'
  # 1,100 images in the 11 seconds since it began, hence 9 for the other 900.
  assert lines[1] == '1/2 cells · 100 images/s · 9 s left'
  assert lines[2].startswith('2/2 cells, 1 failed')


def test_time_left_weighs_cells_by_their_work(capsys, clock):
  big = dataclasses.replace(CELL, work=20.0)
  with progress.display() as display:
    display.show([CELL, big])
    clock[0] += progress.PLAIN_SECONDS
    display.show([dataclasses.replace(CELL, images=500), big])
  # 500 images in 10 s; the rest is 500 alike and 1000 that cost ten times as much.
  assert (
    capsys.readouterr()
    .err.splitlines()[1]
    .endswith('0/2 cells · 50 images/s · 3 min 30 s left')
  )


def test_work_is_timed_from_the_first_that_is_done(capsys, clock):
  with progress.working('preparing', 'images') as count:
    count(500, 2000)  # from before
    clock[0] += progress.PLAIN_SECONDS
    count(500, 2000)
    clock[0] += progress.PLAIN_SECONDS
    count(1000, 2000)
    clock[0] += progress.SHOWN_SECONDS / 2
    count(1001, 2000)  # too soon for another look
    clock[0] += progress.PLAIN_SECONDS
    count(2000, 2000)
  out, err = capsys.readouterr()
  assert out == ''
  assert err.splitlines() == [
    'preparing: 500/2,000 images',
    'preparing: 1,000/2,000 images · 50/s · 20 s left',
    'preparing: 2,000/2,000 images · 75/s · 0 s left',
  ]


def test_an_answer_is_good_for_a_while(clock):
  asked = []
  answer = progress.now_and_then(lambda: asked.append(0) or len(asked), 30.0)
  assert [answer(), answer()] == [1, 1]
  clock[0] += 29
  assert answer() == 1
  clock[0] += 1
  assert [answer(), answer()] == [2, 2]
