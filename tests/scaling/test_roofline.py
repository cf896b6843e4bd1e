"""The model of a step against XLA's own counts, hand counts and published runs."""

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from configs import base, imagenet
from scaling import collectives, cost, models, optim, roofline
from scaling.chips import CHIPS
from scaling.roofline import Transfer


@pytest.fixture(scope='module')
def resnet50():
  return cost.network(imagenet.get_config())


def small(size=128):
  config = base.get_config()
  config.data.image_size = size
  config.train.batch_size = 2
  return config


def expect(network, name, batch_size, num_devices, **options):
  return roofline.step(
    network,
    CHIPS[name],
    batch_size=batch_size,
    num_devices=num_devices,
    itemsize=2,
    image_numbers=3 * 224**2,
    **options,
  )


def named(operations, *names):
  return sum(one.bytes for one in operations if one.name in names)


def test_products_are_padded_to_the_matrix_unit(resnet50):
  stem, first, *_, head = resnet50.layers
  assert roofline.padded_flops(stem, 1) == stem.flops
  # 7 x 7 taps of 3 channels packed: 147 to 256, and 64 to 128.
  assert roofline.padded_flops(stem, 128) == 2 * 112**2 * 256 * 128
  assert roofline.padded_flops(first, 128) == 4 * first.flops  # 64 -> 64
  assert roofline.padded_flops(first, 256) == 16 * first.flops
  assert roofline.padded_flops(head, 128) == 2 * 2048 * 1024  # 1,000 classes
  three_by_three = resnet50.layers[2]
  assert roofline.padded_flops(three_by_three, 128) == 2 * 56**2 * 9 * 128 * 128


def test_a_convolutions_traffic_is_xlas():
  images = jax.ShapeDtypeStruct((2, 16, 16, 32), jnp.bfloat16)
  kernel = jax.ShapeDtypeStruct((3, 3, 32, 64), jnp.bfloat16)

  def conv(images, kernel):
    return jax.lax.conv_general_dilated(
      images, kernel, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )

  (layer,) = cost.count(jax.make_jaxpr(conv)(images, kernel).jaxpr, 0)[0]
  network = cost.Network((layer,), 0, (0, 0), 0, 0, 0)
  operations = roofline.work(network, 1, 2, image_numbers=0)
  xla = jax.jit(conv).lower(images, kernel).cost_analysis()
  assert named(operations, 'forward') == xla['bytes accessed']


@pytest.mark.parametrize('name', ['sgd', 'rmsprop'])
def test_the_updates_traffic_is_xlas_arguments_and_results(name):
  config = small()
  config.optim.name = name
  network = cost.network(config)
  optimiser = optim.make(config.optim)
  variables = jax.eval_shape(models.build(config).init, jax.random.key(0))
  params = variables['params']

  def update(params, grads, state):
    updates, state = optimiser.update(grads, state, params, rate=0.1)
    return optax.apply_updates(params, updates), state

  state = jax.eval_shape(optimiser.init, params)
  memory = jax.jit(update).lower(params, params, state).compile().memory_analysis()
  moved = memory.argument_size_in_bytes + memory.output_size_in_bytes
  # A tuple of results has a table of pointers, eight bytes a leaf.
  leaves = len(jax.tree.leaves((params, state)))
  assert moved == roofline.update_bytes(network, 4) + 8 * leaves


def test_a_steps_traffic_lies_between_the_products_and_what_a_cpu_moves():
  # XLA:CPU fuses less than is assumed here, and copies for its layouts: its count is an
  # upper bound. The arrays of the products alone are what no fusion can save.
  config = small()
  operations = roofline.work(cost.network(config), 2, 4, image_numbers=3 * 128**2)
  products = named(operations, 'forward', 'weight gradient', 'input gradient')
  update = named(operations, 'update')
  model = models.build(config)
  variables = jax.eval_shape(model.init, jax.random.key(0))
  images = jax.ShapeDtypeStruct((2, 128, 128, 3), jnp.float32)

  def loss(params, batch_stats, images):
    variables = {'params': params, 'batch_stats': batch_stats}
    return jax.nn.logsumexp(model.apply(variables, images, True)[0], axis=1).sum()

  gradient = jax.jit(jax.grad(loss)).lower(
    variables['params'], variables['batch_stats'], images
  )
  moved = gradient.compile().cost_analysis()['bytes accessed']
  assert products < sum(one.bytes for one in operations) - update < moved


