"""How a cell that cannot go on ends, and what its status then says."""

import errno
import json

import jax
import jax.numpy as jnp
import pytest

from experiments import ledger, worker
from experiments.orders import Orders
from scaling import executables, train
from scaling.errors import StorageError

ORDERS = Orders([])


@pytest.fixture
def run(config, tmp_path, monkeypatch):
  """Returns a function that runs a cell which fails as told, and gives its status."""
  train.write_config(config, tmp_path)

  def to_its_end(fail):
    monkeypatch.setattr(train, 'train', lambda *args, **kwargs: fail())
    ledger.reopen(tmp_path, ('failed', 'retryable'))
    lease = ledger.claim(tmp_path)
    assert lease is not None
    assert worker.run_cell(tmp_path, lease, ORDERS) == 'failed'
    return ledger.read_status(tmp_path)

  return to_its_end


def too_large():
  # More than 47 bits of addresses can name.
  return jax.jit(lambda: jnp.ones(2**46, jnp.float32))().block_until_ready()


def test_out_of_memory_says_when_and_what_to_try(run, tmp_path):
  status = run(too_large)
  assert status.state == 'retryable'
  assert status.reason.startswith(
    'out of memory before the first row of metrics; try a train.batch_size below 64, '
    'train.accumulate_steps above 1, model.dtype=bfloat16, or less than model.depth=8 '
    'and model.width=16 ('
  )
  assert 'RESOURCE_EXHAUSTED' in status.reason
  assert 'RESOURCE_EXHAUSTED' in (tmp_path / 'log.txt').read_text()
  (tmp_path / 'metrics.jsonl').write_text(json.dumps({'step': 150}) + '\n')
  assert run(too_large).reason.startswith('out of memory after step 150; try')


def test_the_host_s_memory_too(run):
  def fail():
    raise MemoryError

  assert run(fail).reason.startswith('out of memory before')


def test_other_trouble_is_named_as_it_is(run):
  def fail():
    raise ValueError('RESOURCES\nof another kind')

  assert run(fail).reason == 'ValueError: RESOURCES'


def test_the_death_of_a_peer_is_no_failure_until_it_is_always_over_the_same_cell(
  run, tmp_path
):
  def fail():
    raise ValueError(
      'UNKNOWN: Gloo AllGather failed: Read error [127.0.0.1]:1: Connection reset by peer'
    )

  status = run(fail)
  assert (status.state, status.failures, status.preemptions) == ('preempted', 0, 1)
  for _ in range(ledger.MAX_VANISHED - 1):
    lease = ledger.claim(tmp_path)
    assert lease is not None
    worker.run_cell(tmp_path, lease, ORDERS)
  status = ledger.read_status(tmp_path)
  assert (status.state, status.failures) == ('failed', 0)
  assert 'workers vanished over it before its first row' in str(status.reason)


@pytest.mark.parametrize(
  'error', [OSError(errno.ENOSPC, 'No space left on device'), StorageError('no room')]
)
def test_a_full_disk_is_no_failure_of_the_cell_and_ends_the_worker(
  run, config, tmp_path, error
):
  def fail():
    raise error

  for i in range(ledger.MAX_FAILURES + 1):
    with pytest.raises(StorageError, match=r'room|space'):
      run(fail)
    status = ledger.read_status(tmp_path)
    assert (status.state, status.failures) == ('preempted', 0)
    assert status.preemptions == i + 1
    assert 'room' in str(status.reason) or 'space' in str(status.reason)


def make_small(config):
  config.data.update(
    source='made_up', made_up_train=32, made_up_test=8, num_classes=3, image_size=8
  )
  config.model.update(depth=8, width=4)
  config.train.update(batch_size=8, steps=4)
  config.log.eval_batch_size = 8


_TAKES_OVER = """
import contextlib, json

@contextlib.contextmanager
def mirror(workdir, config):
  def write(step, row):
    if step == 6:
      path = workdir / 'status.json'
      status = json.loads(path.read_text())
      status['lease']['start'] = 'another start'
      path.write_text(json.dumps(status))
  yield write
"""


@pytest.mark.parametrize('save_steps', [2, 100])
def test_nothing_is_written_into_a_cell_that_another_has(
  config, tmp_path, monkeypatch, save_steps
):
  # As if this worker had stood still: nobody but who is about to write takes a look.
  monkeypatch.setattr(ledger, 'WATCH_SECONDS', 1000.0)
  mirror = tmp_path / 'takes_over.py'
  mirror.write_text(_TAKES_OVER)
  make_small(config)
  config.train.steps, config.log.every_steps = 10, 6
  config.checkpoint.every_steps = save_steps
  cell = tmp_path / 'cell'
  train.write_config(config, cell)
  lease = ledger.claim(cell)
  assert lease is not None
  assert worker.run_cell(cell, lease, Orders([], mirror=str(mirror))) == 'lost'
  rows = (cell / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(row)['step'] for row in rows] == [6]
  saved = {int(path.name) for path in (cell / 'checkpoints').glob('[0-9]*')}
  assert saved == ({4, 6} if save_steps == 2 else set())
  assert ledger.read_status(cell).state == 'running'
  assert ledger.read_status(cell).lease['start'] == 'another start'


@pytest.mark.parametrize('calls', [0, 1, 2])
def test_who_wakes_up_before_it_begins_touches_nothing(config, tmp_path, calls):
  make_small(config)
  train.write_config(config, tmp_path)
  saving = tmp_path / 'checkpoints' / '2.orbax-checkpoint-tmp'
  saving.mkdir(parents=True)
  (tmp_path / 'metrics.jsonl').write_text('{"step": 2}\n')
  left = [calls]

  def held():
    if left[0] == 0:
      raise ledger.LeaseLostError
    left[0] -= 1

  with pytest.raises(ledger.LeaseLostError):
    train.train(config, tmp_path, before_write=held)
  assert (tmp_path / 'metrics.jsonl').read_text() == '{"step": 2}\n'
  assert calls > 0 or saving.exists()
  assert (tmp_path / 'manifest.json').exists() == (calls == 2)


@pytest.mark.parametrize(
  ('name', 'value', 'kept'),
  [
    ('jax_compilation_cache_dir', '/some/where', '/some/where/programs'),
    ('jax_compilation_cache_dir', 'gs://bucket/where', None),
    ('jax_compilation_cache_dir', '', None),
    ('jax_enable_compilation_cache', False, None),
  ],
)
def test_programs_are_kept_beside_those_of_jax(monkeypatch, name, value, kept):
  before = dict(jax.config.values)
  found = []
  monkeypatch.setattr(executables, 'keep_in', lambda folder: found.append(str(folder)))
  try:
    jax.config.update(name, value)
    worker.use_compilation_cache()
  finally:
    for changed in (name, 'jax_persistent_cache_min_compile_time_secs'):
      jax.config.update(changed, before[changed])
  assert found == ([kept] if kept else [])
