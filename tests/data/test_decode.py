"""Encoded images to pixels, and the two crops."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from experiments.benchmarks.input_peers import crop_box
from scaling.data import decode as decode_module
from scaling.data.decode import (
  CROP_NUMBERS,
  CorruptError,
  center_box,
  crop,
  decode,
  decode_crop,
  random_box,
)
from scaling.errors import UserError

COLOURS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def random_resized_crop(image, size, min_area, numbers):
  return crop(image, random_box(*image.shape[:2], min_area, numbers), size)


def resize_center_crop(image, size, resize_short):
  return crop(image, center_box(*image.shape[:2], size, resize_short), size)


def encode(image: Image.Image, form: str, **options) -> bytes:
  file = io.BytesIO()
  image.save(file, form, **options)
  return file.getvalue()


def test_lossless_colour_survives(png):
  assert (decode(png(COLOURS), 3, 'x') == COLOURS).all()


def test_grey_to_colour_and_back(png):
  grey = COLOURS[..., 0]
  assert (decode(png(grey), 1, 'x') == grey[..., None]).all()
  assert (decode(png(grey), 3, 'x') == grey[..., None]).all()
  luma = np.asarray(Image.fromarray(COLOURS).convert('L'))
  assert (decode(png(COLOURS), 1, 'x')[..., 0] == luma).all()


def test_transparency_is_dropped(png):
  alpha = np.full((5, 7, 1), 9, np.uint8)
  rgba = np.concatenate([COLOURS, alpha], axis=-1)
  assert (decode(png(rgba), 3, 'x') == COLOURS).all()
  assert (decode(png(rgba), 4, 'x') == rgba).all()


def test_sixteen_bits_keep_the_upper_byte():
  deep = np.array([[0, 255, 256], [4660, 65279, 65535]], np.uint16)
  pixels = decode(encode(Image.fromarray(deep), 'PNG'), 1, 'x')
  assert pixels[..., 0].tolist() == [[0, 0, 1], [18, 254, 255]]


def test_sixteen_bits_in_colour():
  deep = np.array([[[0, 255, 256]], [[4660, 65279, 65535]]], np.uint16)
  expected = [[[0, 0, 1]], [[18, 254, 255]]]
  for pixels, wanted in (
    (deep, expected),
    (deep[..., 1], np.array(expected)[..., 1:2]),
  ):
    encoded = cv2.imencode('.png', pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1]
    found = decode(encoded.tobytes(), 3, 'x').astype(int)
    # OpenCV divides by 257 and rounds, where others drop the lower byte.
    assert np.abs(found - wanted).max() <= 1


def test_webp():
  lossless = encode(Image.fromarray(COLOURS), 'WEBP', lossless=True)
  assert (decode(lossless, 3, 'x') == COLOURS).all()
  alpha = np.concatenate([COLOURS, np.full((5, 7, 1), 200, np.uint8)], axis=-1)
  lossless = encode(Image.fromarray(alpha), 'WEBP', lossless=True)
  assert (decode(lossless, 3, 'x') == COLOURS).all()
  with pytest.raises(CorruptError, match=r'a\.webp is no readable image'):
    decode(lossless[: len(lossless) // 2], 3, 'a.webp')


def test_palettes_and_moving_pictures():
  palette = Image.fromarray(COLOURS).quantize(8)
  expected = np.asarray(palette.convert('RGB'))
  moving = encode(palette, 'GIF', save_all=True, append_images=[palette.copy()])
  assert (decode(moving, 3, 'x') == expected).all()
  clear = encode(palette, 'PNG', transparency=bytes([0, 128, 255]))
  assert (decode(clear, 3, 'x') == expected).all()


def test_jpeg_and_cmyk():
  flat = Image.new('RGB', (16, 16), (200, 100, 50))
  # JPEG loses at most a few levels on a flat image.
  assert np.abs(decode(encode(flat, 'JPEG'), 3, 'x') - [200.0, 100, 50]).max() <= 4
  assert decode(encode(flat.convert('CMYK'), 'JPEG'), 3, 'x').shape == (16, 16, 3)


def test_corrupt_images_are_named(png):
  whole = png(np.zeros((64, 64, 3), np.uint8) + COLOURS[0, 0])
  flipped = bytearray(whole)
  flipped[len(whole) // 2] ^= 0xFF
  for broken in (b'', b'text', whole[: len(whole) // 2], bytes(flipped), whole[:20]):
    with pytest.raises(
      UserError,
      match=r'^cats/1\.png is no readable image .*mend it, or set data\.corrupt=skip$',
    ):
      decode(broken, 3, 'cats/1.png')


def test_channels_that_cannot_be_decoded(png):
  with pytest.raises(UserError, match=r'data\.channels=2'):
    decode(png(COLOURS), 2, 'x')


@pytest.mark.parametrize('shape', [(40, 60, 3), (60, 40, 3), (32, 32, 1), (10, 200, 3)])
def test_random_crops_stay_inside(shape):
  # Rows count down, columns across: the crop shows where it was taken.
  image = np.zeros(shape, np.uint8) + 100
  rng = np.random.default_rng(0)
  for numbers in rng.random((200, CROP_NUMBERS)):
    crop = random_resized_crop(image, 16, 0.08, numbers)
    assert crop.shape == (16, 16, shape[2])
    assert (crop == 100).all()  # no pixels from beyond the border


def test_random_crop_of_everything_is_a_plain_resize():
  image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
  crop = random_resized_crop(image, 32, 1.0, np.full(CROP_NUMBERS, 0.5))
  assert (crop == image).all()


def test_random_crops_show_the_asked_area_and_aspect():
  ramp = np.zeros((200, 200, 3), np.uint8)
  ramp[..., 0] = np.arange(200)
  ramp[..., 1] = np.arange(200)[:, None]
  for numbers in np.random.default_rng(0).random((300, CROP_NUMBERS)):
    crop = random_resized_crop(ramp, 50, 0.25, numbers).astype(float)
    width = (crop[0, -1, 0] - crop[0, 0, 0]) * 50 / 49
    height = (crop[-1, 0, 1] - crop[0, 0, 1]) * 50 / 49
    assert 0.72 < width / height < 1.4  # 3/4 to 4/3, read off whole pixel values
    assert width * height / 200**2 > 0.24


@pytest.mark.parametrize('shape', [(200, 200), (375, 500), (500, 260), (100, 900)])
def test_random_boxes_are_distributed_as_torchvision_draws_them(shape):
  rng = np.random.default_rng(0)
  ours, theirs = [], []
  for numbers in rng.random((4000, CROP_NUMBERS)):
    left, top, right, bottom = random_box(*shape, 0.08, numbers)
    ours.append((top, left, bottom - top, right - left))
    theirs.append(crop_box(*shape, rng))
  for one, other in zip(np.transpose(ours), np.transpose(theirs), strict=True):
    # Theirs are whole pixels. A right pair fails once in a thousand.
    assert stats.ks_2samp(np.round(one), other).pvalue > 1e-3


def test_centre_crop_takes_the_centre():
  image = np.zeros((64, 128, 3), np.uint8)
  image[:, 32:96] = 255
  assert (resize_center_crop(image, 56, 0) == 255).all()
  square = np.random.default_rng(0).integers(0, 256, (32, 32, 1), np.uint8)
  assert (resize_center_crop(square, 32, 32) == square).all()
  assert (resize_center_crop(square, 28, 32) == square[2:30, 2:30]).all()


def test_centre_crop_of_less_than_it_needs():
  with pytest.raises(UserError, match=r'data\.resize_short=200 .*data\.image_size=224'):
    resize_center_crop(np.zeros((300, 300, 3), np.uint8), 224, 200)


def photo(height: int, width: int) -> np.ndarray:
  """Smooth shapes with some grain, as photographs have."""
  y, x = np.mgrid[:height, :width] / 40
  waves = [np.sin(x + k) * np.cos(y * (1 + k / 3)) for k in range(3)]
  grain = np.random.default_rng(0).normal(0, 3, (height, width, 3))
  return np.clip(128 + 90 * np.stack(waves, -1) + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize('shape', [(100, 140), (250, 333), (401, 900), (1000, 817)])
def test_large_jpegs_are_decoded_small(shape):
  encoded = encode(Image.fromarray(photo(*shape)), 'JPEG', quality=95)
  for numbers in np.random.default_rng(1).random((5, CROP_NUMBERS)):

    def box(height, width, numbers=numbers):
      # On whole pixels at any size, for else each size rounds by itself.
      edges = random_box(height, width, 0.5, numbers)
      return tuple(edge // 8 * 8 for edge in edges)

    small = decode_crop(encoded, 3, 'x', box, 48)
    whole = decode(encoded, 3, 'x')
    means = Image.fromarray(whole).resize((48, 48), Image.Resampling.BOX, box(*shape))
    # Below a level is what rounding and the grain leave.
    assert np.abs(small - np.asarray(means, float)).mean() < 1
    assert np.abs(crop(whole, box(*shape), 48) - np.asarray(means, float)).mean() < 1


@pytest.mark.parametrize('channels', [1, 3])
def test_large_greys_are_cropped_where_asked(channels):
  image = photo(200, 240)[..., 0]
  encoded = encode(Image.fromarray(image), 'JPEG', quality=100)
  seen = decode_crop(encoded, channels, 'x', lambda *_: (120, 80, 216, 176), 32)
  means = Image.fromarray(image).resize(
    (32, 32), Image.Resampling.BOX, (120, 80, 216, 176)
  )
  assert np.abs(seen - np.asarray(means, float)[..., None]).mean() < 2


@pytest.mark.parametrize('subsampling', [0, 1, 2])
@pytest.mark.parametrize(
  'options', [{}, {'progressive': True}, {'restart_marker_rows': 1}]
)
def test_rows_below_the_crop_make_no_difference(subsampling, options, capfd):
  encoded = encode(
    Image.fromarray(photo(203, 317)), 'JPEG', subsampling=subsampling, **options
  )
  whole = decode(encoded, 3, 'x')
  for numbers in np.random.default_rng(2).random((40, CROP_NUMBERS)):
    box = random_box(203, 317, 0.05, numbers)
    seen = decode_crop(encoded, 3, 'x', lambda *_, box=box: box, 110)
    assert (seen == crop(whole, box, 110)).all()
  assert capfd.readouterr().err == ''  # the decoder warns of what it did not expect


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_crops_are_written_where_they_are_wanted(channels):
  image = np.ascontiguousarray(np.resize(photo(50, 60), (50, 60, channels)))
  batch = np.zeros((3, 20, 20, channels), np.uint8)
  assert np.shares_memory(crop(image, (3, 4, 40, 44), 20, batch[1]), batch)
  np.testing.assert_array_equal(batch[1], crop(image, (3, 4, 40, 44), 20))
  assert not batch[0].any()
  assert not batch[2].any()


def test_a_crop_does_not_change_when_the_next_is_decoded():
  encoded = [encode(Image.fromarray(photo(40, 40)[::way]), 'JPEG') for way in (1, -1)]
  # As large as the image: nothing is resized.
  first, second = (
    decode_crop(one, 3, 'x', lambda *_: (0, 0, 40, 40), 40) for one in encoded
  )
  for seen, one in zip((first, second), encoded, strict=True):
    np.testing.assert_array_equal(seen, decode(one, 3, 'x'))


def test_inks_and_oddities_are_left_to_other_decoders(monkeypatch):
  ink = encode(Image.fromarray(photo(40, 40)).convert('CMYK'), 'JPEG')
  plain = encode(Image.fromarray(photo(40, 40)), 'JPEG')
  odd = plain[:-2] + bytes(8) + plain[-2:]  # more bytes than the pixels need
  for encoded in (ink, odd):
    seen = decode_crop(encoded, 3, 'x', lambda *_: (0, 0, 40, 40), 40)
    np.testing.assert_array_equal(seen, decode(encoded, 3, 'x'))
  monkeypatch.setattr(decode_module, '_SCRATCH_BYTES', 100)  # too large to be kept
  seen = decode_crop(plain, 3, 'x', lambda *_: (0, 0, 40, 40), 40)
  np.testing.assert_array_equal(seen, decode(plain, 3, 'x'))


@pytest.mark.parametrize('stop', [0.5, 0.98])
def test_torn_jpegs_are_noticed_also_below_the_crop(stop):
  encoded = encode(Image.fromarray(photo(203, 317)), 'JPEG')
  torn = encoded[: int(len(encoded) * stop)]
  with pytest.raises(CorruptError, match='truncated'):
    decode_crop(torn, 3, 'x', lambda *_: (0, 0, 50, 50), 32)


def test_turned_photographs_are_left_as_they_lie():
  exif = Image.Exif()
  exif[0x0112] = 6  # turn by 90 degrees
  encoded = encode(Image.fromarray(photo(40, 64)), 'JPEG', exif=exif.tobytes())
  assert decode(encoded, 3, 'x').shape == (40, 64, 3)
