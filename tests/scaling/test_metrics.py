"""metrics.jsonl and its replacement: what is read back after any kill."""

import math

import pytest

from scaling import metrics

ROWS = [
  {'step': 0, 'test/loss': 2.302585092994046, 'test/num_images': 27},
  {'step': 5, 'train/loss': 0.1 + 0.2, 'time/train_seconds': 1e-17},
  {'step': 10, 'train/loss': 1e300},
]


@pytest.fixture
def path(tmp_path):
  writer = metrics.Writer(tmp_path)
  for row in ROWS:
    values = {key: value for key, value in row.items() if key != 'step'}
    writer.write(row['step'], values)
  writer.close()
  return tmp_path / 'metrics.jsonl'


def test_rows_come_back_exactly(path):
  assert metrics.read_rows(path) == ROWS
  assert metrics.read_rows(path.with_name('none.jsonl')) == []


def test_a_row_is_on_disk_when_write_returns(tmp_path):
  writer = metrics.Writer(tmp_path)
  writer.write(3, {'train/loss': 0.5})
  assert metrics.read_rows(tmp_path / 'metrics.jsonl') == [
    {'step': 3, 'train/loss': 0.5}
  ]
  writer.close()


def test_a_torn_last_line_is_left_out_wherever_it_is_torn(path):
  text = path.read_bytes()
  start = text[:-1].rindex(b'\n') + 1
  for end in range(start, len(text) - 1):
    path.write_bytes(text[:end])
    assert metrics.read_rows(path) == ROWS[:2], end
  path.write_bytes(text[: start + 5] + bytes(20))  # as some file systems leave it
  assert metrics.read_rows(path) == ROWS[:2]


@pytest.mark.parametrize(
  ('metric', 'expected'),
  [
    ('test/top1', 0.25),
    ('test/loss', -2.0),
    ('test/top5', -math.inf),
    ('none', -math.inf),
    ('test/broken', -math.inf),
  ],
)
def test_scores_grow_with_accuracy_and_fall_with_loss(metric, expected):
  row = {'step': 4, 'test/top1': 0.25, 'test/loss': 2.0, 'test/broken': math.nan}
  assert metrics.score(row, metric) == expected


def test_what_is_written_after_a_torn_line_and_a_cut_is_whole(path):
  path.write_bytes(path.read_bytes()[:-3])
  assert metrics.cut_rows(path, 7) == ROWS[:2]
  writer = metrics.Writer(path.parent)
  writer.write(8, {'train/loss': 1.0})
  writer.close()
  assert metrics.read_rows(path) == [*ROWS[:2], {'step': 8, 'train/loss': 1.0}]


@pytest.mark.parametrize(('last', 'left'), [(-1, 0), (0, 1), (4, 1), (5, 2), (99, 3)])
def test_rows_beyond_a_step_are_cut(path, last, left):
  assert metrics.cut_rows(path, last) == ROWS[:left]
  assert metrics.read_rows(path) == ROWS[:left]
