"""The house: which room may import which, and where each package lives."""

import ast
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]
ROOMS = ('analysis', 'configs', 'experiments', 'scaling')

# A package, and the files or folders of its one home.
HOMES = {
  'PIL': 'scaling/data/',
  'cv2': ('scaling/data/decode.py', 'experiments/benchmarks/input_'),
  'simplejpeg': ('scaling/data/decode.py', 'experiments/benchmarks/input_'),
  'fsspec': 'scaling/data/tar.py',
  'google': 'scaling/data/examples.py',  # protobuf
  'absl': 'experiments/cli.py',
  'array_record': ('scaling/data/', 'experiments/benchmarks/input_peers.py'),
  'clu': ('scaling/step.py', 'scaling/mirrors.py'),
  'faiss': 'scaling/dedup/neighbours.py',
  'flax': 'scaling/models/',
  'grain': 'experiments/benchmarks/input_peers.py',
  'matplotlib': 'analysis/figures.py',
  'optax': ('scaling/optim.py', 'scaling/step.py'),
  'orbax': 'scaling/checkpoint.py',
  # The benchmark hands analysis a table and measures it against scipy's own fitter.
  'pandas': ('analysis/', 'experiments/benchmarks/fit_curves.py'),
  'ray': 'experiments/launch/ray.py',
  'rich': 'experiments/progress.py',
  'safetensors': 'scaling/weights.py',
  'scipy': ('analysis/', 'experiments/benchmarks/peers.py'),
  'sklearn': ('scaling/data/digits.py', 'scaling/evals/transfer.py'),
  'tensorboardX': 'scaling/mirrors.py',
  # What clu's writer of events stands on.
  'tensorflow': ('experiments/benchmarks/input_peers.py', 'scaling/mirrors.py'),
  'tensorflow_datasets': ('scaling/data/', 'experiments/benchmarks/input_'),
  'tensorstore': 'experiments/store.py',
  'torch': (
    'experiments/benchmarks/torch_step.py',
    'experiments/benchmarks/input_peers.py',
  ),
}
SHARED = {'jax', 'ml_collections', 'numpy'}


def imports(room: str) -> Iterator[tuple[str, str]]:
  """Yields the file and the first part of each name that a room imports."""
  for path in sorted((ROOT / room).rglob('*.py')):
    name = path.relative_to(ROOT).as_posix()
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Import):
        yield from ((name, alias.name.partition('.')[0]) for alias in node.names)
      elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f'{name} imports relatively'
        yield name, str(node.module).partition('.')[0]


IMPORTS = {room: list(imports(room)) for room in ROOMS}


@pytest.mark.parametrize(
  ('room', 'forbidden'),
  [
    ('analysis', {'scaling', 'experiments', 'configs', 'jax'}),
    ('scaling', {'experiments', 'analysis', 'configs'}),
    ('configs', {'experiments', 'analysis', 'scaling', 'jax'}),
  ],
)
def test_rooms_import_in_one_direction(room, forbidden):
  assert IMPORTS[room]
  assert [(path, name) for path, name in IMPORTS[room] if name in forbidden] == []


def test_every_package_has_one_home():
  found = {pair for room in ROOMS for pair in IMPORTS[room]}
  third_party = {
    (path, name)
    for path, name in found
    if name not in sys.stdlib_module_names and name not in {*ROOMS, *SHARED}
  }
  astray = [
    pair for pair in third_party if not pair[0].startswith(HOMES.get(pair[1], ()))
  ]
  assert astray == []
  assert {name for _, name in third_party} == set(HOMES)  # no home stands empty


def test_only_scaling_the_worker_and_the_benchmarks_know_jax():
  assert {
    path
    for room in ('analysis', 'configs', 'experiments')
    for path, name in IMPORTS[room]
    if name == 'jax' and not path.startswith('experiments/benchmarks/')
  } <= {'experiments/worker.py'}


def test_no_file_is_a_drawer_for_everything():
  names = {path.name for room in ROOMS for path in (ROOT / room).rglob('*.py')}
  assert not names & {'utils.py', 'util.py', 'helpers.py', 'misc.py', 'common.py'}


def test_the_command_line_answers_before_anything_heavy_is_loaded():
  code = (
    'import sys, scaling, analysis, experiments, configs, experiments.cli\n'
    'heavy = {"jax", "tensorflow", "matplotlib", "pandas", "flax", "orbax"}\n'
    'print(sorted(heavy & set(sys.modules)))'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == '[]'
