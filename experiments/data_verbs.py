"""What `scaling data prepare` and `scaling data inspect` do."""

import functools
import pathlib
import sys
from typing import Any

from ml_collections import ConfigDict

import configs
from experiments import progress
from experiments.verbs import INTERRUPTED, OK, Args, Verb
from scaling.errors import UserError

_RECORDS = ('array_record', 'tfds')  # where a label costs the image that comes along
BY_NUMBER = ('array_record', 'tar')  # where only classes.txt tells how many there are
CONFIG = 'base'  # where none is named
_BASE = pathlib.Path(configs.__file__).parent / f'{CONFIG}.py'
_PARTS = {'idx': ('train', 't10k')}  # where they have other names than train and test


def named(args: Args, word: str) -> ConfigDict:
  """Returns the `data` part of the config with what SOURCE[:NAME] and the flags say."""
  source, _, name = word.partition(':')
  data = args.config.data.copy_and_resolve_references()
  data.source, data.name = source, name or source
  usual = _PARTS.get(source, ('train', 'test'))
  for field, part in zip(('train_split', 'test_split'), usual, strict=True):
    if args.values.get(field):
      data[field] = args.values[field]
    elif args.config_file == _BASE and f'data.{field}' not in args.overrides:
      data[field] = part
  return data


def _with_classes(args: Args) -> ConfigDict:
  """Returns the `data` part of the config, where it is known how many classes there are."""
  data = named(args, args.rest[0])
  told = args.config_file != _BASE or 'data.num_classes' in args.overrides
  classes = pathlib.Path(args.data_dir or '.').expanduser() / 'classes.txt'
  if data.source in BY_NUMBER and not (told or classes.is_file()):
    raise UserError(
      f'{data.source} files have class numbers, which do not tell how many classes there '
      'are; pass --config.data.num_classes=N, or name them in classes.txt'
    )
  return data


def _load(data: ConfigDict, data_dir: str | None) -> dict[str, Any]:
  from scaling.data import sources

  loaded = sources.load_as_found(data, data_dir)
  return dict(zip(('train', 'test'), loaded, strict=True))


def run_prepare(args: Args) -> int:
  from experiments import prepare_shards
  from scaling import cores
  from scaling.data.prepare import plans, prepared

  data = _with_classes(args)
  options = plans.Options(
    short_side=args.short_side,
    quality=args.quality,
    shard_mb=args.shard_mb,
    seed=args.seed,
    channels=args.channels,
  )
  options.check()
  prepared.check_name(args.name)
  folder = pathlib.Path(args.out).expanduser() / args.name / prepared.VERSION
  skip = args.corrupt == 'skip'
  with prepared.opened(folder):
    splits = _load(data, args.data_dir)
    plan = prepared.open_plan(
      folder,
      prepared.asked(data.source, splits, options),
      functools.partial(plans.make_plan, args.name, splits, options, skip=skip),
    )
    prepared.remove_leftovers(folder, plan)
    shards = prepared.whole(folder, plan)
    prepared.check_skipped(shards, skip)
    missing = [shard for shard in plan.shards() if shard not in shards]
    before = sum(len(plan.ids(*shard)) for shard in shards)
    total = sum(plan.num_images.values())
    if shards:
      print(f'{len(shards)} of {len(plan.shards())} shards are there', file=sys.stderr)
    job = prepare_shards.Job(data.to_dict(), args.data_dir, plan, folder, skip)
    try:
      with progress.working('preparing', 'images') as count:
        prepare_shards.write(
          job,
          splits,
          missing,
          workers=args.workers or cores.num_cores(),
          tell=lambda done: count(before + done, total),
        )
    except KeyboardInterrupt:
      print('stopped; the same command goes on from here', file=sys.stderr)
      return INTERRUPTED
    shards = prepared.whole(folder, plan)
    prepared.finish(folder, plan, shards, splits['train'].label_names)
  _report(folder, plan, shards, splits['train'].num_classes)
  return OK


def _report(
  folder: pathlib.Path,
  plan: Any,
  shards: dict[tuple[str, int], Any],
  num_classes: int,
) -> None:
  size = sum(written.size for written in shards.values())
  counts = ', '.join(
    f'{sum(w.num_images for (of, _), w in shards.items() if of == part):,} {part}'
    for part in plan.num_shards
  )
  print(f'{folder}: {counts} images, {len(shards)} shards, {size / 1e6:,.1f} MB')
  if skipped := sum(len(written.skipped) for written in shards.values()):
    print(f'left out: {skipped:,} corrupt images, listed in {folder / "skipped.csv"}')
  key = " data.label_key='labels'" if plan.several else ''
  print(
    f"in a config: data.source='tfds' data.name='{plan.name}'{key} "
    f'data.num_classes={num_classes} data.channels={plan.channels}; on the command line: '
    f'--data_dir={folder.parent.parent}'
  )


def run_inspect(args: Args) -> int:
  from analysis import document
  from experiments import inspect_set

  data = _with_classes(args)
  out = pathlib.Path(args.out).expanduser() if args.out else None
  if out is not None:
    # Before anything is read, for that may take long.
    out.mkdir(parents=True, exist_ok=True)
  parts = {}
  for name, split in _load(data, args.data_dir).items():
    with (
      progress.working(f'labels of {name}', 'images') as labels,
      progress.working(f'images of {name}', 'images') as images,
    ):
      parts[name] = inspect_set.look(
        split,
        whole=args.all,
        costly=data.source in _RECORDS and split.images is None,
        tell={'labels': labels, 'images': images},
      )
  title = data.source if data.name == data.source else f'{data.source} {data.name}'
  print(document.to_text(title, inspect_set.blocks(parts)), end='')
  if out is not None:
    paths = inspect_set.write(out, title, parts)
    print(f'\nwritten: {out}/ {", ".join(path.name for path in paths)}')
  return OK


_SET = ('config', 'data_dir', 'train_split', 'test_split')
VERBS = {
  'data inspect': Verb(
    'says what is in an image set: labels, sizes, corrupt files',
    'SOURCE is one of digits, idx, tfds, array_record, tar, folder, csv, made_up and '
    'procedural, NAME that of the set where it has one. Large sets are sampled, and each number says of how '
    'many images it is. With --out it also writes inspect.md, labels.csv, labels.png '
    '(classes by frequency) and samples.png. Any field of the set is given by '
    '--config.data.FIELD=VALUE, such as --config.data.label_key=labels.',
    'scaling data inspect folder --data_dir=photos --out=photos_report',
    (*_SET, 'all', 'out'),
    run_inspect,
    words=('SOURCE[:NAME]',),
    config=CONFIG,
  ),
  'data prepare': Verb(
    'turns any image set into ArrayRecord shards for source tfds',
    'Writes OUT/NAME/1.0.0, which `tfds.builder(NAME, data_dir=OUT)` and the source tfds '
    'read, without TensorFlow. Image files keep their bytes unless --short_side makes '
    'them smaller; each is decoded once, so that no corrupt one is left. The records '
    'are in a random order. Killed or stopped, the same command goes on with the shards '
    'that are missing, and the files come out the same byte by byte.',
    'scaling data prepare folder --data_dir=photos --out=prepared --name=photos',
    (
      *_SET,
      'out',
      'name',
      'short_side',
      'quality',
      'channels',
      'corrupt',
      'shard_mb',
      'seed',
      'workers',
    ),
    run_prepare,
    ('out', 'name'),
    ('SOURCE[:NAME]',),
    CONFIG,
  ),
}
