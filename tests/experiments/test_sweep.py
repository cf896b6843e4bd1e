import json

import pytest

from experiments import store, sweep
from scaling import config as config_lib
from scaling.errors import UserError


def test_cells_are_each_listed_once_in_order(config):
  wanted = [
    {'data.num_images': 20, 'seed': 1},
    {'data.num_images': 10},
    {'seed': 1, 'data.num_images': 20},
    {'data.num_images': 10, 'seed': 0},  # the config's own seed
  ]
  cells = sweep.make_cells(config, wanted)
  assert [(c.config.data.num_images, c.config.seed) for c in cells] == [
    (20, 1),
    (10, 0),
  ]
  assert len({config_lib.identity(cell.config) for cell in cells}) == 2
  assert config.data.num_images == 0  # the study's own config is left alone


def test_seeds_of_the_data_follow_a_swept_seed(config):
  moved, still = sweep.make_cells(config, [{'seed': 3}, {'data.subset_seed': 5}])
  assert (moved.config.data.subset_seed, moved.config.data.order_seed) == (3, 3)
  # A field that the sweep sets itself follows no longer, and takes no other with it.
  assert still.config.data.subset_seed == 5
  assert (still.config.seed, still.config.data.order_seed) == (0, 0)


def test_an_own_subset_seed_stays_beside_a_swept_seed(config):
  wanted = [{'seed': 3, 'data.subset_seed': 5}, {'data.subset_seed': 5, 'seed': 3}]
  (cell,) = sweep.make_cells(config, wanted)  # the order of the fields is no matter
  assert (cell.config.seed, cell.config.data.subset_seed) == (3, 5)
  assert cell.config.data.order_seed == 3


def test_pinned_fields_win_and_cells_merge(config):
  config.model.depth = 14
  wanted = [{'model.depth': d, 'data.num_images': n} for d in (8, 20) for n in (5, 9)]
  cells = sweep.make_cells(config, wanted, {'model.depth': 14})
  assert [c.config.data.num_images for c in cells] == [5, 9]
  assert {c.config.model.depth for c in cells} == {14}
  assert all('model.depth' not in cell.overrides for cell in cells)


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    ({'model.depht': 14}, 'model.depht.*Did you mean "model.depth"'),
    ({'model.depth': 'deep'}, "model.depth='deep'"),
    ({'model.depth': 9}, 'model.depth=9'),
    ({'optim.lr': None}, 'optim.lr'),
    ({'model': 3}, 'model'),
  ],
)
def test_a_field_that_cannot_be_is_named_in_one_line(config, overrides, message):
  with pytest.raises(UserError, match=message) as error:
    sweep.make_cells(config, [overrides])
  assert '\n' not in str(error.value)


def test_an_empty_sweep_is_refused(config):
  with pytest.raises(UserError, match='no cell'):
    sweep.make_cells(config, [])


def test_shrunk_studies_keep_their_form_and_protocol(config):
  config.model.form, config.model.depth = 'imagenet', 152
  config.train.epochs, config.train.steps = 90.0, 0
  config.data.source, config.data.num_classes = 'folder', 1000
  config.data.image_size = 224
  small, wanted = sweep.shrink(config, '/nonexistent')
  assert (small.model.form, small.model.depth) == ('imagenet', 18)
  assert (small.data.source, small.data.image_size) == ('made_up', 32)
  assert small.data.num_classes == 1000
  assert config_lib.protocol(small) == 'epochs'
  assert len(sweep.make_cells(small, wanted)) == 4
  assert config.model.depth == 152  # the one given is left alone


@pytest.mark.parametrize(
  ('fields', 'size'),
  [
    ({'name': 'vit', 'depth': 24, 'width': 1024, 'patch_size': 14}, 28),
    ({'name': 'bit', 'depth': 152, 'width': 256}, 32),
    ({'name': 'xception', 'depth': 36, 'width': 32}, 32),
  ],
)
def test_shrunk_studies_of_any_network_fit_their_images(config, fields, size):
  config.model.update(fields)
  config.data.source, config.data.image_size = 'folder', 224
  small, wanted = sweep.shrink(config, '/nonexistent')
  assert (small.model.name, small.data.image_size) == (fields['name'], size)
  assert len(sweep.make_cells(small, wanted)) == 4  # checks each


