"""PyTorch's training step of our networks: eager or compiled, channels last.

The same layers, loss and optimiser as ours. The images lie ready as normalised floats,
where our step starts from bytes: to PyTorch's advantage.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from numpy.typing import NDArray
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

from experiments.benchmarks.nets import Net
from scaling.models.resnet import stages


def _conv(num_in: int, num_out: int, size: int, stride: int = 1) -> nn.Conv2d:
  return nn.Conv2d(num_in, num_out, size, stride, size // 2, bias=False)


class Block(nn.Module):
  """A residual block, as `scaling.models.resnet.Block`."""

  def __init__(self, num_in: int, features: int, stride: int, net: Net):
    super().__init__()
    bottleneck = net.form == 'imagenet' and net.depth >= 50
    self.num_out = num_out = features * (4 if bottleneck else 1)
    if bottleneck:
      layers = [
        _conv(num_in, features, 1),
        nn.BatchNorm2d(features),
        nn.ReLU(inplace=True),
        _conv(features, features, 3, stride),
        nn.BatchNorm2d(features),
        nn.ReLU(inplace=True),
        _conv(features, num_out, 1),
      ]
    else:
      layers = [
        _conv(num_in, features, 3, stride),
        nn.BatchNorm2d(features),
        nn.ReLU(inplace=True),
        _conv(features, num_out, 3),
      ]
    self.layers = nn.Sequential(*layers, nn.BatchNorm2d(num_out))
    self.stride, self.missing, self.project = stride, num_out - num_in, None
    if net.form == 'imagenet' and (stride > 1 or num_in != num_out):
      self.project = nn.Sequential(
        _conv(num_in, num_out, 1, stride), nn.BatchNorm2d(num_out)
      )

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    y = self.layers(x)
    if self.project is not None:
      x = self.project(x)
    elif self.stride > 1 or self.missing:
      x = x[:, :, :: self.stride, :: self.stride]
      low = self.missing // 2
      x = functional.pad(x, (0, 0, 0, 0, low, self.missing - low))
    return functional.relu(y + x, inplace=True)


def build(net: Net) -> nn.Module:
  """Returns the network."""
  small = net.form == 'small'
  layers: list[nn.Module] = [
    _conv(net.channels, net.width, 3 if small else 7, 1 if small else 2),
    nn.BatchNorm2d(net.width),
    nn.ReLU(inplace=True),
  ]
  if not small:
    layers.append(nn.MaxPool2d(3, 2, 1))
  num_in = net.width
  for i, num_blocks in enumerate(stages(net.form, net.depth)):
    for j in range(num_blocks):
      block = Block(num_in, net.width * 2**i, 2 if i and not j else 1, net)
      layers.append(block)
      num_in = block.num_out
  head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(num_in, net.num_classes))
  return nn.Sequential(*layers, *head)


def _channels_last(x: torch.Tensor) -> torch.Tensor:
  """Returns images or kernels channels last, which PyTorch leaves open for one channel."""
  _, channels, height, width = x.shape
  if channels > 1:
    return x.contiguous(memory_format=torch.channels_last)
  strides = (height * width, 1, width, 1)
  return x.contiguous().as_strided(x.shape, strides)


def make(
  net: Net, dtype: str, batch_size: int, *, compiled: bool
) -> tuple[Callable[[], None], float]:
  """Returns the step and the seconds that its first call took beyond a second one."""
  torch.manual_seed(0)
  model = build(net).train()
  for parameter in model.parameters():
    if parameter.ndim == 4:
      parameter.data = _channels_last(parameter.data)
  shape = (batch_size, net.channels, net.image_size, net.image_size)
  images = _channels_last(torch.randn(shape))
  labels = torch.randint(net.num_classes, (batch_size,))
  decayed = [p for p in model.parameters() if p.ndim > 1]
  spared = [p for p in model.parameters() if p.ndim == 1]
  optimiser = torch.optim.SGD(
    [{'params': decayed, 'weight_decay': 5e-4}, {'params': spared}],
    lr=1e-3,
    momentum=0.9,
    nesterov=True,
  )
  forward: Any = torch.compile(model) if compiled else model

  def run():
    optimiser.zero_grad(set_to_none=True)
    with torch.autocast('cpu', torch.bfloat16, enabled=dtype == 'bfloat16'):
      logits = forward(images)
    functional.cross_entropy(logits.float(), labels).backward()
    optimiser.step()

  seconds = []
  for _ in range(2):
    start = time.perf_counter()
    run()
    seconds.append(time.perf_counter() - start)
  return run, max(0.0, seconds[0] - seconds[1]) if compiled else 0.0


def convolution(
  images: NDArray[Any],
  kernel: NDArray[Any],
  gradient: NDArray[Any],
  *,
  stride: int,
  dtype: str,
  by_images: bool,
) -> tuple[Callable[[], Any], Callable[[], Any]]:
  """Returns functions that convolve, and that make the gradients of one convolution.

  Args:
    images: `[B, H, W, C]`.
    kernel: `[size, size, C, F]`.
    gradient: `[B, H / stride, W / stride, F]`, by the result.
    stride: of both axes.
    dtype: to compute in.
    by_images: whether the gradient by the images is made too.
  """

  def place(array: NDArray[Any], order: tuple[int, ...]) -> torch.Tensor:
    numbers = torch.from_numpy(np.array(array, np.float32)).permute(*order)
    return _channels_last(numbers.to(getattr(torch, dtype)))

  x, g = (place(array, (0, 3, 1, 2)) for array in (images, gradient))
  k = place(kernel, (3, 2, 0, 1)).requires_grad_()
  wanted = [k, x.requires_grad_()] if by_images else [k]

  def forward() -> torch.Tensor:
    return functional.conv2d(x, k, None, stride, kernel.shape[0] // 2)

  y = forward()
  return (
    torch.no_grad()(forward),
    lambda: torch.autograd.grad(y, wanted, g, retain_graph=True),
  )
