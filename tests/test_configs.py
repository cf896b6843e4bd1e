"""The shipped configs: each resolves, is explained, and runs when shrunk."""

import importlib
import json
import math
import pathlib
import re

import pytest

import configs
from analysis import report
from configs import base
from experiments import ledger, orders, sweep, worker
from scaling import config as config_lib
from scaling import metrics
from scaling.data import sources

pytestmark = pytest.mark.usefixtures('quick_compile')

FOLDER = pathlib.Path(configs.__file__).parent
NAMES = sorted(
  path.stem for path in FOLDER.glob('*.py') if 'def get_sweep' in path.read_text()
)


def load(name):
  """Returns the config and the sweep of a shipped study."""
  module = importlib.import_module(f'configs.{name}')
  return module.get_config(), module.get_sweep()


@pytest.fixture
def no_sets(tmp_path, monkeypatch):
  """Hides the prepared sets of this machine."""
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'no_sets'))


def test_the_studies_are_found():
  assert {'cifar10', 'digits', 'fashion_mnist', 'imagenet', 'jft'} <= set(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_every_cell_of_a_config_can_be_and_is_its_own(name):
  config, wanted = load(name)
  assert config.name == name
  cells = sweep.make_cells(config, wanted)  # checks each
  assert len(cells) == len(wanted)
  assert len({config_lib.identity(cell.config) for cell in cells}) == len(cells)
  again = sweep.make_cells(*load(name))
  assert [cell.name for cell in again] == [cell.name for cell in cells]


def test_no_two_studies_share_a_cell():
  names = [cell.name for name in NAMES for cell in sweep.make_cells(*load(name))]
  assert len(set(names)) == len(names)


@pytest.mark.parametrize('name', NAMES)
def test_a_config_only_changes_fields_of_the_base(name):
  config, wanted = load(name)
  fields = config_lib.flat(base.get_config())
  assert config_lib.flat(config).keys() == fields.keys()
  assert {field for overrides in wanted for field in overrides} <= fields.keys()


def test_every_field_has_a_comment():
  found, missing = set(), []
  above, fresh = '', False  # the last lines of comment, and whether no field followed
  for line in (FOLDER / 'base.py').read_text().splitlines():
    field = re.match(r'  (\w+)\.(\w+) = (.*)', line)
    if line.startswith('  #'):
      above, fresh = (above if fresh else '') + line, True
    elif field is None or 'ConfigDict()' in line:
      above, fresh = '', False
    else:
      part, name, rest = field.groups()
      parents = {'config': '', 'procedural': 'data.procedural.'}
      found.add(parents.get(part, f'{part}.') + name)
      # Lines above speak for the next field, and for those that they name.
      if '#' not in rest and not fresh and f'`{name}`' not in above:
        missing.append(f'{part}.{name}')
      fresh = False
  assert found == config_lib.flat(base.get_config()).keys()
  assert missing == []


def test_smoke_takes_the_set_where_it_is_at_hand(no_sets):
  del no_sets
  for name in NAMES:
    config, _ = load(name)
    small, wanted = sweep.shrink(config, None)
    if sources.at_hand(config.data):
      assert small.data.to_dict() == config.data.to_dict()
    else:
      assert small.data.source == 'made_up'
      assert small.data.image_size <= 32
    assert small.data.num_classes == config.data.num_classes
    assert small.data.max_labels == config.data.max_labels
    assert small.train.loss == config.train.loss
    assert config_lib.protocol(small) == config_lib.protocol(config)
    assert len(wanted) == 4
  assert sweep.shrink(load('digits')[0], None)[0].data.source == 'digits'
  assert sweep.shrink(load('cifar10')[0], None)[0].data.source == 'made_up'


def test_smoke_needs_no_weights_and_no_other_set():
  config, _ = load('digits')
  config.update_from_flattened_dict(
    {'init.file': 'R50x1.npz', 'transfer.source': 'folder', 'transfer.name': 'birds'}
  )
  small, wanted = sweep.shrink(config, None)
  assert not small.init.file
  assert not small.transfer.source
  assert len(sweep.make_cells(small, wanted)) == 4


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_every_config_runs_shrunk(name, tmp_path, no_sets):
  del no_sets
  config, _ = load(name)
  config.smoke = True
  config, wanted = sweep.shrink(config, None)
  cells = sweep.make_cells(config, wanted)
  assert len(cells) == 4
  sweep.write_study(tmp_path, config, f'configs/{name}.py', cells)
  for cell in cells:
    folder = sweep.cell_folder(tmp_path, cell.name)
    lease = ledger.claim(folder)
    assert lease is not None
    state = worker.run_cell(folder, lease, orders.Orders([]))
    assert (state, ledger.read_status(folder).reason) == ('done', None)
    assert ledger.read_status(folder).state == 'done'
    last = metrics.read_rows(folder / 'metrics.jsonl')[-1]
    manifest = json.loads((folder / 'manifest.json').read_text())
    assert last['step'] == manifest['steps']
    assert math.isfinite(last['test/loss'])
    assert last['test/num_images'] == manifest['num_test']
  written = report.write_report(tmp_path)
  assert all(path.stat().st_size for path in written.paths)
  assert 'all 4 cells have a result' in (written.folder / 'report.md').read_text()
