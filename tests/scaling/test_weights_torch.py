"""Weights in and out against PyTorch: the same logits from the same files."""

import jax
import numpy as np
import pytest
import safetensors.numpy

from configs import base
from scaling import models, weights

torch = pytest.importorskip('torch', reason='the twins are networks of PyTorch')
nn, functional = torch.nn, torch.nn.functional

pytestmark = pytest.mark.usefixtures('quick_compile')

STAGES = {18: (2, 2, 2, 2), 26: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
CLASSES = 7


def make(name, depth, width, **fields):
  config = base.get_config()
  config.data.image_size, config.data.num_classes = 64, CLASSES
  config.model.update(dict(name=name, depth=depth, width=width, **fields))
  return config


IMAGES = np.random.default_rng(5).normal(size=(3, 64, 64, 3)).astype(np.float32)


def network(config):
  """Returns the function from variables to the logits of the classes."""
  apply = models.build(config).apply
  return jax.jit(lambda variables: apply(variables, IMAGES, False)[0][:, :CLASSES])


def assert_same_logits(ours, theirs):
  """Compares with float32 rounding, 6e-8 a sum, through some fifty layers of sums."""
  scale = np.abs(theirs).max()
  assert np.std(theirs, axis=0).mean() > 0.01 * scale  # images are told apart
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * scale)


class Block(nn.Module):
  """A residual block with the attributes of torchvision's."""

  def __init__(self, num_in, features, stride, bottleneck, factor):
    super().__init__()
    out = features * (4 if bottleneck else 1)
    inner = features * factor
    layers = [(num_in, features, 3, stride), (features, out, 3, 1)]
    if bottleneck:
      layers = [(num_in, inner, 1, 1), (inner, inner, 3, stride), (inner, out, 1, 1)]
    self.num_layers = len(layers)
    for i, (before, after, size, step) in enumerate(layers, 1):
      conv = nn.Conv2d(before, after, size, step, size // 2, bias=False)
      setattr(self, f'conv{i}', conv)
      setattr(self, f'bn{i}', nn.BatchNorm2d(after))
    self.downsample = None
    if stride > 1 or num_in != out:
      conv = nn.Conv2d(num_in, out, 1, stride, bias=False)
      self.downsample = nn.Sequential(conv, nn.BatchNorm2d(out))

  def forward(self, x):
    y = x
    for i in range(1, self.num_layers + 1):
      y = getattr(self, f'bn{i}')(getattr(self, f'conv{i}')(y))
      y = functional.relu(y) if i < self.num_layers else y
    return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
  """An imagenet ResNet with the attributes of torchvision's; weights are random."""

  def __init__(self, depth, width, factor=1):
    super().__init__()
    self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    channels, bottleneck = width, depth >= 50
    for i, num_blocks in enumerate(STAGES[depth]):
      blocks = []
      for j in range(num_blocks):
        stride = 2 if i and not j else 1
        blocks.append(Block(channels, width * 2**i, stride, bottleneck, factor))
        channels = width * 2**i * (4 if bottleneck else 1)
      setattr(self, f'layer{i + 1}', nn.Sequential(*blocks))
    self.fc = nn.Linear(channels, CLASSES)
    generator = torch.Generator().manual_seed(depth)
    for name, tensor in self.state_dict().items():
      noise = torch.randn(tensor.shape, generator=generator)
      if tensor.ndim > 1:  # keeps activations near 1
        tensor.copy_(noise * (2 / tensor[0].numel()) ** 0.5)
      elif name.endswith(('weight', 'running_var')):
        tensor.copy_((noise / 4).exp() / 2)
      elif tensor.is_floating_point():
        tensor.copy_(noise / 4)

  def forward(self, x):
    x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
    x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
    return self.fc(x.mean((2, 3)))


def twin_logits(twin):
  with torch.no_grad():
    return twin.eval()(torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy())).numpy()


@pytest.mark.parametrize(
  ('depth', 'fields'),
  [
    (18, {'ops': 'native', 'head_multiple': 8}),
    (50, {}),
    (50, {'bottleneck_factor': 2}),
  ],
)
def test_a_resnet_goes_both_ways(depth, fields, random_variables, tmp_path):
  config = make('resnet', depth, 8, form='imagenet', **fields)
  logits, twin = network(config), ResNet(depth, 8, fields.get('bottleneck_factor', 1))
  state = {name: tensor.numpy() for name, tensor in twin.state_dict().items()}
  safetensors.numpy.save_file(state, tmp_path / 'in.safetensors')
  found = weights.read_weights(tmp_path / 'in.safetensors', config)
  assert_same_logits(logits(found), twin_logits(twin))

  variables = random_variables(models.build(config))
  weights.write_weights(tmp_path / 'out.safetensors', config, variables)
  state = safetensors.numpy.load_file(tmp_path / 'out.safetensors')
  twin.load_state_dict({name: torch.from_numpy(x) for name, x in state.items()})
  assert_same_logits(logits(variables), twin_logits(twin))


