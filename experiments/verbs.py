"""What each verb of the command line does: it calls the rooms and prints for people."""

import dataclasses
import json
import os
import pathlib
import runpy
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from experiments import ledger, orders, progress, sweep
from scaling.errors import UserError

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
MIRRORS = ('tensorboard', 'mirror')  # where rows of metrics go too
LAYOUT = ('model_devices', 'fsdp')  # how a cell is spread over devices


@dataclasses.dataclass(frozen=True)
class Verb:
  """One word after `scaling`, or two.

  Attributes:
    summary: what it does, in one line.
    details: what a user should know before using it.
    example: a whole command line.
    flags: the names of the flags it takes.
    run: does it and returns the exit status.
    required: those of its flags that have no default.
    words: what it takes besides flags.
    config: what --config is where it is left out, or a function to it from the words.
  """

  summary: str
  details: str
  example: str
  flags: tuple[str, ...]
  run: Callable[['Args'], int]
  required: tuple[str, ...] = ()
  words: tuple[str, ...] = ()
  config: str | Callable[[list[str]], str] = ''


@dataclasses.dataclass(frozen=True)
class Args:
  """The parsed command line.

  Attributes:
    values: of the verb's flags.
    config_file: of --config.
    overrides: fields set by --config.FIELD=VALUE.
    rest: words that are no flags.
  """

  values: dict[str, Any]
  config_file: pathlib.Path | None
  overrides: dict[str, Any]
  rest: list[str]

  def __getattr__(self, name: str) -> Any:
    return self.values[name]


def load_module(args: Args) -> dict[str, Any]:
  """Returns what the config file defines."""
  return runpy.run_path(str(args.config_file))


def load_cells(args: Args) -> tuple[Any, list[sweep.Cell]]:
  """Returns the config and the cells of its sweep.

  Raises:
    UserError: if the config file has no get_sweep().
  """
  module = load_module(args)
  if 'get_sweep' not in module:
    raise UserError(
      f'{args.config_file} has no get_sweep(); add one that returns the overrides of '
      'each cell, or train this one cell with `scaling train`'
    )
  try:
    config, listed = args.config, list(module['get_sweep']())
  except Exception as error:  # whatever the user's own code raises
    raise UserError(
      f'{args.config_file}: get_sweep() fails with {type(error).__name__}: {error}'
    ) from error
  pinned = args.overrides
  if config.smoke:
    pinned = {k: v for k, v in pinned.items() if k == 'seed'}
    config, listed = sweep.shrink(config, args.data_dir)
  return config, sweep.make_cells(config, listed, pinned)


def run_report(args: Args) -> int:
  from analysis import report

  workdir = pathlib.Path(args.workdir)
  sweep.read_study(workdir)
  written = report.write_report(workdir)
  print(written.text)
  print(
    f'\nwritten: {written.folder / "report.html"}, report.md, results.csv, fits.csv'
  )
  return OK


def mirror_file(args: Args) -> str | None:
  """Returns the path of --mirror for any process to use.

  Raises:
    UserError: where it or --tensorboard could not do; workers would only warn of it.
  """
  if not (args.tensorboard or args.mirror):
    return None
  from scaling import mirrors

  if args.tensorboard and not mirrors.tensorboard_package():
    raise UserError("--tensorboard needs tensorboardX: pip install '.[tensorboard]'")
  if args.mirror is None:
    return None
  mirrors.load(args.mirror)
  return str(pathlib.Path(args.mirror).absolute())


