"""`scaling reproduce`: runs a study of the paper and judges its claims."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from experiments import paper, sweep, sweep_verbs
from experiments.paper.scales import SCALES, Scale
from experiments.verbs import INTERRUPTED, OK, Args, Verb
from scaling.config import suggest
from scaling.errors import UserError


def _study(args: Args) -> tuple[str, Any]:
  name = args.rest[0]
  if name not in paper.NAMES:
    raise UserError(
      f'{name!r} is no study; use {", ".join(paper.NAMES)}.'
      + suggest(name, paper.NAMES)
    )
  return name, paper.load(name)


def _scale(args: Args, study: Any) -> Scale:
  scale = SCALES[args.scale]
  sizes, depths = args.sizes, args.depths
  if sizes:
    scale = dataclasses.replace(scale, sizes=_whole('sizes', sizes))
  if depths:
    scale = dataclasses.replace(scale, depths=_whole('depths', depths))
  if args.seeds:
    scale = dataclasses.replace(scale, seeds=args.seeds)
  if args.epochs:
    scale = dataclasses.replace(scale, epochs=args.epochs)
  if len(scale.sizes) < 2:
    raise UserError(f'a study needs at least two --sizes, and {",".join(sizes)} is one')
  if depths and not study.num_depths:
    raise UserError(
      f'{args.rest[0]} does not vary the depth; use --config.model.depth={depths[-1]}'
    )
  if len(scale.depths) < study.num_depths:
    raise UserError(
      f'{args.rest[0]} compares at least {study.num_depths} --depths, and '
      f'{",".join(depths)} is one'
    )
  return scale


def _whole(flag: str, words: list[str]) -> tuple[int, ...]:
  try:
    found = tuple(sorted({int(word.replace('_', '')) for word in words}))
  except ValueError:
    found = ()
  if not found or found[0] < 1:
    raise UserError(f'--{flag}={",".join(words)} must be whole numbers above 0')
  return found


def cells_of(study: Any, config: Any, scale: Scale, pinned: Any) -> list[sweep.Cell]:
  """Returns the cells of a study; fields on the command line win over its own."""
  fields = dict(study.fields(config, scale))
  if scale.depth:
    fields['model.depth'] = scale.depth
  if scale.width:
    fields['model.width'] = scale.width
  config.update_from_flattened_dict(
    {name: value for name, value in fields.items() if name not in pinned}
  )
  return sweep.make_cells(config, study.sweep(config, scale), pinned)


def run_reproduce(args: Args) -> int:
  name, study = _study(args)
  scale = _scale(args, study)
  config = args.config
  config.name = f'{name}_{config.name}'
  cells = cells_of(study, config, scale, args.overrides)
  if args.results:
    return _report(args, name, study, config, scale, cells)
  if not args.workdir:
    raise UserError(
      f'--workdir is missing; for example: scaling reproduce {name} '
      f'--workdir=runs/{name}; or --results=FILE.csv judges stored results again'
    )
  if args.dry_run:
    print(_plan(config, scale, cells))
  code = sweep_verbs.sweep_cells(args, config, cells)
  if code == INTERRUPTED or args.dry_run:
    return code
  if args.on in sweep_verbs.SUBMITTED:
    print('when its jobs have ended, the same command writes the report')
    return code
  return _report(args, name, study, config, scale, cells) or code


def _plan(config: Any, scale: Scale, cells: list[sweep.Cell]) -> str:
  """Returns what the study would take on a machine of its scale."""
  from experiments import plan, plan_device

  if scale.device == 'cpu':
    rate, source = plan.sustained_flops('cpu', os.cpu_count() or 1, 0.0, None)
    return f'{plan.table(plan.plan(cells, rate, None))}\nassumed: {source}'
  device = plan_device.Device(scale.device, scale.num_devices)
  planned = plan_device.plan(cells, device, None)
  return plan_device.table(planned, device, config.train.batch_size)


def _report(
  args: Args,
  name: str,
  study: Any,
  config: Any,
  scale: Scale,
  cells: Sequence[sweep.Cell],
) -> int:
  from analysis import paper_report, results

  missing, about, title, known = [], {}, study.title, True
  if args.results:
    table = paper_report.read_results(args.results)
    missing = _lacking(args.results, table, cells)
    # They do not say of which set they are.
    known = 'config' in _told(args) or set(table['cell']) <= {c.name for c in cells}
    folder = pathlib.Path(args.out or pathlib.Path(args.results).parent)
    how = f'scaling reproduce {name} --results={pathlib.Path(args.results).name}'
  else:
    found = results.read_study(args.workdir)
    # The folder may hold cells of an earlier call with other flags.
    own = {cell.name for cell in cells}
    table = found.table[found.table['cell'].isin(own)].reset_index(drop=True)
    folder = pathlib.Path(args.out or found.workdir / 'report')
    missing = [
      f'{row["name"]}: {row["state"]} {row["reason"]}'.strip()
      for row in found.missing.to_dict('records')
      if row['name'] in own
    ]
    how = f'scaling reproduce {name} --workdir=WORKDIR'
    about = _about(found)
  if known:
    title = f'{title}: {config.name.removeprefix(f"{name}_")}'
  how += ''.join(f' --{flag}={value}' for flag, value in _told(args).items())
  if not len(table):
    raise UserError(
      f'no cell of the study has a result yet, so nothing is judged: {len(missing)} '
      'are missing'
    )
  if study.measure and not args.results:
    more = study.measure(
      table, config, scale, pathlib.Path(args.workdir), folder, args.data_dir
    )
    table = results.with_rows(table, more)
  findings = study.judge(table, config, scale)
  written = paper_report.write_paper_report(
    folder,
    table,
    title=title,
    question=study.question,
    published=study.published,
    verdicts=findings.verdicts,
    figures=findings.figures,
    tables=findings.tables,
    schedule=config.optim.schedule,
    cooldown=config.optim.cooldown_fraction,
    missing=missing,
    how=how,
    about=about,
  )
  print(written.text)
  print(f'\nwritten: {written.folder / "report.html"}, report.md, results.csv, figures')
  return OK


def _lacking(path: str, table: Any, cells: Sequence[sweep.Cell]) -> list[str]:
  """Returns the settings that stored results lack.

  Raises:
    UserError: for results of other settings or sizes, which would be misjudged.
  """

  def settings(name: str) -> str:
    return name.rpartition('-')[0]  # what follows changes with any field of the config

  there = {settings(name) for name in table['cell']}
  here = {settings(cell.name) for cell in cells}
  sizes = sorted(set(table['num_images']))
  if there - here or set(sizes) != {cell.config.data.num_images for cell in cells}:
    raise UserError(
      f'the results in {path} are of other settings than these; give the flags that they '
      f'were made with, such as --sizes={",".join(map(str, sizes))}'
    )
  return sorted(here - there)


def _told(args: Args) -> dict[str, Any]:
  """Returns what the command line said beside where to work."""
  told = {'scale': args.scale}
  for flag in ('sizes', 'depths'):
    if args.values[flag]:
      told[flag] = ','.join(args.values[flag])
  for flag in ('seeds', 'epochs'):
    if args.values[flag]:
      told[flag] = args.values[flag]
  if args.config_file and args.config_file.stem != SCALES[args.scale].config:
    told['config'] = args.config_file.stem
  return told | {f'config.{name}': value for name, value in args.overrides.items()}


def _about(found: Any) -> dict[str, str]:
  manifest = next(iter(found.manifests.values()), {})
  versions = manifest.get('versions', {})
  about = {'git commit': str(manifest.get('git_commit'))}
  about['device'] = f'{manifest.get("num_devices")} x {manifest.get("device_kind")}'
  return about | {name: str(version) for name, version in versions.items()}


def config_of(words: list[str]) -> str:
  """Returns the shipped config that the study and scale among the words start from."""
  scale = 'laptop'
  for word in words:
    flag, _, value = word.lstrip('-').partition('=')
    if flag == 'scale' and value in SCALES:
      scale = value
  name = next((word for word in words if word in paper.NAMES), None)
  own = paper.load(name).configs if name else {}
  return own.get(scale, SCALES[scale].config)


VERBS = {
  'reproduce': Verb(
    'runs a study of the 2017 paper and judges its claims',
    f'NAME is one of {", ".join(paper.NAMES)}. Trains the cells that are missing, then '
    'writes a page with the published claims beside what was measured, a verdict each '
    '(holds, does not hold, cannot say), cost and threats. Another set or network is '
    'given by --config and --config.FIELD, other sizes by --sizes. With '
    '--results=FILE.csv stored results are judged again.',
    'scaling reproduce data_size --workdir=runs/data_size',
    (
      'config',
      'scale',
      'sizes',
      'depths',
      'seeds',
      'epochs',
      'results',
      'out',
      *(f for f in sweep_verbs.VERBS['sweep'].flags if f != 'config'),
    ),
    run_reproduce,
    words=('NAME',),
    config=config_of,
  ),
}
