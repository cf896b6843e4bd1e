"""Inputs to time: ours in its parts, beside those of `input_peers`. A process for each.

Started as `python -m experiments.benchmarks.input_contenders JOB`, a `Job` as JSON.
Prints one JSON line when it is ready; then, for each number it reads, makes that many
batches and prints their seconds and CPU seconds. It leaves when its input ends.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.benchmarks import input_peers
from experiments.benchmarks.input_peers import MIN_AREA, PIXELS, Next

CHUNK = 65_536  # positions planned at once
FIRST_BATCH = 128


@dataclasses.dataclass(frozen=True)
class Job:
  """What a process is to do.

  Attributes:
    case: a key of `CASES`, 'start' or 'ids'.
    name: of a contender of the case; 'prepare' writes its files.
    cores: to run on.
    folder: for the files of the case.
    images: in the set.
    batch_size: images.
    warm: batches made before the clock of a turn starts: those that wait ready since
      the last turn.
  """

  case: str
  name: str
  cores: int
  folder: str = ''
  images: int = 0
  batch_size: int = 0
  warm: int = 0

  @property
  def path(self) -> pathlib.Path:
    """The folder."""
    return pathlib.Path(self.folder)


@dataclasses.dataclass(frozen=True)
class Contender:
  """A way to make batches.

  Attributes:
    make: returns a function that makes the next batch.
    needs: modules.
    against: which of ours it is compared with.
    runs_ahead: whether it prepares batches before they are asked for.
  """

  make: Callable[[Job], Next]
  needs: tuple[str, ...] = ()
  against: str = 'ours'
  runs_ahead: bool = False


@dataclasses.dataclass(frozen=True)
class Case:
  """A kind of input.

  Attributes:
    shape: of an image `[H, W, C]`.
    images: in the set.
    batch_size: images.
    contenders: by name.
    prepare: writes the files, and returns what there is to say about them.
  """

  shape: tuple[int, int, int]
  images: int
  batch_size: int
  contenders: dict[str, Contender]
  prepare: Callable[[Job], str] | None = None


def _data(**fields: Any) -> ConfigDict:
  from configs import base

  data = base.get_config().data
  data.update(fields)
  return data


def _train_batches(split: Any, data: ConfigDict, batch_size: int) -> Next:
  """Returns our batches, step after step."""
  from scaling.data import pipeline

  subset = pipeline.make_subset(split, data)
  step = -1

  def batch() -> dict[str, np.ndarray]:
    nonlocal step
    step += 1
    return pipeline.train_batch(
      step, split=split, data=data, subset=subset, batch_size=batch_size, seed=0
    )

  return batch


# jpeg


def _photos(rng: np.random.Generator, shape: tuple[int, int, int], num: int):
  """Yields crops of scikit-learn's two photos, BGR, at random places and scales."""
  import importlib.resources

  import cv2

  folder = importlib.resources.files('sklearn.datasets') / 'images'
  files = [(folder / name).read_bytes() for name in ('china.jpg', 'flower.jpg')]
  photos = [
    np.asarray(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR))
    for file in files
  ]
  height, width = shape[:2]
  for i in range(num):
    photo = photos[i % len(photos)]
    largest = min(photo.shape[0] / height, photo.shape[1] / width)
    scale = largest * rng.uniform(0.6, 1)
    h, w = round(height * scale), round(width * scale)
    top, left = (int(rng.integers(n + 1)) for n in np.subtract(photo.shape[:2], (h, w)))
    crop = photo[top : top + h, left : left + w]
    if rng.random() < 0.5:
      crop = crop[:, ::-1]
    crop = np.ascontiguousarray(crop)
    yield cv2.resize(crop, (width, height), interpolation=cv2.INTER_CUBIC)


