"""The command `scaling`: parses flags, calls the rooms, and prints errors in one line."""

import dataclasses
import os
import pathlib
import re
import runpy
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

import configs
from experiments import ledger, progress, status, sweep
from experiments.launch import local
from scaling.errors import UserError

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


@dataclasses.dataclass(frozen=True)
class Verb:
  """One word after `scaling`.

  Attributes:
    summary: what it does, in one line.
    details: what a user should know before using it.
    example: a whole command line.
    flags: the names of the flags it takes.
    run: does it and returns the exit status.
    required: those of its flags that have no default.
    words: what it takes besides flags.
  """

  summary: str
  details: str
  example: str
  flags: tuple[str, ...]
  run: Callable[['Args'], int]
  required: tuple[str, ...] = ()
  words: tuple[str, ...] = ()


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


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line and returns its exit status."""
  argv = list(sys.argv[1:] if argv is None else argv)
  if not argv or argv[0] in ('-h', '--help', 'help'):
    print(help_text())
    return OK if argv else USAGE
  name, *words = argv
  if name not in VERBS:
    from scaling.config import suggest

    print(
      f'scaling: {name!r} is no verb; use {", ".join(VERBS)}.' + suggest(name, VERBS),
      file=sys.stderr,
    )
    return USAGE
  if any(word in ('-h', '--help') for word in words):
    print(verb_help(name))
    return OK
  try:
    return VERBS[name].run(parse(name, words))
  except UserError as error:
    message = str(error)
  except FileNotFoundError as error:
    message = str(error)
  except OSError as error:
    message = f'{error.filename or "writing"}: {error.strerror or error}'
  except ValueError as error:
    # The tables' own complaints, which come without a traceback; others are bugs.
    if type(error).__name__ != 'TableError':
      raise
    message = str(error)
  print(f'scaling {name}: {message}', file=sys.stderr)
  return USAGE


def parse(name: str, words: Sequence[str]) -> Args:
  """Parses the words after a verb.

  Raises:
    UserError: for unknown flags or fields, wrong types and a missing config file.
  """
  words = [find_config(word) for word in words]
  values = flags.FlagValues()
  argv = [f'scaling {name}', *words]
  for flag in VERBS[name].flags:
    DEFINE[flag](values, argv)
  try:
    rest = values(argv)[1:]
    parsed = {flag: values[flag].value for flag in VERBS[name].flags}
  except (AttributeError, KeyError) as error:
    name, *near = re.findall(r"(?:'|instead of \"|mean \")(\w+)", str(error)) or ['?']
    hint = f' Did you mean "{near[0]}"?' if near else ''
    raise UserError(f'the config has no field {name!r}.{hint}') from None
  except (flags.Error, TypeError, ValueError) as error:
    raise UserError(' '.join(str(error).split())) from None
  except OSError as error:
    raise UserError(
      f'--config: {str(error).strip().splitlines()[-1].strip()}'
    ) from None
  for flag in VERBS[name].required:
    if parsed[flag] is None:
      raise UserError(f'--{flag} is missing; for example: {VERBS[name].example}')
  if len(rest) != len(VERBS[name].words):
    wanted = ' and '.join(VERBS[name].words) or 'no word'
    raise UserError(
      f'takes {wanted} besides its flags, not {rest}; for example: '
      f'{VERBS[name].example}'
    )
  config_file, overrides = None, {}
  if 'config' in parsed:
    config_file = pathlib.Path(config_flags.get_config_filename(values['config']))
    overrides = config_flags.get_override_values(values['config'])
  return Args(parsed, config_file, overrides, rest)


def find_config(word: str) -> str:
  """Completes `--config=digits` or `configs/digits.py` to the file that came along."""
  flag, _, value = word.partition('=')
  path, _, argument = value.partition(':')
  named = pathlib.Path(path)
  shipped = pathlib.Path(configs.__file__).parent / f'{named.stem}.py'
  if (
    flag not in ('--config', '-config')
    or named.exists()
    or str(named.parent) not in ('.', 'configs')
    or not shipped.exists()
  ):
    return word
  return f'{flag}={shipped}' + (f':{argument}' if argument else '')


def load_cells(args: Args) -> tuple[Any, list[sweep.Cell]]:
  """Returns the config and the cells of its sweep.

  Raises:
    UserError: if the config file has no get_sweep().
  """
  module = runpy.run_path(str(args.config_file))
  if 'get_sweep' not in module:
    raise UserError(
      f'{args.config_file} has no get_sweep(); add one that returns the overrides of '
      'each cell, or train this one cell with `scaling train`'
    )
  config, listed = args.config, module['get_sweep']()
  pinned = args.overrides
  if config.smoke:
    pinned = {k: v for k, v in pinned.items() if k == 'seed'}
    config, listed = sweep.shrink(config, args.data_dir)
  return config, sweep.make_cells(config, listed, pinned)


def run_study(args: Args) -> int:
  code = run_sweep(args)
  if code == INTERRUPTED:
    return code
  run_report(args)
  return code


def run_sweep(args: Args) -> int:
  config, cells = load_cells(args)
  workdir = pathlib.Path(args.workdir)
  ledger.check_writable(workdir)
  if (workdir / 'config.json').exists():
    raise UserError(f'{workdir} holds a single cell; use another --workdir')
  sweep.write_study(workdir, config, str(args.config_file), cells)
  folders = [sweep.cell_folder(workdir, cell.name) for cell in cells]
  retried = sum(ledger.retry(folder) for folder in folders)
  if retried:
    print(f'trying {retried} failed cells again', file=sys.stderr)
  seen = [status.read_progress(folder) for folder in folders]
  if all(cell.ended for cell in seen):
    print(f'nothing to do: all {len(cells)} cells of {workdir} are done')
    return OK
  left = [cell for cell, now in zip(cells, seen, strict=True) if not now.ended]
  num_workers = min(args.workers or local.default_workers(len(left)), len(left))

  with progress.display() as display:

    def watch() -> bool:
      seen[:] = map(status.read_progress, folders, seen)
      display.show(seen)
      return not all(cell.ended for cell in seen)

    finished = local.run(
      workdir,
      sweep.orders(left, num_workers),
      data_dir=args.data_dir,
      tensorboard=args.tensorboard,
      watch=watch,
    )
  seen = [status.read_progress(folder) for folder in folders]
  print(f'{workdir}: {status.counts(seen)}')
  for line in status.failures(seen):
    print(f'failed: {line}', file=sys.stderr)
  if any(cell.state == 'failed' for cell in seen):
    logs = workdir / 'cells' / 'CELL' / 'log.txt'
    print(
      f'the whole story is in {logs}; the same command tries again', file=sys.stderr
    )
  if not finished:
    print('stopped; the same command goes on from here', file=sys.stderr)
    return INTERRUPTED
  if not all(cell.ended for cell in seen):
    if shutil.disk_usage(workdir).free < 1 << 20:
      raise UserError(f'the disk of {workdir} is full; free some and run it again')
    raise UserError(f'the workers ended early; {workdir / "logs"} says why')
  return FAILED if any(cell.state == 'failed' for cell in seen) else OK


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
  train.write_config(config, workdir)
  if ledger.read_status(workdir).state == 'done':
    print(f'nothing to do: {workdir} is done')
    return OK
  ledger.retry(workdir)
  lease = ledger.claim(workdir)
  if lease is None:
    raise UserError(f'{workdir} is being trained by another process')
  stop = threading.Event()
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: stop.set())
  worker.log_to_stdout()
  worker.use_compilation_cache()
  state = worker.run_cell(
    lease, data_dir=args.data_dir, tensorboard=args.tensorboard, stop=stop
  )
  if state == 'failed':
    raise UserError(ledger.read_status(workdir).reason or 'failed')
  if state == 'stopped':
    print('stopped; the same command goes on from here', file=sys.stderr)
    return INTERRUPTED
  return OK


def run_status(args: Args) -> int:
  workdir = pathlib.Path(args.workdir)
  study = sweep.read_study(workdir)
  seen = [
    status.read_progress(sweep.cell_folder(workdir, cell['name']))
    for cell in study['cells']
  ]
  print(status.table(seen))
  print(f'{study["name"]}: {status.counts(seen)}')
  return OK


def run_plan(args: Args) -> int:
  from experiments import plan

  _, cells = load_cells(args)
  workdir = pathlib.Path(args.workdir) if args.workdir else None
  flops, source = plan.sustained_flops(args.device, args.num_devices, args.mfu, workdir)
  print(plan.table(plan.plan(cells, flops, args.num_full), args.workers or 1))
  print(f'assumed: {source}')
  return OK


def run_fit(args: Args) -> int:
  from analysis import report, results

  table = results.read_csv(
    args.rest[0],
    size=args.size,
    value=args.value,
    group=args.group or (),
    seed=args.seed,
    kind=args.kind,
    percent=args.percent,
  )
  written = report.write_fit_report(
    args.out,
    table,
    group=args.group or (),
    kind=args.kind,
    metric=args.value,
    num_test=args.num_test,
  )
  print(written.text)
  print(f'\nwritten: {", ".join(str(path) for path in written.paths)}')
  return OK


def _config(values: flags.FlagValues, argv: list[str]) -> None:
  config_flags.DEFINE_config_file(
    'config',
    None,
    'a study: a file with get_config() and get_sweep(), or the name of a shipped one; '
    'any field is set by --config.FIELD=VALUE',
    flag_values=values,
    sys_argv=argv,
  )


def _string(name: str, default: str | None, text: str) -> Callable:
  return lambda v, _: flags.DEFINE_string(name, default, text, flag_values=v)


def _integer(name: str, default: int | None, text: str, lower: int = 1) -> Callable:
  return lambda v, _: flags.DEFINE_integer(
    name, default, text, lower_bound=lower, flag_values=v
  )


DEFINE: dict[str, Callable[[flags.FlagValues, list[str]], Any]] = {
  'config': _config,
  'workdir': _string('workdir', None, 'folder of the study, made if missing'),
  'data_dir': _string('data_dir', None, 'where the image set lies'),
  'workers': _integer('workers', None, 'processes; default one a core, one on a TPU'),
  'tensorboard': lambda v, _: flags.DEFINE_bool(
    'tensorboard', False, 'also write TensorBoard events', flag_values=v
  ),
  'device': _string('device', 'cpu', 'kind of device to plan for: cpu, TPU v5e, H100'),
  'num_devices': _integer('num_devices', os.cpu_count(), 'devices, or cores of a CPU'),
  'num_full': _integer('num_full', None, 'images in the whole set'),
  'mfu': lambda v, _: flags.DEFINE_float(
    'mfu', 0.4, 'share of the peak that is reached', 0.0, 1.0, flag_values=v
  ),
  'size': _string('size', 'num_images', 'column with the number of images'),
  'value': _string('value', 'value', 'column with the score'),
  'group': lambda v, _: flags.DEFINE_multi_string(
    'group', None, 'column that tells curves apart; may be repeated', flag_values=v
  ),
  'seed': _string('seed', None, 'column that tells repeated runs apart'),
  'num_test': _integer('num_test', None, 'images the scores were measured on'),
  'kind': lambda v, _: flags.DEFINE_enum(
    'kind', 'accuracy', ['accuracy', 'error', 'loss'], 'of the scores', flag_values=v
  ),
  'percent': lambda v, _: flags.DEFINE_bool(
    'percent', False, 'the scores are percentages', flag_values=v
  ),
  'out': _string('out', 'fit', 'folder for the tables and figures'),
}

_RUN = ('config', 'workdir', 'data_dir', 'workers', 'tensorboard')
VERBS = {
  'study': Verb(
    'runs a sweep, then reports',
    'Trains every cell of the config, on as many workers as there are cores, then '
    'fits the curves and writes the report. Run again after an interruption and it '
    'goes on where it was; run again when all is done and it only reports.',
    'scaling study --config=configs/digits.py --workdir=runs/digits',
    _RUN,
    run_study,
    ('config', 'workdir'),
  ),
  'sweep': Verb(
    'trains every cell of a study',
    'A field of the sweep that is set on the command line is held at that value: '
    '--config.model.depth=14 trains that depth alone.',
    'scaling sweep --config=configs/digits.py --workdir=runs/digits --workers=2',
    _RUN,
    run_sweep,
    ('config', 'workdir'),
  ),
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
    ('config', 'workdir', 'data_dir', 'tensorboard'),
    run_train,
    ('config', 'workdir'),
  ),
  'status': Verb(
    'shows how far each cell of a study is',
    'Reads the files of the study; whoever runs it, from wherever.',
    'scaling status --workdir=runs/digits',
    ('workdir',),
    run_status,
    ('workdir',),
  ),
  'plan': Verb(
    'lists the cells with steps, FLOPs and hours, without running them',
    'Hours are FLOPs over a sustained speed: of the named device, or measured on the '
    'finished cells in --workdir.',
    'scaling plan --config=configs/jft.py --device="TPU v5e" --num_devices=256',
    (
      'config',
      'workdir',
      'data_dir',
      'workers',
      'device',
      'num_devices',
      'mfu',
      'num_full',
    ),
    run_plan,
    ('config',),
  ),
  'fit': Verb(
    'fits scaling curves to any CSV',
    'One row a run. Writes fits.csv, predictions.csv and the curves into --out.',
    'scaling fit results.csv --size=num_images --value=top1 --group=depth --seed=seed',
    ('size', 'value', 'group', 'seed', 'num_test', 'kind', 'percent', 'out'),
    run_fit,
    words=('one CSV file',),
  ),
}


def help_text() -> str:
  """Returns what `scaling --help` prints."""
  lines = [f'  {name:<8} {verb.summary}' for name, verb in VERBS.items()]
  return (
    'usage: scaling VERB [--FLAG=VALUE ...]\n\n'
    'What would more images, and more depth, buy on your data?\n\n'
    + '\n'.join(lines)
    + f'\n\nexample: {VERBS["study"].example}\n`scaling VERB --help` says more.'
  )


def verb_help(name: str) -> str:
  """Returns what `scaling VERB --help` prints."""
  verb = VERBS[name]
  values = flags.FlagValues()
  for flag in verb.flags:
    DEFINE[flag](values, ['scaling'])
  lines = []
  for flag in verb.flags:
    default = values[flag].default
    text = values[flag].help + (f' (default: {default})' if default else '')
    lines.append(
      textwrap.fill(
        text, 88, initial_indent=f'  --{flag:<13}', subsequent_indent=' ' * 17
      )
    )
  return (
    f'scaling {name}: {verb.summary}\n\n{textwrap.fill(verb.details, 88)}\n\n'
    + '\n'.join(lines)
    + f'\n\nexample: {verb.example}'
  )


if __name__ == '__main__':
  sys.exit(main())
