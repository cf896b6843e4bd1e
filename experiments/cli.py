"""The command `scaling`: parses flags, gives help, and prints errors in one line."""

import gc
import os
import pathlib
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import flags
from ml_collections import config_flags

import configs
from experiments import data_verbs, dedup_verb, reproduce, sweep_verbs, verbs
from experiments.verbs import OK, USAGE, Args
from scaling.config import suggest
from scaling.errors import UserError

VERBS = (
  sweep_verbs.VERBS
  | verbs.VERBS
  | reproduce.VERBS
  | data_verbs.VERBS
  | dedup_verb.VERBS
)


def program() -> NoReturn:
  """Is the command, in a process of its own.

  What JAX makes while it is imported and traces stays. To look through it for garbage over
  and over takes a tenth of that time, and a third of a second at the end.
  """
  gc.set_threshold(100_000)
  status = main()
  gc.freeze()
  sys.exit(status)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line and returns its exit status."""
  try:
    return _main(list(sys.argv[1:] if argv is None else argv))
  except BrokenPipeError:  # the reader, such as `head`, has seen enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OK


def _main(argv: list[str]) -> int:
  if not argv or argv[0] in ('-h', '--help', 'help'):
    print(help_text())
    return OK if argv else USAGE
  name, words = _find_verb(argv)
  if name not in VERBS:
    group, near = f'scaling {name}'.strip(), _following(name)
    word = words[0] if words else ''
    if name and word in ('-h', '--help', 'help'):
      print(help_text(name))
      return OK
    print(
      f'{group}: {word!r} is no verb; use {", ".join(near)}.' + suggest(word, near),
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
  except BrokenPipeError:  # an OSError that `main` answers
    raise
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


def _following(group: str) -> list[str]:
  """Returns the words that may follow these; a verb has one word, or two."""
  before = group.split()
  found = [verb.split() for verb in VERBS if verb.split()[: len(before)] == before]
  return list(dict.fromkeys(verb[len(before)] for verb in found))


def _find_verb(argv: Sequence[str]) -> tuple[str, list[str]]:
  """Returns the verb, or as much of one as there is, and the words after it."""
  name: list[str] = []
  for word in argv:
    if ' '.join(name) in VERBS or word not in _following(' '.join(name)):
      break
    name.append(word)
  return ' '.join(name), list(argv[len(name) :])


def parse(name: str, words: Sequence[str]) -> Args:
  """Parses the words after a verb.

  Raises:
    UserError: for unknown flags or fields, wrong types and a missing config file.
  """
  words = list(words)
  if '--config' in words[:-1]:
    at = words.index('--config')
    words[at : at + 2] = [f'--config={words[at + 1]}']
  config = VERBS[name].config
  if config and not any(word.split('=')[0] == '--config' for word in words):
    words.insert(0, f'--config={config if isinstance(config, str) else config(words)}')
  words = [find_config(word) for word in words]
  values = flags.FlagValues()
  argv = [f'scaling {name}', *words]
  _define(name, values, argv)
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
  workdir = parsed.get('workdir')
  if workdir is not None and (not workdir or '://' in workdir):
    raise UserError(
      f'--workdir={workdir} is no folder; name one of a disk that all workers see, such as '
      'a mounted bucket'
    )
  if len(rest) != len(VERBS[name].words):
    wanted = ' and '.join(VERBS[name].words) or 'no word'
    raise UserError(
      f'takes {wanted} besides its flags, not {rest}; for example: '
      f'{VERBS[name].example}'
    )
  config_file, overrides = None, {}
  if parsed.get('config') is not None:
    config_file = pathlib.Path(config_flags.get_config_filename(values['config']))
    config_file = config_file.absolute()  # `resume` may run elsewhere
    overrides = config_flags.get_override_values(values['config'])
  return Args(parsed, config_file, overrides, rest)


def _define(name: str, values: flags.FlagValues, argv: list[str]) -> None:
  """Defines the flags of a verb, some of which mean something else to others."""
  for flag in VERBS[name].flags:
    own = f'{name} {flag}'
    DEFINE[own if own in DEFINE else flag](values, argv)


def find_config(word: str) -> str:
  """Completes `--config=digits` or `configs/digits.py` to the file that came along."""
  flag, _, value = word.partition('=')
  path, _, argument = value.partition(':')
  named = pathlib.Path(path)
  shipped = pathlib.Path(configs.__file__).parent / f'{named.stem}.py'
  if (
    flag not in ('--config', '-config')
    or named.is_file()
    or str(named.parent) not in ('.', 'configs')
    or not shipped.exists()
  ):
    return word
  return f'{flag}={shipped}' + (f':{argument}' if argument else '')


def _config(text: str) -> Callable:
  return lambda v, argv: config_flags.DEFINE_config_file(
    'config', None, text, flag_values=v, sys_argv=argv
  )


def _string(name: str, default: str | None, text: str) -> Callable:
  return lambda v, _: flags.DEFINE_string(name, default, text, flag_values=v)


def _integer(name: str, default: int | None, text: str, lower: int = 1) -> Callable:
  return lambda v, _: flags.DEFINE_integer(
    name, default, text, lower_bound=lower, flag_values=v
  )


def _float(name: str, default: float | None, text: str, lower: float) -> Callable:
  return lambda v, _: flags.DEFINE_float(
    name, default, text, lower_bound=lower, flag_values=v
  )


def _enum(name: str, default: str, values: list[str], text: str) -> Callable:
  return lambda v, _: flags.DEFINE_enum(name, default, values, text, flag_values=v)


def _bool(name: str, text: str) -> Callable:
  return lambda v, _: flags.DEFINE_bool(name, False, text, flag_values=v)


_OF_SET = (
  'a study whose `data` describes the set; any field of it is set by '
  '--config.data.FIELD=VALUE, with or without a study'
)
_NEW_FOLDER = 'folder of the study, made if missing'
DEFINE: dict[str, Callable[[flags.FlagValues, list[str]], Any]] = {
  'config': _config(
    'a study: a file with get_config() and get_sweep(), or the name of a shipped one; '
    'any field is set by --config.FIELD=VALUE'
  ),
  'workdir': _string('workdir', None, 'folder of the study'),
  'study workdir': _string('workdir', None, _NEW_FOLDER),
  'sweep workdir': _string('workdir', None, _NEW_FOLDER),
  'train workdir': _string('workdir', None, 'folder of the cell, made if missing'),
  'reproduce workdir': _string('workdir', None, _NEW_FOLDER),
  'data_dir': _string(
    'data_dir', None, 'where the image set lies; NAME=FOLDER,... for several sets'
  ),
  'workers': _integer(
    'workers', None, 'to start; default one a core, one on a TPU or another engine'
  ),
  'on': lambda v, _: flags.DEFINE_enum(
    'on',
    'local',
    list(sweep_verbs.ENGINES),
    'engine that starts the workers: docs/engines.md',
    flag_values=v,
  ),
  'processes': _integer('processes', 1, 'of each worker, that train a cell together'),
  'pack': _integer(
    'pack',
    0,
    'cells that each worker trains side by side in one program; 0: on accelerators as '
    'measured, on CPUs one: docs/studies.md',
    0,
  ),
  'option': lambda v, _: flags.DEFINE_multi_string(
    'option',
    None,
    'KEY=VALUE for the engine, such as time=4:00:00 for #SBATCH --time; may be repeated',
    flag_values=v,
  ),
  'dry_run': _bool('dry_run', 'show what would be started, and start nothing'),
  'stall_seconds': _float(
    'stall_seconds', 1800.0, 'without a step, after which a cell is given up', 1.0
  ),
  'watch': _bool('watch', 'go on showing it until all cells have ended'),
  'cell': lambda v, _: flags.DEFINE_multi_string(
    'cell', None, 'name of a cell, or a part of it; may be repeated', flag_values=v
  ),
  'orders': _string('orders', None, 'name of the orders in WORKDIR/launches'),
  'slot': _integer('slot', 0, 'number among the workers', 0),
  'cores': _string('cores', '', 'to run on, such as 0,1'),
  'attached': _bool('attached', 'leave when standard input ends'),
  'coordinator': _string(
    'coordinator',
    None,
    'HOST:PORT where the processes of one worker meet, or auto on a TPU pod',
  ),
  'num_processes': _integer('num_processes', None, 'of this worker'),
  'process': _integer('process', None, 'number among them', 0),
  'tensorboard': _bool('tensorboard', 'also write TensorBoard events'),
  'mirror': _string(
    'mirror', None, 'Python file whose mirror() is told of each row: docs/studies.md'
  ),
  'device': _string('device', 'cpu', 'kind of device to plan for: cpu, TPU v5e, H100'),
  'num_devices': _integer('num_devices', os.cpu_count(), 'devices, or cores of a CPU'),
  'num_full': _integer('num_full', None, 'images in the whole set'),
  'fsdp': _bool('fsdp', 'parameters and optimiser state are split over the devices'),
  'model_devices': _integer(
    'model_devices', 1, 'devices that the classifier is split over'
  ),
  'profile': _integer(
    'profile', 0, 'updates to trace into WORKDIR/profile, for xprof', 0
  ),
  'perf': _bool('perf', 'measure training steps of --config'),
  'checkpoints': _bool(
    'checkpoints', 'read all checkpoints of the study, and name bad ones'
  ),
  'roofline_share': _float(
    'roofline_share', 0.75, 'share of the modelled speed that a program reaches', 0.0
  ),
  'mfu': lambda v, _: flags.DEFINE_float(
    'mfu',
    None,
    'plan with this share of the peak FLOP/s instead of a roofline',
    0.0,
    1.0,
    flag_values=v,
  ),
  'images_per_core': _float(
    'images_per_core', 400.0, 'JPEGs that a core decodes in a second', 1.0
  ),
  'cores_per_host': _integer(
    'cores_per_host', None, 'cores of a host; default those of the device where known'
  ),
  'price_per_hour': _float(
    'price_per_hour',
    None,
    'USD for a chip; `plan` takes a list price where it knows one',
    0.0,
  ),
  'json': _bool('json', 'print JSON'),
  'size': _string('size', 'num_images', 'column with the number of images'),
  'value': _string('value', 'value', 'column with the score'),
  'group': lambda v, _: flags.DEFINE_multi_string(
    'group', None, 'column that tells curves apart; may be repeated', flag_values=v
  ),
  'seed': _string('seed', None, 'column that tells repeated runs apart'),
  'se': _string('se', None, 'column with the standard error of each score'),
  'num_test': _string(
    'num_test', None, 'images the scores were measured on: a number, or a column'
  ),
  'model_size': _string(
    'model_size', None, 'column with parameters: fits surfaces of data and model size'
  ),
  'chance': lambda v, _: flags.DEFINE_float(
    'chance', None, 'score of a guess, for curves that start near it', flag_values=v
  ),
  'predict': _string(
    'predict', None, 'CSV with sizes (and groups) to answer row by row'
  ),
  'target': lambda v, _: flags.DEFINE_multi_float(
    'target', None, 'score to find the images for; may be repeated', flag_values=v
  ),
  'budget': lambda v, _: flags.DEFINE_float(
    'budget',
    None,
    'images to spend on further runs: says at which sizes they tell most',
    lower_bound=1.0,
    flag_values=v,
  ),
  'robust': _bool('robust', 'weigh outlying sizes down'),
  'kind': lambda v, _: flags.DEFINE_enum(
    'kind', 'accuracy', ['accuracy', 'error', 'loss'], 'of the scores', flag_values=v
  ),
  'percent': _bool('percent', 'the scores are percentages'),
  'out': _string('out', 'fit', 'folder for the tables and figures'),
  'reproduce out': _string(
    'out', None, 'folder for the report; default WORKDIR/report'
  ),
  'reproduce epochs': _float('epochs', None, 'passes where all sizes have alike', 1e-6),
  'reproduce seeds': _integer('seeds', None, 'runs of each setting'),
  'scale': lambda v, _: flags.DEFINE_enum(
    'scale', 'laptop', ['laptop', 'gpu', 'pod'], 'of the study', flag_values=v
  ),
  'sizes': lambda v, _: flags.DEFINE_list(
    'sizes', None, 'numbers of training images, with commas', flag_values=v
  ),
  'depths': lambda v, _: flags.DEFINE_list(
    'depths', None, 'of the networks, with commas', flag_values=v
  ),
  'results': _string('results', None, 'results.csv of an earlier run, to judge again'),
  'data inspect config': _config(_OF_SET),
  'data prepare config': _config(_OF_SET),
  'data inspect out': _string('out', None, 'folder for the report, tables and figures'),
  'export out': _string('out', None, 'file to write, .safetensors or .npz'),
  'predict out': _string('out', None, 'CSV file to write'),
  'predict workdir': _string('workdir', None, 'folder of the study that has the cell'),
  'export workdir': _string('workdir', None, 'folder of the study that has the cell'),
  'step': _integer('step', 0, 'of the checkpoint; 0: the newest', 0),
  'data prepare out': _string('out', None, 'folder of prepared sets, made if missing'),
  'data prepare seed': _integer('seed', 0, 'of the order of the records', 0),
  'data prepare workers': _integer('workers', None, 'processes; default one a core'),
  'train_split': _string('train_split', None, 'training part, as data.train_split'),
  'test_split': _string('test_split', None, 'test part, as data.test_split'),
  'dedup config': _config(_OF_SET),
  'dedup out': _string('out', None, 'folder for the report, tables and pictures'),
  'train_dir': _string('train_dir', None, 'where the first set lies'),
  'test_dir': _string('test_dir', None, 'where the second set lies'),
  'train_part': _enum('train_part', 'train', ['train', 'test'], 'of the first set'),
  'test_part': _enum('test_part', 'test', ['train', 'test'], 'of the second set'),
  'k': _integer('k', 4, 'candidates that are looked at for each test image'),
  'fpr': _float(
    'fpr', 0.001, 'share of images without a duplicate that may be taken for one', 0.0
  ),
  'correct': _string(
    'correct', None, 'CSV of id and correct (0 or 1): accuracy without the duplicates'
  ),
  'margin': _float(
    'margin', 0.5, 'points of accuracy that a change must be known to', 0.0
  ),
  'all': _bool('all', 'read every image and label of large sets too'),
  'name': _string('name', None, 'of the prepared set'),
  'short_side': _integer(
    'short_side',
    0,
    'make larger image files JPEGs with a short side of so many pixels',
    0,
  ),
  'quality': _integer('quality', 90, 'of these JPEGs'),
  'channels': _integer(
    'channels', 0, '1 for grey images, 3 for coloured ones; default as they are', 0
  ),
  'corrupt': lambda v, _: flags.DEFINE_enum(
    'corrupt',
    'stop',
    ['stop', 'skip'],
    'what to do about an image that cannot be decoded',
    flag_values=v,
  ),
  'shard_mb': _integer('shard_mb', 256, 'megabytes of a file, about'),
}


def help_text(group: str = '') -> str:
  """Returns what `scaling --help` prints, or `scaling GROUP --help`."""
  shown = {name: verb for name, verb in VERBS.items() if name.startswith(group)}
  width = max(8, *map(len, shown))
  lines = [f'  {name:<{width}} {verb.summary}' for name, verb in shown.items()]
  verb = f'{group} VERB'.strip()
  example = next(iter(shown.values())).example
  return (
    f'usage: scaling {verb} [--FLAG=VALUE ...]\n\n'
    + ('' if group else 'What would more images, and more depth, buy on your data?\n\n')
    + '\n'.join(lines)
    + f'\n\nexample: {example}\n`scaling {verb} --help` says more.'
  )


def verb_help(name: str) -> str:
  """Returns what `scaling VERB --help` prints."""
  verb = VERBS[name]
  values = flags.FlagValues()
  _define(name, values, ['scaling'])
  lines = []
  width = max(12, *map(len, verb.flags)) + 1
  for flag in verb.flags:
    default = values[flag].default
    # absl says of lists once more that they may be repeated.
    text = values[flag].help.split(';\n')[0] + (
      f' (default: {default})' if default else ''
    )
    indent = ' ' * (width + 4)
    lines.append(
      textwrap.fill(
        text, 88, initial_indent=f'  --{flag:<{width}}', subsequent_indent=indent
      )
    )
  return (
    f'scaling {name}: {verb.summary}\n\n{textwrap.fill(verb.details, 88)}\n\n'
    + '\n'.join(lines)
    + f'\n\nexample: {verb.example}'
  )


if __name__ == '__main__':
  program()
