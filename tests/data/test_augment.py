"""Augmentation on the device, against numpy."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from scaling import sharding
from scaling.data.augment import augment, draws, mixup, mixup_share, normalize
from scaling.data.decode import random_box

BATCH = 12
IMAGES = np.random.default_rng(0).integers(0, 256, (BATCH, 16, 16, 3), np.uint8)
IDS = np.stack([np.arange(BATCH), np.arange(BATCH) // 6], 1).astype(np.uint32)
EPOCHS = (np.arange(BATCH) % 2).astype(np.uint32)
OFF = {'pad_crop': 0, 'flip': False, 'min_crop_area': 0.0}
ON = {'pad_crop': 4, 'flip': True, 'min_crop_area': 0.5}


def run(key=0, images=IMAGES, ids=IDS, epochs=EPOCHS, **changes) -> np.ndarray:
  result = augment(images, ids, epochs, jax.random.key(key), **OFF | changes)
  assert result.shape == images.shape
  assert result.dtype == np.uint8
  return np.asarray(result)


def numbers(key=0) -> np.ndarray:
  return np.asarray(draws(IDS, EPOCHS, jax.random.key(key)))


def test_all_off_changes_nothing():
  assert augment(IMAGES, IDS, EPOCHS, jax.random.key(0), **OFF) is IMAGES


def test_flip_equals_numpy():
  mirrored = numbers()[:, 6] < 0.5
  assert 0 < mirrored.sum() < BATCH
  expected = np.where(mirrored[:, None, None, None], IMAGES[:, :, ::-1], IMAGES)
  assert (run(flip=True) == expected).all()


def test_pad_crop_equals_numpy():
  padded = np.pad(IMAGES, ((0, 0), (4, 4), (4, 4), (0, 0)))
  offsets = (numbers()[:, 4:6] * 9).astype(int)
  expected = [
    image[down : down + 16, across : across + 16]
    for image, (down, across) in zip(padded, offsets, strict=True)
  ]
  assert (run(pad_crop=4) == np.stack(expected)).all()


def test_offsets_reach_both_ends_evenly():
  ids = np.stack([np.arange(9000), np.zeros(9000)], 1).astype(np.uint32)
  drawn = draws(ids, jnp.zeros(9000, jnp.uint32), jax.random.key(0))
  counts = np.bincount((np.asarray(drawn[:, 4]) * 9).astype(int), minlength=9)
  assert counts.size == 9
  assert np.abs(counts - 1000).max() < 150  # five deviations of 30


def test_resized_crop_agrees_with_the_host():
  smooth = np.asarray(jax.image.resize(IMAGES[:, ::4, ::4], IMAGES.shape, 'linear'))
  smooth = smooth.clip(0, 255).astype(np.uint8)
  result = run(images=smooth, min_crop_area=0.3)
  host = [
    Image.fromarray(image).resize(
      (16, 16), Image.Resampling.BILINEAR, random_box(16, 16, 0.3, own)
    )
    for image, own in zip(smooth, np.delete(numbers(), [4, 5, 6], 1), strict=True)
  ]
  # Pillow computes with 8-bit weights and repeats the border: a few levels.
  difference = np.abs(result.astype(int) - np.stack(host))
  assert difference[:, 1:-1, 1:-1].max() <= 4
  assert difference.mean() < 1


@pytest.mark.parametrize('changes', [{'flip': True}, {'pad_crop': 4}, ON])
def test_an_image_looks_the_same_anywhere_in_a_batch(changes):
  whole = run(**changes)
  order = np.random.default_rng(1).permutation(BATCH)[:5]
  part = run(images=IMAGES[order], ids=IDS[order], epochs=EPOCHS[order], **changes)
  assert (part == whole[order]).all()


def test_key_epoch_and_both_halves_of_the_id_matter():
  same = np.repeat(IMAGES[:1], BATCH, 0)
  base = run(images=same, **ON)
  assert len({image.tobytes() for image in base}) == BATCH
  high = IDS + np.array([0, 1], np.uint32)
  for other in (
    run(key=1, images=same, **ON),
    run(images=same, epochs=EPOCHS + np.uint32(7), **ON),
    run(images=same, ids=high, **ON),
  ):
    assert (other != base).any((1, 2, 3)).all()


def test_compiles_within_seconds():
  step = jax.jit(lambda *given: augment(*given, **ON))
  images = jnp.zeros((128, 32, 32, 3), jnp.uint8)
  ids, epochs = jnp.zeros((128, 2), jnp.uint32), jnp.zeros(128, jnp.uint32)
  began = time.process_time()
  step.lower(images, ids, epochs, jax.random.key(0)).compile()
  # About 2 s of the processor; random numbers drawn in four dimensions took 15.
  assert time.process_time() - began < 6


def test_compiled_and_plain_agree():
  jitted = jax.jit(lambda *given: augment(*given, **ON))
  given = (IMAGES, IDS, EPOCHS, jax.random.key(0))
  difference = np.asarray(jitted(*given)).astype(int) - run(**ON)
  assert np.abs(difference).max() <= 1  # fused float32 before the rounding


def test_normalize():
  mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
  result = normalize(IMAGES, mean, std, 'float32')
  assert result.dtype == jnp.float32
  # float32 arithmetic against float64.
  np.testing.assert_allclose(result, (IMAGES / 255 - mean) / std, atol=1e-6)
  assert normalize(IMAGES, mean, std, jnp.bfloat16).dtype == jnp.bfloat16


def test_mixup_adds_the_row_before_on_any_number_of_devices():
  images = np.random.default_rng(0).normal(size=(8, 3, 3, 1)).astype(np.float32)
  expected = np.float32(0.25) * images + np.float32(0.75) * images[[7, *range(7)]]
  for devices in (1, 4):
    split = sharding.split_batch(sharding.make_mesh(devices))
    mixed = jax.jit(mixup, in_shardings=(split, None))(images, np.float32(0.25))
    # Two products and a sum of numbers up to 3, which XLA may round once fewer.
    np.testing.assert_allclose(mixed, expected, atol=4e-7)
  small = jax.jit(mixup)(images.astype(jnp.bfloat16), np.float32(0.25))
  assert small.dtype == jnp.bfloat16
  # Mixed in float32: one rounding of the images and one of the mix, of 2^-9 each.
  np.testing.assert_allclose(small, expected, atol=2 * 2**-9 * np.abs(images).max())


def test_mixup_shares_follow_from_key_and_step_and_are_beta_distributed():
  shares = jax.jit(jax.vmap(lambda key, step: mixup_share(0.4, key, step), (None, 0)))
  key, steps = jax.random.key(1), jnp.arange(20_000)
  found = np.asarray(shares(key, steps))
  np.testing.assert_array_equal(found[::-1], shares(key, steps[::-1]))
  assert not np.array_equal(found, shares(jax.random.key(2), steps))
  assert ((found >= 0) & (found <= 1)).all()
  # Mean 1/2 and variance 1 / (4 (2 alpha + 1)); four standard errors of 20,000 draws,
  # whose fourth moment is below a sixteenth.
  assert found.mean() == pytest.approx(0.5, abs=4 * float(found.std()) / 20_000**0.5)
  assert found.var() == pytest.approx(1 / 7.2, abs=4 * 0.25 / 20_000**0.5)
