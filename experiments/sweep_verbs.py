"""What the verbs about whole sweeps do: start, follow, stop, try again."""

import dataclasses
import importlib
import json
import pathlib
import re
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from experiments import ledger, orders, progress, status, sweep, verbs
from experiments.launch import jobs, local
from experiments.launch.jobs import Launch
from experiments.verbs import FAILED, INTERRUPTED, LAYOUT, MIRRORS, OK, Args, Verb
from scaling import config as config_lib
from scaling.data import sources
from scaling.errors import UserError

# Engines that are handed jobs and left alone; the other two are stayed with.
SUBMITTED = ('slurm', 'xpk', 'skypilot')
ENGINES = ('local', 'ray', *SUBMITTED)
_HINT_SECONDS = 30.0  # between questions to an engine, which has other users


def run_study(args: Args) -> int:
  if args.on in SUBMITTED:
    raise UserError(
      f'--on={args.on} does not wait for its jobs; use `scaling sweep`, then '
      '`scaling report`'
    )
  code = run_sweep(args)
  if code == INTERRUPTED or args.dry_run:
    return code
  verbs.run_report(args)
  return code


def run_sweep(args: Args) -> int:
  return sweep_cells(args, *verbs.load_cells(args))


def run_resume(args: Args) -> int:
  workdir = pathlib.Path(args.workdir)
  study, cells = sweep.read_study(workdir), sweep.read_cells(workdir)
  told = dataclasses.asdict(orders.last(workdir))
  values = told | args.values | {'data_dir': args.data_dir or told['data_dir']}
  file = pathlib.Path(study['config_file'])
  again = dataclasses.replace(args, values=values, config_file=file)
  return sweep_cells(again, ConfigDict(study['config']), cells)


def sweep_cells(args: Args, config: ConfigDict, cells: list[sweep.Cell]) -> int:
  """Trains cells as the command line says, and returns the exit status."""
  workdir = pathlib.Path(args.workdir).absolute()
  if (workdir / 'config.json').exists():
    raise UserError(f'{workdir} holds a single cell; use another --workdir')
  if args.pack > 1 and (args.processes > 1 or args.model_devices > 1 or args.fsdp):
    raise UserError(
      f'--pack={args.pack} has several cells on each device, --processes, '
      '--model_devices and --fsdp each cell on several; leave out one or the other'
    )
  told = orders.Orders(
    orders.group(cells),
    data_dir=sources.absolute(args.data_dir),
    tensorboard=args.tensorboard,
    mirror=verbs.mirror_file(args),
    model_devices=args.model_devices,
    fsdp=args.fsdp,
    pack=args.pack,
    stall_seconds=args.stall_seconds,
    after={c.name: c.config.init.cell for c in cells if c.config.init.cell},
  )
  options = _options(args)
  if args.dry_run:
    return _show(args, told, config.name, options)
  if args.on in SUBMITTED:
    _refuse_second(args.on, workdir)  # before its cells are waiting again
  _check_starts(workdir, told, {cell.name for cell in cells})
  ledger.check_writable(workdir)
  sweep.write_study(workdir, config, str(args.config_file), cells)
  names = {cell.name for cell in cells}
  expected = [
    cell
    for cell in status.expect(workdir, sweep.read_study(workdir))
    if cell.folder.name in names
  ]
  for cell in expected:
    ledger.reopen(cell.folder, ('cancelled',))
  seen = [status.read_progress(cell) for cell in expected]
  left = [cell for cell in seen if not cell.ended]
  if not left:
    if any(cell.state == 'failed' for cell in seen):
      _tell(workdir, seen)
      return FAILED
    print(f'nothing to do: all {len(cells)} cells of {args.workdir} are done')
    return OK
  orders.write(workdir, told)
  launch = _launch(args, told, config.name, len(left), options)
  if args.on in SUBMITTED:
    return _submit(args.on, launch)

  with progress.display() as display:

    def watch() -> bool:
      seen[:] = map(status.read_progress, expected, seen)
      display.show(seen)
      return not all(cell.ended for cell in seen)

    if args.on == 'local':
      num_slots = args.workers or local.default_workers(len(cells), args.processes)
      finished = local.run(launch, num_slots, watch)
    else:
      finished = _engine(args.on).run(launch, watch)
  seen = [status.read_progress(cell) for cell in expected]
  print(f'{args.workdir}: {status.summary(seen)}')
  _tell(workdir, seen)
  if not finished:
    print('stopped; the same command goes on from here', file=sys.stderr)
    return INTERRUPTED
  if not all(cell.ended for cell in seen):
    if shutil.disk_usage(workdir).free < 1 << 20:
      raise UserError(f'the disk of {workdir} is full; free some and run it again')
    for cell in seen:
      if cell.state == 'preempted' and cell.status.reason:
        raise UserError(f'the workers ended early: {cell.name}: {cell.status.reason}')
    raise UserError(f'the workers ended early{_last_line(workdir / "logs")}')
  return FAILED if any(cell.state == 'failed' for cell in seen) else OK