def run_train(args: Args) -> int:
  from experiments import worker
  from scaling import config as config_lib
  from scaling import train

  config, workdir = args.config, pathlib.Path(args.workdir)
  if config.smoke:
    config, _ = sweep.shrink(config, args.data_dir)
  config_lib.check(config)
  ledger.check_writable(workdir)
  if (workdir / 'study.json').exists():
    raise UserError(f'{workdir} holds a study; use another --workdir for one cell')
  worker.use_cores(config)
  train.write_config(config, workdir)
  if ledger.read_status(workdir).state == 'done':
    print(f'nothing to do: {workdir} is done')
    return OK
  ledger.reopen(workdir, ('failed', 'cancelled'))
  lease = ledger.claim(workdir)
  if lease is None:
    ended = ledger.read_status(workdir)
    if ended.state == 'failed':  # just now: too many that worked on it were killed
      raise UserError(f'{workdir}: {ended.reason}; the same command tries again')
    raise UserError(f'{workdir} is being trained by another process')
  stop = threading.Event()
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: stop.set())
  worker.log_to_stdout()
  worker.use_compilation_cache()
  told = orders.Orders(
    [],
    data_dir=args.data_dir,
    tensorboard=args.tensorboard,
    mirror=mirror_file(args),
    model_devices=args.model_devices,
    fsdp=args.fsdp,
    stall_seconds=args.stall_seconds,
  )
  state = worker.run_cell(workdir, lease, told, stop, profile_steps=args.profile)
  if state == 'failed':
    if not (workdir / 'manifest.json').exists():
      # It never began: the folder is free for a config that can be.
      (workdir / 'config.json').unlink(missing_ok=True)
    raise UserError(ledger.read_status(workdir).reason or 'failed')
  if state != 'done':
    print(f'{state}; the same command goes on from here', file=sys.stderr)
    return INTERRUPTED
  return OK


def _cell(args: Args) -> pathlib.Path:
  """Returns the folder of the cell that the first word names."""
  if args.workdir:
    return sweep.find_cell(pathlib.Path(args.workdir), args.rest[0])
  return pathlib.Path(args.rest[0])


def run_export(args: Args) -> int:
  # Numbers are copied, and the devices may be busy with training them.
  os.environ['JAX_PLATFORMS'] = 'cpu'
  from scaling import trained, weights

  config, variables = trained.load(_cell(args), args.step)
  names = weights.write_weights(args.out, config, variables)
  print(f'written: {args.out}, {len(names)} arrays such as {names[-1]}')
  return OK


def run_predict(args: Args) -> int:
  from scaling import sharding, trained
  from scaling.data import sources
  from scaling.data.skipped import Skipped
  from scaling.evals import predictions

  out = pathlib.Path(args.out)
  if not out.parent.is_dir():  # before anything is computed
    raise UserError(f'--out={out}: there is no folder {out.parent}; make it first')
  config, variables = trained.load(_cell(args), args.step)
  _, test = sources.load(config.data, args.data_dir)
  skipped = None
  if config.data.corrupt == 'skip':
    skipped = Skipped(_cell(args) / 'skipped.txt')
  found = predictions.predict(config, variables, test, sharding.make_mesh(), skipped)
  predictions.write_csv(out, found)
  right, read = int(found.correct.sum()), int(found.read.sum())
  print(f'{right:,} of {read:,} test images are classified correctly')
  if lost := test.num_images - read:
    print(f'{lost:,} could not be read and are left out')
  print(f'written: {out}')
  return OK


def run_doctor(args: Args) -> int:
  from experiments import doctor
  from scaling import manifest, perf

  if args.perf and args.config_file is None:
    raise UserError(f'--perf needs --config; for example: {VERBS["doctor"].example}')
  if args.workdir:
    return _check_study(pathlib.Path(args.workdir), args.checkpoints)
  if args.checkpoints:
    raise UserError('--checkpoints needs --workdir, the folder of a study')
  if not args.perf:
    print(perf.machine())
    print('\n'.join(f'{name:<20} {v}' for name, v in manifest.versions().items()))
    return OK
  from experiments import worker

  worker.use_compilation_cache()
  worker.use_cores(args.config)
  print(perf.machine())
  found = perf.measure(
    args.config,
    args.data_dir,
    say=lambda text: print(f'measuring: {text}', file=sys.stderr),
  )
  print(doctor.table(found))
  print('\nWhere the time of the whole run goes:\n')
  print('\n'.join(doctor.advice(found)))
  return OK


