"""The benchmark of input: its contenders, their turns, its tables and who is absent."""

import dataclasses
import importlib.util
import json
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments.benchmarks import input as benchmark
from experiments.benchmarks import (
  input_cases,
  input_contenders,
  input_costs,
  input_files,
  input_peers,
)
from experiments.benchmarks.input_cases import CASES, Job

SIZES = {'jpeg': (6, 4), 'memory28': (40, 8), 'memory32': (40, 8), 'records': (24, 8)}


def installed(*modules: str) -> bool:
  return all(importlib.util.find_spec(name) for name in modules)


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  """Returns a function from a case to a tiny job with its files written."""
  jobs = {}

  def job(case: str) -> Job:
    if case not in jobs:
      images, batch_size = SIZES.get(case, (0, 4))
      folder = str(tmp_path_factory.mktemp(case))
      jobs[case] = Job(case, '', 1, folder, images, batch_size)
      if prepare := CASES[case].prepare:
        made = prepare(jobs[case].path, CASES[case].shape, images)
        assert str(images) in made
    return jobs[case]

  return job


def images_of(batch) -> np.ndarray:
  return np.asarray(batch['image'] if isinstance(batch, dict) else batch[0])


@pytest.mark.parametrize(
  ('case', 'name'),
  [
    (case, name)
    for case in ('jpeg', 'memory28', 'memory32')
    for name, contender in CASES[case].contenders.items()
    # Those start threads or processes that outlive a test; the command has them too.
    if not contender.runs_ahead
  ],
)
def test_batches_of_images(case, name, prepared):
  contender = CASES[case].contenders[name]
  if not installed(*contender.needs):
    pytest.skip(f'{name} needs {contender.needs}')
  job = prepared(case)
  batch = contender.make(job)
  shape = (224, 224, 3) if case == 'jpeg' else CASES[case].shape
  for _ in range(job.images // job.batch_size + 2):  # beyond an epoch
    images = images_of(batch())
    assert (images.shape, images.dtype) == ((job.batch_size, *shape), np.uint8)
  assert images.std() > 10


def test_tf_data_makes_the_same_batches(prepared):
  pytest.importorskip('tensorflow')
  job = prepared('jpeg')
  for whole in (False, True):
    batch = input_peers.tf_jpeg(job.path, job.batch_size, 1, whole=whole)
    images = images_of(batch())
    assert (images.shape, images.dtype) == ((4, 224, 224, 3), np.uint8)
  images, labels = input_files.arrays((28, 28, 1), 40)
  found = input_peers.tf_memory(images, labels, 8, 1)()
  assert images_of(found).shape == (8, 28, 28, 1)


def test_records_are_the_same_by_any_reader(prepared):
  job = prepared('records')
  contenders = CASES['records'].contenders
  raw = contenders['ours'].make(job)()
  for name in ('array_record [i]', 'array_record __getitems__'):
    assert raw == contenders[name].make(job)()
  parsed = contenders['ours, parsed'].make(job)()
  assert all(image.startswith(b'\x89PNG') for image, _ in parsed)
  for name in ('tfds [i]', 'tfds __getitems__'):
    rows = contenders[name].make(job)()
    assert [(row['image'], [int(row['label'])]) for row in rows] == parsed
  decoded = contenders['ours, decoded'].make(job)()
  for name in ('tfds [i], decoded', 'tfds __getitems__, decoded'):
    rows = contenders[name].make(job)()
    for row, (image, labels) in zip(rows, decoded, strict=True):
      assert (row['image'] == image).all()
      assert [row['label']] == labels


def test_computed_images_come_in_batches(prepared):
  images = CASES['procedural'].contenders['ours'].make(prepared('procedural'))()
  assert (images.shape, images.dtype) == ((4, 32, 32, 3), np.uint8)


@pytest.mark.parametrize('height', [20, 375, 3000])
def test_crops_lie_within_the_image(height):
  rng = np.random.default_rng(0)
  for _ in range(200):
    top, left, h, w = input_peers.crop_box(height, 500, rng)
    assert min(top, left) >= 0
    assert 0 < h <= height - top
    assert 0 < w <= 500 - left


def test_cpu_seconds_are_those_of_all_processes():
  code = (
    'import sys, time\n'
    'while time.process_time() < 0.3: pass\n'
    "print('done', flush=True)\n"
    'sys.stdin.read()'
  )
  before = input_contenders.tree_cpu_seconds()
  child = subprocess.Popen(
    [sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
  )
  assert child.stdout is not None
  child.stdout.readline()
  running = input_contenders.tree_cpu_seconds() - before
  child.communicate()
  ended = input_contenders.tree_cpu_seconds() - before
  assert ended >= 0.28  # of a clock in hundredths
  if pathlib.Path('/proc/self/stat').exists():
    assert running >= 0.28


def test_a_contender_rests_once_nothing_is_prepared(monkeypatch):
  seconds = iter([1.0, 2.0, 2.5, 2.5, 9.0])
  monkeypatch.setattr(input_contenders, 'tree_cpu_seconds', lambda: next(seconds))
  monkeypatch.setattr(time, 'sleep', lambda seconds: None)
  input_contenders.rest()
  assert list(seconds) == [9.0]


def test_the_order_of_images_needs_no_memory():
  found = input_costs.plan(2**40, 1024)
  assert found['chunk_microseconds'] > 0
  assert found['batch_microseconds'] > 0
  assert 0 <= found['peak_bytes'] < 2**30


@pytest.mark.parametrize('source', ['procedural', 'folder', 'csv'])
def test_a_start_ends_with_images_on_the_device(source, tmp_path):
  num_images = 10**9 if source == 'procedural' else 300
  if source != 'procedural':
    input_files.many(tmp_path, num_images)
  found = input_costs.start(num_images, source, str(tmp_path))
  assert 0 < found['seconds'] <= found['placed_seconds']


class Fake:
  """A contender that takes a second a batch, or half of one by CPU."""

  turns: list

  def __init__(self, job, module):
    self.job = Job(**json.loads(job))
    assert module == benchmark.MODULE
    if self.job.name == 'broken':
      raise RuntimeError('no memory')
    self.first = {'about': 'two files'}
    self.seconds, self.cpu_seconds = [], []

  def run(self, batches):
    Fake.turns.append((self.job.name, batches))
    self.seconds.append(1.0 * batches)
    self.cpu_seconds.append(0.5 * (batches + self.job.warm))

  def close(self):
    Fake.turns.append((self.job.name, 'closed'))


@pytest.fixture
def fake(monkeypatch):
  Fake.turns = []
  monkeypatch.setattr(benchmark, 'Contender', Fake)
  names = {'ours': {}, 'broken': {}, 'absent': {'needs': ('no_such_module',)}}
  names['ahead'] = {'runs_ahead': True}
  contenders = {
    name: input_cases.Contender(lambda job: None, **fields)
    for name, fields in names.items()
  }
  case = input_cases.Case((8, 8, 1), 40, 4, contenders, prepare=lambda *job: '')
  monkeypatch.setattr(benchmark, 'CASES', {'tiny': case})
  return case


def test_contenders_take_turns(fake):
  rows = benchmark.measure('tiny', fake, '', cores=2, rounds=2, seconds=3.0)
  prepared, *turns = Fake.turns
  assert prepared == ('prepare', 'closed')
  assert turns == [
    *[('ours', 1), ('ours', 1), ('ahead', 1), ('ahead', 1)],  # to find out the size
    *[('ours', 3), ('ahead', 3)] * 2,
    ('ours', 'closed'),
    ('ahead', 'closed'),
  ]
  ours, broken, absent, ahead = rows
  for row in (ours, ahead):
    assert row['images_per_second'] == 4
    assert row['images_per_cpu_second'] == 8
    assert len(row['seconds']) == 2
  assert broken['error'] == 'no memory'
  assert (
    absent['error'] == 'no_such_module is not installed: pip install no_such_module'
  )


def row(name: str, wall: float, cpu: float, against: str = 'ours') -> dict:
  return {
    'case': 'tiny',
    'name': name,
    'against': against,
    'images_per_second': wall,
    'images_per_cpu_second': cpu,
    'images_per_cpu_second_median': cpu,
    'load': 0.25,
  }


def test_ratios_are_of_our_speed_and_a_failure_is_named():
  rows = [
    row('ours', 3000, 1500),
    row('ours, parsed', 300, 150),
    row('raw peer', 1000, 1000),
    row('peer', 100, 300, 'ours, parsed'),
    row('other', 1, 1) | {'error': 'torch is not installed: how to'},
  ]
  lines = benchmark.format_rows(rows).splitlines()
  columns = benchmark.HEADER.splitlines()[0].count('|')
  assert {line.count('|') for line in lines} == {columns}
  ours, parsed, raw_peer, peer, other = lines
  assert ours == '| tiny | ours | 3,000 | 1,500 | 1,500 |  |  | 0.2 |'
  assert '|  |  |' in parsed
  assert '| 3.00 | 1.50 |' in raw_peer
  assert '| 3.00 | 0.50 |' in peer
  assert 'torch is not installed: how to' in other
  assert '| 1,000 |  |  |' in benchmark.format_rows(rows[2:3])  # without ours


def test_tables_of_sizes(monkeypatch):
  answers = iter([(2.0, 3.0), (4.0, 5.0), (1.0, 6.0), (7.0, 8.0)])

  class Once(Fake):
    def __init__(self, job, module):
      super().__init__(job, module)
      self.first = dict(zip(('seconds', 'placed_seconds'), next(answers), strict=True))

  Fake.turns = []
  monkeypatch.setattr(benchmark, 'Contender', Once)
  sets = [(10, 'procedural', ''), (10**9, 'tfds', 'folder')]
  rows = benchmark.measure_sizes('start', sets, cores=1, rounds=2, num_ids=0)
  assert rows[0]['all_seconds'] == [2.0, 1.0]
  small, large = benchmark.format_sizes(rows).splitlines()
  assert small.startswith('| start | 10 | 1.00 | 3.00 |')
  assert large.startswith(
    '| start | 1,000,000,000 of CIFAR-10, decoded | 4.00 | 5.00 |'
  )
  ids = {
    'case': 'ids',
    'images': 2**40,
    'source': 'procedural',
    'chunk_microseconds': 0.25,
    'batch_microseconds': 0.5,
    'peak_bytes': 1.5e6,
    'load': 0.0,
  }
  line = benchmark.format_sizes([ids])
  assert line == '| ids | 1,099,511,627,776 | 0.25 | 0.50 | 1.5 | 0.0 |'
  for case, example in (('start', small), ('ids', line)):
    title = benchmark.SIZE_HEADERS[case].splitlines()[0]
    assert title.count('|') == example.count('|')


def test_help_and_refusals():
  command = [sys.executable, '-m', 'experiments.benchmarks.input']
  shown = subprocess.run([*command, '--help'], capture_output=True, text=True)
  assert shown.returncode == 0
  assert 'pip install tensorflow' in shown.stdout
  for name in benchmark.NAMES:
    assert f'\n  {name} ' in shown.stdout
  wrong = subprocess.run([*command, '--rounds=0'], capture_output=True, text=True)
  assert wrong.returncode == 2
  assert '--rounds=0' in wrong.stderr


def test_the_absent_are_named(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  assert benchmark.missing(()) == ''
  assert benchmark.missing(('grain',)).endswith("pip install '.[bench]'")
  assert benchmark.missing(('tensorflow',)).endswith('pip install tensorflow')


@pytest.mark.slow
def test_the_command_prints_tables_and_writes_them(tmp_path, capsys, monkeypatch):
  small = {
    name: dataclasses.replace(CASES[name], images=images, batch_size=batch_size)
    for name, (images, batch_size) in SIZES.items()
  }
  monkeypatch.setattr(benchmark, 'CASES', small)
  monkeypatch.setattr(benchmark, 'START_SIZES', (100,))
  monkeypatch.setattr(benchmark, 'IDS_SIZES', (100, 2**40))
  out = tmp_path / 'out.json'
  names = [name for name in benchmark.NAMES if name != 'procedural']
  argv = [*[f'--case={name}' for name in names], '--quick', '--seconds=0.01']
  assert benchmark.main([*argv, '--cores=1', f'--out={out}']) == 0
  report = json.loads(out.read_text())
  shown = capsys.readouterr().out
  assert 'cores: 1' in shown
  assert report['cores'] == 1
  for name in names:
    rows = [row for row in report['rows'] if row['case'] == name]
    if name not in CASES:
      assert rows
    else:
      assert [row['name'] for row in rows] == list(CASES[name].contenders)
      for row in rows:
        absent = not installed(*CASES[name].contenders[row['name']].needs)
        assert ('error' in row) == absent, row
    assert f'| {name} |' in shown


def test_a_job_is_done_in_a_process_of_its_own():
  job = Job('ids', 'ours', 1, images=100, batch_size=1024)
  process = benchmark.ask(job)
  process.close()
  assert set(process.first) == {
    'chunk_microseconds',
    'batch_microseconds',
    'peak_bytes',
  }
  with pytest.raises(RuntimeError, match='no_such'):
    benchmark.ask(dataclasses.replace(job, case='memory28', name='no_such'))
