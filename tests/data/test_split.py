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
