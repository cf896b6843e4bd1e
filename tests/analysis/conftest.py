"""Fabricates what a study leaves on disk, so that no test here trains anything."""

import json
import pathlib
from collections.abc import Callable

import numpy as np
import pytest

VERSIONS = {'jax': '0.10.0', 'flax': '0.12.1', 'numpy': '2.4.0'}


def truth(depth: int, size: float) -> float:
  """Accuracy without noise: deeper networks have a lower floor and a steeper curve."""
  return 1 - (
    0.15 - 0.004 * depth + (2.0 + 0.05 * depth) * size ** -(0.40 + 0.005 * depth)
  )


def write_study(
  folder: pathlib.Path,
  *,
  depths=(8, 20),
  sizes=(50, 100, 200, 400, 800, 0),
  seeds=(0, 1, 2),
  widths=(16,),
  num_full: int = 1437,
  epochs: float = 40.0,
  steps: int = 0,
  states: dict[tuple[int, int, int], tuple[str, str]] | None = None,
  noise: float = 0.008,
) -> pathlib.Path:
  """Writes a study; `states` gives (depth, size, seed) cells another state and reason."""
  rng = np.random.default_rng(0)
  base = {
    'name': 'digits',
    'seed': 0,
    'data': {'source': 'digits', 'num_images': 0, 'num_classes': 10},
    'model': {'name': 'resnet', 'depth': depths[0], 'width': widths[0]},
    'train': {'batch_size': 64, 'epochs': epochs, 'steps': steps},
  }
  cells = []
  for depth in depths:
    for width in widths:
      for size in sizes:
        for seed in seeds:
          overrides = {
            'data.num_images': size,
            'model.depth': depth,
            'model.width': width,
            'seed': seed,
          }
          name = f'resnet{depth}-w{width}-n{size}-seed{seed}-{len(cells):08x}'
          cells.append({'name': name, 'overrides': overrides})
          state, reason = (states or {}).get((depth, size, seed), ('done', None))
          value = truth(depth, size or num_full) + noise * rng.standard_normal()
          if state != 'pending':
            _write_cell(
              folder / 'cells' / name, base, overrides, state, reason, value, num_full
            )
  folder.mkdir(parents=True, exist_ok=True)
  listing = {
    'version': 1,
    'name': 'digits',
    'config_file': 'configs/digits.py',
    'config': base,
    'cells': cells,
  }
  (folder / 'study.json').write_text(json.dumps(listing))
  return folder


def _write_cell(folder, base, overrides, state, reason, value, num_full) -> None:
  folder.mkdir(parents=True)
  config = json.loads(json.dumps(base))
  config['data']['num_images'] = overrides['data.num_images']
  config['model']['depth'] = overrides['model.depth']
  config['model']['width'] = overrides['model.width']
  config['seed'] = overrides['seed']
  size = config['data']['num_images'] or num_full
  steps = config['train']['steps'] or int(config['train']['epochs'] * size // 64)
  manifest = {
    'version': 1,
    'git_commit': 'abc1234',
    'versions': VERSIONS,
    'python': '3.11.9',
    'device_kind': 'cpu',
    'num_devices': 2,
    'num_params': 78042,
    'flops_per_image': 2.5e6,
    'train_flops': 7.5e6 * steps * 64,
    'steps': steps,
    'batch_size': 64,
    'examples': steps * 64,
    'num_full': num_full,
    'num_test': 360,
    'data_fingerprint': 'f00d',
    'started': '2025-01-02T03:04:05+00:00',
  }
  value = float(np.clip(value, 0, 1))
  rows = [
    {
      'step': 0,
      'test/top1': 0.1,
      'test/top5': 0.5,
      'test/loss': 2.3,
      'test/num_images': 360,
    },
    {'step': steps // 2, 'train/loss': 1.0, 'train/learning_rate': 0.1},
  ]
  if state == 'done':
    rows += [
      {'step': steps, 'train/loss': 0.2, 'time/train_seconds': steps / 20},
      {'step': steps, 'time/images_per_second': 1280.0},
      {'step': steps, 'time/input_wait_seconds': steps / 200},
      {
        'step': steps,
        'test/top1': value,
        'test/top5': 1 - (1 - value) / 6,
        'test/loss': 2.5 * (1 - value),
        'test/num_images': 360,
      },
    ]
  (folder / 'config.json').write_text(json.dumps(config))
  (folder / 'manifest.json').write_text(json.dumps(manifest))
  (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  status = {'state': state, 'reason': reason, 'attempts': 1}
  (folder / 'status.json').write_text(json.dumps(status))


@pytest.fixture
def make_study(tmp_path) -> Callable[..., pathlib.Path]:
  """`write_study` into a fresh folder."""
  return lambda **options: write_study(tmp_path / 'study', **options)
