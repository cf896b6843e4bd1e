"""Training a cell: its rows and files, full disks, and what is refused."""

import gc
import json
import logging
import math
import pathlib
import resource
import shutil
import signal

import jax
import numpy as np
import pytest
from runs import (
  SCHEDULE,
  assert_same_run,
  rows_of,
  saved_steps,
  state_of,
  stop_after,
)

from configs import digits
from scaling import config as config_lib
from scaling import metrics, sharding, step, trained
from scaling.checkpoint import Checkpoints
from scaling.data import sources
from scaling.data.skipped import Skipped
from scaling.errors import DivergedError, Stopped, UserError
from scaling.evals import predictions, transfer
from scaling.train import describe, train

# Orbax leaves these behind when it gives up on a broken checkpoint.
pytestmark = [
  pytest.mark.filterwarnings('ignore:coroutine .PyTreeHandler:RuntimeWarning'),
  pytest.mark.filterwarnings(
    'ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning'
  ),
]


def test_rows_are_on_schedule(config, undisturbed):
  rows = metrics.read_rows(undisturbed / 'metrics.jsonl')
  assert [row['step'] for row in rows] == [0, 2, 4, 6, 8, 10, 12]
  assert [row['step'] for row in rows if 'test/loss' in row] == [0, 4, 8, 12]
  assert [row['step'] for row in rows if 'train/loss' in row] == [2, 4, 6, 8, 10, 12]
  assert all(row['test/num_images'] == 27 for row in rows if 'test/loss' in row)
  assert rows[0]['test/loss'] == pytest.approx(np.log(10), rel=1e-5)  # float32
  for name in ('train', 'input_wait', 'compile', 'eval'):
    seconds = [row[f'time/{name}_seconds'] for row in rows]
    assert seconds == sorted(seconds)
  saved = {path.name for path in (undisturbed / 'checkpoints').iterdir()}
  assert {name for name in saved if name.isdigit()} == {'9', '12'}


def test_tests_that_fall_between_rows_are_rows_of_their_own(tiny_config, tmp_path):
  train(tiny_config({'log.eval_every_steps': 5, 'log.every_steps': 4}), tmp_path)
  rows = rows_of(tmp_path)
  assert [row['step'] for row in rows] == [0, 4, 5, 8, 10, 12]
  assert [row['step'] for row in rows if 'test/loss' in row] == [0, 5, 10, 12]


def test_folder_tells_what_was_run(config, undisturbed):
  saved = json.loads((undisturbed / 'config.json').read_text())
  assert config_lib.identity(saved) == config_lib.identity(config)
  manifest = json.loads((undisturbed / 'manifest.json').read_text())
  assert manifest['steps'] == 12
  assert manifest['examples'] == 12 * 16
  assert manifest['num_full'] == 64
  assert manifest['num_test'] == 27
  assert manifest['num_devices'] == 4
  assert manifest['num_processes'] == 1
  assert manifest['deterministic'] is False
  assert manifest['compiler_options'] == {}
  assert manifest['num_params'] == sum(
    leaf.size for leaf in jax.tree.leaves(state_of(config, undisturbed).params)
  )


def test_a_run_repeats_exactly(config, undisturbed, tmp_path):
  train(config, tmp_path)
  assert_same_run(config, tmp_path, undisturbed)


def test_another_seed_is_another_run(tiny_config, undisturbed, tmp_path):
  train(tiny_config({**SCHEDULE, 'seed': 1}), tmp_path)
  ours, theirs = rows_of(tmp_path), rows_of(undisturbed)
  assert [row['step'] for row in ours] == [row['step'] for row in theirs]
  assert all(
    a['train/loss'] != b['train/loss']
    for a, b in zip(ours[1:], theirs[1:], strict=True)
  )


@pytest.fixture
def failing_disk(monkeypatch):
  """Returns a set of steps; what is saved at these meets a limit on file sizes."""
  steps: set[int] = set()
  start = Checkpoints.save
  before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead
  free = resource.getrlimit(resource.RLIMIT_FSIZE)

  def save(self, state, *args):
    limited = int(state.step) in steps
    if limited:
      self.wait()  # for the one before
      resource.setrlimit(resource.RLIMIT_FSIZE, (4000, free[1]))
    try:
      start(self, state, *args)
      if limited:
        self.settle()
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, free)

  monkeypatch.setattr(Checkpoints, 'save', save)
  yield steps
  signal.signal(signal.SIGXFSZ, before)


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(
  config, undisturbed, tmp_path, failing_disk, caplog
):
  failing_disk |= {6}
  with caplog.at_level(logging.WARNING, 'scaling'):
    train(config, tmp_path)
  assert 'checkpoint 6 could not be saved (' in caplog.text
  assert 'its newest checkpoint is step 3; training goes on' in caplog.text
  caplog.clear()
  gc.collect()
  assert_same_run(config, tmp_path, undisturbed)


