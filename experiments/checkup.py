"""What is wrong with a study's folder, read from its files alone."""

import json
import pathlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from experiments import ledger, sweep
from scaling import metrics

_JSON = ('config.json', 'manifest.json', ledger.NAME)
_SAME = (
  'git_commit',
  'device_kind',
  'num_devices',
  'python',
)  # results may hang on them


def check(
  workdir: pathlib.Path, study: Mapping[str, Any], *, checkpoints: bool = False
) -> list[str]:
  """Returns what somebody should know of a study, each with the way out; [] if nothing.

  Args:
    workdir: of the study.
    study: what its study.json says.
    checkpoints: read those too, of the cells that nobody works at.
  """
  cells = [sweep.cell_folder(workdir, cell['name']) for cell in study['cells']]
  found: dict[pathlib.Path, dict[str, Any]] = {}
  told = []
  for cell in cells:
    found[cell], torn = _read(cell)
    told += torn
    if not torn:
      told += _contradictions(cell, found[cell])
      if checkpoints:
        told += _broken(cell, found[cell])
  manifests = [files['manifest.json'] for files in found.values()]
  made = [manifest for manifest in manifests if manifest]
  # And what made the cells that were gone on with by something else.
  told += _mixed([*made, *(one for m in made for one in m.get('earlier', []))])
  ended = [f[ledger.NAME].get('state') in ledger.ENDED for f in found.values()]
  told += _space(workdir, cells, ended.count(False))
  return told


def _read(cell: pathlib.Path) -> tuple[dict[str, Any], list[str]]:
  """Returns the files that hold one object, and what cannot be read."""
  files, torn = {}, []
  for name in _JSON:
    files[name] = {}
    try:
      content = json.loads((cell / name).read_bytes())
      if not isinstance(content, dict):
        raise ValueError('it holds no fields')
      if name == ledger.NAME:
        ledger.Status(**content)
      files[name] = content
    except FileNotFoundError:
      continue
    except (OSError, ValueError, TypeError) as error:
      torn.append(
        f'{cell.name}: {name} cannot be read ({error}); delete it and run the same command'
        if name != 'config.json'
        else f'{cell.name}: {name} cannot be read ({error}); delete the folder of the cell'
      )
  lines = _lines(cell / 'metrics.jsonl')
  for number, line in enumerate(lines, start=1):
    try:
      json.loads(line)
    except ValueError:
      if number < len(lines):
        torn.append(
          f'{cell.name}: line {number} of metrics.jsonl is damaged; delete the folder of '
          'the cell and run the same command'
        )
      elif files[ledger.NAME].get('state') == 'done':
        torn.append(f'{cell.name}: done, but the last line of metrics.jsonl is torn')
      break
  return files, torn


def _lines(path: pathlib.Path) -> list[str]:
  try:
    return path.read_text(encoding='utf-8', errors='replace').splitlines()
  except FileNotFoundError:
    return []


def _contradictions(cell: pathlib.Path, files: Mapping[str, Any]) -> Iterator[str]:
  status = ledger.Status(**files[ledger.NAME])
  if not files['config.json']:
    yield f'{cell.name}: has no config.json; the same sweep command writes it'
  if ledger.is_stale(cell, status):
    lease = status.lease or {}
    where = str(lease.get('host', '')).split(' ')[0]
    yield (
      f'{cell.name}: its worker is gone (process {lease.get("pid")} on {where}); the same '
      'sweep command takes it over'
    )
  if status.state == 'done' and not files['manifest.json']:
    yield f'{cell.name}: done, but it has no manifest.json'
  if status.state == 'done':
    last = metrics.last_row(cell / 'metrics.jsonl').get('step')
    if last is None or last != files['manifest.json'].get('steps', last):
      yield (
        f'{cell.name}: done, but its metrics end at step {"none" if last is None else last}; delete '
        'the folder of the cell and run the same command'
      )
  if left := sorted(path.name for path in cell.glob('.*.json.*')):
    yield f'{cell.name}: {", ".join(left)} left by a writer that was killed; delete it'


def _broken(cell: pathlib.Path, files: Mapping[str, Any]) -> Iterator[str]:
  """Yields which checkpoints are not what was saved."""
  from scaling import trained

  if not files['config.json'] or files[ledger.NAME].get('lease'):
    return
  for step, reason in trained.broken(cell).items():
    yield (
      f'{cell.name}: checkpoint {step} cannot be read ({reason}); the metrics are whole. '
      'Delete the folder of the cell and run the same command to train it again'
    )


def _mixed(manifests: list[dict[str, Any]]) -> Iterator[str]:
  """Yields what differs between the cells that have begun."""
  for name in _SAME:
    yield from _differing(name, [manifest.get(name) for manifest in manifests])
  packages = sorted({name for m in manifests for name in m.get('versions', {})})
  for name in packages:
    values = [manifest.get('versions', {}).get(name) for manifest in manifests]
    yield from _differing(name, values)


def _differing(name: str, values: list[Any]) -> Iterator[str]:
  counted = Counter(map(str, values)).most_common()
  if len(counted) > 1:
    parts = ', '.join(f'{value} in {number}' for value, number in counted)
    yield f'cells differ in {name}: {parts}; their results may too'


def _space(
  workdir: pathlib.Path, cells: list[pathlib.Path], num_left: int
) -> Iterator[str]:
  """Yields whether the checkpoints that are to come would fill the disk."""
  sizes = [_size(cell / 'checkpoints') for cell in cells]
  largest = max(sizes, default=0)
  free = shutil.disk_usage(workdir).free
  if num_left and largest * num_left > free:
    yield (
      f'{workdir} has {free / 1e9:.2f} GB free; {num_left} cells that are left may '
      f'take {largest / 1e9:.2f} GB each for their checkpoints'
    )


def _size(folder: pathlib.Path) -> int:
  return sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())