def test_passes_over_memory_counted_by_hand():
  # One 3x3 convolution 2 -> 4 on 8 x 8 with norm, then a classifier 4 -> 3; bfloat16.
  layers = (
    cost.Layer(64, 9, 2, 4, inputs=128, outputs=256, weights=72, from_image=True),
    cost.Layer(1, 1, 4, 3, inputs=4, outputs=3, weights=12, from_image=False),
  )
  network = cost.Network(
    layers, 0, (0, 0), params=92, norm_channels=4, opt_state_bytes=9
  )
  operations = roofline.work(network, 10, 2, image_numbers=128)
  assert named(operations, 'read images') == 10 * 128 * 3
  assert named(operations, 'norm forward', 'norm backward') == 10 * 256 * 2 * 8
  assert named(operations, 'input gradient') == 10 * 7 * 2 + 12 * 2
  assert named(operations, 'forward') == 10 * (384 + 7) * 2 + 84 * 2
  assert named(operations, 'weight gradient') == 10 * (384 + 7) * 2 + 84 * 4
  assert named(operations, 'update') == 92 * (12 + 6) + 18
  assert roofline.held_bytes(network, 10, 2) == 10 * (512 + 3) * 2 + 92 * 8 + 9


def test_gradients_and_norms_are_summed_over_all_devices(resnet50):
  gradients, norms, waits = roofline.transfers(resnet50, 8, 32)
  assert gradients == Transfer('gradients', 'all-reduce', 4 * 25_557_032, 8)
  assert norms.times == waits.times == 53
  assert norms.times * norms.operand_bytes == pytest.approx(2 * 4 * 26_560)
  assert roofline.transfers(resnet50, 1, 32) == []


def test_split_parameters_send_as_much_as_whole_ones(resnet50):
  whole = expect(resnet50, 'TPU v5e', 1024, 8)
  split = expect(resnet50, 'TPU v5e', 1024, 8, fsdp=True)
  assert split.sent_bytes == pytest.approx(whole.sent_bytes)
  params, state = resnet50.params, resnet50.opt_state_bytes
  kept = whole.memory_bytes - split.memory_bytes
  assert kept == pytest.approx(7 / 8 * (4 * params + state))
  updated = whole.traffic_bytes - split.traffic_bytes
  assert updated == pytest.approx(7 / 8 * (12 * params + 2 * state))


def test_a_split_classifier_sends_features_instead_of_its_gradients():
  config = imagenet.get_config()
  config.data.num_classes = 18_291
  network = cost.network(config)
  sent = {one.name: one for one in roofline.transfers(network, 16, 32, model_devices=4)}
  head = 2048 * 18_291
  assert sent['gradients'].operand_bytes == 4 * (network.params - head)
  assert sent['head gradients'] == Transfer('head gradients', 'all-reduce', head, 4)
  assert sent['features'] == Transfer('features', 'all-gather', 4 * 32 * 2048, 4)
  assert sent['feature gradients'].operand_bytes == 4 * 4 * 32 * 2048
  kept = roofline.kept_share(network, 16, False, 4)
  assert kept * network.params == pytest.approx(network.params - 3 / 4 * head)


def operands(classifier, features, kernel, batch):
  """By kind, what the compiled gradient of a classifier puts into collectives."""
  mesh = jax.make_mesh((2, 2), ('data', 'model'), axis_types=(AxisType.Auto,) * 2)
  kernels, images = (NamedSharding(mesh, PartitionSpec(*s)) for s in (kernel, batch))
  gradient = jax.jit(
    jax.grad(lambda w, x: jax.nn.softplus(x @ w).sum(), argnums=(0, 1)),
    in_shardings=(kernels, images),
    out_shardings=(kernels, images),
  )
  arrays = [
    jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (classifier, features)
  ]
  found = collectives.find(gradient.lower(*arrays).compile().as_text())
  return sorted((one.kind, one.operand_bytes, one.group) for one in found)


def network_of(classifier):
  fan_in, fan_out = classifier
  size = fan_in * fan_out
  layer = cost.Layer(1, 1, fan_in, fan_out, fan_in, fan_out, size, from_image=False)
  return cost.Network((layer,), 0, (0, 0), size, 0, 0)


