"""A program that is read from a file is the one that was compiled, or it is not used."""

import hashlib
import logging
import os

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from scaling import config as config_lib
from scaling import executables, models, optim, sharding, step

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


def test_a_torn_file_is_not_used(tiny_config, folder, caplog):
  config, mesh = tiny_config(), sharding.make_mesh()
  expected = work(step.compile_program(config, mesh), config, mesh)
  (kept,) = folder.iterdir()
  whole = kept.read_bytes()
  no_pickle = b'not a pickle'
  for torn in (
    whole[:1000],
    whole[:-1] + bytes([whole[-1] ^ 1]),
    b'',
    hashlib.sha256(no_pickle).digest() + no_pickle,
  ):
    kept.write_bytes(torn)
    caplog.clear()
    with caplog.at_level(logging.INFO):
      again = compile_again(config, mesh)
    assert f'{kept} cannot be used' in caplog.text
    assert not kept.exists()
    assert_equal(work(again, config, mesh), expected)


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
  other = jax.sharding.Mesh(mesh.devices[::-1], mesh.axis_names)
  found.append(executables.find(key, other, False).name)
  with monkeypatch.context() as patch:
    patch.setenv('XLA_FLAGS', '--xla_cpu_enable_fast_math=true')
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


def test_it_is_kept_nowhere_unless_asked(tiny_config):
  executables.keep_in(None)
  assert executables.find('key', sharding.make_mesh(), False) is None


def test_programs_that_are_not_used_any_more_are_removed(tiny_config, folder):
  folder.mkdir()
  for name in ('old.program', 'new.program', 'old.other'):
    (folder / name).touch()
    if name.startswith('old'):
      os.utime(folder / name, (0, 0))
  step.compile_program(tiny_config(), sharding.make_mesh())
  names = {path.name for path in folder.iterdir()}
  assert names > {'new.program', 'old.other'}
  assert 'old.program' not in names


def test_its_use_keeps_a_program_from_growing_old(tiny_config, folder):
  config, mesh = tiny_config(), sharding.make_mesh()
  step.compile_program(config, mesh)
  (kept,) = folder.iterdir()
  os.utime(kept, (0, 0))
  compile_again(config, mesh)
  assert kept.stat().st_mtime > 1e9
