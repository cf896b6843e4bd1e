"""Files that are replaced at once, whatever goes wrong."""

import os

import pytest

from scaling import files


def test_a_file_is_replaced_and_no_temporary_left(tmp_path):
  path = tmp_path / 'file.json'
  for text in ('old', 'newer, longer: ×'):
    files.write_atomically(path, text)
    assert path.read_text(encoding='utf-8') == text
  assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('broken', ['fsync', 'replace', 'encode'])
def test_a_failed_write_leaves_the_old_file_and_no_temporary(
  tmp_path, monkeypatch, broken
):
  path = tmp_path / 'file.json'
  files.write_atomically(path, 'old')

  def fail(*_):
    raise OSError('no space left on device')

  if broken == 'fsync':
    monkeypatch.setattr(os, 'fsync', fail)
  elif broken == 'replace':
    monkeypatch.setattr(type(path), 'replace', fail)
  text = 'torn \ud800' if broken == 'encode' else 'new'
  with pytest.raises((OSError, UnicodeEncodeError)):
    files.write_atomically(path, text)
  assert path.read_text() == 'old'
  assert list(tmp_path.iterdir()) == [path]
