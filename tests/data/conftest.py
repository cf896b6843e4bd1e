"""What the data tests share: a config to change, and images as bytes."""

import io

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import base


@pytest.fixture
def data() -> ConfigDict:
  return base.get_config().data


@pytest.fixture(scope='session')
def png():
  """Returns a function from pixels `[H, W, C]` to the bytes of a PNG file."""
  from PIL import Image

  def encode(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'PNG')
    return file.getvalue()

  return encode


@pytest.fixture(scope='session')
def linear_error():
  """Returns a function from both parts to the test error of ridge regression."""

  def features(split, ids):
    pixels = split.images(ids).reshape(len(ids), -1) / 255.0
    return np.concatenate([pixels, np.ones((len(ids), 1))], 1)

  def error(train, test, num_images: int) -> float:
    ids, asked = np.arange(num_images), np.arange(256)
    target = np.eye(train.num_classes)[train.labels(ids)[:, 0]]
    x = features(train, ids)
    weights = x.T @ np.linalg.solve(x @ x.T + 30 * np.eye(len(x)), target)
    guess = (features(test, asked) @ weights).argmax(1)
    return float((guess != test.labels(asked)[:, 0]).mean())

  return error