def _last_line(logs: pathlib.Path) -> str:
  """Returns where the last word of the workers stands, and what it is."""
  newest = max(
    logs.glob('worker*.log'), key=lambda path: path.stat().st_mtime, default=None
  )
  if newest is None:
    return f'; {logs} has no word of them'
  lines = newest.read_text(encoding='utf-8', errors='replace').split('\n')
  said = [line for line in lines if line.strip()]
  return f'; {newest} ends with: {said[-1][:300]}' if said else f'; {newest} is empty'


def _check_starts(workdir: pathlib.Path, told: orders.Orders, own: set[str]) -> None:
  """Refuses cells that start from one which nobody has trained or is going to."""
  for name in dict.fromkeys(told.after.values()):
    state = ledger.read_status(sweep.cell_folder(workdir, name)).state
    if name not in own and state in ledger.WAITING:
      raise UserError(
        f'init.cell={name} is neither trained nor a cell of this sweep; train it first, '
        'in the same study.' + config_lib.suggest(name, own)
      )


def _tell(workdir: pathlib.Path, seen: Sequence[status.Progress]) -> None:
  """Says why cells failed, and the ways out."""
  for line in status.failures(seen):
    print(f'failed: {line}', file=sys.stderr)
  if any(cell.state == 'failed' for cell in seen):
    print(
      f'`scaling logs CELL --workdir={workdir}` tells the whole story; `scaling retry '
      f'--workdir={workdir}` gives failed cells another try by the same command',
      file=sys.stderr,
    )


def _launch(
  args: Args, told: orders.Orders, study: str, num_left: int, options: dict[str, str]
) -> Launch:
  workers = _num_workers(args, num_left)
  workdir = pathlib.Path(args.workdir).absolute()
  name = orders.name_of(told)
  return Launch(workdir, study, name, workers, args.processes, options)


def _num_workers(args: Args, num_left: int) -> int:
  if args.on == 'local':
    most = args.workers or local.default_workers(num_left, args.processes)
  else:
    most = args.workers or 1
  return min(most, num_left)


def _options(args: Args) -> dict[str, str]:
  """Returns the engine's options: those of the config file, then the command line's."""
  found = _options_of_file(args)
  for text in args.option or ():
    key, equals, value = text.partition('=')
    if not key or not equals:
      raise UserError(
        f'--option={text} is not KEY=VALUE, such as --option=time=4:00:00'
      )
    found[key] = value
  if found and args.on == 'local':
    raise UserError(
      f'--option is for engines other than local, which has no {next(iter(found))}'
    )
  return found


def _options_of_file(args: Args) -> dict[str, str]:
  if args.config_file is None or not args.config_file.exists():
    if args.on != 'local':
      print(
        f'{args.config_file} is not there: what its get_launch() may say of {args.on} is '
        'not known; give it as --option',
        file=sys.stderr,
      )
    return {}
  told = verbs.load_module(args).get('get_launch', dict)()
  try:
    return {key: str(value) for key, value in told.get(args.on, {}).items()}
  except AttributeError:
    raise UserError(
      f"{args.config_file}: get_launch() must return {{'slurm': {{'time': '4:00:00'}}}} and "
      f'the like, not {told!r}'
    ) from None


