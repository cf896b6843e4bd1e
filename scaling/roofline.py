"""What a training step would take on a chip that nobody here has measured: a roofline.

Each operation takes the longer of its arithmetic at the peak rate and its traffic at the
memory's bandwidth; a step is their sum, over the share of that speed which programs
reach, plus communication. What is assumed:

- Traffic: XLA fuses elementwise work into the operation that reads or writes its array.
  A convolution reads input and kernel and writes its output. Its norm, ReLU and shortcut
  read that output for the sums and again to normalise it, and write the result; in the
  backward pass they read output and gradient for the sums, read both again and write the
  output's gradient. Weight and input gradients are convolutions likewise. Nothing is
  recomputed and no activation stays in a cache from one operation to the next.
- Matrix units: both channel dimensions of a product are padded to a multiple of the
  unit's side, each tap of a kernel being a product of its own. Only at the image itself
  are the taps packed together (three channels would fill 2% of a unit).
- The optimiser reads gradient, parameter and state and writes parameter and state, all in
  float32; layers read a copy of the parameters in the activations' dtype.
- Communication: ring algorithms over all links of a chip, not overlapped with arithmetic.
  Gradients in float32; two sums a channel in the forward pass of a batch norm over the
  whole batch. In the backward pass each norm meets once more, before it can go on, with
  two sums that are also the gradients of its scale and bias.
- The classifier sharded over a 'model' axis: each group of `model_devices` chips gathers
  the features of its images and sums their gradients; the batch is split over all chips.
"""

import dataclasses
import math
from typing import Literal

from scaling.chips import Chip
from scaling.collectives import sent_bytes
from scaling.cost import Layer, Network

FLOAT32 = 4
# Of five published runs of ResNet-50 four reached 0.69 to 1.07 of the speed modelled here,
# and one 0.44; docs/roofline.md has them.
SHARE = 0.75
# Passes over the output of a convolution that its norm makes, see above.
NORM_FORWARD, NORM_BACKWARD = 3, 5
# A shortcut is read as it is added, and its gradient as it joins that of the branch.
SHORTCUT_FORWARD, SHORTCUT_BACKWARD = 1, 1

Limit = Literal['compute', 'memory', 'communication', 'input']


@dataclasses.dataclass(frozen=True)
class Work:
  """One operation of one chip: its arithmetic, padding included, and its traffic."""

  name: str
  flops: float
  bytes: float


@dataclasses.dataclass(frozen=True)
class Transfer:
  """One kind of collective: what a chip puts in, and how often a step waits for it."""

  name: str
  kind: str
  operand_bytes: float
  group: int
  times: int = 1


@dataclasses.dataclass(frozen=True)
class Step:
  """What a training step is expected to take.

  Attributes:
    seconds: of the step.
    images_per_second: of all devices.
    mfu: FLOPs of the network over those that the devices could do in the time.
    limit: what most of the time goes to.
    compute_seconds: of operations that wait for arithmetic.
    memory_seconds: of operations that wait for memory.
    communication_seconds: of the collectives.
    traffic_bytes: to and from the memory of one chip.
    sent_bytes: by one chip.
    memory_bytes: held by one chip at the end of the forward pass, at least.
  """

  seconds: float
  images_per_second: float
  mfu: float
  limit: Limit
  compute_seconds: float
  memory_seconds: float
  communication_seconds: float
  traffic_bytes: float
  sent_bytes: float
  memory_bytes: float


