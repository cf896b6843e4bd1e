"""Trains one cell, from its config to its last row of metrics.

One loop in one function, in the order it happens. The state after step s is a function
of the config and s alone, so a run that was killed and resumed ends equal to one that
was not; what it had written beyond its last checkpoint is cut and written again.
"""

import functools
import json
import logging
import math
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from scaling import config as config_lib
from scaling import (
  files,
  manifest,
  metrics,
  mirrors,
  optim,
  processes,
  sharding,
  start,
  step,
)
from scaling.checkpoint import Checkpoints
from scaling.clock import Clock
from scaling.data import pipeline, sources
from scaling.data.prefetch import Prefetch
from scaling.data.skipped import Skipped
from scaling.errors import DivergedError, Stopped, UserError
from scaling.evals import classify, transfer
from scaling.packing import Pack
from scaling.speed import Speed

LOG = logging.getLogger('scaling')
_WARM_UP = 5  # updates before a trace


def train(
  config: ConfigDict,
  workdir: str | pathlib.Path,
  *,
  data_dir: str | None = None,
  tensorboard: bool = False,
  mirror: str | None = None,
  model_devices: int = 1,
  fsdp: bool = False,
  profile_steps: int = 0,
  pack: Pack | None = None,
  should_stop: Callable[[], bool] = lambda: False,
  before_write: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
  """Trains one cell, or goes on where an earlier call left it.

  Several processes of `jax.distributed` call it alike, on a workdir that all see: each
  feeds its own rows of a batch, and the first alone writes, checkpoints aside.

  Args:
    config: of the cell; see configs/base.py.
    workdir: the cell's own folder; config.json, manifest.json, metrics.jsonl and
      checkpoints/ are written there.
    data_dir: where the image set lies, when not in its usual place.
    tensorboard: also write event files.
    mirror: a Python file that is told of the rows too, see `scaling.mirrors`.
    model_devices: how many devices share the classifier, see `scaling.sharding`.
    fsdp: split the state over the devices.
    profile_steps: updates to trace into WORKDIR/profile, for xprof and TensorBoard; not
      the first ones, which warm up.
    pack: where updates are made together with those of other cells, each of which is
      trained by a thread of its own.
    should_stop: asked after each update; True saves the state and stops. With several
      processes the answer of any one stops all, an update later.
    before_write: called before anything is written into the workdir; its error is raised
      in place of that.

  Returns:
    The last row of metrics.jsonl.

  Raises:
    UserError: for a config or image set that cannot be, a workdir of another config or
      network, checkpoints of which none can be read, and a last one that cannot be
      written.
    DivergedError: at a loss or gradient that is not finite.
    Stopped: after `should_stop` said so and the state was saved.
  """
  config_lib.check(config)
  workdir = pathlib.Path(workdir)
  _check_same_config(config, workdir)

  clock = Clock(pack.size if pack else 1)
  mesh = sharding.make_mesh(model_devices=model_devices)
  train_split, test_split = sources.load(config.data, data_dir)
  if test_split.fingerprint == train_split.fingerprint:
    raise UserError(
      f'data.test_split={config.data.test_split!r} are the images that the network is '
      'trained on; test on others'
    )
  subset = pipeline.make_subset(train_split, config.data)
  num_steps = config_lib.num_steps(config, subset.num_images)
  schedule = optim.make_schedule(config, num_steps)
  before_write()  # to open them removes what a save has left undone
  checkpoints = Checkpoints(
    workdir / 'checkpoints',
    config.checkpoint.keep,
    config.checkpoint.keep_every_steps,
    config.checkpoint.keep_steps,
  )
  rows_path = workdir / 'metrics.jsonl'

  try:
    rows = metrics.read_rows(rows_path)
    if checkpoints.latest_step == num_steps and is_last_row(rows, num_steps):
      return rows[-1]

    prints = {
      'data_fingerprint': train_split.fingerprint,
      'test_fingerprint': test_split.fingerprint,
    }
    if checkpoints.latest_step is None:
      # Before it is compiled in vain.
      start.check_source(config, workdir, train_split.label_names)
    judged_on = None
    if config.transfer.source:
      judged_on = transfer.load(config, train_split, data_dir)
    before = {}
    if checkpoints.latest_step is not None:
      before = manifest.read(workdir / 'manifest.json')
    _check_same_images(before, prints, workdir, checkpoints.latest_step)
    with clock.measure('compile'):
      program = step.compile_program(
        config, mesh, cropped=train_split.encoded is not None, fsdp=fsdp
      )
    LOG.info('compiled in %.1f s', program.compile_seconds)
    before_write()
    # Not before: who is told that a config cannot be shall have its folder for another.
    write_config(config, workdir)
    if processes.is_first():
      about = manifest.make(
        config,
        program,
        begin=config.init.step if config.init.part == 'state' else 0,
        steps=num_steps,
        cells_at_once=pack.size if pack else 1,
        num_full=train_split.num_images,
        num_test=test_split.num_images,
        label_names=train_split.label_names,
        fingerprints=prints,
      )
      about['earlier'] = manifest.earlier(before, about)
      files.write_atomically(workdir / 'manifest.json', json.dumps(about, indent=2))

    init_key, augment_key = sharding.put_keys(config.seed, 2, mesh)
    done, last_saved = 0, None
    restored = checkpoints.restore(program.stored)
    if restored is None:
      state = start.first_state(config, workdir, program, init_key)
      done = int(state.step)
    else:
      state = program.load(restored[0])
      clock.go_on_from(restored[1])
      done = last_saved = int(state.step)
      LOG.info('resuming at step %d of %d', done, num_steps)
    began = done
    kept = -1 if restored is None else done
    before_write()
    if processes.is_first():
      metrics.cut_rows(rows_path, kept)
    rows = [row for row in rows if row['step'] <= kept]
    evaluated = {row['step'] for row in rows if 'test/loss' in row}
    scores = {row['step']: metrics.score(row, config.checkpoint.best) for row in rows}

    skipped = None
    if config.data.corrupt == 'skip':
      own = '' if processes.is_first() else f'-{jax.process_index()}'
      skipped = Skipped(workdir / f'skipped{own}.txt')
    make_batch = functools.partial(
      pipeline.placed_batch,
      config=config,
      split=train_split,
      subset=subset,
      mesh=mesh,
      skipped=skipped,
    )

    batches = Prefetch(make_batch, done, num_steps)
    writer = None
    if processes.is_first():
      told = [mirrors.tensorboard] if tensorboard else []
      told += [mirrors.of_file(mirror)] if mirror else []
      writer = metrics.Writer(workdir, mirrors.Mirrors(told, workdir, config))
    votes = processes.Votes()
    speed = Speed(done, clock, config, mesh)
    saved_at = time.monotonic()
    pending = None  # the newest update's metrics, still on their way
    tracing = False
    together = None
    try:
      if pack:
        with clock.measure('compile'):
          together = pack.join(
            program,
            lambda: (
              program.init(init_key),
              step.empty_batch(config, mesh),
              augment_key,
              schedule,
            ),
          )
      update = together.update if together else program.train_step
      while True:
        # `done` updates are made; the rows and the checkpoint of this step say so.
        last = done == num_steps
        overdue = 0 < config.checkpoint.every_seconds <= time.monotonic() - saved_at
        stop, overdue = votes.cast(not last and should_stop(), overdue)
        log_due = done > 0 and (last or done % config.log.every_steps == 0)
        eval_due = done not in evaluated and _eval_due(done, num_steps, config)
        save_due = done != last_saved and (
          last or stop or overdue or _save_due(done, config)
        )
        row = {}
        if pending is not None and (log_due or eval_due or save_due):
          with clock.measure('train'):
            values = _read(pending, done, checkpoints, config)
          pending = None
          if log_due:
            row |= values | speed.measure(done)
        if eval_due:
          with clock.measure('eval'):
            size = config.log.eval_batch_size
            test = pipeline.test_batches(
              test_split, config.data, size, sharding.process_rows(size), skipped
            )
            row |= classify.evaluate(
              program,
              state,
              (pipeline.place(batch, test_split, mesh) for batch in test),
              pipeline.class_counts(train_split, subset) if last else None,
              test_split.class_weights,
            )
          if last and judged_on:
            row |= transfer.evaluate(config, state.variables, judged_on, mesh, skipped)
          score = metrics.score(row, config.checkpoint.best)
          is_best = score > max(scores.values(), default=-math.inf)
          save_due = save_due or (is_best and done != last_saved)
          scores[done] = score
        if row or save_due:
          before_write()
        if row:
          row |= {f'time/{name}_seconds': s for name, s in clock.seconds.items()}
          if writer is not None:
            writer.write(done, row)
          LOG.info('%s', describe(done, num_steps, row))
        if save_due:
          checkpoints.save(program.store(state), clock.seconds, scores)
          last_saved, saved_at = done, time.monotonic()
        if last:
          checkpoints.wait()
          break
        if stop:
          checkpoints.wait()
          raise Stopped(f'saved at step {done} of {num_steps}')

        if profile_steps and done - began in (_WARM_UP, _WARM_UP + profile_steps):
          jax.block_until_ready(state)
          if done - began == _WARM_UP:
            jax.profiler.start_trace(str(workdir / 'profile'))
          else:
            jax.profiler.stop_trace()
          tracing = not tracing
        with clock.measure('train'):
          waited = batches.wait_seconds
          batch = next(batches)
          clock.seconds['input_wait'] += batches.wait_seconds - waited
          state, new = update(state, batch, augment_key, schedule)
          # Read late, so that the device has the next update while Python waits.
          if pending is not None:
            _read(pending, done, checkpoints, config)
        pending = new
        done += 1
    finally:
      if together:
        together.leave()
      if tracing:  # the run was shorter
        jax.profiler.stop_trace()
      if writer is not None:
        writer.close()
      batches.close()
  finally:
    checkpoints.close()

  if profile_steps and done - began <= _WARM_UP:
    LOG.warning('no trace: %d updates only warm up', done - began)
  if skipped:
    LOG.warning('%d images could not be read and were skipped', len(skipped))
  processes.meet('end')  # the first has written all that the others read
  rows = metrics.read_rows(rows_path)
  if not is_last_row(rows, num_steps):
    raise OSError(f'{rows_path} does not hold the last row that was written to it')
  return rows[-1]


def write_config(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Writes config.json, or checks that the one there is the same.

  Raises:
    UserError: naming the first field that differs.
  """
  _check_same_config(config, workdir)
  path = workdir / 'config.json'
  if processes.is_first() and not path.exists():
    workdir.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path, json.dumps(config_lib.plain(config), indent=2))


def _check_same_config(config: ConfigDict, workdir: pathlib.Path) -> None:
  path = workdir / 'config.json'
  if not path.exists():
    return
  try:
    there = json.loads(path.read_text())
  except ValueError as error:
    raise UserError(
      f'{path} cannot be read ({error}); remove it, if this is the config it was made by'
    ) from error
  difference = config_lib.first_difference(there, config_lib.plain(config))
  if difference is not None:
    raise UserError(
      f'{workdir} was made by another config: {difference}; use another --workdir'
    )


def _check_same_images(
  before: Mapping[str, Any],
  fingerprints: Mapping[str, str],
  workdir: pathlib.Path,
  saved: int | None,
) -> None:
  """Refuses to go on from a checkpoint with other images than it was trained on."""
  for name, fingerprint in fingerprints.items():
    if before.get(name, fingerprint) != fingerprint:
      part = 'training' if name == 'data_fingerprint' else 'test'
      raise UserError(
        f'the {part} images, or what is said of their classes, are not those of '
        f'{workdir} until step {saved}; bring the old set back, or use another '
        '--workdir'
      )


def is_last_row(rows: list[dict[str, Any]], num_steps: int) -> bool:
  """Returns whether the rows end with the evaluation of the finished run."""
  return bool(rows) and rows[-1]['step'] == num_steps and 'test/loss' in rows[-1]


def describe(done: int, num_steps: int, row: dict[str, Any]) -> str:
  """Returns a row as a line for people."""
  parts = [f'step {done}/{num_steps}']
  if 'train/loss' in row:
    parts.append(f'loss {row["train/loss"]:.4f}')
    parts.append(f'{row["time/images_per_second"]:.0f} images/s')
    if (waited := row['time/input_wait_share']) >= 0.01:
      parts.append(f'{waited:.0%} waiting for input')
  if 'test/top1' in row:
    parts.append(f'test top-1 {row["test/top1"]:.2%}, loss {row["test/loss"]:.4f}')
  return ' · '.join(parts)


def _eval_due(done: int, num_steps: int, config: ConfigDict) -> bool:
  every = config.log.eval_every_steps
  return done == num_steps or (every > 0 and done % every == 0)


def _save_due(done: int, config: ConfigDict) -> bool:
  steps = (config.checkpoint.every_steps, config.checkpoint.keep_every_steps)
  return done in config.checkpoint.keep_steps or (
    done > 0 and any(every > 0 and done % every == 0 for every in steps)
  )


def _read(
  values: dict[str, jax.Array], step: int, checkpoints: Checkpoints, config: ConfigDict
) -> dict[str, float]:
  """Returns an update's metrics as numbers.

  Raises:
    DivergedError: when the loss, the gradient or the weights are not finite.
  """
  read = {f'train/{name}': float(v) for name, v in jax.device_get(values).items()}
  if not all(map(math.isfinite, read.values())):
    saved = checkpoints.latest_step
    good = 'none yet' if saved is None else f'step {saved}'
    raise DivergedError(
      f'loss {read["train/loss"]}, gradient norm {read["train/grad_norm"]} and weight '
      f'norm {read["train/param_norm"]} at step {step}; last good checkpoint: {good}; '
      f'try a lower optim.lr than {config.optim.lr:g} or a longer warm-up'
    )
  return read