def test_a_full_disk_at_the_end_is_an_error_that_a_second_call_mends(
  config, undisturbed, tmp_path, failing_disk
):
  failing_disk |= {12}
  with pytest.raises(UserError) as error:
    train(config, tmp_path)
  message = str(error.value)
  assert message.startswith('checkpoint 12 could not be saved (')
  assert 'its newest checkpoint is step 9' in message
  assert 'free some space there and run the same command again' in message
  failing_disk.clear()
  train(config, tmp_path)
  assert_same_run(config, tmp_path, undisturbed)


def test_a_folder_of_checkpoints_that_was_half_deleted_is_gone_on_from(
  config, undisturbed, tmp_path, caplog
):
  with pytest.raises(Stopped):
    train(config, tmp_path, should_stop=stop_after(7))
  checkpoints = tmp_path / 'checkpoints'
  assert saved_steps(tmp_path) == {6, 7}
  shutil.rmtree(checkpoints / '7' / 'state')
  for path in (checkpoints / '7').iterdir():
    path.unlink()
  with (
    caplog.at_level(logging.WARNING, 'scaling'),
    pytest.raises(Stopped, match='saved at step 6 of 12'),
  ):
    train(config, tmp_path, should_stop=stop_after(0))
  assert 'checkpoint 7 cannot be read, trying older' in caplog.text
  shutil.rmtree(checkpoints)  # all of it: a start from nothing
  train(config, tmp_path)
  assert_same_run(config, tmp_path, undisturbed)


def test_the_checkpoints_of_another_network_are_refused(
  tiny_config, config, undisturbed, tmp_path
):
  other = tiny_config({**SCHEDULE, 'optim.name': 'rmsprop'})
  shutil.copytree(undisturbed / 'checkpoints', tmp_path / 'checkpoints')
  with pytest.raises(UserError) as error:
    train(other, tmp_path)
  message = str(error.value)
  assert 'checkpoint 12 in' in message
  assert 'opt_state/1/nu/head/bias is absent there and float32[10] here' in message
  assert '--workdir' in message


def test_best_and_whole_multiples_are_saved_and_stay(tiny_config, tmp_path):
  fields = {
    'log.eval_every_steps': 3,
    'checkpoint.keep': 1,
    'checkpoint.keep_every_steps': 5,
    'checkpoint.best': 'test/loss',
  }
  train(tiny_config(fields), tmp_path)
  losses = {
    row['step']: row['test/loss'] for row in rows_of(tmp_path) if 'test/loss' in row
  }
  assert set(losses) == {0, 3, 6, 9, 12}
  assert saved_steps(tmp_path) == {5, 10, 12, min(losses, key=losses.__getitem__)}


def all_finite(tree) -> bool:
  return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


# 1e38 overflows the norm of the weights at once, before anything good could be saved.
@pytest.mark.parametrize('lr', [1e4, 1e16, 1e19])
def test_divergence_names_its_step_and_a_checkpoint_that_is_good(
  tiny_config, tmp_path, lr
):
  config = tiny_config(
    {
      'optim.lr': lr,
      'checkpoint.every_steps': 1,
      'train.steps': 60,
      'log.every_steps': 1,
    }
  )
  with pytest.raises(DivergedError) as error:
    train(config, tmp_path)
  state = state_of(config, tmp_path)
  saved, message = int(state.step), str(error.value)
  assert f'last good checkpoint: step {saved};' in message
  assert f'at step {saved + 1};' in message
  assert 'optim.lr' in message
  assert all_finite(state.params)
  assert all_finite(state.batch_stats)
  assert all_finite(state.opt_state)
  rows = rows_of(tmp_path)
  assert rows[-1]['step'] == saved
  assert all_finite(list(rows[-1].values()))


def test_divergence_without_a_checkpoint_says_so(tiny_config, tmp_path):
  config = tiny_config({'optim.lr': 1e25, 'log.every_steps': 50})
  with pytest.raises(DivergedError, match=r'at step [0-9]+; .*checkpoint: none yet'):
    train(config, tmp_path)
  assert rows_of(tmp_path) == []


def test_the_folder_of_another_config_is_refused(tiny_config, undisturbed):
  before = (undisturbed / 'metrics.jsonl').read_bytes()
  with pytest.raises(UserError) as error:
    train(tiny_config({**SCHEDULE, 'optim.lr': 0.25, 'train.steps': 99}), undisturbed)
  message = str(error.value)
  assert 'optim.lr is 0.1 there and 0.25 here' in message
  assert str(undisturbed) in message
  assert '--workdir' in message
  assert (undisturbed / 'metrics.jsonl').read_bytes() == before