def padded_flops(layer: Layer, tile: int) -> float:
  """Returns the forward FLOPs that a matrix unit of side `tile` spends on an image."""

  def pad(channels: int) -> int:
    return -(-channels // tile) * tile

  if layer.from_image:
    depth = pad(layer.taps * layer.fan_in)
  else:
    depth = layer.taps * pad(layer.fan_in)
  return 2.0 * layer.positions * depth * pad(layer.fan_out) * layer.times


def work(
  network: Network,
  images: float,
  itemsize: int,
  *,
  image_numbers: int,
  tile: int = 1,
  kept: float = 1.0,
) -> list[Work]:
  """Returns the operations of a step on one chip.

  Args:
    network: counted for one image.
    images: of this chip.
    itemsize: bytes of an activation.
    image_numbers: pixels times channels, which arrive as bytes.
    tile: side of the matrix unit.
    kept: share of the parameters that this chip updates.
  """
  operations = [Work('read images', 0, images * image_numbers * (1 + itemsize))]
  for layer in network.layers:
    flops = images * padded_flops(layer, tile)
    arrays = images * (layer.inputs + layer.outputs) * itemsize * layer.times
    kernel = layer.weights * layer.times
    operations.append(Work('forward', flops, arrays + kernel * itemsize))
    operations.append(Work('weight gradient', flops, arrays + kernel * FLOAT32))
    if not layer.from_image:
      operations.append(Work('input gradient', flops, arrays + kernel * itemsize))
    if has_norm(layer):
      passes = images * layer.outputs * itemsize * layer.times
      operations.append(Work('norm forward', 0, NORM_FORWARD * passes))
      operations.append(Work('norm backward', 0, NORM_BACKWARD * passes))
  shortcuts = images * network.shortcuts * itemsize
  passes = SHORTCUT_FORWARD + SHORTCUT_BACKWARD
  operations.append(Work('shortcuts', 0, passes * shortcuts))
  inputs, outputs = network.pooled  # backward reads input and gradient, writes one
  pooled = images * itemsize * (3 * inputs + 2 * outputs)
  operations.append(Work('pooling', 0, pooled))
  operations.append(Work('update', 0, update_bytes(network, itemsize, kept)))
  return operations


def has_norm(layer: Layer) -> bool:
  """Returns whether a norm follows: all layers have one but the classifier."""
  return layer.positions > 1


def update_bytes(network: Network, itemsize: int, kept: float = 1.0) -> float:
  """Returns the traffic of the optimiser, and of the copy that the layers read."""
  copy = FLOAT32 + itemsize if itemsize < FLOAT32 else 0
  update = 3 * FLOAT32 * network.params + 2 * network.opt_state_bytes
  return kept * update + copy * network.params


def kept_share(
  network: Network, num_devices: int, fsdp: bool, model_devices: int
) -> float:
  """Returns the share of parameters and optimiser state that one device keeps."""
  if fsdp:
    return 1 / num_devices
  elsewhere = network.layers[-1].weights * (1 - 1 / model_devices)
  return 1 - elsewhere / network.params


def transfers(
  network: Network,
  num_devices: int,
  images: float,
  *,
  fsdp: bool = False,
  model_devices: int = 1,
) -> list[Transfer]:
  """Returns the collectives of a step.

  Args:
    network: counted for one image.
    num_devices: all of them.
    images: of one chip.
    fsdp: parameters and optimiser state are split over the devices; gathered once a
      step, for they fit in memory until the backward pass.
    model_devices: over how many the classifier is split; divides `num_devices`.
  """
  if num_devices == 1:
    return []
  head = network.layers[-1]
  split = head.weights if model_devices > 1 else 0
  trunk = FLOAT32 * (network.params - split)
  if fsdp:
    out = [
      Transfer('parameters', 'all-gather', trunk / num_devices, num_devices),
      Transfer('gradients', 'reduce-scatter', trunk, num_devices),
    ]
  else:
    out = [Transfer('gradients', 'all-reduce', trunk, num_devices)]
  norms = sum(layer.times for layer in network.layers if has_norm(layer))
  if network.norm_channels:
    sums = 2 * FLOAT32 * network.norm_channels / norms
    out.append(Transfer('norms', 'all-reduce', sums, num_devices, norms))
    # Counted among the gradients; what is left is the wait for each.
    out.append(Transfer('norms backward', 'all-reduce', 0, num_devices, norms))
  if model_devices > 1:
    features = FLOAT32 * images * head.fan_in
    part = FLOAT32 * split / model_devices
    out += [
      Transfer('features', 'all-gather', features, model_devices),
      Transfer(
        'feature gradients', 'all-reduce', features * model_devices, model_devices
      ),
      Transfer('head gradients', 'all-reduce', part, num_devices // model_devices),
    ]
  return out


def transfer_seconds(transfer: Transfer, chip: Chip) -> float:
  """Returns how long a step waits for a collective, bandwidth and latency."""
  inside = min(transfer.group, chip.domain)
  outside = math.ceil(transfer.group / chip.domain)
  operand, kind = transfer.operand_bytes, transfer.kind
  if kind == 'all-gather':
    inner, outer = operand * outside, operand
  else:
    inner, outer = operand, operand / inside
  seconds = sent_bytes(kind, inner, inside) / chip.link_bandwidth
  if outside > 1:
    seconds += sent_bytes(kind, outer, outside) / chip.network_bandwidth
  if chip.axes:  # half way round each axis
    hops = chip.axes * inside ** (1 / chip.axes) / 2
  else:
    hops = math.log2(inside)
  hops += math.log2(outside)
  rounds = 2 if kind == 'all-reduce' else 1
  return transfer.times * (seconds + rounds * hops * chip.hop_seconds)


def step(
  network: Network,
  chip: Chip,
  *,
  batch_size: int,
  num_devices: int,
  itemsize: int,
  image_numbers: int,
  share: float = SHARE,
  fsdp: bool = False,
  model_devices: int = 1,
) -> Step:
  """Returns what a training step is expected to take.

  Args:
    network: counted for one image.
    chip: of all devices.
    batch_size: images of all devices.
    num_devices: that share the batch.
    itemsize: bytes of an activation: 2 for bfloat16.
    image_numbers: pixels times channels of an image.
    share: of the modelled speed of arithmetic and memory that a program reaches.
    fsdp: parameters and optimiser state are split over the devices.
    model_devices: over how many the classifier is split.
  """
  images = batch_size / num_devices
  peak = chip.flops if itemsize < FLOAT32 else chip.flops_float32
  kept = kept_share(network, num_devices, fsdp, model_devices)
  operations = work(
    network, images, itemsize, image_numbers=image_numbers, tile=chip.tile, kept=kept
  )
  compute = memory = 0.0
  for operation in operations:
    arithmetic = operation.flops / peak
    traffic = operation.bytes / chip.memory_bandwidth
    if arithmetic > traffic:
      compute += arithmetic / share
    else:
      memory += traffic / share
  sent = transfers(network, num_devices, images, fsdp=fsdp, model_devices=model_devices)
  waited = sum(transfer_seconds(transfer, chip) for transfer in sent)
  parts: dict[Limit, float] = {
    'compute': compute,
    'memory': memory,
    'communication': waited,
  }
  seconds = sum(parts.values())
  useful = images * sum(layer.train_flops for layer in network.layers)
  return Step(
    seconds=seconds,
    images_per_second=batch_size / seconds,
    mfu=useful / (seconds * peak),
    limit=max(parts, key=lambda part: parts[part]),
    compute_seconds=compute,
    memory_seconds=memory,
    communication_seconds=waited,
    traffic_bytes=sum(operation.bytes for operation in operations),
    sent_bytes=sum(
      t.times * sent_bytes(t.kind, t.operand_bytes, t.group) for t in sent
    ),
    memory_bytes=held_bytes(network, images, itemsize, kept),
  )


@dataclasses.dataclass(frozen=True)
class Input:
  """What the input pipeline of one host must do to keep its chips busy.

  Attributes:
    images_per_second: decoded and delivered.
    bytes_per_second: of decoded pixels, to the chips.
    cores: that decode.
  """

  images_per_second: float
  bytes_per_second: float
  cores: float


def input_per_host(
  images_per_second: float,
  num_devices: int,
  chip: Chip,
  image_numbers: int,
  images_per_core: float,
) -> Input:
  """Returns what each host must deliver.

  Args:
    images_per_second: of all devices.
    num_devices: chips.
    chip: of which kind.
    image_numbers: pixels times channels of an image, a byte each.
    images_per_core: that one core decodes in a second.
  """
  rate = images_per_second / math.ceil(num_devices / chip.host_chips)
  return Input(rate, rate * image_numbers, rate / images_per_core)


def held_bytes(
  network: Network, images: float, itemsize: int, kept: float = 1.0
) -> float:
  """Returns what one chip holds between the forward and the backward pass, at least.

  Both a convolution's output and what its norm makes of it, for the backward pass;
  parameters, gradients and optimiser state in float32. Workspace comes on top.

  Args:
    network: counted for one image.
    images: of this chip.
    itemsize: bytes of an activation.
    kept: share of parameters and optimiser state that this chip keeps.
  """
  activations = sum(
    layer.outputs * layer.times * (2 if has_norm(layer) else 1)
    for layer in network.layers
  )
  state = FLOAT32 * network.params + network.opt_state_bytes
  gradients = FLOAT32 * network.params
  return images * activations * itemsize + kept * state + gradients