def _engine(name: str) -> Any:
  return importlib.import_module(f'experiments.launch.{name}')


def _show(args: Args, told: orders.Orders, study: str, options: dict[str, str]) -> int:
  """Prints what would be started."""
  num_cells = sum(map(len, told.groups))
  launch = _launch(args, told, study, num_cells, options)
  if args.on == 'local':
    shown = ' '.join(launch.command('--slot=K'))
  else:
    shown = _engine(args.on).render(launch)
  print(
    f'cells: {num_cells}, programs: {len(told.groups)}, workers: {launch.num_workers}'
  )
  print(shown)
  return OK


def _refuse_second(engine: str, workdir: pathlib.Path) -> None:
  alive = [job.job for job in jobs.read(workdir, engine) if _alive(engine, job)]
  if alive:
    raise UserError(
      f'{engine} still has {", ".join(alive)} of this study; `scaling status '
      f'--workdir={workdir}` shows them, `scaling cancel` ends them'
    )


def _submit(engine: str, launch: Launch) -> int:
  for job, workers in _engine(engine).submit(launch):
    jobs.record(launch, engine, job, workers)
    print(f'{engine}: submitted {job}, {workers} workers')
  print(f'`scaling status --watch --workdir={launch.workdir}` shows how far it is')
  return OK


def _alive(engine: str, job: jobs.Job) -> bool:
  return bool(_engine(engine).states(job.job))


def run_status(args: Args) -> int:
  workdir = pathlib.Path(args.workdir)
  study = sweep.read_study(workdir)
  expected = status.expect(workdir, study)
  seen = [status.read_progress(cell) for cell in expected]
  if args.json:
    told = status.as_json(seen, args.price_per_hour)
    told |= {'name': study['name'], 'jobs': _hints(workdir)}
    print(json.dumps(told, indent=2))
    return OK

  hints = progress.now_and_then(lambda: _hints(workdir), _HINT_SECONDS)

  def look() -> tuple[str, bool]:
    seen[:] = map(status.read_progress, expected, seen)
    lines = [status.table(seen)]
    lines += [f'failed: {line}' for line in status.failures(seen)]
    lines += [f'{job}: {state}' for job, state in hints().items()]
    lines.append(f'{study["name"]}: {status.summary(seen, args.price_per_hour)}')
    more = args.watch and not all(cell.ended for cell in seen)
    return '\n'.join(lines), more

  progress.watch(look)
  return OK


def _hints(workdir: pathlib.Path) -> dict[str, str]:
  """Returns what engines say of the jobs that they still know."""
  found = {}
  for engine in SUBMITTED:
    for job in jobs.read(workdir, engine):
      if states := _engine(engine).states(job.job):
        found[f'{engine} {job.job}'] = states
  return found


def _named(args: Args) -> list[pathlib.Path]:
  """Returns the folders of --cell, or of all cells."""
  workdir = pathlib.Path(args.workdir)
  if args.cell:
    return [sweep.find_cell(workdir, text) for text in args.cell]
  cells = sweep.read_study(workdir)['cells']
  return [sweep.cell_folder(workdir, cell['name']) for cell in cells]


def run_retry(args: Args) -> int:
  found = sum(ledger.reopen(cell, ('failed',)) for cell in _named(args))
  if not found:
    print('no cell has failed; nothing is changed')
    return OK
  print(f'{found} failed cells may be tried again; the same sweep command does it')
  return OK


def run_cancel(args: Args) -> int:
  workdir = pathlib.Path(args.workdir)
  found = sum(ledger.cancel(cell) for cell in _named(args))
  print(f'{found} cells cancelled; those that run are saved and left within seconds')
  if not args.cell:
    for engine in SUBMITTED:
      for job in jobs.read(workdir, engine):
        if _alive(engine, job):
          _engine(engine).cancel(job.job)
          print(f'{engine}: cancelled {job.job}')
  print('the same sweep command takes them up again')
  return OK


