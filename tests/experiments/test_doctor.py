"""What limits a run, told from made-up measurements."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import doctor
from experiments.launch.local import TUNABLES
from scaling import perf

BASE = perf.Measured(
  num_devices=1,
  num_cores=2,
  batch_size=64,
  steps=10_000,
  compile_seconds=10.0,
  step_seconds=0.1,
  input_seconds=0.01,
  stages={'read': 0.002, 'decode': 0.015, 'place': 0.001},
  fed_seconds=0.1,
  flops_per_step=9e9,
  gemm_flops=1e11,
  copy_bytes=1e10,
  faults_per_step=10.0,
  fault_seconds=1e-6,
  peak_bytes=1 << 30,
  ops='',
)


def first(**changes):
  """The worst limit of the base measurement with changes, and the whole advice."""
  told = doctor.advice(dataclasses.replace(BASE, **changes))
  return told[0].split(':')[0].split()[1], '\n'.join(told)


def test_each_limit_is_named_with_a_way_out():
  assert first()[0] == 'compute'
  slow = {'read': 0.1, 'decode': 0.6, 'place': 0.1}
  name, told = first(input_seconds=0.4, fed_seconds=0.4, stages=slow)
  assert name == 'input'
  assert 'most of it to decode; 8.0 cores' in told
  assert first(steps=10)[0] == 'compile'
  name, told = first(faults_per_step=50_000.0, fault_seconds=1.5e-6)
  assert name == 'allocator'
  assert TUNABLES in told


def test_what_costs_nothing_is_not_told():
  assert len(doctor.advice(BASE)) == 1


def test_use_of_the_device_is_told_against_its_matrix_product():
  assert '90 GFLOP/s, 90% of what' in first()[1]
  assert 'Only fewer FLOPs' in first()[1]
  assert 'bfloat16' in first(flops_per_step=1e9)[1]
  assert 'onednn' not in first()[1]
  assert 'model.ops=onednn' in first(ops='cpu')[1]


seconds = st.floats(1e-6, 1e3)


@given(seconds, seconds, seconds, seconds, st.integers(1, 10**9), st.floats(0, 1e7))
def test_shares_add_up_to_the_whole_run(compiling, alone, batch, fed, steps, faults):
  found = doctor.shares(
    dataclasses.replace(
      BASE,
      compile_seconds=compiling,
      step_seconds=alone,
      input_seconds=batch,
      fed_seconds=fed,
      steps=steps,
      faults_per_step=faults,
    )
  )
  assert sum(found.values()) == pytest.approx(1)
  assert min(found.values()) >= 0


def test_the_table_has_the_speed():
  assert '640 images/s' in doctor.table(BASE)
