"""The input pipelines of others, as `experiments.benchmarks.input` times them.

Each function returns one that makes the next batch. They are written as their manuals
say, and where there is a choice the faster form was taken. None stops at the end of an
epoch, for ours does not either.
"""

import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_AREA, ASPECTS = 0.08, (3 / 4, 4 / 3)
PIXELS = 224

Next = Callable[[], Any]


def files_of(folder: pathlib.Path) -> tuple[list[str], NDArray[np.int64]]:
  """Returns the path and the class of each training image of a prepared folder."""
  classes = sorted((folder / 'train').iterdir())
  files = [sorted(map(str, one.iterdir())) for one in classes]
  labels = np.repeat(np.arange(len(classes)), [len(some) for some in files])
  return [path for some in files for path in some], labels


def crop_box(
  height: int, width: int, rng: np.random.Generator
) -> tuple[int, int, int, int]:
  """Returns top, left, height and width of a random crop, as torchvision draws it."""
  low, high = np.log(ASPECTS)
  for _ in range(10):
    area = height * width * rng.uniform(MIN_AREA, 1)
    aspect = np.exp(rng.uniform(low, high))
    w, h = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
    if 0 < w <= width and 0 < h <= height:
      return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
  h, w = min(height, round(width / ASPECTS[0])), min(width, round(height * ASPECTS[1]))
  return (height - h) // 2, (width - w) // 2, h, w


def _forever(loader: Any) -> Next:
  batches = iter(loader)
  return lambda: next(batches)


def _loader(dataset: Any, batch_size: int, workers: int, **more: Any) -> Next:
  """Returns batches of PyTorch's loader in a random order, epoch after epoch."""
  import torch  # pyright: ignore[reportMissingImports]
  from torch.utils.data import (  # pyright: ignore[reportMissingImports]
    DataLoader,
    RandomSampler,
  )

  # As in its workers. More threads copy no faster, and wait for each other.
  torch.set_num_threads(1)
  # Of more samples than images, it draws one permutation after another: the workers
  # live on from epoch to epoch.
  sampler = RandomSampler(dataset, num_samples=2**40 // batch_size * batch_size)
  return _forever(
    DataLoader(
      dataset, batch_size=batch_size, sampler=sampler, num_workers=workers, **more
    )
  )


class _Photos:
  """JPEG files for PyTorch, decoded by simplejpeg and resized by OpenCV as ours are."""

  def __init__(self, folder: pathlib.Path):
    self._paths, self._labels = files_of(folder)
    self._rng: np.random.Generator | None = None

  def __len__(self) -> int:
    return len(self._paths)

  def __getitem__(self, index: int) -> tuple[Any, int]:
    import cv2
    import simplejpeg
    import torch  # pyright: ignore[reportMissingImports]

    if self._rng is None:  # each worker has its own
      cv2.setNumThreads(0)
      self._rng = np.random.default_rng(torch.initial_seed())
    image = simplejpeg.decode_jpeg(pathlib.Path(self._paths[index]).read_bytes())
    height, width, _ = image.shape
    top, left, height, width = crop_box(height, width, self._rng)
    image = image[top : top + height, left : left + width]
    image = cv2.resize(image, (PIXELS, PIXELS), interpolation=cv2.INTER_LINEAR)
    if self._rng.random() < 0.5:
      image = cv2.flip(image, 1)
    return torch.from_numpy(image), int(self._labels[index])


def torch_jpeg(folder: pathlib.Path, batch_size: int, workers: int) -> Next:
  """Returns batches of crops by PyTorch's loader, in this process with 0 workers."""
  return _loader(_Photos(folder), batch_size, workers)


class _Arrays:
  """Arrays for PyTorch, an item at a time."""

  def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64]):
    self._images, self._labels = images, labels

  def __len__(self) -> int:
    return len(self._images)

  def __getitem__(self, index: int) -> tuple[Any, int]:
    import torch  # pyright: ignore[reportMissingImports]

    return torch.from_numpy(self._images[index]), int(self._labels[index])


class _VectorisedArrays(_Arrays):
  """A batch at a time, by NumPy: PyTorch's own index takes twice as long or more."""

  def __getitems__(self, indices: Sequence[int]) -> tuple[Any, Any]:
    import torch  # pyright: ignore[reportMissingImports]

    chosen = np.asarray(indices)
    return torch.from_numpy(self._images[chosen]), torch.from_numpy(
      self._labels[chosen]
    )


def torch_memory(
  images: NDArray[np.uint8],
  labels: NDArray[np.int64],
  batch_size: int,
  *,
  vectorised: bool,
) -> Next:
  """Returns batches of arrays by PyTorch's loader, in this process."""
  if vectorised:
    dataset = _VectorisedArrays(images, labels)
    return _loader(dataset, batch_size, 0, collate_fn=lambda batch: batch)
  return _loader(_Arrays(images, labels), batch_size, 0)


