"""One cell trained by two processes with two devices each, connected for real."""

import json
import pathlib
import shutil
import socket
import time

import pytest
from runs import assert_same_run, child_of, rows_of, state_of

from scaling import metrics, processes

# Tests and saves at 4, 8, 12; saves by time would fall anywhere.
FIELDS = {
  'log.eval_every_steps': 4,
  'checkpoint.every_steps': 4,
  'train.ema_decay': 0.9,
  'checkpoint.best': 'test/loss',
}


def start(number: int, config, workdir: pathlib.Path, **orders):
  """Starts so many on four devices; an order that is a tuple has a value for each."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  return [
    child_of(
      config,
      workdir,
      4 // number,
      port=port,
      num_processes=number,
      process=i,
      **{k: v[i] if isinstance(v, tuple) else v for k, v in orders.items()},
    )
    for i in range(number)
  ]


def run(number: int, config, workdir: pathlib.Path, **orders) -> None:
  children = start(number, config, workdir, **orders)
  try:
    assert [child.wait(timeout=300) for child in children] == [0] * number
  finally:
    for child in children:
      child.kill()


@pytest.fixture(scope='module')
def config(tiny_config):
  return tiny_config(FIELDS)


@pytest.fixture(scope='module')
def together(config, tmp_path_factory) -> pathlib.Path:
  """The folder of a whole run by two, and beside it the batches of each."""
  folder = tmp_path_factory.mktemp('two')
  notes = (str(folder / 'batches0'), str(folder / 'batches1'))
  run(2, config, folder / 'cell', batches=notes)
  return folder / 'cell'


def test_a_process_alone_is_its_own_answer():
  votes = processes.Votes()
  assert [votes.cast(*v) for v in ((True, False), (False, True))] == [
    (True, False),
    (False, True),
  ]
  assert processes.is_first()
  assert processes.all_true(True)
  assert not processes.all_true(False)


@pytest.mark.slow
def test_two_processes_write_one_run_and_feed_a_half_each(config, together, tmp_path):
  steps = [row['step'] for row in rows_of(together)]
  assert steps == [0, 2, 4, 6, 8, 10, 12]  # each once
  manifest = json.loads((together / 'manifest.json').read_text())
  assert (manifest['num_devices'], manifest['num_processes']) == (4, 2)

  note, alone = tmp_path / 'batches', tmp_path / 'alone'
  assert child_of(config, alone, 4, batches=str(note)).wait() == 0
  whole, *halves = (
    [json.loads(line) for line in path.read_text().splitlines()]
    for path in (note, *sorted(together.parent.glob('batches?')))
  )
  assert len(whole) == 12
  assert [[step, a + b] for (step, a), (_, b) in zip(*halves, strict=True)] == whole
  for row, other in zip(rows_of(together), rows_of(alone), strict=True):
    assert row.keys() == other.keys()
    assert row.get('test/num_images', 27) == 27
    for name, value in row.items():
      # Sums over devices in another order, in twelve float32 updates.
      assert value == pytest.approx(other[name], rel=1e-4), name


@pytest.mark.slow
def test_four_processes_feed_a_quarter_each(config, together, tmp_path):
  notes = tuple(str(tmp_path / f'batches{i}') for i in range(4))
  run(4, config, tmp_path / 'cell', batches=notes)
  four, two = (
    [
      [json.loads(line) for line in path.read_text().splitlines()]
      for path in sorted(folder.glob('batches?'))
    ]
    for folder in (tmp_path, together.parent)
  )
  assert len(four) == 4
  for quarters, halves in zip(
    zip(*four, strict=True), zip(*two, strict=True), strict=True
  ):
    steps = {step for step, _ in (*quarters, *halves)}
    assert len(steps) == 1
    whole = [[i for _, ids in parts for i in ids] for parts in (quarters, halves)]
    assert whole[0] == whole[1]


@pytest.mark.slow
def test_two_processes_that_are_killed_end_equal(config, together, tmp_path):
  children = start(2, config, tmp_path, pause=0.1)
  try:
    until = time.monotonic() + 300
    while metrics.last_row(tmp_path / 'metrics.jsonl').get('step', -1) < 6:
      assert [child.poll() for child in children] == [None, None]
      assert time.monotonic() < until
      time.sleep(0.02)
  finally:
    for child in children:
      child.kill()
      child.wait()
  run(2, config, tmp_path)
  assert_same_run(config, tmp_path, together)


@pytest.mark.slow
def test_a_stop_that_one_process_hears_stops_both_and_any_number_of_devices_goes_on(
  config, together, tmp_path
):
  run(2, config, tmp_path, stop_at=(10**6, 5))
  stopped = state_of(config, tmp_path)
  assert 4 < int(stopped.step) < 12
  seams, on_two, on_one = (tmp_path.with_name(name) for name in ('seams', 'two', 'one'))
  for copy in (seams, on_two, on_one):
    shutil.copytree(tmp_path, copy)

  run(2, config, tmp_path)
  assert_same_run(config, tmp_path, together)

  # Two processes, then one, then two again.
  assert child_of(config, seams, 4, stop_at=3).wait() == 0
  assert int(state_of(config, seams).step) == int(stopped.step) + 3
  run(2, config, seams)
  # Begun by two processes on four devices, ended by one process on fewer.
  assert child_of(config, on_two, 2).wait() == 0
  assert child_of(config, on_one, 1).wait() == 0
  # The same state where they go on, the same rows but for the order of sums.
  for workdir in (seams, on_two, on_one):
    for row, other in zip(rows_of(workdir), rows_of(together), strict=True):
      assert row.keys() == other.keys()
      for name, value in row.items():
        assert value == pytest.approx(other[name], rel=1e-4), name


@pytest.mark.slow
@pytest.mark.parametrize(
  'layout',
  [{'fsdp': True}, {'model_devices': 2}],
  ids=lambda layout: next(iter(layout)),
)
def test_a_state_that_is_split_over_two_processes_is_saved_and_put_together(
  config, together, tmp_path, layout
):
  run(2, config, tmp_path, layout=layout, stop_at=5)
  manifest = json.loads((tmp_path / 'manifest.json').read_text())
  assert (manifest['num_devices'], manifest['num_processes']) == (4, 2)
  assert manifest['fsdp'] == layout.get('fsdp', False)
  assert manifest['mesh']['model'] == layout.get('model_devices', 1)
  on_one = tmp_path.with_name(f'{tmp_path.name}-one')
  shutil.copytree(tmp_path, on_one)
  run(2, config, tmp_path, layout=layout)
  assert child_of(config, on_one, 1).wait() == 0
  for workdir in (tmp_path, on_one):
    for row, other in zip(rows_of(workdir), rows_of(together), strict=True):
      assert row.keys() == other.keys()
      for name, value in row.items():
        assert value == pytest.approx(other[name], rel=1e-4), name
