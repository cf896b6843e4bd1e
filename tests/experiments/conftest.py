"""What the tests of many cells share: a tiny config, and where its programs are kept."""

import os
import pathlib
import subprocess
from collections.abc import Callable

import pytest
from ml_collections import ConfigDict
from studies import COMMAND, PATIENCE, killed

from configs import base
from experiments import cli

TINY = """
import itertools

from configs import base


def get_config():
  config = base.get_config()
  config.name = 'tiny'
  config.data.source = config.data.name = 'digits'
  config.data.image_size, config.data.channels = 8, 1
  config.data.mean, config.data.std = (0.305,), (0.376,)
  config.model.width = 4
  config.train.batch_size, config.train.steps = 16, 20
  config.log.every_steps, config.log.eval_every_steps = 5, 10
  config.log.eval_batch_size = 360
  config.checkpoint.every_steps = 4
  return config


def get_sweep():
  return [
    {'data.num_images': num_images, 'seed': seed}
    for num_images, seed in itertools.product((30, 90, 300), (0, 1))
  ]
"""


@pytest.fixture
def config() -> ConfigDict:
  """The base config, to change."""
  return base.get_config()


@pytest.fixture(scope='session')
def tiny_file(tmp_path_factory) -> pathlib.Path:
  """A config file whose cells train in about a second each."""
  path = tmp_path_factory.mktemp('config') / 'tiny.py'
  path.write_text(TINY)
  return path


@pytest.fixture(scope='session')
def environment(tmp_path_factory) -> dict[str, str]:
  """The environment of subprocesses: one CPU device and one cache of programs."""
  env = dict(os.environ)
  for name in ('XLA_FLAGS', 'JAX_NUM_CPU_DEVICES'):  # several, for tests in-process
    env.pop(name, None)
  env['JAX_PLATFORMS'] = 'cpu'
  if 'JAX_COMPILATION_CACHE_DIR' not in env:
    env['JAX_COMPILATION_CACHE_DIR'] = str(tmp_path_factory.mktemp('jax_cache'))
  return env


@pytest.fixture(scope='module')
def command(environment) -> Callable[..., subprocess.Popen[str]]:
  """Returns a function that starts the command `scaling`."""

  def start(*words) -> subprocess.Popen[str]:
    return subprocess.Popen(
      [*COMMAND, *map(str, words)],
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      start_new_session=True,  # a Ctrl-C in the terminal of the tests is not for it
    )

  return start


@pytest.fixture(scope='module')
def run(command) -> Callable[..., subprocess.CompletedProcess[str]]:
  """Returns a function that runs the command to its end."""

  def to_its_end(*words) -> subprocess.CompletedProcess[str]:
    with killed(command(*words)) as process:
      out, err = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(words, process.returncode, out, err)

  return to_its_end


@pytest.fixture
def call(capsys):
  """Returns a function from words to exit status, output and error output."""

  def run(*words):
    status = cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return status, out, err

  return run


@pytest.fixture
def error(call):
  """Returns a function from words that cannot be to the one line that says so."""

  def run(*words):
    status, out, err = call(*words)
    assert status == 2
    assert out == ''
    assert err.endswith('\n')
    assert err.count('\n') == 1
    assert 'Traceback' not in err
    assert '\\n' not in err  # the text of an exception, not its repr
    return err

  return run