def test_a_finished_cell_is_only_read(config, undisturbed, monkeypatch):
  def refuse(*_, **__):
    raise AssertionError('a finished cell compiles nothing')

  monkeypatch.setattr(step, 'compile_program', refuse)
  before = {
    path: path.read_bytes() for path in undisturbed.rglob('*') if path.is_file()
  }
  row = train(config, undisturbed)
  assert row == metrics.read_rows(undisturbed / 'metrics.jsonl')[-1]
  assert row['step'] == 12
  after = {path: path.read_bytes() for path in undisturbed.rglob('*') if path.is_file()}
  assert after == before


def test_a_cell_that_lost_its_last_row_is_finished_again(config, undisturbed, tmp_path):
  train(config, tmp_path)
  metrics.cut_rows(tmp_path / 'metrics.jsonl', 11)
  row = train(config, tmp_path)
  last = rows_of(undisturbed)[-1]
  expected = {k: v for k, v in last.items() if k == 'step' or k.startswith('test/')}
  assert expected.items() <= row.items()


@pytest.mark.parametrize(('num_images', 'steps'), [(16, 2), (40, 5), (41, 6), (0, 8)])
def test_epochs_are_passes_over_the_subset(tiny_config, tmp_path, num_images, steps):
  fields = {'train.steps': 0, 'train.epochs': 2.0, 'data.num_images': num_images}
  assert train(tiny_config(fields), tmp_path)['step'] == steps


def test_as_many_images_as_there_are_not_are_refused(tiny_config, tmp_path):
  with pytest.raises(UserError, match=r'data\.num_images=65'):
    train(tiny_config({'data.num_images': 65}), tmp_path)


def test_a_bad_config_leaves_no_trace(tiny_config, tmp_path):
  with pytest.raises(UserError, match=r'model.depth=9'):
    train(tiny_config({'model.depth': 9}), tmp_path / 'cell')
  assert not (tmp_path / 'cell').exists()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'optim.warmup_steps': 100}, r'warmup'),
    ({'train.batch_size': 15}, r'train\.batch_size=15'),
    ({'optim.rms_eps': math.nan}, r'optim\.rms_eps=nan must be above 0'),
    ({'model.head_bias': math.inf}, r'model\.head_bias cannot be inf'),
  ],
)
def test_a_config_that_cannot_be_leaves_the_folder_to_another(
  tiny_config, tmp_path, changes, message
):
  with pytest.raises(UserError, match=message):
    train(tiny_config(changes), tmp_path)
  assert not (tmp_path / 'config.json').exists()
  assert train(tiny_config(), tmp_path)['step'] == tiny_config().train.steps


def test_a_damaged_config_is_named(tiny_config, tmp_path):
  (tmp_path / 'config.json').write_text('{')
  with pytest.raises(UserError, match=r'config\.json cannot be read'):
    train(tiny_config(), tmp_path)


def test_digits_are_learned(tmp_path):
  config = digits.get_config()
  config.train.steps = 100
  row = train(config, tmp_path)
  # Chance is 0.1. Runs end near 0.97; the margin is for other seeds and devices.
  assert row['test/top1'] > 0.9
  assert row['test/loss'] < 0.5
  assert row['train/loss'] < rows_of(tmp_path)[0]['train/loss']


def write_folder(root: pathlib.Path, num: int) -> None:
  """Writes `num` grey PNGs of 20 x 24 pixels for each of ten classes, and two tests."""
  from PIL import Image

  rng = np.random.default_rng(0)
  for part, count in (('train', num), ('test', 2)):
    for label in range(10):
      (root / part / f'class{label}').mkdir(parents=True)
      for i in range(count):
        pixels = rng.integers(0, 20, (20, 24)) + 23 * label
        image = Image.fromarray(pixels.astype(np.uint8))
        image.save(root / part / f'class{label}' / f'{i}.png')


# With ten classes, one channel and the crop on the host, as all above for the compiler.
@pytest.fixture
def folder_config(tiny_config):
  return tiny_config(
    {
      'data.source': 'folder',
      'data.name': 'mine',
      'data.min_crop_area': 0.3,
      'data.num_images': 0,
      **SCHEDULE,
    }
  )


def test_a_folder_of_images_trains_and_resumes(folder_config, tmp_path):
  write_folder(tmp_path / 'images', 4)
  data_dir = str(tmp_path / 'images')
  before = step._compile.cache_info().misses
  row = train(folder_config, tmp_path / 'whole', data_dir=data_dir)
  assert (row['step'], row['test/num_images']) == (12, 20)
  assert step._compile.cache_info().misses <= before + 1
  with pytest.raises(Stopped):
    train(
      folder_config, tmp_path / 'cell', data_dir=data_dir, should_stop=stop_after(5)
    )
  train(folder_config, tmp_path / 'cell', data_dir=data_dir)
  assert_same_run(folder_config, tmp_path / 'cell', tmp_path / 'whole')