def _check_study(workdir: pathlib.Path, checkpoints: bool) -> int:
  from experiments import checkup

  study = sweep.read_study(workdir)
  found = checkup.check(workdir, study, checkpoints=checkpoints)
  print('\n'.join(found) or f'{len(study["cells"])} cells, nothing wrong with them')
  return FAILED if found else OK


def run_plan(args: Args) -> int:
  from experiments import plan, plan_device

  config, cells = load_cells(args)
  if args.device != 'cpu' and args.mfu is None:
    device = plan_device.Device(
      args.device,
      args.num_devices,
      share=args.roofline_share,
      fsdp=args.fsdp,
      model_devices=args.model_devices,
      images_per_core=args.images_per_core,
      cores_per_host=args.cores_per_host,
      price_per_hour=args.price_per_hour,
    )
    planned = plan_device.plan(cells, device, args.num_full)
    show = plan_device.as_json if args.json else plan_device.table
    print(show(planned, device, config.train.batch_size))
    return OK
  workdir = pathlib.Path(args.workdir) if args.workdir else None
  mfu = args.mfu or 0.0
  workers = args.workers or 1
  flops, source = plan.sustained_flops(
    args.device, args.num_devices, mfu, workdir, workers
  )
  planned = plan.plan(cells, flops, args.num_full)
  if args.json:
    listed = [dataclasses.asdict(cell) for cell in planned]
    print(json.dumps({'cells': listed, 'notes': [f'assumed: {source}']}, indent=2))
    return OK
  print(plan.table(planned, workers))
  print(f'assumed: {source}')
  return OK


def _check_scores(
  flag: str, given: Sequence[float | None], kind: str, percent: float
) -> None:
  """Refuses flags that are no scores before any curve is fitted."""
  top = sys.float_info.max if kind == 'loss' else percent
  for score in given:
    if score is not None and not 0 <= score <= top:
      limits = 'from 0 on' if kind == 'loss' else f'from 0 to {percent:g}'
      hint = '' if kind == 'loss' or percent > 1 else '; for percentages add --percent'
      raise UserError(f'--{flag}={score:g} is no {kind}, which goes {limits}{hint}')


def run_fit(args: Args) -> int:
  from analysis import report, table_notes, tables

  group = args.group or ()
  percent = 100.0 if args.percent else 1.0
  table = tables.read_csv(
    args.rest[0],
    size=args.size,
    value=args.value,
    group=group,
    seed=args.seed,
    se=args.se,
    num_test=args.num_test,
    model_size=args.model_size,
    kind=args.kind,
    percent=args.percent,
  )
  chance = None if args.chance is None else args.chance / percent
  for flag, given in (('target', args.target or ()), ('chance', [args.chance])):
    _check_scores(flag, given, args.kind, percent)
  sizes = None
  if args.predict:
    sizes = tables.read_sizes(
      args.predict, size=args.size, group=group, model_size=args.model_size
    )
  if args.model_size:
    from analysis import surface_report

    surface = surface_report.write_surface_report(
      args.out,
      table,
      group=group,
      kind=args.kind,
      metric=args.value,
      sizes=sizes,
      chance=chance,
    )
    print(surface.text)
    print(f'\nwritten: {", ".join(str(path) for path in surface.paths)}')
    return OK
  with progress.counting('fitting curves') as count:
    written = report.write_fit_report(
      args.out,
      table,
      group=group,
      kind=args.kind,
      metric=args.value,
      sizes=sizes,
      size=args.size,
      chance=chance,
      targets=[target / percent for target in args.target or ()],
      budget=args.budget,
      robust=args.robust,
      progress=count,
    )
  for note in table_notes.notes(table, args.kind)[:_MAX_NOTES]:
    print(f'note: {note}')
  print(written.text)
  print(
    f'\nwritten: {written.folder}/ fits.csv, predictions.csv, audit.json, fit.md, '
    'curves.png, curves_error.png, figures/'
  )
  return OK


