"""One update and one evaluation, compiled, on one device and on four."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling import cores, models, optim, sharding, step, train, trained
from scaling.data import augment, pipeline, sources
from scaling.errors import UserError
from scaling.evals import classify

pytestmark = pytest.mark.usefixtures('quick_compile')

# Compiles in a fraction of the time of a ResNet.
VIT = {
  'model.name': 'vit',
  'model.depth': 1,
  'model.width': 16,
  'model.heads': 2,
  'model.patch_size': 4,
}


def program_of(config, num_devices=None):
  return step.compile_program(config, sharding.make_mesh(num_devices))


def batch_of(config, number):
  train, _ = sources.load(config.data)
  return pipeline.train_batch(
    number,
    split=train,
    data=config.data,
    subset=pipeline.make_subset(train, config.data),
    batch_size=config.train.batch_size,
    seed=config.seed,
  )


def run(config, program, steps, number=lambda done: done):
  """Returns the state after `steps` updates, and their losses."""
  whole = sharding.replicated(program.mesh)
  init_key, key = jax.device_put(tuple(jax.random.split(jax.random.key(0))), whole)
  schedule = optim.make_schedule(config, steps)
  state, seen = program.init(init_key), []
  for done in range(steps):
    batch = sharding.put_batch(batch_of(config, number(done)), program.mesh)
    state, values = program.train_step(state, batch, key, schedule)
    seen.append(float(values['loss']))
  return state, seen


def test_loss_starts_at_chance_and_falls_on_a_batch_seen_again(tiny_config):
  config = tiny_config()
  state, seen = run(config, program_of(config), 40, number=lambda done: 0)
  # The head starts at zero, so all ten classes are equally likely, up to rounding.
  assert seen[0] == pytest.approx(np.log(10), rel=1e-6)
  assert np.mean(seen[-5:]) < 0.7 * seen[0]
  assert int(state.step) == 40


def test_one_program_serves_all_sizes_seeds_rates_and_lengths(tiny_config):
  first = program_of(tiny_config())
  before = step._compile.cache_info()
  for fields in (
    {'data.num_images': 20},
    {'data.num_images': 0, 'seed': 3},
    {'optim.lr': 0.7, 'train.steps': 10**6},
    {'train.steps': 0, 'train.epochs': 5.0, 'checkpoint.every_steps': 1},
    {'data.source': 'digits', 'data.name': 'digits'},
  ):
    assert program_of(tiny_config(fields)) is first
  after = step._compile.cache_info()
  assert (after.misses, after.hits) == (before.misses, before.hits + 5)
  assert first.compile_seconds > 0


def test_what_is_cropped_on_the_host_is_not_cropped_again(tiny_config):
  config = tiny_config({'data.min_crop_area': 0.3})
  mesh = sharding.make_mesh()
  cropped = step.compile_program(config, mesh, cropped=True)
  assert cropped is step.compile_program(tiny_config(), mesh)
  assert config.data.min_crop_area == 0.3


@pytest.mark.parametrize(
  'width', [100_000, 100_000_000]
)  # XLA would abort over the last
def test_a_network_beyond_all_memory_is_refused_before_it_is_compiled(
  tiny_config, width
):
  with pytest.raises(UserError, match=r'[0-9,.]+ GiB.*smaller model\.width'):
    program_of(tiny_config({'model.width': width}))


def test_devices_of_one_machine_share_its_memory(tiny_config, monkeypatch):
  config, mesh = tiny_config(), sharding.make_mesh()
  state = jax.eval_shape(lambda: step.init(config, jax.random.key(0)))
  size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
  placed = sharding.by_rule(state, mesh)
  for there in (4 * size, 4 * size - 1, None):
    monkeypatch.setattr(cores, 'memory_bytes', lambda there=there: there)
    if there == 4 * size - 1:
      with pytest.raises(UserError):
        sharding.check_fits(state, placed)
    else:
      sharding.check_fits(state, placed)


def test_other_networks_are_other_programs(tiny_config, monkeypatch):
  keys = []
  monkeypatch.setattr(step, '_compile', lambda *key: keys.append(key))
  for devices, fields in (
    (4, {}),
    (4, {'model.depth': 14}),
    (4, {'train.batch_size': 32}),
    (4, {'data.min_crop_area': 0.3}),
    (1, {}),
  ):
    program_of(tiny_config(fields), devices)
  assert len(set(keys)) == 5


def test_four_devices_agree_with_one(tiny_config):
  config = tiny_config()
  (many, many_losses), (one, one_losses) = (
    run(config, program_of(config, devices), 3) for devices in (4, 1)
  )
  assert len(many.params['stem']['kernel'].sharding.device_set) == 4
  # The devices' partial sums are added in another order: float32 roundings (6e-8) in
  # sums over 16 x 8 x 8 numbers, which three updates of rate 0.1 to small parameters
  # make some 1e-6; a wrong mean or statistic would show in the second digit.
  np.testing.assert_allclose(many_losses, one_losses, rtol=1e-5)
  for a, b in zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


def test_mixup_is_the_same_on_any_number_of_devices(tiny_config):
  config = tiny_config({**VIT, 'train.mixup': 0.4})
  state = jax.jit(lambda: step.init(config, jax.random.key(0)))()
  update = jax.jit(lambda *args: step.train_step(config, *args))
  schedule, key = optim.make_schedule(config, 10), jax.random.key(1)
  found = []
  for devices in (4, 1):
    mesh = sharding.make_mesh(devices)
    placed, own_key = jax.device_put((state, key), sharding.replicated(mesh))
    for number in range(3):
      batch = sharding.put_batch(batch_of(config, number), mesh)
      placed, _ = update(placed, batch, own_key, schedule)
    found.append(jax.device_get(placed))
  # As in test_four_devices_agree_with_one.
  for a, b in zip(*map(jax.tree.leaves, found), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


def test_mixup_is_the_loss_of_the_mixed_targets(tiny_config):
  fields = {'train.loss': 'sigmoid', 'data.max_labels': 3, 'data.num_classes': 7}
  config = tiny_config({**fields, **VIT, 'train.mixup': 0.4})
  state = jax.jit(lambda: step.init(config, jax.random.key(0)))()
  # A head that ignores the image, so that the labels alone tell the loss.
  logits = np.linspace(-2, 1, 7).astype(np.float32)
  state.params['head']['bias'] = jnp.asarray(logits)
  rng, key = np.random.default_rng(0), jax.random.key(8)
  labels, target = np.full((16, 3), -1, np.int32), np.zeros((16, 7))
  for ids, row in zip(labels, target, strict=True):
    num = rng.integers(4)
    ids[:num] = rng.permutation(7)[:num]
    row[ids[:num]] = 1
  batch = batch_of(tiny_config(), 0) | {'labels': labels}
  schedule = optim.make_schedule(config, 10)
  _, values = jax.jit(lambda *args: step.train_step(config, *args))(
    state, batch, key, schedule
  )
  share = float(augment.mixup_share(0.4, key, jnp.int32(0)))
  assert 0.7 < share < 0.8  # of this key: both labels count, unequally
  mixed = share * target + (1 - share) * np.roll(target, 1, axis=0)
  expected = (np.logaddexp(0, logits) - mixed * logits).sum(1).mean()
  # float32 sums of 112 terms near 1.
  assert float(values['loss']) == pytest.approx(expected, rel=1e-5)


def test_metrics_of_an_update_belong_to_the_parameters_before_it(tiny_config):
  config = tiny_config({'optim.lr': 0.4, 'optim.warmup_fraction': 0.5})
  program = program_of(config)
  whole = sharding.replicated(program.mesh)
  init_key, key = jax.device_put(tuple(jax.random.split(jax.random.key(0))), whole)
  schedule = optim.Schedule(np.float32(0.4), np.int32(4), np.int32(2), np.int32(10**6))
  batch = sharding.put_batch(batch_of(config, 0), program.mesh)
  state, first = program.train_step(program.init(init_key), batch, key, schedule)
  _, second = program.train_step(state, batch, key, schedule)
  # One float32 product.
  assert float(first['learning_rate']) == pytest.approx(0.2, rel=1e-6)
  assert float(second['learning_rate']) == pytest.approx(0.4, rel=1e-6)
  assert float(first['grad_norm']) > 0


def mean_of_parts(config, parts):
  """Returns the first update's loss, gradient norm and statistics, part by part."""
  batch = batch_of(config, 0)
  init_key, key = jax.random.split(jax.random.key(0))
  state = jax.jit(lambda key: step.init(config, key))(init_key)
  # The head starts at zero and would hide the gradient of all below it.
  kernel = jax.random.normal(key, state.params['head']['kernel'].shape)
  state.params['head']['kernel'] = kernel
  schedule = optim.make_schedule(config, 10)
  one_part = tiny_parts(config, 1)
  update = jax.jit(lambda *args: step.train_step(one_part, *args))
  losses, grads, stats = [], [], state.batch_stats
  for i in range(parts):
    part = jax.tree.map(lambda rows, i=i: rows[i::parts], batch)
    before = step.State(state.step, state.params, stats, state.opt_state)
    after, values = update(before, part, key, schedule)
    losses.append(float(values['loss']))
    # Without momentum and decay the change is the gradient, times the rate.
    change = jax.tree.map(jnp.subtract, state.params, after.params)
    grads.append(jax.tree.map(lambda x, v=values: x / v['learning_rate'], change))
    stats = after.batch_stats
  mean = jax.tree.map(lambda *leaves: sum(leaves) / parts, *grads)
  norm = np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(mean)))
  return state, batch, key, schedule, (np.mean(losses), norm, stats)


