"""Data sheets of accelerators, and what an hour of one costs where that was published.

Rates count one direction: what a chip sends. Vendors often state both directions of all
links together; such numbers are halved here.

Sources of the numbers, by the names used below:
  TPU docs: docs.cloud.google.com/tpu/docs/{v3,v5e,v5p-training,v6e}, tables of key
    specifications; data center network per chip from those of v5e and v5p.
  Scaling book: Austin et al. 2025, How to Scale Your Model (jax-ml/scaling-book),
    chapters 2 (v4, links, sizes of matrix units, half a microsecond a hop) and 8 (prices
    on Google Cloud in February 2025, USD).
  NVIDIA: data sheets of H100 SXM5 80 GB and A100 SXM4 80 GB, dense rates; DGX H100 with
    one 400 Gbit/s and DGX A100 with one 200 Gbit/s network port a GPU.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
  """What a roofline needs to know of one chip.

  Attributes:
    flops: peak FLOP/s in bfloat16.
    flops_float32: peak FLOP/s of a float32 product at JAX's default precision, which is
      one bfloat16 pass on a TPU and TF32 on a GPU.
    memory_bandwidth: bytes/s of its memory.
    memory_bytes: of its memory.
    link_bandwidth: bytes/s it sends over all its links inside a domain.
    network_bandwidth: bytes/s it sends to other domains.
    domain: chips that the links join.
    axes: of the torus; 0 for a switch.
    hop_seconds: to reach the next chip.
    tile: the matrix unit pads channels to a multiple of it.
    host_chips: chips of one host.
    host_cores: virtual CPUs of one host; None where no source was found.
    price_per_hour: USD for one chip on demand; None where no source was found.
    price_source: whose price, and when.
  """

  flops: float
  flops_float32: float
  memory_bandwidth: float
  memory_bytes: float
  link_bandwidth: float
  network_bandwidth: float
  domain: int
  axes: int
  hop_seconds: float
  tile: int
  host_chips: int
  host_cores: int | None = None
  price_per_hour: float | None = None
  price_source: str = ''


_BOOK = 'Google Cloud, February 2025 (How to Scale Your Model, ch. 8)'

CHIPS = {
  'TPU v3': Chip(
    flops=123e12,
    flops_float32=123e12,
    memory_bandwidth=900e9,
    memory_bytes=32 * 2**30,
    link_bandwidth=4 * 1e11,  # Scaling book: four links
    network_bandwidth=2.5e10 / 4,  # Scaling book: of a host, typical
    domain=1024,
    axes=2,
    hop_seconds=0.5e-6,
    tile=128,
    host_chips=4,
  ),
  'TPU v4': Chip(
    flops=275e12,
    flops_float32=275e12,
    memory_bandwidth=1.2e12,  # Scaling book
    memory_bytes=32e9,
    link_bandwidth=6 * 4.5e10,  # Scaling book: six links
    network_bandwidth=2.5e10 / 4,  # Scaling book: of a host, typical
    domain=4096,
    axes=3,
    hop_seconds=0.5e-6,
    tile=128,
    host_chips=4,
  ),
  'TPU v5e': Chip(
    flops=197e12,
    flops_float32=197e12,
    memory_bandwidth=819e9,
    memory_bytes=16e9,
    link_bandwidth=400e9 / 2,
    network_bandwidth=6.4e12 / 8 / 256,
    domain=256,
    axes=2,
    hop_seconds=0.5e-6,
    tile=128,
    host_chips=8,
    price_per_hour=1.20,
    price_source=_BOOK,
  ),
  'TPU v5p': Chip(
    flops=459e12,
    flops_float32=459e12,
    memory_bandwidth=2765e9,
    memory_bytes=95e9,
    link_bandwidth=1200e9 / 2,
    network_bandwidth=50e9 / 8,
    domain=6144,  # the largest single job
    axes=3,
    hop_seconds=0.5e-6,
    tile=128,
    host_chips=4,
    host_cores=208,
    price_per_hour=4.20,
    price_source=_BOOK,
  ),
  'TPU v6e': Chip(
    flops=918e12,
    flops_float32=918e12,
    memory_bandwidth=1638e9,
    memory_bytes=32e9,
    link_bandwidth=800e9 / 2,
    network_bandwidth=2.5e10 / 8,  # Scaling book: of a host, typical
    domain=256,
    axes=2,
    hop_seconds=0.5e-6,
    tile=256,
    host_chips=8,
    price_per_hour=2.70,
    price_source='Google Cloud us-central1 (skypilot-catalog 006059e, v8/gcp/vms.csv)',
  ),
  'H100': Chip(
    flops=989e12,
    flops_float32=494e12,
    memory_bandwidth=3.35e12,
    memory_bytes=80e9,
    link_bandwidth=900e9 / 2,
    network_bandwidth=400e9 / 8,
    domain=8,
    axes=0,
    hop_seconds=1e-6,  # order of magnitude: no data sheet says
    tile=8,  # NVIDIA, Matrix Multiplication Background: multiples of 16 bytes
    host_chips=8,
    price_per_hour=10.80,
    price_source=_BOOK,
  ),
  'A100': Chip(
    flops=312e12,
    flops_float32=156e12,
    memory_bandwidth=2039e9,
    memory_bytes=80e9,
    link_bandwidth=600e9 / 2,
    network_bandwidth=200e9 / 8,
    domain=8,
    axes=0,
    hop_seconds=1e-6,
    tile=8,
    host_chips=8,
  ),
}

# What JAX calls them, as far as that differs from their names here.
_KINDS = {
  'TPU v5 lite': 'TPU v5e',
  'TPU v5': 'TPU v5p',
  'TPU v6 lite': 'TPU v6e',
}


def of_kind(device_kind: str) -> Chip | None:
  """Returns the chip that JAX names so, such as 'TPU v5 lite' or 'NVIDIA H100 80GB HBM3'."""
  names = {_KINDS.get(device_kind, device_kind), *device_kind.split()}
  found = [chip for name, chip in CHIPS.items() if name in names]
  return found[0] if found else None
