import collections
import itertools
import json
import os

import pytest

from experiments import orders, sweep
from scaling.errors import UserError


def test_orders_give_every_worker_every_cell(config):
  wanted = [
    {'model.depth': depth, 'data.num_images': n, 'seed': seed}
    for n in (100, 400, 200)
    for depth in (8, 14, 20)
    for seed in (0, 1)
  ]
  config.train.epochs, config.train.steps = 2.0, 0
  cells = sweep.make_cells(config, wanted)
  by_name = {cell.name: cell.config for cell in cells}
  told = orders.Orders(orders.group(cells))
  found = [told.cells(slot) for slot in range(4)]
  for order in found:
    assert collections.Counter(order) == dict.fromkeys(by_name, 1)
    depths = [by_name[name].model.depth for name in order]
    # A program is met in one run, for it is compiled once per worker.
    assert sum(a != b for a, b in itertools.pairwise(depths)) == 2
    for depth in (8, 14, 20):
      sizes = [
        by_name[name].data.num_images
        for name in order
        if by_name[name].model.depth == depth
      ]
      assert sizes == sorted(sizes, reverse=True)
  starts = [by_name[order[0]].model.depth for order in found]
  assert sorted(starts[:3]) == [8, 14, 20]


def test_the_whole_set_counts_as_the_longest(config):
  config.train.epochs, config.train.steps = 2.0, 0
  cells = sweep.make_cells(config, [{'data.num_images': n} for n in (10**9, 0, 10)])
  order = orders.Orders(orders.group(cells)).cells(0)
  assert [name.split('-')[1] for name in order] == ['nall', f'n{10**9}', 'n10']


def test_orders_have_a_name_of_their_content(tmp_path):
  told = orders.Orders([['a', 'b'], ['c']], data_dir='/sets', stall_seconds=60.0)
  name = orders.write(tmp_path, told)
  (path,) = (tmp_path / 'launches').iterdir()
  assert path.stem == name == orders.name_of(told)
  assert orders.read(tmp_path, name) == told
  assert json.loads(path.read_text())['data_dir'] == '/sets'
  assert orders.write(tmp_path, orders.Orders([['a']])) != name


def test_the_last_orders_are_those_that_were_given_last(tmp_path):
  with pytest.raises(UserError, match='no sweep was started'):
    orders.last(tmp_path)
  first, second = orders.Orders([['a', 'b']]), orders.Orders([['a']], data_dir='/sets')
  for number, told in enumerate((first, second, first)):
    name = orders.write(tmp_path, told)
    os.utime(tmp_path / 'launches' / f'{name}.json', (0, number))
    (tmp_path / 'launches' / 'slurm-1234567890.json').write_text('{}')  # a job
    assert orders.last(tmp_path) == told


def test_orders_that_are_not_there(tmp_path):
  with pytest.raises(UserError, match='scaling sweep'):
    orders.read(tmp_path, '0123456789')