@pytest.mark.parametrize('part', ['train', 'test'])
def test_a_broken_image_is_named(folder_config, tmp_path, part):
  write_folder(tmp_path / 'images', 4)
  broken = tmp_path / 'images' / part / 'class3' / '1.png'
  broken.write_bytes(broken.read_bytes()[:80])
  with pytest.raises(UserError) as error:
    train(folder_config, tmp_path / 'cell', data_dir=str(tmp_path / 'images'))
  assert str(broken) in str(error.value)
  assert 'mend it' in str(error.value)


def test_a_broken_image_may_be_skipped(folder_config, tmp_path):
  write_folder(tmp_path / 'images', 4)
  folder_config.data.corrupt = 'skip'
  broken = [
    tmp_path / 'images' / part / 'class3' / '1.png' for part in ('train', 'test')
  ]
  for path in broken:
    path.write_bytes(path.read_bytes()[:80])
  row = train(folder_config, tmp_path / 'cell', data_dir=str(tmp_path / 'images'))
  assert row['test/num_images'] == 19
  lines = (tmp_path / 'cell' / 'skipped.txt').read_text().splitlines()
  assert len(lines) == 2
  for path in broken:
    assert any(line.startswith(f'{path} is no readable image') for line in lines)


def test_broken_images_among_those_judged_on_may_be_skipped(folder_config, tmp_path):
  write_folder(tmp_path / 'images', 4)
  write_folder(tmp_path / 'others', 3)
  broken = [
    tmp_path / 'others' / part / 'class3' / '1.png' for part in ('train', 'test')
  ]
  for path in broken:
    path.write_bytes(path.read_bytes()[:80])
  folder_config.data.corrupt = 'skip'
  folder_config.transfer.update(
    source='folder', name='others', num_classes=10, shots=(1, 3), test_split='test'
  )
  data_dir = f'mine={tmp_path / "images"},others={tmp_path / "others"}'
  row = train(folder_config, tmp_path / 'cell', data_dir=data_dir)
  assert row['transfer/num_images'] == 19
  assert 0 <= row['transfer/3_shot'] <= 1
  skipped = Skipped(tmp_path / 'cell' / 'skipped.txt')
  assert len(skipped) == 2

  # And when a cell is asked what it says of each image.
  _, variables = trained.load(tmp_path / 'cell')
  _, test = sources.load(transfer.target(folder_config), data_dir)
  mesh = sharding.make_mesh()
  with pytest.raises(UserError, match='is no readable image'):
    predictions.predict(folder_config, variables, test, mesh)
  found = predictions.predict(folder_config, variables, test, mesh, skipped)
  assert [test.where(i) for i in np.flatnonzero(~found.read)] == [str(broken[1])]
  assert not found.correct[~found.read].any()
  predictions.write_csv(tmp_path / 'said.csv', found)
  assert len((tmp_path / 'said.csv').read_text().splitlines()) == 20


def test_other_images_than_before_are_refused(folder_config, tmp_path):
  write_folder(tmp_path / 'images', 4)
  args = (folder_config, tmp_path / 'cell')
  data_dir = str(tmp_path / 'images')
  with pytest.raises(Stopped):
    train(*args, data_dir=data_dir, should_stop=stop_after(5))
  for part, words in (('train', 'training'), ('test', 'test')):
    path = tmp_path / 'images' / part / 'class3' / '1.png'
    whole = path.read_bytes()
    path.write_bytes(whole + b'more')
    sources._load.cache_clear()
    with pytest.raises(
      UserError, match=rf'the {words} images, or .*are not those of .*cell'
    ):
      train(*args, data_dir=data_dir)
    path.write_bytes(whole)
  sources._load.cache_clear()
  assert train(*args, data_dir=data_dir)['step'] == 12


def test_tensorboard_is_written_beside_the_rows(tiny_config, tmp_path):
  train(tiny_config(), tmp_path, tensorboard=True)
  events = list((tmp_path / 'tensorboard').glob('events.out.tfevents*'))
  assert len(events) == 1
  assert b'test/top1' in events[0].read_bytes()


def test_waiting_for_input_is_told():
  row = {'train/loss': 1.5, 'time/images_per_second': 1234.5}
  text = describe(50, 120, row | {'time/input_wait_share': 0.25})
  assert text == 'step 50/120 · loss 1.5000 · 1234 images/s · 25% waiting for input'
  assert 'waiting' not in describe(50, 120, row | {'time/input_wait_share': 0.001})