def prepare_jpeg(job: Job) -> str:
  """Writes JPEG files of quality 95, 4:2:0, for training, and one a class for tests."""
  import cv2

  sampling = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420)
  how = (cv2.IMWRITE_JPEG_QUALITY, 95, *sampling)
  sizes = []
  crops = _photos(np.random.default_rng(0), CASES[job.case].shape, job.images)
  for i, crop in enumerate(crops):
    encoded = cv2.imencode('.jpg', crop, how)[1].tobytes()
    for part in ('train', 'test') if i < 2 else ('train',):
      path = job.path / part / f'class{i % 2}' / f'{i}.jpg'
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(encoded)
    sizes.append(len(encoded))
  height, width, _ = CASES[job.case].shape
  return (
    f"{job.images} crops of scikit-learn's two photos, {width}x{height}, JPEG quality "
    f'95 4:2:0, mean {np.mean(sizes) / 1e3:.0f} kB'
  )


def _our_jpeg(job: Job) -> Next:
  """Returns our batches, flipped here too, though training flips on the device."""
  import cv2

  from scaling.data import sources

  data = _data(
    source='folder',
    name='photos',
    num_classes=2,
    image_size=PIXELS,
    min_crop_area=MIN_AREA,
  )
  split, _ = sources.load(data, job.folder)
  batch, rng = _train_batches(split, data, job.batch_size), np.random.default_rng(0)

  def flipped() -> dict[str, np.ndarray]:
    rows = batch()
    for row in np.flatnonzero(rng.random(job.batch_size) < 0.5):
      rows['image'][row] = cv2.flip(rows['image'][row], 1)
    return rows

  return flipped


# memory


def _arrays(job: Job) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
  rng = np.random.default_rng(0)
  shape = (job.images, *CASES[job.case].shape)
  return rng.integers(256, size=shape, dtype=np.uint8), rng.integers(
    10, size=job.images
  )


def _our_memory(job: Job) -> Next:
  from scaling.data import split

  images, labels = _arrays(job)
  labels = split.one_label(labels, 1)
  whole = split.in_memory(images, labels, [str(label) for label in range(10)])
  return _train_batches(whole, _data(name='arrays'), job.batch_size)


_MEMORY = {
  'ours': Contender(_our_memory),
  'torch, a batch at once': Contender(
    lambda job: input_peers.torch_memory(
      *_arrays(job), job.batch_size, vectorised=True
    ),
    needs=('torch',),
  ),
  'torch, item by item': Contender(
    lambda job: input_peers.torch_memory(
      *_arrays(job), job.batch_size, vectorised=False
    ),
    needs=('torch',),
  ),
  'tf.data': Contender(
    lambda job: input_peers.tf_memory(*_arrays(job), job.batch_size, job.cores),
    needs=('tensorflow',),
    runs_ahead=True,
  ),
  'grain': Contender(
    lambda job: input_peers.grain_memory(*_arrays(job), job.batch_size),
    needs=('grain',),
  ),
}


# records


def prepare_records(job: Job) -> str:
  """Writes a TFDS set of PNG images to ArrayRecord files."""
  import cv2
  import tensorflow_datasets as tfds

  sizes = []

  class Photos(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    name = 'photos'
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
      features = {
        'image': tfds.features.Image(shape=CASES[job.case].shape),
        'label': tfds.features.ClassLabel(num_classes=2),
      }
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, dl_manager):
      del dl_manager
      return {'train': self._generate_examples()}

    def _generate_examples(self):
      crops = _photos(np.random.default_rng(0), CASES[job.case].shape, job.images)
      for i, crop in enumerate(crops):
        encoded = cv2.imencode('.png', crop)[1].tobytes()
        sizes.append(len(encoded))
        yield i, {'image': encoded, 'label': i % 2}

  tfds.disable_progress_bar()
  Photos(data_dir=job.folder, file_format='array_record').download_and_prepare()
  return f'{job.images} PNG images, mean {np.mean(sizes) / 1e3:.1f} kB'


