"""Compare-and-swap and leases, alike on a disk, in memory and in an object store."""

import itertools
import os
import threading
import time

import pytest

from experiments import ledger, store

_numbers = itertools.count()


@pytest.fixture(scope='module')
def bucket():
  """A local S3 server with a bucket, which TensorStore finds by the usual variables."""
  server_lib = pytest.importorskip(
    'moto.server', reason="needs pip install 'moto[server]'"
  )
  client = pytest.importorskip('boto3')
  server = server_lib.ThreadedMotoServer('127.0.0.1', 0, verbose=False)
  server.start()
  host, port = server.get_host_and_port()
  endpoint = f'http://{host}:{port}'
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('AWS_ACCESS_KEY_ID', 'key')
    patch.setenv('AWS_SECRET_ACCESS_KEY', 'secret')
    patch.setenv('AWS_REGION', 'us-east-1')
    patch.setenv('AWS_ENDPOINT_URL', endpoint)
    client.client('s3', endpoint_url=endpoint).create_bucket(Bucket='study')
    yield 's3://study'
  server.stop()


@pytest.fixture(params=['disk', 'memory', 's3'])
def folder(request, tmp_path) -> store.Folder:
  """A new folder of each kind of store."""
  if request.param == 'disk':
    return tmp_path
  base = 'memory://' if request.param == 'memory' else request.getfixturevalue('bucket')
  return f'{base}/folder{next(_numbers)}'


def test_a_file_is_replaced_by_who_has_seen_the_last_one(folder):
  value, missing = store.read(folder, 'a')
  assert value is None
  first = store.replace(folder, 'a', b'one', missing)
  assert first
  assert not store.replace(folder, 'a', b'late', missing)
  assert store.read(folder, 'a') == (b'one', first)
  second = store.replace(folder, 'a', b'two', first)
  assert second
  assert not store.replace(folder, 'a', b'late', first)
  assert store.read(folder, 'a') == (b'two', second)


def test_of_four_threads_one_makes_a_file(folder):
  won: list[int] = []

  def race(number: int) -> None:
    for i in range(20):
      _, missing = store.read(folder, f'{i}')
      start.wait()
      if store.replace(folder, f'{i}', b'%d' % number, missing):
        won.append(i)

  start = threading.Barrier(4)
  threads = [threading.Thread(target=race, args=(n,)) for n in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sorted(won) == list(range(20))


def test_a_cell_goes_from_hand_to_hand(folder, monkeypatch):
  lease = ledger.claim(folder)
  assert lease is not None
  assert ledger.claim(folder) is None
  lease.preempted('saved')
  assert ledger.read_status(folder).preemptions == 1

  # Of a holder elsewhere only time tells.
  monkeypatch.setattr(ledger, '_host', lambda: 'elsewhere')
  lost = ledger.claim(folder)
  assert lost is not None
  monkeypatch.setattr(ledger, '_host', lambda: 'here')
  assert ledger.claim(folder) is None
  assert not ledger.is_stale(folder, ledger.read_status(folder))
  monkeypatch.setattr(ledger, 'STALE_SECONDS', -1.0)
  holder = ledger.claim(folder)
  assert holder is not None
  with pytest.raises(ledger.LeaseLostError):
    lost.done()
  holder.done()
  assert ledger.read_status(folder).state == 'done'


@pytest.mark.parametrize('hours', [-1, 1])
def test_the_clock_of_the_machine_does_not_matter(tmp_path, monkeypatch, hours):
  monkeypatch.setattr(ledger, '_host', lambda: 'elsewhere')
  lease = ledger.claim(tmp_path)
  assert lease is not None
  monkeypatch.setattr(ledger, '_host', lambda: 'here')
  now = store.time.time
  monkeypatch.setattr(store.time, 'time', lambda: now() + 3600 * hours)
  status = ledger.read_status(tmp_path)
  assert not ledger.is_stale(tmp_path, status)
  written = (tmp_path / ledger.NAME).stat().st_mtime - ledger.STALE_SECONDS - 1
  os.utime(tmp_path / ledger.NAME, (written, written))
  assert ledger.is_stale(tmp_path, status)
  lease._ended.set()


def test_a_time_that_lies_ahead_is_watched_instead(tmp_path, monkeypatch):
  monkeypatch.setattr(ledger, '_host', lambda: 'elsewhere')
  lease = ledger.claim(tmp_path)
  assert lease is not None
  lease._ended.set()
  lease._thread.join()
  monkeypatch.setattr(ledger, '_host', lambda: 'here')
  ahead = time.time() + 3600
  os.utime(tmp_path / ledger.NAME, (ahead, ahead))
  real, waited = time.monotonic, [0.0]
  monkeypatch.setattr(store.time, 'monotonic', lambda: real() + waited[0])
  assert ledger.claim(tmp_path) is None
  waited[0] = ledger.STALE_SECONDS - 5
  assert ledger.claim(tmp_path) is None
  waited[0] = ledger.STALE_SECONDS + 5
  taken = ledger.claim(tmp_path)
  assert taken is not None
  taken.done()