def write(workdir, config, wanted):
  cells = sweep.make_cells(config, wanted)
  sweep.write_study(workdir, config, 'x.py', cells)
  return cells


def names(workdir):
  return [cell['name'] for cell in sweep.read_study(workdir)['cells']]


def test_of_two_sweeps_at_once_both_lists_stay(tmp_path, config, monkeypatch):
  replace, others = store.replace, [{'data.num_images': 20}]

  def late(*args):
    monkeypatch.setattr(store, 'replace', replace)
    write(tmp_path, config, others)  # just before ours
    return replace(*args)

  monkeypatch.setattr(store, 'replace', late)
  own = write(tmp_path, config, [{'data.num_images': 10}])
  assert sorted(names(tmp_path)) == sorted(
    cell.name for cell in [*own, *sweep.make_cells(config, others)]
  )


def test_a_study_is_written_and_read_back(tmp_path, config):
  cells = write(tmp_path, config, [{'data.num_images': 10}, {'data.num_images': 20}])
  study = sweep.read_study(tmp_path)
  assert study['name'] == 'base'
  assert names(tmp_path) == [cell.name for cell in cells]
  assert study['cells'][0]['overrides'] == {'data.num_images': 10}
  for cell in cells:
    path = sweep.cell_folder(tmp_path, cell.name) / 'config.json'
    assert config_lib.identity(json.loads(path.read_text())) == cell.name[-8:]
  before = (tmp_path / 'study.json').stat().st_mtime_ns
  write(tmp_path, config, [{'data.num_images': 10}, {'data.num_images': 20}])
  assert (tmp_path / 'study.json').stat().st_mtime_ns == before


def test_the_cells_of_all_sweeps_are_read_back(tmp_path, config):
  cells = write(tmp_path, config, [{'data.num_images': 10}])
  cells += write(tmp_path, config, [{'data.num_images': 20, 'model.depth': 14}])
  found = sweep.read_cells(tmp_path)
  assert [(cell.name, dict(cell.overrides)) for cell in found] == [
    (cell.name, dict(cell.overrides)) for cell in cells
  ]
  for one, cell in zip(found, cells, strict=True):
    assert config_lib.identity(one.config) == config_lib.identity(cell.config)
    assert config_lib.program_key(one.config) == config_lib.program_key(cell.config)
  path = sweep.cell_folder(tmp_path, cells[1].name) / 'config.json'
  for broken in ('{"seed": ', None):
    path.write_text(broken) if broken else path.unlink()
    with pytest.raises(UserError, match=r'config\.json cannot be read'):
      sweep.read_cells(tmp_path)


def test_a_study_is_extended_and_never_shrunk(tmp_path, config):
  (first,) = write(tmp_path, config, [{'data.num_images': 10}])
  more = write(tmp_path, config, [{'data.num_images': 20, 'model.depth': 14}])
  assert names(tmp_path) == [first.name, more[0].name]
  write(tmp_path, config, [{'data.num_images': 10}])
  assert names(tmp_path) == [first.name, more[0].name]


def test_a_study_of_another_config_is_refused_by_field(tmp_path, config):
  write(tmp_path, config, [{'data.num_images': 10}])
  before = (tmp_path / 'study.json').read_bytes()
  config.optim.lr = 0.25
  with pytest.raises(UserError, match=r'optim\.lr is 0\.1 there and 0\.25 here'):
    write(tmp_path, config, [{'data.num_images': 20}])
  assert (tmp_path / 'study.json').read_bytes() == before
  assert len(list((tmp_path / 'cells').iterdir())) == 1


def test_a_half_written_study_is_never_read(tmp_path, config):
  (tmp_path / '.study.json.4711').write_text('{"cells": [')
  with pytest.raises(UserError, match='holds no study'):
    sweep.read_study(tmp_path)
  (cell,) = write(tmp_path, config, [{'data.num_images': 10}])
  (tmp_path / '.study.json.4712').write_text('{"cells": [')
  assert names(tmp_path) == [cell.name]