def _our_records(job: Job, level: str) -> Next:
  """Returns batches of records at random: bytes, or image and label, or with pixels."""
  from scaling.data.decode import decode
  from scaling.data.examples import Example, parse
  from scaling.data.records import Records, Shard

  info = input_peers.builder_of(job.path).info.splits['train']
  records = Records(
    [Shard(part.filename, part.skip, part.take) for part in info.file_instructions]
  )
  rng = np.random.default_rng(0)

  def raw() -> list[bytes]:
    return records(rng.integers(len(records), size=job.batch_size))

  def parsed() -> list[Example]:
    return [parse(record, 'image', 'label') for record in raw()]

  def decoded() -> list[tuple[NDArray[np.uint8], Sequence[int]]]:
    return [(decode(image, 3, 'a record'), labels) for image, labels in parsed()]

  return {'bytes': raw, 'parsed': parsed, 'decoded': decoded}[level]


# procedural


def _our_images(job: Job) -> Next:
  """Returns images alone, as `Split.images` computes them."""
  from scaling.data import sources

  data = _data(source='procedural', name='procedural')
  split, _ = sources.load(data)
  images, rng = split.images, np.random.default_rng(0)
  assert images is not None
  return lambda: images(rng.integers(split.num_images, size=job.batch_size))


def _our_placed(job: Job) -> Next:
  """Returns whole batches on a device for each core, as they are trained on."""
  import jax

  from configs import base
  from scaling import sharding
  from scaling.data import pipeline, sources

  sharding.use_cores(job.cores, [job.batch_size])
  config = base.get_config()
  config.data.update(source='procedural', name='procedural')
  config.train.batch_size = job.batch_size
  split, _ = sources.load(config.data)
  subset, mesh = pipeline.make_subset(split, config.data), sharding.make_mesh()
  step = -1

  def batch() -> dict[str, Any]:
    nonlocal step
    step += 1
    return jax.block_until_ready(
      pipeline.placed_batch(step, config=config, split=split, subset=subset, mesh=mesh)
    )

  return batch


def _training(job: Job) -> Next:
  """Returns our training step of ResNet-20, to be kept busy."""
  from experiments.benchmarks.contenders import jax_step
  from experiments.benchmarks.nets import NETS, make_config
  from scaling import sharding

  sharding.use_cores(job.cores, [job.batch_size])
  config = make_config(NETS['resnet20-32px'], 'float32', job.batch_size, 'auto')
  return jax_step(config)[0]


def _tfds(*, one_by_one: bool, decoded: bool) -> Contender:
  return Contender(
    lambda job: input_peers.tfds_records(
      job.path, job.batch_size, one_by_one=one_by_one, decoded=decoded
    ),
    against='ours, decoded' if decoded else 'ours, parsed',
  )


CASES = {
  'jpeg': Case(
    (375, 500, 3),
    images=300,
    batch_size=64,
    contenders={
      'ours': Contender(_our_jpeg),
      'torch, no worker': Contender(
        lambda job: input_peers.torch_jpeg(job.path, job.batch_size, 0),
        needs=('torch', 'simplejpeg'),
      ),
      'torch, a worker a core': Contender(
        lambda job: input_peers.torch_jpeg(job.path, job.batch_size, job.cores),
        needs=('torch', 'simplejpeg'),
        runs_ahead=True,
      ),
      'tf.data, crop decoded': Contender(
        lambda job: input_peers.tf_jpeg(
          job.path, job.batch_size, job.cores, whole=False
        ),
        needs=('tensorflow',),
        runs_ahead=True,
      ),
      'tf.data, whole decoded': Contender(
        lambda job: input_peers.tf_jpeg(
          job.path, job.batch_size, job.cores, whole=True
        ),
        needs=('tensorflow',),
        runs_ahead=True,
      ),
    },
    prepare=prepare_jpeg,
  ),
  'memory28': Case((28, 28, 1), 60_000, 128, _MEMORY),
  'memory32': Case((32, 32, 3), 50_000, 128, _MEMORY),
  'records': Case(
    (32, 32, 3),
    images=20_000,
    batch_size=256,
    contenders={
      'ours': Contender(lambda job: _our_records(job, 'bytes')),
      'ours, parsed': Contender(lambda job: _our_records(job, 'parsed')),
      'ours, decoded': Contender(lambda job: _our_records(job, 'decoded')),
      'tfds [i]': _tfds(one_by_one=True, decoded=False),
      'tfds __getitems__': _tfds(one_by_one=False, decoded=False),
      'tfds [i], decoded': _tfds(one_by_one=True, decoded=True),
      'tfds __getitems__, decoded': _tfds(one_by_one=False, decoded=True),
      'array_record __getitems__': Contender(
        lambda job: input_peers.array_record(job.path, job.batch_size)
      ),
    },
    prepare=prepare_records,
  ),
  'procedural': Case(
    (32, 32, 3),
    images=0,
    batch_size=128,
    contenders={
      'ours': Contender(_our_images),
      'ours, whole batches placed': Contender(_our_placed),
      'training of ResNet-20': Contender(_training),
    },
  ),
}


