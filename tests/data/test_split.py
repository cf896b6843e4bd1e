"""Parts of parts."""

import numpy as np

from scaling.data import split


def test_a_part_of_a_part_has_its_images():
  whole = split.in_memory(
    np.arange(6 * 12, dtype=np.uint8).reshape(6, 2, 2, 3),
    np.arange(6, dtype=np.int32)[:, None],
    'abcdef',
  )
  chosen = np.array([4, 1, 3])
  part = split.take(whole, chosen.take, 3)
  places = np.array([2, 0])
  np.testing.assert_array_equal(part.labels(places)[:, 0], [3, 4])
  np.testing.assert_array_equal(part.images(places), whole.images(np.array([3, 4])))
  assert part.where(1) == whole.where(1)
  assert part.fingerprint != whole.fingerprint


def test_sizes_of_files_are_spread_over_all(tmp_path):
  for i in range(10):
    (tmp_path / str(i)).write_bytes(b'x' * i)
  (tmp_path / '4').unlink()

  def sizes(most):
    return split.file_sizes(lambda i: str(tmp_path / str(i)), 10, most).tolist()

  assert sizes(10) == [0, 1, 2, 3, -1, 5, 6, 7, 8, 9]
  assert sizes(9) == [0, 2, -1, 6, 8]
  assert sizes(3) == [0, -1, 8]
