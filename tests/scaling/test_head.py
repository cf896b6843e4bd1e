"""A head filled up to a multiple of outputs against one of the classes alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from scaling import models, optim, step

pytestmark = pytest.mark.usefixtures('quick_compile')

CLASSES, LABELS, BATCH = 7, 3, 16
# Compiles in a fraction of the time of a ResNet.
VIT = dict(name='vit', depth=1, width=16, heads=2, patch_size=4)


def make(multiple, loss='softmax', smoothing=0.0, classes=CLASSES):
  config = base.get_config()
  config.data.update(dict(num_classes=classes, image_size=8))
  config.data.max_labels = 1 if loss == 'softmax' else LABELS
  config.model.update(dict(VIT, head_multiple=multiple))
  config.train.update(dict(loss=loss, label_smoothing=smoothing, batch_size=BATCH))
  config.optim.update(dict(momentum=0.0, nesterov=False, weight_decay=0.0))
  return config


def make_batch(labels):
  rng = np.random.default_rng(1)
  return {
    'image': rng.integers(0, 256, (BATCH, 8, 8, 3), np.uint8),
    'labels': labels,
    'id': np.zeros((BATCH, 2), np.uint32),
    'epoch': np.zeros(BATCH, np.uint32),
    'mask': np.ones(BATCH, np.float32),
  }


def some_labels(columns):
  """Returns one to `columns` labels an image, each class the first of some image."""
  rows, places = np.arange(BATCH)[:, None], np.arange(columns)
  ids = (rows + 2 * places) % CLASSES
  return np.where(places <= rows % columns, ids, -1).astype(np.int32)


def states(plain, padded):
  """Returns the same random state for both; where one has padding, it is large."""
  both = []
  for config in (plain, padded):
    state = step.init(config, jax.random.key(0))
    rng = np.random.default_rng(3)
    head = state.params['head']
    extra = head['bias'].size - CLASSES
    kernel = rng.normal(size=(len(head['kernel']), CLASSES))
    bias = rng.normal(size=CLASSES)
    head['kernel'] = jnp.asarray(np.pad(kernel, ((0, 0), (0, extra))), jnp.float32)
    # Were the padding seen, it would win and its loss explode.
    head['bias'] = jnp.asarray(np.pad(bias, (0, extra), constant_values=50), 'float32')
    both.append(state)
  return both


@pytest.mark.parametrize(
  ('classes', 'multiple', 'outputs'),
  [(7, 1, 7), (7, 4, 8), (8, 4, 8), (7, 128, 128), (18_291, 128, 18_304)],
)
def test_outputs_are_the_next_multiple(classes, multiple, outputs):
  model = models.build(make(multiple, classes=classes))
  variables = jax.eval_shape(model.init, jax.random.key(0))
  assert variables['params']['head']['kernel'].shape == (16, outputs)
  images = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
  logits, _ = jax.eval_shape(lambda v, x: model.apply(v, x, False), variables, images)
  assert logits.shape == (2, outputs)


@pytest.mark.parametrize('mixup', [0.0, 0.4])
@pytest.mark.parametrize(
  ('loss', 'smoothing'), [('softmax', 0.0), ('softmax', 0.1), ('sigmoid', 0.0)]
)
def test_an_update_with_a_padded_head_is_that_without(loss, smoothing, mixup):
  configs = [make(multiple, loss, smoothing) for multiple in (1, 16)]
  batch = make_batch(some_labels(configs[0].data.max_labels))
  found = []
  for config, state in zip(configs, states(*configs), strict=True):
    config.train.mixup = mixup
    update = jax.jit(lambda *args, config=config: step.train_step(config, *args))
    schedule = optim.make_schedule(config, 10)
    after, values = update(state, batch, jax.random.key(4), schedule)
    # Without momentum and decay what moves is the gradient, times the rate.
    found.append((state.params, after.params, values))
  (_, plain, plain_values), (before, padded, padded_values) = found
  for layer in ('kernel', 'bias'):
    old, new = before['head'][layer], padded['head'][layer]
    np.testing.assert_array_equal(new[..., CLASSES:], old[..., CLASSES:])
    assert (new[..., :CLASSES] != old[..., :CLASSES]).all()
    padded['head'][layer] = new[..., :CLASSES]
  # Sums over 7 and over 16 numbers, of which 9 are 0: float32, in another order. The norm
  # of the weights counts the padding's, which do not move.
  for name in plain_values.keys() - {'param_norm'}:
    value = plain_values[name]
    assert float(padded_values[name]) == pytest.approx(float(value), rel=1e-5), name
  for a, b in zip(*map(jax.tree.leaves, (padded, plain)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('loss', ['softmax', 'sigmoid'])
def test_padding_never_ranks(loss):
  configs = [make(multiple, loss) for multiple in (1, 16)]
  batch = make_batch(some_labels(configs[0].data.max_labels))
  plain, padded = (
    jax.jit(lambda *args, config=config: step.eval_step(config, *args))(
      state, batch, step.no_sums(config)
    )
    for config, state in zip(configs, states(*configs), strict=True)
  )
  assert 0 < float(plain['top1'].total) < float(plain['top5'].total)
  for name in plain:
    # As above; the numbers of hits are whole.
    np.testing.assert_allclose(
      padded[name].total, plain[name].total, rtol=1e-5, atol=1e-6
    )
    assert np.array_equal(padded[name].count, plain[name].count)


def test_fewer_than_five_classes_are_ranked_without_their_padding():
  config = make(8, classes=3)
  state = step.init(config, jax.random.key(0))
  state.params['head']['bias'] = jnp.asarray([2.0, 1, 0, 9, 9, 9, 9, 9])
  labels = np.arange(BATCH, dtype=np.int32)[:, None] % 3
  evaluate = jax.jit(lambda *args: step.eval_step(config, *args))
  sums = evaluate(state, make_batch(labels), step.no_sums(config))
  assert float(sums['top1'].total) == (labels == 0).sum()
  assert float(sums['top5'].total) == BATCH