def run_logs(args: Args) -> int:
  folder = sweep.find_cell(pathlib.Path(args.workdir), args.rest[0])
  paths = sorted(folder.glob('log*.txt'))
  if not paths:
    raise UserError(
      f'{folder.name} has no log yet: it is {ledger.read_status(folder).state}'
    )
  for path in paths:
    print(path.read_text(encoding='utf-8', errors='replace'), end='')
  return OK


def run_worker(args: Args) -> int:
  from experiments import worker

  try:
    cores = [int(core) for core in args.cores.split(',')] if args.cores else []
  except ValueError:
    raise UserError(f'--cores={args.cores} is no list of numbers such as 0,1') from None
  if args.coordinator and not re.fullmatch(r'auto|.+:\d+', args.coordinator):
    raise UserError(f'--coordinator={args.coordinator} is neither HOST:PORT nor auto')
  return worker.main(
    pathlib.Path(args.workdir),
    args.orders,
    slot=args.slot,
    cores=cores,
    attached=args.attached,
    coordinator=args.coordinator,
    num_processes=args.num_processes,
    process=args.process,
  )


_LAUNCH = (
  'on',
  'workers',
  'processes',
  'pack',
  'option',
  'dry_run',
  'stall_seconds',
)
_RUN = ('config', 'workdir', 'data_dir', *_LAUNCH, *MIRRORS, *LAYOUT)
VERBS: dict[str, Verb] = {
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
    '--config.model.depth=14 trains that depth alone. The same command goes on after an '
    'interruption, on the same engine or another: what is done is never done again.',
    'scaling sweep --config=configs/digits.py --workdir=runs/digits --workers=2',
    _RUN,
    run_sweep,
    ('config', 'workdir'),
  ),
  'resume': Verb(
    'trains what is left of a study',
    'All cells that its sweeps have listed, as the last of them was told to. --data_dir '
    'where the images lie elsewhere now; --on, --workers, --processes and --option are '
    'given anew, for it may be another engine.',
    'scaling resume --workdir=runs/digits --on=slurm --workers=8',
    ('workdir', 'data_dir', 'on', 'workers', 'processes', 'option', 'dry_run'),
    run_resume,
    ('workdir',),
  ),
  'status': Verb(
    'shows how far each cell of a study is',
    'Reads the files of the study; whoever runs it, from wherever.',
    'scaling status --workdir=runs/digits --watch',
    ('workdir', 'watch', 'json', 'price_per_hour'),
    run_status,
    ('workdir',),
  ),
  'logs': Verb(
    'prints the log of a cell',
    'CELL is the name of a cell, or as much of it as no other has.',
    'scaling logs resnet8-n100-seed0 --workdir=runs/digits',
    ('workdir',),
    run_logs,
    ('workdir',),
    words=('CELL',),
  ),
  'retry': Verb(
    'gives failed cells another try',
    'All of them, or those of --cell. The next sweep command trains them.',
    'scaling retry --workdir=runs/digits',
    ('workdir', 'cell'),
    run_retry,
    ('workdir',),
  ),
  'cancel': Verb(
    'stops a sweep, wherever it runs',
    'Cells that run are saved and left, jobs of engines are cancelled. Without --cell all '
    'that has not ended.',
    'scaling cancel --workdir=runs/digits',
    ('workdir', 'cell'),
    run_cancel,
    ('workdir',),
  ),
  'worker': Verb(
    'claims cells until none is left; what sweeps start',
    'Needs the orders that `scaling sweep` wrote. Exit status: 0 nothing left to do, 70 '
    'ended over a cell, 74 the folder cannot be written, 75 stopped by SIGTERM, its cell '
    'saved; after 70 and 75 it is to be started again.',
    'scaling worker --workdir=runs/digits --orders=0123456789',
    (
      'workdir',
      'orders',
      'slot',
      'cores',
      'attached',
      'coordinator',
      'num_processes',
      'process',
    ),
    run_worker,
    ('workdir', 'orders'),
  ),
}