def start(num_images: int) -> dict[str, float]:
  """Returns the seconds to a first batch of a set of so many computed images.

  Returns:
    'seconds' from the set to the first batch, and 'placed_seconds' until its images too
    are on the device, compiling included.
  """
  import jax

  from scaling import sharding
  from scaling.data import pipeline, sources

  data = _data(source='procedural', name='procedural')
  data.procedural.num_train = num_images
  began = time.perf_counter()
  split, _ = sources.load(data)
  batch = _train_batches(split, data, FIRST_BATCH)()
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


def tree_cpu_seconds() -> float:
  """Returns the CPU seconds of this process and of all that it has started.

  Those still running are seen under Linux only.
  """
  times = os.times()
  total = time.process_time() + times.children_user + times.children_system
  parents: dict[int, int] = {}
  ticks: dict[int, int] = {}
  for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
    try:
      # After the name, which may hold anything: state, parent, ..., four times.
      fields = path.read_text().rpartition(')')[2].split()
    except OSError:  # it has ended
      continue
    pid = int(path.parent.name)
    parents[pid], ticks[pid] = int(fields[1]), sum(map(int, fields[11:15]))
  for pid in parents:
    above = parents[pid]
    while above not in (0, os.getpid()):
      above = parents.get(above, 0)
    if above:
      total += ticks[pid] / os.sysconf('SC_CLK_TCK')
  return total


def rest(longest: float = 10.0) -> None:
  """Waits until nothing is prepared ahead any more, which would cost others' turns."""
  stop = time.monotonic() + longest
  before, now = -1.0, tree_cpu_seconds()
  while now - before > 0.01 and time.monotonic() < stop:
    time.sleep(0.1)
    before, now = now, tree_cpu_seconds()


def serve(batch: Next, warm: int) -> None:
  """Makes batches when told to, and says what they cost."""
  for _ in range(2):  # the first compiles, the second starts threads
    batch()
  if warm:
    rest()
  print(json.dumps({}), flush=True)
  before = tree_cpu_seconds()
  for line in sys.stdin:
    for _ in range(warm):
      batch()
    began = time.perf_counter()
    for _ in range(int(line)):
      batch()
    seconds = time.perf_counter() - began
    if warm:
      rest()
    now = tree_cpu_seconds()
    answer = {'seconds': [seconds], 'cpu_seconds': [now - before]}
    before = now
    print(json.dumps(answer), flush=True)


def main(argv: Sequence[str]) -> int:
  """Does one job."""
  job = Job(**json.loads(argv[0]))
  # Before anything starts its threads, of which it may take one for each core.
  if hasattr(os, 'sched_setaffinity'):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job.cores])
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  if job.case == 'start':
    print(json.dumps(start(job.images)))
  elif job.case == 'ids':
    print(json.dumps(plan(job.images, job.batch_size)))
  elif job.name == 'prepare':
    prepare = CASES[job.case].prepare
    with contextlib.redirect_stdout(sys.stderr):  # TFDS has much to say
      about = prepare(job) if prepare else ''
    print(json.dumps({'about': about}))
  else:
    serve(CASES[job.case].contenders[job.name].make(job), job.warm)
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
