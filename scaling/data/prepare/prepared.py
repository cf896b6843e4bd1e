"""The folder of a set that is being prepared: what was asked for, what is done, the end.

    NAME/1.0.0/.prepare/plan.json           what was asked for and the plan made of it
    NAME/1.0.0/.prepare/train-00000.json    a shard that is whole
    NAME/1.0.0/NAME-train.array_record-...  the shards
    NAME/1.0.0/skipped.csv                  images left out, where there are any
    NAME/1.0.0/SHA256SUMS                   of the shards, for `sha256sum -c`
    NAME/1.0.0/prepare.json                 plan.json, for the record
    NAME/1.0.0/features.json, ...           TFDS's own, and dataset_info.json last

A folder with dataset_info.json is finished; TFDS sees none without it.
"""

import contextlib
import csv
import dataclasses
import fcntl
import io
import json
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from scaling import config as config_lib
from scaling import files
from scaling.data import records
from scaling.data.prepare.plans import PARTS, Options, Plan
from scaling.data.prepare.shards import Skipped, Written
from scaling.data.split import Split, fingerprint
from scaling.errors import UserError

VERSION = '1.0.0'
_WORK = '.prepare'
_LAST = 'dataset_info.json'  # makes it a set


def work_folder(folder: pathlib.Path) -> pathlib.Path:
  """Returns where unfinished shards and the plan are kept."""
  return folder / _WORK


def check_name(name: str) -> None:
  """Raises a UserError for a name that TFDS could not find the set by."""
  import tensorflow_datasets as tfds

  if not re.fullmatch(r'[a-z][a-z0-9_]*', name):
    raise UserError(
      f'--name={name} must be lower-case letters, digits and _, a letter first'
    )
  try:
    tfds.builder_cls(name)
  except ValueError:  # unknown, as it should be
    return
  raise UserError(
    f'--name={name} is a set that TFDS has its own code for, which would be asked '
    f'instead of the files; use another, such as my_{name}'
  )


@contextlib.contextmanager
def opened(folder: pathlib.Path) -> Iterator[None]:
  """Makes the folder and keeps other processes out of it while the block runs.

  Raises:
    UserError: when the set is finished already, another process is at it, or the folder
      cannot be written.
  """
  if (folder / _LAST).exists():
    raise UserError(f'{folder} is prepared already; use another --name or --out')
  work = work_folder(folder)
  try:
    work.mkdir(parents=True, exist_ok=True)
    lock = (work / 'lock').open('w')
  except OSError as error:
    raise UserError(
      f'--out: {folder} cannot be written ({error.strerror or error}); choose another'
    ) from error
  with lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise UserError(
        f'{folder} is being prepared by another process; wait for it, or use another '
        '--name or --out'
      ) from None
    except OSError:
      pass  # a file system without locks: nothing keeps others out
    try:
      yield
    finally:
      _remove_if_empty(folder)


def _remove_if_empty(folder: pathlib.Path) -> None:
  """Removes what `opened` made, where it came to no plan."""
  work = work_folder(folder)
  if work.exists() and not (work / 'plan.json').exists():
    (work / 'lock').unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # somebody else's files are in it
      for path in (work, folder, folder.parent):
        path.rmdir()


def asked(
  source: str, splits: Mapping[str, Split], options: Options
) -> dict[str, dict[str, Any]]:
  """Returns what decides the bytes of the set: equal requests give equal files."""
  return {
    'flags': dataclasses.asdict(options),
    'input': {
      'source': source,
      'classes': fingerprint(*splits['train'].label_names),
      **{
        part: {'images': split.num_images, 'fingerprint': split.fingerprint}
        for part, split in splits.items()
      },
    },
  }


def open_plan(
  folder: pathlib.Path, request: Mapping[str, Any], make: Callable[[], Plan]
) -> Plan:
  """Returns the plan in the folder, or makes one and writes it there.

  Args:
    folder: of the set.
    request: of `asked`.
    make: makes the plan.

  Raises:
    UserError: when what is there was begun from another request, naming the first
      difference.
  """
  path = work_folder(folder) / 'plan.json'
  try:
    kept = json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    plan = make()
    files.write_atomically(
      path, _json({'asked': request, 'plan': dataclasses.asdict(plan)})
    )
    return plan
  if difference := config_lib.first_difference(kept['asked'], request):
    raise UserError(
      f'{folder} was begun otherwise: {difference}; go on as it was begun, use another '
      '--name or --out, or remove the folder'
    )
  return Plan(**kept['plan'])


def keep(folder: pathlib.Path, part: str, shard: int, written: Written) -> None:
  """Notes that a shard is whole."""
  files.write_atomically(_note(folder, part, shard), _json(dataclasses.asdict(written)))


def _note(folder: pathlib.Path, part: str, shard: int) -> pathlib.Path:
  return work_folder(folder) / f'{part}-{shard:05d}.json'


