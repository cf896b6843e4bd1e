"""Turns measurements of a machine into what limits training there, and what to try."""

from experiments.launch.local import TUNABLES
from scaling.perf import Measured


def shares(found: Measured) -> dict[str, float]:
  """Returns where the seconds of the whole run go; they add up to 1."""
  total = found.compile_seconds + found.steps * found.fed_seconds
  share = found.steps / total
  faults = min(found.faults_per_step * found.fault_seconds, found.step_seconds)
  step_seconds = min(found.step_seconds, found.fed_seconds)
  return {
    'compile': found.compile_seconds / total,
    'input': share * (found.fed_seconds - step_seconds),
    'allocator': share * min(faults, step_seconds),
    'compute': share * max(step_seconds - faults, 0.0),
  }


def cores_needed(found: Measured) -> float:
  """Returns the cores that prepare batches as fast as the devices take them."""
  return sum(found.stages.values()) / found.step_seconds


def advice(found: Measured) -> list[str]:
  """Returns what limits the run, the worst first, each with what to try."""
  run = found.steps * found.fed_seconds
  rate = found.flops_per_step / found.step_seconds
  use = rate / found.gemm_flops
  slowest = max(found.stages, key=lambda name: found.stages[name])
  words = {
    'compile': (
      f'{found.compile_seconds:.0f} s before {run:.0f} s of training. Cells that differ '
      'in size, seed or rate share it, and a cache on disk keeps it for the next start'
    ),
    'input': (
      f'a batch takes {found.input_seconds:.3g} s to prepare beside a step of '
      f'{found.step_seconds:.3g} s, most of it to {slowest}; {cores_needed(found):.1f} '
      'cores like these would keep up. Store smaller images (`scaling data prepare '
      '--short_side`) or give the process more cores'
    ),
    'allocator': (
      f'{found.faults_per_step:,.0f} fresh pages a step, {1e6 * found.fault_seconds:.2g} '
      f'us each. Workers of a sweep keep their memory; for `scaling train`, set '
      f'GLIBC_TUNABLES={TUNABLES}'
    ),
    'compute': (
      f'{rate / 1e9:,.0f} GFLOP/s, {use:.0%} of what a matrix product reaches here. '
      + (
        'More images a step, wider layers or model.dtype=bfloat16 use a device better'
        if use < 0.4
        else 'Only fewer FLOPs or more devices make it faster'
      )
      + (
        '. On CPUs with AVX-512 model.ops=onednn is up to three times as fast; it needs pip '
        "install 'scaling[onednn]'"
        if found.ops == 'cpu'
        else ''
      )
    ),
  }
  found_shares = sorted(shares(found).items(), key=lambda item: -item[1])
  return [
    f'{share:>4.0%} {name}: {words[name]}.'
    for name, share in found_shares
    if share >= 0.05 or name == 'compute'
  ]


def table(found: Measured) -> str:
  """Returns the numbers as lines for people."""
  images = found.batch_size / found.fed_seconds
  rows = [
    ('compile', f'{found.compile_seconds:.1f} s'),
    (
      'step',
      f'{found.step_seconds:.4g} s alone, {found.fed_seconds:.4g} s with its input: '
      f'{images:,.0f} images/s',
    ),
    (
      'input',
      f'{found.input_seconds:.4g} s a batch: '
      f'{found.batch_size / found.input_seconds:,.0f} images/s at most',
    ),
    (
      'on one core',
      ', '.join(f'{name} {1e3 * s:.3g} ms' for name, s in found.stages.items())
      + f'; {cores_needed(found):.2g} cores keep up with the step',
    ),
    ('matrix product', f'{found.gemm_flops / 1e9:,.0f} GFLOP/s'),
    (
      'memory',
      f'{found.copy_bytes / 1e9:.1f} GB/s, {found.peak_bytes / 2**30:.2f} GiB',
    ),
    (
      'allocator',
      f'{found.faults_per_step:,.0f} fresh pages a step, '
      f'{1e6 * found.fault_seconds:.2f} us each',
    ),
    (
      'whole run',
      f'{found.steps:,} steps, {found.steps * found.fed_seconds / 3600:.3g} h',
    ),
  ]
  return '\n'.join(f'{name:<15} {value}' for name, value in rows)
