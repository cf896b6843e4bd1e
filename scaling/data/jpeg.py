"""What the header of a JPEG says, and how to have only its upper rows decoded."""

from typing import NamedTuple

_EXTENDED = (0xC0, 0xC1)  # frames whose blocks come once, in order, Huffman-coded
_TABLES = (0xC4, 0xC8, 0xCC)  # in the range of frame markers, but none
_AHEAD = bytes(64)  # decoders fetch some bytes before they need them
_RESTARTS, _SCAN, _END = 0xDD, 0xDA, b'\xff\xd9'


class Header(NamedTuple):
  """Of a JPEG.

  Attributes:
    height: pixels.
    width: pixels.
    height_at: the byte where the height stands, in two bytes.
    scan_at: the byte where the only scan begins; 0 where the rows may not be cut: there
      are several, as in a progressive JPEG, or marks between the rows.
  """

  height: int
  width: int
  height_at: int
  scan_at: int


def read_header(encoded: bytes) -> Header | None:
  """Returns the header of a JPEG, or None for anything else.

  Source: ITU-T T.81, annex B.
  """
  if encoded[:2] != b'\xff\xd8':
    return None
  at, found, components, can_cut = 2, None, 0, True
  while at + 9 <= len(encoded) and encoded[at] == 0xFF:
    marker = encoded[at + 1]
    if marker == _SCAN:
      if found and can_cut and encoded[at + 4] == components:
        return found._replace(scan_at=at)
      break
    if marker == _RESTARTS:
      can_cut = False
    elif 0xC0 <= marker <= 0xCF and marker not in _TABLES:
      height = int.from_bytes(encoded[at + 5 : at + 7], 'big')
      width = int.from_bytes(encoded[at + 7 : at + 9], 'big')
      if not (height and width):
        return None
      found = Header(height, width, at + 5, 0)
      can_cut = can_cut and marker in _EXTENDED
      components = encoded[at + 9] if at + 9 < len(encoded) else 0
    at += 2 + int.from_bytes(encoded[at + 2 : at + 4], 'big')
  return found


def first_rows(encoded: bytes, header: Header, rows: int) -> bytes:
  """Returns a JPEG that says it ends after `rows` rows, where it can be cut so.

  The rows are decoded to the same pixels, but for the last one, whose colours lack the
  row below. Decoders stop after it; the mark of the end is taken off, for they would look
  for it and warn of what they pass over. What lacks the mark is torn, and stays whole so
  that it is noticed.
  """
  if not header.scan_at or rows >= header.height:
    return encoded
  end = encoded.rfind(_END, header.scan_at)
  if end < 0:
    return encoded
  at = header.height_at
  return encoded[:at] + rows.to_bytes(2, 'big') + encoded[at + 2 : end] + _AHEAD
