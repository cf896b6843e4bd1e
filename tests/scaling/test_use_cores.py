"""A device for each core of a CPU, where batches divide."""

import os
import subprocess
import sys

import pytest

from scaling import sharding

CODE = """
import os, sys
from scaling import sharding
cores, *sizes = map(int, sys.argv[1:])
said = sharding.use_cores(cores, sizes)
import jax
assert said == jax.device_count(), (said, jax.devices())
print(said, os.environ.get('XLA_FLAGS'))
"""


def use_cores(*numbers: int, **variables: str) -> str:
  env = {
    k: v for k, v in os.environ.items() if k not in ('JAX_NUM_CPU_DEVICES', 'XLA_FLAGS')
  }
  return subprocess.run(
    [sys.executable, '-c', CODE, *map(str, numbers)],
    env=env | variables,
    check=True,
    text=True,
    capture_output=True,
  ).stdout


@pytest.mark.parametrize(
  ('cores', 'sizes', 'devices'),
  [
    (1, (128, 512), 1),
    (2, (128, 512), 2),
    (3, (128, 512), 2),
    (6, (192, 512), 4),
    (8, (64, 512), 4),  # sixteen images each
    (2, (16, 512), 1),
    (8, (63, 512), 1),
    (4, (), 1),
  ],
)
def test_as_many_as_divide_the_batches(cores, sizes, devices, monkeypatch):
  import jax

  monkeypatch.delenv('JAX_NUM_CPU_DEVICES')
  monkeypatch.setenv('XLA_FLAGS', '')
  updates = {}
  monkeypatch.setattr(jax.config, 'update', updates.__setitem__)
  assert sharding.use_cores(cores, sizes) == devices
  # One device's program runs in the thread that starts it.
  assert updates['jax_cpu_enable_async_dispatch'] == (devices > 1)


def test_jax_sees_them():
  said = use_cores(2, 32, 64)
  assert said.startswith('2 ')
  assert 'terminate_timeout_seconds' in said


def test_what_the_user_set_stays():
  flag = '--xla_cpu_collective_call_terminate_timeout_seconds=7'
  assert use_cores(2, 32, JAX_NUM_CPU_DEVICES='3', XLA_FLAGS=flag) == f'3 {flag}\n'
  assert use_cores(2, 32, XLA_FLAGS=flag) == f'2 {flag}\n'
