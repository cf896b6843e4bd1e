"""What a first batch and the order of images cost, at any number of images."""

import pathlib
import sys
import time

from experiments.benchmarks import input_files
from experiments.benchmarks.input_ours import data_of, train_batches

CHUNK = 65_536  # positions planned at once
FIRST_BATCH = 128


def start(
  num_images: int, source: str = 'procedural', folder: str = ''
) -> dict[str, float]:
  """Returns the seconds to a first batch of a set, beyond imports.

  Args:
    num_images: in the set.
    source: 'procedural', 'folder' or 'csv' of `input_files.many`, or 'tfds': CIFAR-10.
    folder: of the files.

  Returns:
    'seconds' from the set to the first batch, and 'placed_seconds' until its images too
    are on the device, compiling included.
  """
  import jax

  from configs import cifar10
  from scaling import sharding
  from scaling.data import pipeline, sources

  data = data_of(source=source, name=source, num_classes=input_files.MANY_CLASSES)
  data.procedural.num_train = num_images
  if source == 'tfds':
    import cv2  # noqa: F401
    import tensorflow_datasets.core  # noqa: F401
    from tensorflow_datasets.proto import tf_example_pb2  # noqa: F401

    data = cifar10.get_config().data
  began = time.perf_counter()
  split, _ = sources.load(data, folder or None)
  batch = train_batches(split, data, FIRST_BATCH)()
  seconds = time.perf_counter() - began
  jax.block_until_ready(pipeline.place(batch, split, sharding.make_mesh()))
  return {'seconds': seconds, 'placed_seconds': time.perf_counter() - began}


def plan(num_images: int, num_ids: int) -> dict[str, float]:
  """Returns what the ids of batches cost.

  Args:
    num_images: in the set, of which all are trained on.
    num_ids: planned, in each of two ways.

  Returns:
    CPU microseconds an id, 'chunk_microseconds' in large chunks and
    'batch_microseconds' batch by batch, and 'peak_bytes' beyond the imports.
  """
  from scaling.data import subsets

  before = peak_bytes()
  subset = subsets.uniform_subset(num_images, num_images, seed=0)
  found = {}
  for name, size, seed in (('chunk', CHUNK, 0), ('batch', FIRST_BATCH, 1)):
    began = time.process_time()
    for step in range(-(-num_ids // size)):
      ids, _ = subsets.batch_ids(step, size, subset, seed)
      assert len(ids) == size
    seconds = time.process_time() - began
    found[f'{name}_microseconds'] = 1e6 * seconds / (-(-num_ids // size) * size)
  return {**found, 'peak_bytes': float(peak_bytes() - before)}


def peak_bytes() -> int:
  """Returns the most memory that this process has had resident."""
  import resource

  status = pathlib.Path('/proc/self/status')
  if status.exists():  # there, ru_maxrss starts from the parent's
    for line in status.read_text().splitlines():
      if line.startswith('VmHWM:'):
        return int(line.split()[1]) * 1024
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak if sys.platform == 'darwin' else peak * 1024