_MAX_NOTES = 5  # of a table with hundreds of curves nobody reads them all
VERBS = {
  'report': Verb(
    'writes tables, fits, figures and the report of a study',
    'Works on a study in progress too, and says what is missing. Writes into '
    'WORKDIR/report.',
    'scaling report --workdir=runs/digits',
    ('workdir',),
    run_report,
    ('workdir',),
  ),
  'train': Verb(
    'trains one cell',
    'The config as it stands, without its sweep.',
    'scaling train --config=configs/digits.py --config.model.depth=14 '
    '--workdir=runs/one',
    ('config', 'workdir', 'data_dir', *MIRRORS, *LAYOUT, 'stall_seconds', 'profile'),
    run_train,
    ('config', 'workdir'),
  ),
  'export': Verb(
    'writes the weights of a trained cell to a file for other programs',
    'CELL is the name of a cell of the study in --workdir, or as much of it as no other '
    'has; without --workdir, the folder of a cell. ResNets of the imagenet form come in '
    'the names of torchvision and timm, BiTs in those of their published files, others in '
    'ours. Running means of the weights are taken where the cell has them.',
    'scaling export resnet20-n1000-seed0 --workdir=runs/digits --out=cell.safetensors',
    ('workdir', 'out', 'step'),
    run_export,
    ('out',),
    words=('CELL',),
  ),
  'predict': Verb(
    'writes what a trained cell says of each test image',
    'CELL as for `scaling export`. A row per test image: id, label (several with spaces '
    'between), predicted, confidence, correct. `scaling dedup --correct=FILE` takes it.',
    'scaling predict resnet20-n1000-seed0 --workdir=runs/digits --out=predictions.csv',
    ('workdir', 'data_dir', 'out', 'step'),
    run_predict,
    ('out',),
    words=('CELL',),
  ),
  'plan': Verb(
    'lists the cells with steps, FLOPs and hours, without running them',
    'For an accelerator each cell gets a roofline: images/s, MFU, hours, price, and what '
    'limits it; nothing of it is measured (docs/roofline.md). On a CPU hours are FLOPs '
    'over a speed: of the finished cells in --workdir, or guessed.',
    'scaling plan --config=configs/jft.py --device="TPU v5e" --num_devices=256',
    (
      'config',
      'workdir',
      'data_dir',
      'workers',
      'device',
      'num_devices',
      'num_full',
      'fsdp',
      'model_devices',
      'roofline_share',
      'mfu',
      'images_per_core',
      'cores_per_host',
      'price_per_hour',
      'json',
    ),
    run_plan,
    ('config',),
  ),
  'doctor': Verb(
    'says what this machine is, and what limits training on it, or what ails a study',
    'With --workdir it looks through the files of a study: workers that are gone, torn '
    'files, mixed versions of code and packages, a disk that will be full; with '
    '--checkpoints it reads those as well. With --perf it trains a few steps of the config, '
    'writes nothing, and says where the time goes: input, compute, compilation or the '
    'allocator, and what to try.',
    'scaling doctor --perf --config=configs/digits.py',
    ('config', 'data_dir', 'perf', 'workdir', 'checkpoints'),
    run_doctor,
  ),
  'fit': Verb(
    'fits scaling curves to any CSV',
    'One row a run, or a mean with its standard error. Writes into --out: fits.csv (a '
    'row per curve: chosen law, parameters, window, grade), predictions.csv (value, band '
    'of the curve, band of a new run), audit.json (everything tried), fit.md and the '
    'figures. A curve with too few sizes is refused, the others are fitted.',
    'scaling fit results.csv --size=num_images --value=top1 --group=depth --seed=seed',
    (
      'size',
      'value',
      'group',
      'seed',
      'se',
      'num_test',
      'model_size',
      'kind',
      'percent',
      'chance',
      'predict',
      'target',
      'budget',
      'robust',
      'out',
    ),
    run_fit,
    words=('one CSV file',),
  ),
}