def whole(folder: pathlib.Path, plan: Plan) -> dict[tuple[str, int], Written]:
  """Returns the shards that are there, whole, by part and number."""
  found = {}
  for part, shard in plan.shards():
    try:
      fields = json.loads(_note(folder, part, shard).read_text(encoding='utf-8'))
      size = (folder / plan.file_name(part, shard)).stat().st_size
    except (FileNotFoundError, json.JSONDecodeError):
      continue
    skipped = [Skipped(**one) for one in fields.pop('skipped')]
    written = Written(**fields, skipped=skipped)
    if size == written.size:
      found[part, shard] = written
  return found


def check_skipped(shards: Mapping[tuple[str, int], Written], skip: bool) -> None:
  """Raises a UserError where images were left out that now must not be."""
  for written in shards.values():
    for one in [] if skip else written.skipped:
      raise UserError(
        f'{one.where} {one.reason}, and was left out by --corrupt=skip before; go on '
        'with that, or remove the folder'
      )


def remove_leftovers(folder: pathlib.Path, plan: Plan) -> None:
  """Removes the unfinished shards of processes that are gone."""
  for path in work_folder(folder).glob(f'{plan.name}-*.array_record-*'):
    path.unlink(missing_ok=True)


def finish(
  folder: pathlib.Path,
  plan: Plan,
  shards: Mapping[tuple[str, int], Written],
  label_names: Sequence[str],
) -> None:
  """Reads the counts back and writes what makes the shards a TFDS set.

  Args:
    folder: of the set.
    plan: of the set.
    shards: of `whole`.
    label_names: of the classes.

  Raises:
    UserError: for a shard that is missing or does not have what was written, and for a
      part without images.
  """
  for shard in plan.shards():
    if shard not in shards:
      path = folder / plan.file_name(*shard)
      raise UserError(f'{path} has changed while others were written; {_GO_ON}')
  for (part, shard), written in shards.items():
    path = folder / plan.file_name(part, shard)
    if (found := records.count(str(path))) != written.num_images:
      raise UserError(
        f'{path} has {found} records of {written.num_images}; remove it and {_GO_ON}'
      )
  for part in PARTS:
    if not any(w.num_images for (of, _), w in shards.items() if of == part):
      raise UserError(f'no image of the {part} part is left; mend the set')
  work = work_folder(folder)
  sums = [f'{w.sha256}  {plan.file_name(*shard)}\n' for shard, w in shards.items()]
  files.write_atomically(folder / 'SHA256SUMS', ''.join(sums))
  _write_skipped(folder / 'skipped.csv', shards)
  shutil.copyfile(work / 'plan.json', folder / 'prepare.json')
  made = work / 'tfds'
  made.mkdir(exist_ok=True)
  _write_tfds(made, plan, shards, label_names)
  for path in sorted(made.iterdir(), key=lambda path: path.name == _LAST):
    path.replace(folder / path.name)
  shutil.rmtree(work, ignore_errors=True)


_GO_ON = 'run the same command again'


def _write_skipped(
  path: pathlib.Path, shards: Mapping[tuple[str, int], Written]
) -> None:
  rows = [
    (part, one.image, one.where, one.reason)
    for (part, _), written in shards.items()
    for one in written.skipped
  ]
  if rows:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerows([('part', 'image', 'where', 'reason'), *rows])
    files.write_atomically(path, text.getvalue())


def _write_tfds(
  folder: pathlib.Path,
  plan: Plan,
  shards: Mapping[tuple[str, int], Written],
  label_names: Sequence[str],
) -> None:
  """Writes TFDS's description of the set, as its own preparation would."""
  import tensorflow_datasets as tfds

  shape = (plan.height or None, plan.width or None, plan.channels)
  label = tfds.features.ClassLabel(names=list(label_names))
  key = 'labels' if plan.several else 'label'
  info = tfds.core.DatasetInfo(
    builder=tfds.core.DatasetIdentity(
      name=plan.name,
      version=tfds.core.Version(VERSION),
      data_dir=str(folder),
      module_name='',
    ),
    features=tfds.features.FeaturesDict(
      {
        'id': tfds.features.Text(),
        'image': tfds.features.Image(shape=shape),
        key: tfds.features.Sequence(label) if plan.several else label,
      }
    ),
    supervised_keys=('image', key),
  )
  info.set_file_format(tfds.core.FileFormat.ARRAY_RECORD)
  splits = []
  for part in PARTS:
    written = [shards[part, shard] for shard in range(plan.num_shards[part])]
    template = tfds.core.ShardedFileTemplate(
      data_dir=tfds.core.Path(folder),
      template='{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
      dataset_name=plan.name,
      split=part,
      filetype_suffix='array_record',
    )
    splits.append(
      tfds.core.SplitInfo(
        name=part,
        shard_lengths=[one.num_images for one in written],
        num_bytes=sum(one.num_bytes for one in written),
        filename_template=template,
      )
    )
  info.set_splits(tfds.core.SplitDict(splits))
  info.write_to_directory(folder)


def _json(value: Any) -> str:
  return json.dumps(value, indent=2) + '\n'
