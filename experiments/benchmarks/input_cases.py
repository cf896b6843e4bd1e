"""Who is timed at what: the table of `experiments.benchmarks.input`."""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from experiments.benchmarks import input_files, input_ours, input_peers
from experiments.benchmarks.input_files import Shape
from experiments.benchmarks.input_peers import Next


@dataclasses.dataclass(frozen=True)
class Job:
  """What a process is to do.

  Attributes:
    case: a key of `CASES`, 'start' or 'ids'.
    name: of a contender of the case; 'prepare' writes its files. For 'start' and 'ids'
      the source of the set.
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

  shape: Shape
  images: int
  batch_size: int
  contenders: dict[str, Contender]
  prepare: Callable[[pathlib.Path, Shape, int], str] | None = None


def _arrays(job: Job) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
  return input_files.arrays(CASES[job.case].shape, job.images)


_MEMORY = {
  'ours': Contender(lambda job: input_ours.memory(*_arrays(job), job.batch_size)),
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
      'ours': Contender(lambda job: input_ours.jpeg(job.path, job.batch_size)),
      'torch, no worker': Contender(
        lambda job: input_peers.torch_jpeg(job.path, job.batch_size, 0),
        needs=('torch',),
      ),
      'torch, a worker a core': Contender(
        lambda job: input_peers.torch_jpeg(job.path, job.batch_size, job.cores),
        needs=('torch',),
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
    prepare=input_files.jpeg,
  ),
  'memory28': Case((28, 28, 1), 60_000, 128, _MEMORY),
  'memory32': Case((32, 32, 3), 50_000, 128, _MEMORY),
  'records': Case(
    (32, 32, 3),
    images=20_000,
    batch_size=256,
    contenders={
      'ours': Contender(
        lambda job: input_ours.records(job.path, job.batch_size, 'bytes')
      ),
      'ours, parsed': Contender(
        lambda job: input_ours.records(job.path, job.batch_size, 'parsed')
      ),
      'ours, decoded': Contender(
        lambda job: input_ours.records(job.path, job.batch_size, 'decoded')
      ),
      'tfds [i]': _tfds(one_by_one=True, decoded=False),
      'tfds __getitems__': _tfds(one_by_one=False, decoded=False),
      'tfds [i], decoded': _tfds(one_by_one=True, decoded=True),
      'tfds __getitems__, decoded': _tfds(one_by_one=False, decoded=True),
      'array_record [i]': Contender(
        lambda job: input_peers.array_record(job.path, job.batch_size, one_by_one=True)
      ),
      'array_record __getitems__': Contender(
        lambda job: input_peers.array_record(job.path, job.batch_size, one_by_one=False)
      ),
    },
    prepare=input_files.records,
  ),
  'procedural': Case(
    (32, 32, 3),
    images=0,
    batch_size=128,
    contenders={
      'ours': Contender(lambda job: input_ours.computed(job.batch_size)),
      'ours, whole batches placed': Contender(
        lambda job: input_ours.placed(job.batch_size, job.cores)
      ),
      'training of ResNet-20': Contender(
        lambda job: input_ours.training(job.batch_size, job.cores)
      ),
    },
  ),
}
