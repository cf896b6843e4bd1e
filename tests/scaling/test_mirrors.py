"""Rows of metrics for other tools, none of which may cost a cell."""

import importlib
import json
import sys

import pytest

from scaling import metrics, mirrors
from scaling.errors import UserError
from scaling.train import train

MIRROR = """
import contextlib, json


@contextlib.contextmanager
def mirror(workdir, config):
  with open({path!r}, 'a') as file:
    print(workdir.name, config.name, file=file)
    yield lambda step, row: print(step, json.dumps(row), file=file)
    print('closed', file=file)
"""
BROKEN = """
import contextlib


@contextlib.contextmanager
def mirror(workdir, config):
  {opening}
  def write(step, row):
    {writing}
  yield write
  {closing}
"""


def test_a_file_is_told_of_every_row(tiny_config, tmp_path):
  copy, file = tmp_path / 'copy.txt', tmp_path / 'mirror.py'
  file.write_text(MIRROR.format(path=str(copy)))
  train(tiny_config(), tmp_path / 'run', mirror=str(file))
  first, *told, last = copy.read_text().splitlines()
  assert (first, last) == ('run tiny', 'closed')
  rows = [
    {'step': int(step), **json.loads(row)}
    for step, row in (line.split(' ', 1) for line in told)
  ]
  assert rows == metrics.read_rows(tmp_path / 'run' / 'metrics.jsonl')


@pytest.mark.parametrize(
  ('where', 'said'),
  [
    ('opening', 'cannot be opened'),
    ('writing', 'is left at step 1'),
    ('closing', 'could not be closed'),
  ],
)
def test_one_that_fails_is_warned_of_once(tiny_config, tmp_path, caplog, where, said):
  parts = dict.fromkeys(('opening', 'writing', 'closing'), 'pass')
  file = tmp_path / 'mirror.py'
  file.write_text(BROKEN.format(**parts | {where: "raise OSError('no network')"}))
  mirror = mirrors.of_file(str(file))
  writer = metrics.Writer(tmp_path, mirrors.Mirrors([mirror], tmp_path, tiny_config()))
  for step in (1, 2):
    writer.write(step, {'train/loss': 0.5})
  writer.close()
  assert [row['step'] for row in metrics.read_rows(tmp_path / 'metrics.jsonl')] == [
    1,
    2,
  ]
  assert caplog.text.count('a mirror of the metrics') == 1
  assert said in caplog.text
  assert 'no network' in caplog.text


@pytest.mark.parametrize(
  ('text', 'said'),
  [
    (None, 'cannot be run'),
    ('import nothing_of_the_kind', 'nothing_of_the_kind'),
    ('mirror = 3', 'no function mirror'),
  ],
)
def test_a_file_that_cannot_do_is_refused(tmp_path, text, said):
  file = tmp_path / 'mirror.py'
  if text is not None:
    file.write_text(text)
  with pytest.raises(UserError, match=said):
    mirrors.load(file)


@pytest.mark.parametrize('package', ['tensorflow', 'tensorboardX'])
def test_tensorboard_events(tiny_config, tmp_path, monkeypatch, package):
  pytest.importorskip(package)
  monkeypatch.setattr(mirrors, 'tensorboard_package', lambda: package)
  told = mirrors.Mirrors([mirrors.tensorboard], tmp_path, tiny_config())
  told.write(1, {'train/loss': 0.5, 'test/top1': 0.25})
  told.close()
  (file,) = (tmp_path / 'tensorboard').glob('events.out.tfevents*')
  content = file.read_bytes()
  assert b'train/loss' in content
  assert b'test/top1' in content
  assert (b'model.depth' in content) == (package == 'tensorflow')


@pytest.mark.parametrize(
  ('installed', 'expected'),
  [
    (('tensorboardX', 'tensorflow', 'tensorboard'), 'tensorboardX'),
    (('tensorflow', 'tensorboard'), 'tensorflow'),
    (('tensorflow',), None),
    ((), None),
  ],
)
def test_what_writes_events(monkeypatch, tmp_path, installed, expected):
  for name in ('tensorboardX', 'tensorflow', 'tensorboard'):
    (tmp_path / name).mkdir()  # which is no package yet
  for name in installed:
    (tmp_path / name / '__init__.py').touch()
  for name in ('tensorboardX', 'tensorflow', 'tensorboard'):
    monkeypatch.delitem(sys.modules, name, raising=False)
  monkeypatch.setattr(sys, 'path', [str(tmp_path)])
  importlib.invalidate_caches()
  assert mirrors.tensorboard_package() == expected


def test_a_file_that_is_gone_costs_no_cell(tiny_config, tmp_path, caplog):
  row = train(tiny_config(), tmp_path / 'run', mirror=str(tmp_path / 'gone.py'))
  assert row['step'] == 12
  assert 'a mirror of the metrics cannot be opened' in caplog.text
