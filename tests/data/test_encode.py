"""Images as they are stored."""

import io

import numpy as np
import pytest

from scaling.data.decode import decode
from scaling.data.prepare import encode
from scaling.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def encoded(kind, pixels=PIXELS, **options):
  from PIL import Image

  file = io.BytesIO()
  picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
  picture.save(file, kind, **options)
  return file.getvalue()


def store(content, channels=3, short_side=0):
  return encode.store(
    content, channels=channels, short_side=short_side, quality=90, where='it'
  )


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP'])
@pytest.mark.parametrize('short_side', [0, 40, 50])
def test_bytes_are_kept(kind, short_side):
  content = encoded(kind)
  stored = store(content, short_side=short_side)
  assert stored.content == content
  assert (stored.header.format, stored.header.mode) == (kind, 'RGB')
  assert (stored.header.height, stored.header.width) == (40, 60)


@pytest.mark.parametrize('kind', ['BMP', 'GIF'])
def test_raw_and_moving_pictures_become_png(kind):
  content = encoded(kind)
  stored = store(content)
  assert encode.examine(stored.content, '').format == 'PNG'
  assert (decode(stored.content, 3, '') == decode(content, 3, '')).all()


@pytest.mark.parametrize('channels', [1, 3])
def test_larger_images_shrink(channels):
  smooth = np.broadcast_to(np.arange(60, dtype=np.uint8)[:, None] * 4, (40, 60, 1))
  stored = store(
    encoded('PNG', np.repeat(smooth, channels, 2)), channels, short_side=20
  )
  header = encode.examine(stored.content, '')
  assert (header.format, header.height, header.width) == ('JPEG', 20, 30)
  assert header.mode == {1: 'L', 3: 'RGB'}[channels]
  found = decode(stored.content, channels, '').astype(int)
  # Halving a ramp leaves a ramp; what JPEG and the ends of the filter add is small.
  assert abs(found[..., 0] - (np.arange(30) * 8 + 2)).max() <= 4


def test_png_keeps_pixels():
  for channels in (1, 3, 4):
    pixels = np.resize(PIXELS, (7, 9, channels))
    assert (decode(encode.png(pixels), channels, '') == pixels).all()


@pytest.mark.parametrize('cut', [0, 30, 2000])
def test_corrupt(cut):
  with pytest.raises(UserError, match=r'^it is no readable image \(.+\); mend it$'):
    store(encoded('JPEG', quality=95)[:cut])


def test_colour_in_a_grey_set():
  with pytest.raises(encode.ColourError, match=r'it has colours \(RGB\).*--channels=3'):
    store(encoded('PNG'), channels=1)
  assert store(encoded('PNG', PIXELS[..., :1]), channels=1).header.grey


def test_images_that_ask_to_be_turned():
  from PIL import Image

  exif = Image.Exif()
  exif[0x0112] = 6
  assert encode.examine(encoded('JPEG', exif=exif), '').turned
  assert not encode.examine(encoded('JPEG'), '').turned
  assert not encode.examine(encoded('JPEG', exif=b'Exif\0\0broken'), '').turned


def test_thumbnail():
  assert encode.thumbnail(PIXELS, 30).shape == (20, 30, 3)
  assert encode.thumbnail(PIXELS[..., :1], 100).shape == (40, 60, 1)
