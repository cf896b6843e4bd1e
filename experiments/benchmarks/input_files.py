"""What the cases of `experiments.benchmarks.input` read: files made on the spot, arrays."""

import os
import pathlib

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int, int]
MANY_CLASSES = 100


def _photos(rng: np.random.Generator, shape: Shape, num: int):
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


def jpeg(folder: pathlib.Path, shape: Shape, num_images: int) -> str:
  """Writes JPEG files of quality 95, 4:2:0, for training, and one a class for tests."""
  import cv2

  sampling = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420)
  how = (cv2.IMWRITE_JPEG_QUALITY, 95, *sampling)
  sizes = []
  crops = _photos(np.random.default_rng(0), shape, num_images)
  for i, crop in enumerate(crops):
    encoded = cv2.imencode('.jpg', crop, how)[1].tobytes()
    for part in ('train', 'test') if i < 2 else ('train',):
      path = folder / part / f'class{i % 2}' / f'{i}.jpg'
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(encoded)
    sizes.append(len(encoded))
  return (
    f"{num_images} crops of scikit-learn's two photos, {shape[1]}x{shape[0]}, JPEG quality "
    f'95 4:2:0, mean {np.mean(sizes) / 1e3:.0f} kB'
  )


def records(folder: pathlib.Path, shape: Shape, num_images: int) -> str:
  """Writes a TFDS set of PNG images to ArrayRecord files."""
  import cv2
  import tensorflow_datasets as tfds

  sizes = []

  class Photos(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    name = 'photos'
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
      features = {
        'image': tfds.features.Image(shape=shape),
        'label': tfds.features.ClassLabel(num_classes=2),
      }
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, dl_manager):
      del dl_manager
      return {'train': self._generate_examples()}

    def _generate_examples(self):
      crops = _photos(np.random.default_rng(0), shape, num_images)
      for i, crop in enumerate(crops):
        encoded = cv2.imencode('.png', crop)[1].tobytes()
        sizes.append(len(encoded))
        yield i, {'image': encoded, 'label': i % 2}

  tfds.disable_progress_bar()
  Photos(data_dir=folder, file_format='array_record').download_and_prepare()
  return f'{num_images} PNG images, mean {np.mean(sizes) / 1e3:.1f} kB'


def many(folder: pathlib.Path, num_images: int) -> None:
  """Writes a folder of files, all of the same image, and CSV files that list them."""
  import cv2

  image = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
  encoded = cv2.imencode('.png', image)[1].tobytes()
  for part, number in (('train', num_images), ('test', MANY_CLASSES)):
    rows = ['path,label']
    for i in range(number):
      path = folder / part / f'class{i % MANY_CLASSES:03}' / f'image{i:09}.png'
      if i < MANY_CLASSES:
        path.parent.mkdir(parents=True)
        path.write_bytes(encoded)
      else:  # a name of its own for the same bytes
        os.link(path.with_name(f'image{i % MANY_CLASSES:09}.png'), path)
      rows.append(f'{path.relative_to(folder)},{path.parent.name}')
    (folder / f'{part}.csv').write_text('\n'.join(rows) + '\n', encoding='utf-8')


def arrays(
  shape: Shape, num_images: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
  """Returns random images `[N, H, W, C]` and their labels `[N]`."""
  rng = np.random.default_rng(0)
  images = rng.integers(256, size=(num_images, *shape), dtype=np.uint8)
  return images, rng.integers(10, size=num_images)
