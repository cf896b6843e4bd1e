"""A program that is read from a file is the one that was compiled, or it is not used."""

import hashlib
import logging
import os
import time
import zlib

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from scaling import config as config_lib
from scaling import cores, executables, models, optim, sharding, step

pytestmark = pytest.mark.usefixtures('quick_compile')


@pytest.fixture
def folder(tmp_path):
  """Where programs are kept, beside an empty cache of JAX's own."""
  before = jax.config.values['jax_compilation_cache_dir']
  jax.config.update('jax_compilation_cache_dir', str(tmp_path))
  compilation_cache.reset_cache()
  executables.keep_in(tmp_path / 'programs')
  step._compile.cache_clear()
  yield tmp_path / 'programs'
  step._compile.cache_clear()
  jax.config.update('jax_compilation_cache_dir', before)
  compilation_cache.reset_cache()


def work(program, config, mesh):
  """Returns what a few updates and a test come to."""
  init_key, key = sharding.put_keys(0, 2, mesh)
  schedule = optim.make_schedule(config, 10)
  state = program.init(init_key)
  batch = step.empty_batch(config, mesh)
  for _ in range(3):
    state, values = program.train_step(state, batch, key, schedule)
  test = {'image': batch['image'], 'labels': batch['labels']}
  mask = sharding.put_batch({'mask': np.ones(16, np.float32)}, mesh)
  sums = program.eval_step(state, test | mask, program.zero_sums, None)
  return state, values, sums


