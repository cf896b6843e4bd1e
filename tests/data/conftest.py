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
