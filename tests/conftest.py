"""What all tests share: four CPU devices, a compilation cache, and a tiny config.

Set in the environment, so that the processes that tests start are alike. Programs and
numbers depend on the number of devices.
"""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import hypothesis
import pytest
from ml_collections import ConfigDict

_CACHE = 'JAX_COMPILATION_CACHE_DIR'
_ours = None

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['JAX_NUM_CPU_DEVICES'] = '4'
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
if _CACHE not in os.environ:
  _ours = os.environ[_CACHE] = tempfile.mkdtemp(prefix='scaling-tests-jax-')

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
  # Started by a shell in the background. What the tests start shall heed a Ctrl-C, and
  # inherits from here.
  signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more about the machine's load than about the code.
hypothesis.settings.register_profile(
  'busy', deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile('busy')

if 'jax' in sys.modules:
  # Some plugin was faster, and the environment is read on import.
  import jax

  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_compilation_cache_dir', os.environ[_CACHE])
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  try:
    jax.config.update('jax_num_cpu_devices', 4)
  except RuntimeError as error:  # the devices are started already
    raise pytest.UsageError(f'the tests need four CPU devices: {error}') from error


def pytest_addoption(parser):
  parser.addoption(
    '--renew-golden',
    action='store_true',
    help='write what test_golden.py finds to tests/golden, to be looked at and committed',
  )


def pytest_unconfigure():
  if _ours is not None:
    shutil.rmtree(_ours, ignore_errors=True)


def make_tiny_config(overrides: Mapping[str, Any] | None = None) -> ConfigDict:
  """Returns a ResNet-8 of width 4 on 8-pixel images, with the given fields changed.

  All tests that leave alone what a program depends on share one compilation.
  """
  from configs import base

  config = base.get_config()
  fields = {
    'name': 'tiny',
    'data.image_size': 8,
    'data.channels': 1,
    'data.mean': (0.5,),
    'data.std': (0.25,),
    'data.pad_crop': 1,
    'data.flip': True,
    'data.made_up_train': 64,
    'data.made_up_test': 27,  # leaves the last batch of 16 with five rows of padding
    'data.num_images': 40,  # batches of 16 run over the ends of epochs
    'model.width': 4,
    'train.batch_size': 16,
    'train.steps': 12,
    'log.every_steps': 2,
    'log.eval_batch_size': 16,
    'checkpoint.every_seconds': 0.0,
  }
  config.update_from_flattened_dict(fields | dict(overrides or {}))
  return config


@pytest.fixture(autouse=True)
def keep_no_programs():
  """Lets no test meet what another one compiled, perhaps of functions that it replaced."""
  yield
  if 'scaling.executables' in sys.modules:
    from scaling import executables

    executables.keep_in(None)


@pytest.fixture(scope='session')
def tiny_config() -> Callable[..., ConfigDict]:
  """`make_tiny_config`."""
  return make_tiny_config


@pytest.fixture(scope='module')
def quick_compile():
  """Compiles in half the time, to programs that are slower and no less right."""
  import jax

  from scaling import step

  for disable in (True, False):
    # No other test shall meet a program of these.
    step._compile.cache_clear()
    jax.config.update('jax_disable_most_optimizations', disable)
    if disable:
      yield