def tiny_parts(config, parts):
  config = copy.deepcopy(config)
  config.train.accumulate_steps = parts
  return config


def test_a_batch_in_parts_is_the_mean_of_its_parts(tiny_config):
  parts = 2
  fields = {'optim.momentum': 0.0, 'optim.nesterov': False, 'optim.weight_decay': 0.0}
  config = tiny_config(fields)
  state, batch, key, schedule, expected = mean_of_parts(config, parts)
  whole = tiny_parts(config, parts)
  update = jax.jit(lambda *args: step.train_step(whole, *args))
  found, values = update(state, batch, key, schedule)
  # float32, with the gradient regained from a difference of weights 10 to 1000 times
  # its rounding.
  assert float(values['loss']) == pytest.approx(expected[0], rel=1e-5)
  assert float(values['grad_norm']) == pytest.approx(expected[1], rel=1e-3)
  for a, b in zip(
    jax.tree.leaves(found.batch_stats), jax.tree.leaves(expected[2]), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_parts_are_the_same_on_any_number_of_devices(tiny_config):
  config = tiny_config({'train.accumulate_steps': 2})
  _, many = run(config, program_of(config, 4), 3)
  _, one = run(config, program_of(config, 1), 3)
  _, whole = run(tiny_config(), program_of(tiny_config(), 1), 3)
  np.testing.assert_allclose(many, one, rtol=1e-5)  # as without parts, above
  assert abs(whole[2] - one[2]) > 1e-4  # batch norm saw other groups


def test_parts_that_do_not_divide_are_refused(tiny_config):
  with pytest.raises(UserError) as error:
    program_of(tiny_config({'train.accumulate_steps': 3}))
  assert str(error.value) == (
    'train.batch_size=16 does not divide over 4 devices times '
    'train.accumulate_steps=3; use 12 or 24'
  )


def test_averaged_weights_follow_and_are_what_is_tested(tiny_config):
  config = tiny_config({'train.ema_decay': 0.25})
  program = program_of(config)
  plain = program_of(tiny_config())
  whole = sharding.replicated(program.mesh)
  init_key, key = jax.device_put(tuple(jax.random.split(jax.random.key(0))), whole)
  schedule = optim.make_schedule(config, 10)
  state = program.init(init_key)
  mean = jax.device_get({'params': state.params, 'batch_stats': state.batch_stats})
  for done in range(4):
    batch = sharding.put_batch(batch_of(config, done), program.mesh)
    state, _ = program.train_step(state, batch, key, schedule)
    decay = min(0.25, (1 + done) / (10 + done))  # 0.1, 0.18, 0.25, 0.25
    new = jax.device_get({'params': state.params, 'batch_stats': state.batch_stats})
    mean = jax.tree.map(lambda a, b, d=decay: d * a + (1 - d) * b, mean, new)
  for a, b in zip(jax.tree.leaves(state.ema), jax.tree.leaves(mean), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # a few float32 sums

  def tested(program, state):
    _, test = sources.load(config.data)
    batches = pipeline.test_batches(test, config.data, config.log.eval_batch_size)
    put = (sharding.put_batch(batch, program.mesh) for batch in batches)
    return classify.evaluate(program, state, put)

  averaged = step.State(
    state.step, state.ema['params'], state.ema['batch_stats'], state.opt_state
  )
  raw = step.State(state.step, state.params, state.batch_stats, state.opt_state)
  assert tested(program, state) == tested(plain, averaged)
  assert tested(plain, averaged) != tested(plain, raw)


def test_averaging_leaves_the_training_alone(tiny_config):
  averaged, plain = (tiny_config({'train.ema_decay': decay}) for decay in (0.25, 0.0))
  ours, ours_seen = run(averaged, program_of(averaged), 3)
  theirs, theirs_seen = run(plain, program_of(plain), 3)
  np.testing.assert_allclose(ours_seen, theirs_seen, rtol=1e-5)  # two compilations
  assert jax.tree.structure(ours.params) == jax.tree.structure(theirs.params)
  assert theirs.ema is None


def test_the_deterministic_switch_is_an_option_of_the_compiler(tiny_config):
  on, off = (tiny_config({'train.deterministic': value}) for value in (True, False))
  assert step.compiler_options(off, 'gpu') == {}
  assert step.compiler_options(on, 'cpu') == step.compiler_options(on, 'tpu') == {}
  options = step.compiler_options(on, 'gpu')
  assert options == {'xla_gpu_deterministic_ops': True}
  # This XLA knows the name: an unknown one is refused.
  lowered = jax.jit(lambda x: x + 1).lower(1.0)
  assert lowered.compile(options)(1.0) == 2.0
  with pytest.raises(Exception, match='xla_gpu_no_such_ops'):
    lowered.compile({'xla_gpu_no_such_ops': True})


def test_evaluation_counts_each_test_image_once(tiny_config):
  config = tiny_config()
  program = program_of(config)
  state, _ = run(config, program, 10)
  _, test = sources.load(config.data)
  assert test.num_images == 27  # and batches of 16
  batches = pipeline.test_batches(test, config.data, config.log.eval_batch_size)
  found = classify.evaluate(
    program, state, (sharding.put_batch(batch, program.mesh) for batch in batches)
  )

  ids = np.arange(27)
  pixels = augment.normalize(
    jnp.asarray(test.images(ids)), config.data.mean, config.data.std, jnp.float32
  )
  state = jax.device_get(state)
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  apply = jax.jit(models.build(config).apply, static_argnums=2)
  logits = np.asarray(apply(variables, pixels, False)[0], np.float64)
  labels = test.labels(ids)[:, 0]
  ranks = (logits > logits[ids, labels][:, None]).sum(1)
  names = ('loss', 'top1', 'top5', 'class_top1', 'ece', 'num_images')
  assert found.keys() == {f'test/{name}' for name in names}
  assert found['test/num_images'] == 27
  assert found['test/top1'] == (ranks == 0).sum() / 27
  assert found['test/top5'] == (ranks < 5).sum() / 27
  right = ranks == 0
  of_class = [right[labels == label].mean() for label in np.unique(labels)]
  assert found['test/class_top1'] == pytest.approx(np.mean(of_class), rel=1e-6)
  sure = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).max(1)
  bins = np.minimum((sure * 15).astype(int), 14)
  gaps = [abs((sure - right)[bins == i].sum()) for i in range(15)]
  assert found['test/ece'] == pytest.approx(sum(gaps) / 27, rel=1e-4)  # float32
  loss = np.log(np.exp(logits).sum(1)) - logits[ids, labels]
  # float32 against float64 over the same network: some 1e-6.
  assert found['test/loss'] == pytest.approx(loss.mean(), rel=1e-5)


def test_classes_are_averaged_by_how_many_images_they_are_trained_on():
  hits, counts = np.array([9.0, 4, 1, 0]), np.array([10.0, 10, 10, 0])
  found = classify.class_means(hits, counts, np.array([101, 100, 19, 50]))
  assert found == {
    'test/class_top1': pytest.approx(14 / 30),
    'test/top1_many': pytest.approx(0.9),
    'test/top1_medium': pytest.approx(0.4),
    'test/top1_few': pytest.approx(0.1),
  }
  alike = classify.class_means(hits, counts, np.array([200, 300, 400, 0]))
  assert alike.keys() == {'test/class_top1'}


@pytest.fixture(scope='module')
def evaluate_logits(tiny_config):
  """Returns a function from logits `[C]` of all images, labels and mask to the sums."""
  fields = {'train.loss': 'sigmoid', 'data.max_labels': 3, 'data.num_classes': 7}
  config = tiny_config(fields)
  state = jax.jit(lambda: step.init(config, jax.random.key(0)))()
  assert not np.any(state.params['head']['kernel'])  # so that the bias is the logits
  evaluate = jax.jit(lambda *args: step.eval_step(config, *args))

  def call(logits, labels, mask):
    state.params['head']['bias'] = jnp.asarray(logits, jnp.float32)
    batch = {
      'image': np.zeros((len(labels), 8, 8, 1), np.uint8),
      'labels': np.asarray(labels, np.int32),
      'mask': np.asarray(mask, np.float32),
    }
    sums = evaluate(state, batch, step.no_sums(config))
    means = ('loss', 'top1', 'top5', 'map100')
    totals = {name: float(sums[name].total) for name in means}
    counts = {
      'num_images': float(sums['loss'].count),
      'num_labelled': float(sums['map100'].count),
    }
    return totals | counts

  return call


def test_an_image_with_several_labels_is_hit_by_any(evaluate_logits):
  logits = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]  # class 0 first, 5 and 6 beyond the five
  labels = [
    [3, 0, -1],  # hits at 1
    [1, 2, 5],  # hits at 5, once
    [5, 6, -1],  # misses
    [4, -1, -1],  # hits at 5
    [-1, -1, -1],  # has nothing to hit
    [0, -1, -1],  # would hit, but is padding
  ]
  found = evaluate_logits(logits, labels, [1, 1, 1, 1, 1, 0])
  assert (found['num_images'], found['top1'], found['top5']) == (5, 1, 3)
  # Of the four that have a label, over a ranking of all seven classes.
  assert found['num_labelled'] == 4
  precisions = [
    (1 + 2 / 4) / 2,
    (1 / 2 + 2 / 3 + 3 / 6) / 3,
    (1 / 6 + 2 / 7) / 2,
    1 / 5,
  ]
  assert found['map100'] == pytest.approx(sum(precisions), rel=1e-6)  # as the loss
  positive = sum(logits[i] for row in labels[:5] for i in row if i >= 0)
  expected = 5 * np.logaddexp(0, logits).sum() - positive
  assert found['loss'] == pytest.approx(expected, rel=1e-6)  # a dozen float32 sums


