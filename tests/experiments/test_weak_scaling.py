"""Communication of the compiled step on eight virtual devices against the model."""

import pytest

from experiments.benchmarks import weak_scaling


@pytest.fixture(scope='module')
def rows():
  return [weak_scaling.run(n, per_device=2, steps=0, depth=8) for n in (2, 8)]


def test_what_the_step_sends_is_what_the_model_says(rows):
  for row in rows:
    assert row['operands'].keys() == {'all-reduce'}
    # The backward pass of a norm written in plain operations sums a third number for
    # each of 240 channels; the loss is four bytes.
    more = sum(row['operands'].values()) - row['model_operands']
    assert 0 <= more <= 4 * 240 + 4


def test_what_a_device_sends_tends_to_twice_what_it_puts_in(rows):
  two, eight = rows
  assert two['operands'] == eight['operands']
  assert two['sent_bytes'] == sum(two['operands'].values())
  assert eight['sent_bytes'] == 2 * 7 / 8 * sum(eight['operands'].values())


def test_table_and_its_caveat(rows):
  text = weak_scaling.format_table(rows)
  assert len(text.splitlines()) == 4
  assert 'no evidence of scaling' in text
