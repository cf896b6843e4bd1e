"""Cells that start from other cells: listed once, trained in order, by any worker."""

import json
import threading

import pytest

from configs import base
from experiments import ledger, orders, sweep, worker
from scaling import manifest, start, train
from scaling.errors import UserError

SMALL = {'data.num_images': 20, 'model.width': 4}


def cells_of(listed):
  config = base.get_config()
  config.data.made_up_train, config.train.steps = 64, 4
  return sweep.make_cells(config, listed)


def test_the_cell_to_start_from_is_listed_once_and_before():
  first = {'seed': 1} | SMALL
  found = cells_of(
    [
      {'init.cell': first, 'data.num_images': 30, 'model.width': 4},
      {'init.cell': first, 'data.num_images': 40, 'model.width': 4},
      first,
    ]
  )
  assert [cell.overrides.get('data.num_images') for cell in found] == [20, 30, 40]
  assert {cell.config.init.cell for cell in found[1:]} == {found[0].name}


def test_a_chain_of_cells():
  first = {'seed': 1} | SMALL
  second = {'init.cell': first, 'seed': 2} | SMALL
  found = cells_of([{'init.cell': second, 'seed': 3} | SMALL])
  assert [cell.config.seed for cell in found] == [1, 2, 3]
  assert found[2].config.init.cell == found[1].name


def test_fields_of_the_cell_to_start_from_are_checked():
  with pytest.raises(UserError, match=r'Did you mean "data\.num_images"'):
    cells_of([{'init.cell': {'data.num_image': 3}}])


@pytest.fixture
def study(tmp_path):
  found = cells_of([{'init.cell': SMALL | {'seed': 1}, 'seed': 2} | SMALL])
  sweep.write_study(tmp_path, base.get_config(), '', found)
  return [sweep.cell_folder(tmp_path, cell.name) for cell in found]


def test_it_is_claimed_only_after_that_one_ended(study):
  first, second = study
  after = {second.name: first.name}
  # In the worst order, and two that look at once.
  mine = worker.claims([second, first], threading.Event(), after)
  other = worker.claims([second, first], threading.Event(), after)
  cell, lease = next(mine)
  assert cell == first
  assert next(other) is None  # waits for it, rather than to take what cannot begin
  lease.done()
  cell, lease = next(other)
  assert cell == second
  lease.done()
  assert list(mine) == []
  assert list(other) == []


@pytest.mark.slow
def test_a_cell_whose_first_failed_fails_and_says_why(study, tmp_path):
  first, second = study
  ledger.claim(first).failed('no good', final=True)
  told = orders.Orders([[second.name, first.name]], after={second.name: first.name})
  worker.work_alone([second, first], told, threading.Event())
  status = ledger.read_status(second)
  assert status.state == 'failed'
  assert f'init.cell={first.name} has not been trained' in status.reason


def test_a_half_trained_cell_is_no_start_but_a_step_of_it_is(tmp_path):
  found = cells_of([{'init.cell': SMALL | {'seed': 1}, 'seed': 2} | SMALL])
  there, own = (tmp_path / cell.name for cell in found)
  (there / 'checkpoints' / '2').mkdir(parents=True)
  (there / 'manifest.json').write_text('{"steps": 4}')
  config = found[1].config.copy_and_resolve_references()
  with pytest.raises(UserError, match=r'ended at step 2 of 4; .*init\.step'):
    start.source(config, own)
  config.init.step = 2
  assert start.source(config, own) == there
  config.init.step = 0
  (there / 'checkpoints' / '4').mkdir()
  assert start.source(config, own) == there


# ml_collections loads config files in a way that Python 3.11 already warns about.
@pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')
def test_a_sweep_that_would_wait_for_ever_is_refused(call, tmp_path):
  status, _, err = call(
    'sweep', '--config=digits', f'--workdir={tmp_path}', '--config.init.cell=nowhere'
  )
  assert status == 2
  assert 'init.cell=nowhere is neither trained nor a cell of this sweep' in err
  assert not (tmp_path / 'study.json').exists()


@pytest.mark.slow
def test_a_study_of_two_cells_is_trained_in_order(study):
  first, second = study
  told = orders.Orders([[second.name, first.name]], after={second.name: first.name})
  worker.work_alone([second, first], told, threading.Event())
  assert [ledger.read_status(cell).state for cell in study] == ['done', 'done']
  begun = [
    json.loads((cell / 'manifest.json').read_text())['started'] for cell in study
  ]
  assert begun == sorted(begun)


@pytest.mark.slow
def test_a_head_of_other_classes_is_not_kept(tmp_path):
  """Of as many classes, so that the shapes agree."""
  names = ('first', 'second')
  made = cells_of(
    [
      {'init.cell': SMALL, 'init.head': head, 'seed': seed} | SMALL
      for seed, head in enumerate(('kept', 'new'), 1)
    ]
  )
  first, kept, new = (tmp_path / cell.name for cell in made)
  train.train(made[0].config, first)
  path = first / 'manifest.json'
  about = json.loads(path.read_text())
  assert about['classes'].startswith('10: ')
  path.write_text(json.dumps(about | {'classes': manifest.classes(names)}))
  with pytest.raises(UserError, match=r'other classes: 2: first, second .* init\.head'):
    train.train(made[1].config, kept)
  train.train(made[2].config, new)
