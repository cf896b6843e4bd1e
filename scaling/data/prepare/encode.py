"""Images as they are stored: their own bytes, a smaller JPEG, or a PNG of their pixels.

An image that was decoded here once, whole, is one that training will not stumble over.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling.data.decode import decode
from scaling.errors import UserError

_READ = ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF')  # as `decode` does
# Other formats are raw (BMP) or moving pictures (GIF), of which one frame counts.
_KEPT = ('JPEG', 'PNG', 'WEBP')
_MODES = {1: 'L', 3: 'RGB'}
_ORIENTATION = 0x0112  # of Exif
_GREY = ('1', 'L', 'LA', 'La', 'I', 'I;16', 'I;16B', 'I;16L', 'I;16N')


@dataclass(frozen=True)
class Header:
  """What an image file says of itself.

  Attributes:
    format: such as JPEG.
    mode: of its pixels, in Pillow's words, such as RGB or L.
    height: pixels.
    width: pixels.
    turned: whether the camera asks to turn it, which `decode` does not.
  """

  format: str
  mode: str
  height: int
  width: int
  turned: bool

  @property
  def grey(self) -> bool:
    """Whether one channel says all."""
    return self.mode in _GREY


@dataclass(frozen=True)
class Stored:
  """An image as it goes into a record.

  Attributes:
    content: of an image file.
    header: of the image as it came.
  """

  content: bytes
  header: Header


class ColourError(UserError):
  """A coloured image in a set that is to have one channel."""


def examine(encoded: bytes, where: str) -> Header:
  """Returns the header of an image file, having decoded all of it.

  Args:
    encoded: its content.
    where: words that find the image, for the error.

  Raises:
    UserError: when the bytes are no whole image.
  """
  return _header(_load(encoded, where))


def _load(encoded: bytes, where: str) -> Any:
  """Returns Pillow's image, of a whole file; other decoders fill up what is missing."""
  from PIL import Image

  try:
    image = Image.open(io.BytesIO(encoded), formats=_READ)
    image.load()
  except Exception as error:  # broken files raise all kinds of errors in the decoders
    # What cannot be identified is named by its address in memory.
    reason = str(error).split(' <_io')[0] or type(error).__name__
    raise UserError(f'{where} is no readable image ({reason}); mend it') from error
  return image


def _header(image: Any) -> Header:
  return Header(
    image.format or '?', image.mode, image.height, image.width, _is_turned(image)
  )


def _is_turned(image: Any) -> bool:
  try:
    return image.getexif().get(_ORIENTATION, 1) != 1
  except Exception:  # a broken note about the image leaves the image whole
    return False


def store(
  encoded: bytes, *, channels: int, short_side: int, quality: int, where: str
) -> Stored:
  """Returns an image file as it is to be stored, having decoded all of it.

  Args:
    encoded: its content, which is kept unless it is to be smaller.
    channels: 1 or 3, of the set.
    short_side: pixels; images with a longer one become JPEGs of that. 0 keeps all.
    quality: of these JPEGs, 1 to 95.
    where: words that find the image, for errors.

  Raises:
    UserError: when the image cannot be decoded, and for a coloured one in a grey set.
  """
  image = _load(encoded, where)
  header = _header(image)
  if channels == 1 and not header.grey:
    raise ColourError(
      f'{where} has colours ({header.mode}) in a set that looked grey; pass --channels=3'
    )
  if short_side and min(header.height, header.width) > short_side:
    if image.mode == _MODES[channels]:
      pixels = np.asarray(image).reshape(header.height, header.width, channels)
    else:
      pixels = decode(encoded, channels, where)
    return Stored(jpeg(_shrink(pixels, short_side), quality), header)
  if header.format in _KEPT:
    return Stored(encoded, header)
  return Stored(png(decode(encoded, channels, where)), header)


def png(pixels: NDArray[np.uint8]) -> bytes:
  """Returns the pixels `[H, W, C]` as a PNG file, without loss."""
  file = io.BytesIO()
  _picture(pixels).save(file, 'PNG')
  return file.getvalue()


def thumbnail(pixels: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
  """Returns the image `[H, W, C]` with sides of at most `longest` pixels."""
  picture = _picture(pixels)
  picture.thumbnail((longest, longest))
  return np.asarray(picture).reshape(picture.height, picture.width, pixels.shape[-1])


def _shrink(pixels: NDArray[np.uint8], short_side: int) -> NDArray[np.uint8]:
  from PIL import Image

  height, width, channels = pixels.shape
  scale = short_side / min(height, width)
  size = round(width * scale), round(height * scale)
  resized = np.asarray(_picture(pixels).resize(size, Image.Resampling.BICUBIC))
  return resized.reshape(size[1], size[0], channels)


def jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
  """Returns the pixels `[H, W, C]` as a JPEG file of this quality, 1 to 95."""
  file = io.BytesIO()
  _picture(pixels).save(file, 'JPEG', quality=quality)
  return file.getvalue()


def _picture(pixels: NDArray[np.uint8]):
  from PIL import Image

  return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