def test_classes_weigh_in_the_metrics_of_a_run(tiny_config, tmp_path):
  fields = {
    'train.loss': 'sigmoid',
    'train.steps': 2,
    'data.num_classes': 4,
    'data.max_labels': 2,
    'data.class_weights': 'weights.csv',
    'checkpoint.best': 'test/weighted_map100',
  }
  rows = {}
  for name, weights in (('apart', (1, 2, 0, 4)), ('alike', (2, 2, 2, 2))):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'weights.csv').write_text(
      ''.join(f'class {i},{weight}\n' for i, weight in enumerate(weights))
    )
    config, folder = tiny_config(fields), tmp_path / name
    rows[name] = train.train(config, folder / 'cell', data_dir=str(folder))
  alike = rows['alike']
  assert alike['test/weighted_map100'] == pytest.approx(alike['test/map100'], rel=1e-6)
  assert alike['test/weighted_precision1'] == pytest.approx(alike['test/top1'])

  _, variables = trained.load(tmp_path / 'apart' / 'cell')
  _, test = sources.load(config.data, str(tmp_path / 'apart'))
  ids = np.arange(test.num_images)
  pixels = augment.normalize(
    jnp.asarray(test.images(ids)), config.data.mean, config.data.std, jnp.float32
  )
  logits = np.asarray(models.build(config).apply(variables, pixels, False)[0])
  ranked = np.argsort(-logits, axis=1, kind='stable')
  hits = (test.labels(ids)[:, None] == ranked[:, :, None]).any(2)
  gains = np.array([1, 2, 0, 4])[ranked] * hits
  precision = (gains * hits.cumsum(1) / np.arange(1, 5)).sum(1)
  worth, first = gains.sum(1), np.array([1, 2, 0, 4])[ranked[:, 0]]
  apart = rows['apart']
  expected = (precision[worth > 0] / worth[worth > 0]).mean()
  assert apart['test/weighted_map100'] == pytest.approx(expected)
  expected = gains[:, 0].sum() / first.sum()
  assert apart['test/weighted_precision1'] == pytest.approx(expected)
  assert apart['test/weighted_map100'] != pytest.approx(apart['test/map100'])


@pytest.mark.parametrize('name', ['train.batch_size', 'log.eval_batch_size'])
@pytest.mark.parametrize(
  ('size', 'way_out'), [(18, 'use 16 or 20'), (3, 'use 4'), (101, 'use 100 or 104')]
)
def test_a_batch_that_does_not_divide_is_refused(tiny_config, name, size, way_out):
  with pytest.raises(UserError) as error:
    program_of(tiny_config({name: size}))
  assert str(error.value) == f'{name}={size} does not divide over 4 devices; {way_out}'