def _tensorflow(cores: int) -> Any:
  """Returns TensorFlow with a thread for each core."""
  import tensorflow as tf  # pyright: ignore

  tf.config.threading.set_intra_op_parallelism_threads(1)
  tf.config.threading.set_inter_op_parallelism_threads(cores)
  return tf


def _batches(tf: Any, dataset: Any, batch_size: int, cores: int) -> Next:
  options = tf.data.Options()
  options.deterministic = False
  options.threading.private_threadpool_size = cores
  options.threading.max_intra_op_parallelism = 1
  dataset = dataset.batch(batch_size, drop_remainder=True).prefetch(1)
  batches: Iterator[Any] = dataset.with_options(options).as_numpy_iterator()
  return lambda: next(batches)


def tf_jpeg(folder: pathlib.Path, batch_size: int, cores: int, *, whole: bool) -> Next:
  """Returns batches of crops by tf.data, which decodes the whole or the crop alone."""
  tf = _tensorflow(cores)

  def load(path: Any, label: Any) -> tuple[Any, Any]:
    encoded = tf.io.read_file(path)
    start, size, _ = tf.image.sample_distorted_bounding_box(
      tf.image.extract_jpeg_shape(encoded),
      tf.zeros([1, 0, 4]),
      area_range=(MIN_AREA, 1.0),
      aspect_ratio_range=ASPECTS,
      max_attempts=10,
      use_image_if_no_bounding_boxes=True,
    )
    if whole:
      image = tf.slice(tf.io.decode_jpeg(encoded, 3), start, size)
    else:
      box = tf.concat([start[:2], size[:2]], 0)
      image = tf.io.decode_and_crop_jpeg(encoded, box, 3)
    image = tf.cast(tf.image.resize(image, (PIXELS, PIXELS)), tf.uint8)
    return tf.image.random_flip_left_right(image), label

  paths, labels = files_of(folder)
  dataset = tf.data.Dataset.from_tensor_slices((paths, labels)).shuffle(len(paths))
  dataset = dataset.repeat().map(load, num_parallel_calls=cores)
  return _batches(tf, dataset, batch_size, cores)


def tf_memory(
  images: NDArray[np.uint8], labels: NDArray[np.int64], batch_size: int, cores: int
) -> Next:
  """Returns batches of arrays by tf.data, shuffled over all of them."""
  tf = _tensorflow(cores)
  dataset = tf.data.Dataset.from_tensor_slices((images, labels))
  return _batches(tf, dataset.shuffle(len(images)).repeat(), batch_size, cores)


def grain_memory(
  images: NDArray[np.uint8], labels: NDArray[np.int64], batch_size: int
) -> Next:
  """Returns batches of arrays by grain, asked for by number: its fastest way."""
  import grain  # pyright: ignore[reportMissingImports]

  class Source:
    def __len__(self) -> int:
      return len(images)

    def __getitem__(self, index: Any) -> dict[str, Any]:
      return {'image': images[index], 'label': labels[index]}

  dataset = grain.MapDataset.source(Source()).shuffle(seed=0).repeat()
  batches = dataset.batch(batch_size)
  return iter(map(batches.__getitem__, range(2**62))).__next__


def builder_of(folder: pathlib.Path) -> Any:
  """Returns TFDS's builder of the prepared set in a folder."""
  import tensorflow_datasets as tfds

  (info,) = folder.glob('**/dataset_info.json')
  return tfds.builder_from_directory(str(info.parent))


def tfds_records(
  folder: pathlib.Path, batch_size: int, *, one_by_one: bool, decoded: bool
) -> Next:
  """Returns batches of records by TFDS, with pixels or with encoded images."""
  import tensorflow_datasets as tfds

  keep = None if decoded else {'image': tfds.decode.SkipDecoding()}
  source = builder_of(folder).as_data_source(split='train', decoders=keep)
  rng = np.random.default_rng(0)

  def batch() -> list[Any]:
    ids = rng.integers(len(source), size=batch_size).tolist()
    if one_by_one:
      return [source[i] for i in ids]
    return source.__getitems__(ids)

  return batch


def array_record(folder: pathlib.Path, batch_size: int, *, one_by_one: bool) -> Next:
  """Returns batches of raw records by array_record."""
  from array_record.python.array_record_data_source import ArrayRecordDataSource

  shards = builder_of(folder).info.splits['train'].file_instructions
  source = ArrayRecordDataSource(shards)
  rng = np.random.default_rng(0)

  def batch() -> list[bytes]:
    ids = rng.integers(len(source), size=batch_size).tolist()
    return [source[i] for i in ids] if one_by_one else list(source.__getitems__(ids))

  return batch
