"""The head and loss of many classes: labels as a few ids against labels as 0 and 1.

  python -m experiments.benchmarks.multilabel --out=multilabel.json

One update of a classifier on features `[B, 2048]`: forward, logistic loss, backward,
SGD, from labels on the host. `sparse` ships ids padded to 8 and takes their logits
(`scaling.losses.sigmoid`); `dense` ships a row of 0 and 1 as float32, as the textbook
has it; `dense uint8` ships it as bytes. All run in turns in one process and the fastest
of their turns counts. Memory is XLA's own plan of the compiled update.
"""

import argparse
import functools
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling import losses

CLASSES = (18_291, 29_593)  # JFT-300M, JFT-3B
FEATURES = 2048
BATCH = 256
MAX_LABELS = 8
MEAN_LABELS = 1.26  # an image, BiT (Kolesnikov et al. 2020)
ROUNDS = 7
RATE = 0.1


def dense_sigmoid(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """Returns the logistic loss of each image from `[B, C]` of 0 and 1, `[B]`."""
  return (jax.nn.softplus(logits) - logits * targets.astype(logits.dtype)).sum(1)


def draw_labels(batch: int, classes: int, seed: int = 0) -> np.ndarray:
  """Returns distinct ids `[batch, MAX_LABELS]`, padded with -1, 1.26 on average."""
  rng = np.random.default_rng(seed)
  counts = 1 + rng.binomial(MAX_LABELS - 1, (MEAN_LABELS - 1) / (MAX_LABELS - 1), batch)
  labels = np.full((batch, MAX_LABELS), -1, np.int32)
  for row, count in zip(labels, counts, strict=True):
    row[:count] = rng.choice(classes, count, replace=False)
  return labels


def one_hot(labels: np.ndarray, classes: int, dtype: Any) -> np.ndarray:
  """Returns `[B, classes]` of 0 and 1."""
  rows, columns = np.nonzero(labels >= 0)
  dense = np.zeros((len(labels), classes), dtype)
  dense[rows, labels[rows, columns]] = 1
  return dense


def update(
  loss: Callable[[jax.Array, jax.Array], jax.Array],
  params: dict[str, jax.Array],
  features: jax.Array,
  labels: jax.Array,
) -> tuple[dict[str, jax.Array], jax.Array]:
  """Makes one step of gradient descent; returns parameters and mean loss."""

  def mean(params):
    return loss(features @ params['kernel'] + params['bias'], labels).mean()

  value, grads = jax.value_and_grad(mean)(params)
  return jax.tree.map(lambda p, g: p - RATE * g, params, grads), value


def loss_gradient(
  loss: Callable[[jax.Array, jax.Array], jax.Array],
  logits: jax.Array,
  labels: jax.Array,
) -> jax.Array:
  """Returns the gradient of the mean loss, the part that the labels' form changes."""
  return jax.grad(lambda logits: loss(logits, labels).mean())(logits)


def benchmark(batch: int, classes: int, rounds: int) -> dict[str, dict[str, float]]:
  """Returns seconds and bytes of each form of the labels.

  Returns:
    For each form 'seconds' of an update and 'loss_seconds' of the loss and its gradient
    alone, both with the labels' way to the device; 'label_bytes' shipped; of the
    compiled update 'temporary_bytes' and 'peak_bytes', with its arguments; and the
    'loss' of the last update, which is the same but for rounding.
  """
  rng = np.random.default_rng(1)
  labels = draw_labels(batch, classes)
  forms = {
    'sparse': (losses.sigmoid, labels),
    'dense': (dense_sigmoid, one_hot(labels, classes, np.float32)),
    'dense uint8': (dense_sigmoid, one_hot(labels, classes, np.uint8)),
  }
  features = jnp.asarray(rng.standard_normal((batch, FEATURES), np.float32))
  logits = jnp.asarray(rng.standard_normal((batch, classes), np.float32))
  start = {
    'kernel': np.zeros((FEATURES, classes), np.float32),
    'bias': np.full(classes, -10, np.float32),
  }
  updates, gradients, params, out = {}, {}, {}, {}
  for name, (loss, shipped) in forms.items():
    params[name] = jax.device_put(start)
    one = jax.jit(functools.partial(update, loss), donate_argnums=0)
    updates[name] = one.lower(params[name], features, shipped).compile()
    alone = jax.jit(functools.partial(loss_gradient, loss))
    gradients[name] = alone.lower(logits, shipped).compile()
    memory: Any = updates[name].memory_analysis()
    out[name] = {
      'seconds': float('inf'),
      'loss_seconds': float('inf'),
      'label_bytes': shipped.nbytes,
      'temporary_bytes': memory.temp_size_in_bytes,
      'peak_bytes': memory.temp_size_in_bytes + memory.argument_size_in_bytes,
    }
  for _ in range(rounds):
    for name, (_, shipped) in forms.items():
      form = out[name]
      seconds = -time.perf_counter()
      params[name], value = updates[name](
        params[name], features, jax.device_put(shipped)
      )
      form['loss'] = float(value)
      seconds += time.perf_counter()
      form['seconds'] = min(seconds, form['seconds'])
      seconds = -time.perf_counter()
      jax.block_until_ready(gradients[name](logits, jax.device_put(shipped)))
      seconds += time.perf_counter()
      form['loss_seconds'] = min(seconds, form['loss_seconds'])
  return out


def format_table(results: dict[int, dict[str, dict[str, float]]], batch: int) -> str:
  """Returns a line for each number of classes and form."""
  lines = [
    f'{"classes":>7}  {"labels as":<11}  {"ms/update":>9}  {"of it the loss":>14}  '
    f'{"shipped/image":>13}  {"temporaries MB":>14}  {"peak MB":>7}'
  ]
  for classes, forms in results.items():
    for name, form in forms.items():
      lines.append(
        f'{classes:>7,}  {name:<11}  {1e3 * form["seconds"]:>9.1f}  '
        f'{1e3 * form["loss_seconds"]:>14.1f}  {form["label_bytes"] / batch:>11,.0f} B  '
        f'{form["temporary_bytes"] / 1e6:>14.1f}  {form["peak_bytes"] / 1e6:>7.1f}'
      )
  return '\n'.join(lines)


def main(argv: list[str] | None = None) -> int:
  """Runs the benchmark."""
  parser = argparse.ArgumentParser(prog='multilabel', description=__doc__)
  parser.add_argument('--batch', type=int, default=BATCH, help='images')
  parser.add_argument('--rounds', type=int, default=ROUNDS, help='turns of each form')
  parser.add_argument(
    '--classes', type=int, action='append', help=f'default {CLASSES}; may be repeated'
  )
  parser.add_argument('--out', type=pathlib.Path, help='JSON file to write')
  args = parser.parse_args(argv)
  results = {
    classes: benchmark(args.batch, classes, args.rounds)
    for classes in args.classes or CLASSES
  }
  print(format_table(results, args.batch))
  if args.out:
    args.out.write_text(json.dumps(results) + '\n', encoding='utf-8')
  return 0


if __name__ == '__main__':
  sys.exit(main())