def draw_bit(depth, width):
  """Returns random arrays with the names and shapes of the published files of BiT."""
  rng = np.random.default_rng(depth)

  def kernel(*shape):
    return rng.normal(0.1, size=shape).astype(np.float32)

  def norm(at, channels):
    for leaf, mean in (('gamma', 1), ('beta', 0)):
      numbers = mean + rng.normal(size=channels) / 4
      arrays[f'resnet/{at}group_norm/{leaf}'] = numbers.astype(np.float32)

  conv = 'standardized_conv2d/kernel'
  arrays = {f'resnet/root_block/{conv}': kernel(7, 7, 3, width)}
  channels = width
  for i, num_units in enumerate(STAGES[depth]):
    inner = width * 2**i
    for j in range(num_units):
      at = f'block{i + 1}/unit{j + 1:02d}/'
      norm(f'{at}a/', channels)
      norm(f'{at}b/', inner)
      norm(f'{at}c/', inner)
      if not j:
        shape = (1, 1, channels, 4 * inner)
        arrays[f'resnet/{at}a/proj/{conv}'] = kernel(*shape)
      arrays[f'resnet/{at}a/{conv}'] = kernel(1, 1, channels, inner)
      arrays[f'resnet/{at}b/{conv}'] = kernel(3, 3, inner, inner)
      arrays[f'resnet/{at}c/{conv}'] = kernel(1, 1, inner, 4 * inner)
      channels = 4 * inner
  norm('', channels)
  arrays['resnet/head/conv2d/kernel'] = kernel(1, 1, channels, CLASSES)
  arrays['resnet/head/conv2d/bias'] = kernel(CLASSES)
  return arrays


def bit_logits(arrays):
  """Returns the logits of a BiT as published, from its file's arrays."""
  found = {name: torch.from_numpy(array) for name, array in arrays.items()}

  def conv(at, x, stride=1):
    kernel = found[f'resnet/{at}standardized_conv2d/kernel'].permute(3, 2, 0, 1)
    var, mean = torch.var_mean(kernel, (1, 2, 3), correction=0, keepdim=True)
    kernel = (kernel - mean) / torch.sqrt(var + 1e-10)
    return functional.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2)

  def norm(at, x):
    gamma, beta = (found[f'resnet/{at}group_norm/{x}'] for x in ('gamma', 'beta'))
    return functional.relu(functional.group_norm(x, 32, gamma, beta, 1e-5))

  x = torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy())
  x = functional.pad(conv('root_block/', x, 2), (1, 1, 1, 1))
  x = functional.max_pool2d(x, 3, 2)
  units = {name.split('/c/')[0][7:] for name in found if '/c/' in name}
  for unit in sorted(units):
    at = f'{unit}/'
    stride = 2 if unit.endswith('unit01') and not unit.startswith('block1') else 1
    y = norm(f'{at}a/', x)
    if unit.endswith('unit01'):
      x = conv(f'{at}a/proj/', y, stride)
    y = norm(f'{at}b/', conv(f'{at}a/', y))
    y = norm(f'{at}c/', conv(f'{at}b/', y, stride))
    x = x + conv(f'{at}c/', y)
  kernel = found['resnet/head/conv2d/kernel'][0, 0]
  x = norm('', x).mean((2, 3)) @ kernel + found['resnet/head/conv2d/bias']
  return x.numpy()


def test_a_bit_goes_both_ways(random_variables, tmp_path):
  config = make('bit', 26, 32)
  logits, arrays = network(config), draw_bit(26, 32)
  numbered = {
    name.replace('proj/standardized_conv2d', 'proj/standardized_conv2d_11'): array
    for name, array in arrays.items()  # as in some of the published files
  }
  np.savez(tmp_path / 'in.npz', **numbered)
  found = weights.read_weights(tmp_path / 'in.npz', config)
  assert_same_logits(logits(found), bit_logits(arrays))

  variables = random_variables(models.build(config))
  weights.write_weights(tmp_path / 'out.npz', config, variables)
  out = dict(np.load(tmp_path / 'out.npz'))
  assert {k: x.shape for k, x in out.items()} == {k: x.shape for k, x in arrays.items()}
  assert_same_logits(logits(variables), bit_logits(out))