def assert_equal(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    assert one.sharding == other.sharding
    np.testing.assert_array_equal(one, other)


def compile_again(config, mesh, **options):
  step._compile.cache_clear()
  return step.compile_program(config, mesh, **options)


def refuse(*args, **kwargs):
  raise AssertionError('it was traced')


@pytest.mark.parametrize(
  ('fields', 'model_devices', 'fsdp'),
  [
    ({}, 1, False),
    ({'model.scan': True, 'model.depth': 14, 'train.ema_decay': 0.9}, 1, True),
    ({'data.num_classes': 12}, 2, False),
  ],
)
def test_what_is_read_computes_the_same_without_tracing(
  tiny_config, folder, monkeypatch, fields, model_devices, fsdp
):
  config = tiny_config(fields)
  mesh = sharding.make_mesh(model_devices=model_devices)
  compiled = step.compile_program(config, mesh, fsdp=fsdp)
  assert len(list(folder.iterdir())) == 1
  expected = work(compiled, config, mesh)
  monkeypatch.setattr(models, 'build', refuse)
  read = compile_again(config, mesh, fsdp=fsdp)
  assert read is not compiled
  assert_equal(work(read, config, mesh), expected)
  assert read.stored == compiled.stored


def test_what_jax_had_in_its_cache_works_and_is_not_kept(tiny_config, folder):
  # XLA:CPU writes what it has read itself without a part of its functions.
  config, mesh = tiny_config(), sharding.make_mesh()
  expected = work(step.compile_program(config, mesh), config, mesh)
  (kept,) = folder.iterdir()
  kept.unlink()
  for _ in range(2):
    assert_equal(work(compile_again(config, mesh), config, mesh), expected)
    assert not list(folder.iterdir())


def test_a_file_that_is_torn_or_of_others_is_not_used(tiny_config, folder, caplog):
  config, mesh = tiny_config(), sharding.make_mesh()
  expected = work(step.compile_program(config, mesh), config, mesh)
  (kept,) = folder.iterdir()
  whole = kept.read_bytes()
  no_program = zlib.compress(b'not a pickle')
  for content, mode, said in (
    (whole[:1000], 0o600, 'torn'),
    (whole[:-1] + bytes([whole[-1] ^ 1]), 0o600, 'torn'),
    (b'', 0o600, 'torn'),
    (hashlib.sha256(no_program).digest() + no_program, 0o600, 'cannot be used'),
    (whole, 0o620, 'others can write it'),
    (whole, 0o602, 'others can write it'),
  ):
    kept.write_bytes(content)
    kept.chmod(mode)
    caplog.clear()
    with caplog.at_level(logging.INFO):
      again = compile_again(config, mesh)
    assert str(kept) in caplog.text
    assert said in caplog.text
    assert kept.exists() == (said != 'torn')
    assert_equal(work(again, config, mesh), expected)


@pytest.mark.skipif(os.getuid() != 0, reason='only root can give files away')
def test_a_file_of_somebody_else_is_not_read(tmp_path, caplog):
  path = tmp_path / 'x.program'
  path.write_bytes(b'what it holds would be run')
  os.chown(path, 65534, 65534)
  with caplog.at_level(logging.INFO):
    assert executables.read(path, sharding.make_mesh(), 'cpu') is None
  assert 'others can write it' in caplog.text
  assert path.exists()


def test_where_nothing_can_be_written_it_is_compiled(tiny_config, folder, caplog):
  folder.write_text('a file where the folder should be')
  config, mesh = tiny_config(), sharding.make_mesh()
  with caplog.at_level(logging.INFO):
    work(step.compile_program(config, mesh), config, mesh)
  assert 'cannot be written' in caplog.text


def test_a_program_is_found_by_all_that_it_depends_on(
  tiny_config, tmp_path, monkeypatch
):
  executables.keep_in(tmp_path)
  key = config_lib.program_key(tiny_config())
  mesh = sharding.make_mesh()

  def name():
    return executables.find(key, mesh, False).name

  found = [name()]
  assert name() == found[0]
  found.append(executables.find(key + ' ', mesh, False).name)
  found.append(executables.find(key, mesh, True).name)
  found.append(executables.find(key, sharding.make_mesh(model_devices=2), False).name)
  for devices in (
    mesh.devices[::-1],
    mesh.devices,
  ):  # the second of other kinds of axes
    kinds = (jax.sharding.AxisType.Explicit,) * 2
    other = jax.sharding.Mesh(devices, mesh.axis_names, axis_types=kinds)
    found.append(executables.find(key, other, False).name)
  for variable in ('XLA_FLAGS', 'FLAX_FIX_RNG_SEPARATOR'):
    with monkeypatch.context() as patch:
      patch.setenv(variable, '1')
      found.append(name())
  with monkeypatch.context() as patch:
    patch.setattr(cores, 'num_cores', lambda: 1000)
    found.append(name())
  with jax.default_matmul_precision('highest'):
    found.append(name())
  with monkeypatch.context() as patch:
    patch.setattr(executables, '_makers', lambda: ['other source'])
    found.append(name())
  assert len(set(found)) == len(found)
  assert name() == found[0]


def test_a_changed_source_is_another_maker(tmp_path, monkeypatch):
  (tmp_path / 'models').mkdir()
  source = tmp_path / 'models' / 'layers.py'
  makers = []
  monkeypatch.setattr(executables, '__file__', str(tmp_path / 'executables.py'))
  for text in ('x = 1', 'x = 2', 'x = 1'):
    source.write_text(text)
    makers.append(executables._makers.__wrapped__())
  assert makers[0] != makers[1]
  assert makers[0] == makers[2]


def test_the_source_is_that_of_the_start(tmp_path, monkeypatch):
  calls = []
  monkeypatch.setattr(executables, '_makers', lambda: calls.append('read'))
  executables.keep_in(tmp_path)
  assert calls == ['read']


def test_it_is_kept_nowhere_unless_asked(tiny_config):
  executables.keep_in(None)
  assert executables.find('key', sharding.make_mesh(), False) is None


def test_programs_that_are_not_used_any_more_are_removed(tiny_config, folder):
  folder.mkdir()
  for name in ('old.program', '.old.program.123', 'new.program', 'old.other'):
    (folder / name).touch()
    if 'old' in name:
      os.utime(folder / name, (0, 0))
  step.compile_program(tiny_config(), sharding.make_mesh())
  names = {path.name for path in folder.iterdir()}
  assert len(names) == 3
  assert names > {'new.program', 'old.other'}


def test_programs_have_no_more_room_than_those_of_jax(tmp_path):
  for i in range(5):
    path = tmp_path / f'{i}.program'
    path.write_bytes(bytes(100))
    os.utime(path, (time.time() - i, time.time() - i))
  name = 'jax_compilation_cache_max_size'
  before = jax.config.values[name]
  try:
    for room, left in ((-1, 5), (350, 3), (99, 0)):
      jax.config.update(name, room)
      executables._remove_unused(tmp_path)
      assert len(list(tmp_path.iterdir())) == left
  finally:
    jax.config.update(name, before)


def test_its_use_keeps_a_program_from_growing_old(tiny_config, folder):
  config, mesh = tiny_config(), sharding.make_mesh()
  step.compile_program(config, mesh)
  (kept,) = folder.iterdir()
  os.utime(kept, (0, 0))
  compile_again(config, mesh)
  assert kept.stat().st_mtime > 1e9
