"""The headers of JPEGs, and cutting off their lower rows."""

import io

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from scaling.data.decode import decode
from scaling.data.jpeg import first_rows, read_header


def encode(height, width, form='JPEG', grey=False, **options):
  pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels[..., 0] if grey else pixels).save(file, form, **options)
  return file.getvalue()


@pytest.mark.parametrize(
  ('options', 'can_cut'),
  [
    ({}, True),
    ({'grey': True}, True),
    ({'exif': b'Exif\xff\xd9' * 999}, True),
    ({'progressive': True}, False),
    ({'restart_marker_rows': 1}, False),
  ],
)
def test_read(options, can_cut):
  encoded = encode(60, 100, **options)
  header = read_header(encoded)
  assert header[:2] == (60, 100)
  assert encoded[header.height_at :][:4] == bytes([0, 60, 0, 100])
  assert bool(header.scan_at) == can_cut
  for stop in range(0, len(encoded), 7):
    begun = read_header(encoded[:stop])
    assert begun is None or begun[:3] == header[:3]


def test_other_files_have_none():
  assert read_header(encode(60, 100, 'PNG')) is None
  assert read_header(b'') is None


@hypothesis.given(encoded=st.binary(max_size=60))
def test_any_bytes_are_read(encoded):
  read_header(b'\xff\xd8' + encoded)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
  height=st.integers(1, 70),
  width=st.integers(1, 40),
  rows=st.integers(1, 80),
  subsampling=st.integers(0, 2),
)
def test_the_upper_rows_are_the_same_pixels(height, width, rows, subsampling):
  encoded = encode(height, width, subsampling=subsampling)
  cut = first_rows(encoded, read_header(encoded), rows)
  seen, whole = decode(cut, 3, 'x'), decode(encoded, 3, 'x')
  assert seen.shape == (min(rows, height), width, 3)
  exact = height if rows >= height else rows - 1
  assert (seen[:exact] == whole[:exact]).all()


def test_what_is_torn_stays_whole():
  encoded = encode(60, 100, exif=b'Exif\xff\xd9')
  torn = encoded[:-200]
  assert first_rows(torn, read_header(torn), 10) == torn