def test_a_split_classifier_sends_what_xla_makes_of_it():
  sent = roofline.transfers(network_of((512, 256)), 4, 16, model_devices=2)
  assert operands(
    (512, 256), (64, 512), (None, 'model'), (('data', 'model'),)
  ) == sorted(
    (one.kind, one.operand_bytes, one.group) for one in sent if one.operand_bytes
  )


def test_split_parameters_send_what_xla_makes_of_them():
  gather, scatter = roofline.transfers(network_of((512, 256)), 4, 16, fsdp=True)
  everywhere = (('data', 'model'),)
  (kind, size, group), (reduce, all_of_them, both) = operands(
    (512, 256), (64, 512), everywhere, everywhere
  )
  assert (kind, size, group) == (gather.kind, gather.operand_bytes, gather.group)
  # XLA:CPU sums everywhere and keeps a part, where others scatter as they sum.
  assert (reduce, scatter.kind) == ('all-reduce', 'reduce-scatter')
  assert (all_of_them, both) == (scatter.operand_bytes, scatter.group)


def test_beyond_a_domain_a_collective_takes_the_network():
  chip = CHIPS['H100']
  inside = roofline.transfer_seconds(Transfer('g', 'all-reduce', 1e9, 8), chip)
  assert inside == pytest.approx(2 * 7 / 8 * 1e9 / 450e9 + 2 * 3e-6)
  outside = roofline.transfer_seconds(Transfer('g', 'all-reduce', 1e9, 32), chip)
  network = 2 * 3 / 4 * (1e9 / 8) / 50e9 + 2 * 2e-6
  assert outside == pytest.approx(inside + network)


def test_a_step_adds_up(resnet50):
  step = expect(resnet50, 'TPU v5e', 8192, 256, share=0.5)
  parts = step.compute_seconds + step.memory_seconds + step.communication_seconds
  assert step.seconds == pytest.approx(parts)
  assert step.images_per_second == 8192 / step.seconds
  flops = 8192 * sum(layer.train_flops for layer in resnet50.layers)
  assert step.mfu == pytest.approx(flops / step.seconds / (256 * 197e12))
  whole = expect(resnet50, 'TPU v5e', 8192, 256, share=1.0)
  assert whole.compute_seconds == pytest.approx(step.compute_seconds / 2)
  assert whole.communication_seconds == step.communication_seconds


def test_what_limits_a_step(resnet50):
  assert expect(resnet50, 'TPU v5e', 8192, 256).limit == 'memory'
  assert expect(resnet50, 'TPU v5e', 256, 256).limit == 'communication'
  wide = imagenet.get_config()
  wide.model.width = 1024
  assert expect(cost.network(wide), 'TPU v5e', 8192, 256).limit == 'compute'


# Images/s a chip of ResNet-50 at 224 pixels in half precision, with the batch a chip and
# the chips; sources in docs/roofline.md. The slowest, of 2020, is 0.44 of the modelled
# speed and the fastest 1.07; the band is half to double of the share that plans assume.
@pytest.mark.parametrize(
  ('name', 'per_chip', 'num_devices', 'published'),
  [
    ('TPU v3', 256, 4, 125_100 * 1024 / (4.4 * 3600) / 4),
    ('TPU v3', 32, 1024, 1.05e6 / 1024),
    ('A100', 256, 1, 2180),
    ('A100', 512, 8, 90 * 1_281_167 / (1.14 * 3600) / 8),
    ('H100', 400, 8, 35 * 1_281_167 / (13.466 * 60) / 8),
  ],
)
def test_published_runs_are_within_a_factor_of_two(
  resnet50, name, per_chip, num_devices, published
):
  step = expect(resnet50, name, per_chip * num_devices, num_devices)
  assert 0.5 < published * num_devices / step.images_per_second < 2


def test_input_of_a_host():
  need = roofline.input_per_host(160_000, 256, CHIPS['TPU v5e'], 1000, 500)
  assert need == roofline.Input(5000, 5e6, 10)
  assert roofline.input_per_host(700, 3, CHIPS['H100'], 1, 1).images_per_second == 700


def test_every_chip_is_whole():
  for chip in CHIPS.values():
    assert chip.flops >= chip.flops_float32 > 1e12
    assert chip.link_bandwidth > chip.network_bandwidth > 1e9
    assert chip.memory_bandwidth > chip.link_bandwidth
    assert bool(chip.price_per_hour) == bool(chip.price_source)
