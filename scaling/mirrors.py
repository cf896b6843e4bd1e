"""Copies of a cell's rows for other tools: TensorBoard, or what a file of users says.

metrics.jsonl is what counts. A mirror that fails is warned of and left, and never costs
a cell; after an interruption it is told some steps again.
"""

import contextlib
import importlib.util
import logging
import pathlib
import runpy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from ml_collections import ConfigDict

from scaling import config as config_lib
from scaling.errors import UserError

LOG = logging.getLogger('scaling')
Write = Callable[[int, Mapping[str, float]], object]  # of a step and its row
# From the folder and the config of a cell.
Mirror = Callable[[pathlib.Path, ConfigDict], contextlib.AbstractContextManager[Write]]


def tensorboard_package() -> str | None:
  """Returns what event files are written by here: tensorboardX, else TensorFlow, or None."""
  for names in (('tensorboardX',), ('tensorflow', 'tensorboard')):
    specs = [importlib.util.find_spec(name) for name in names]
    if all(spec and spec.origin for spec in specs):  # more than a folder of that name
      return names[0]
  return None


@contextlib.contextmanager
def tensorboard(workdir: pathlib.Path, config: ConfigDict) -> Iterator[Write]:
  """Writes event files below the folder of the cell.

  By tensorboardX, or where that is not installed by clu's writer, which needs TensorFlow
  and shows the config among the hyper-parameters.
  """
  folder = str(workdir / 'tensorboard')
  if tensorboard_package() == 'tensorboardX':
    from tensorboardX import SummaryWriter

    with SummaryWriter(folder) as events:

      def write(step: int, row: Mapping[str, float]) -> None:
        for name, value in row.items():
          events.add_scalar(name, value, step)

      yield write
    return
  import tensorflow as tf  # pyright: ignore
  from clu import metric_writers

  for kind in ('GPU', 'TPU'):  # which TensorFlow would take from JAX
    tf.config.set_visible_devices([], kind)
  with contextlib.closing(metric_writers.SummaryWriter(folder)) as writer:
    fields = config_lib.flat(config).items()
    plain = bool, int, float, str
    writer.write_hparams({k: v if isinstance(v, plain) else str(v) for k, v in fields})
    yield writer.write_scalars


def of_file(path: str) -> Mirror:
  """Returns the mirror of a file, which is run when the mirror is opened."""
  return lambda workdir, config: load(path)(workdir, config)


def load(path: str | pathlib.Path) -> Mirror:
  """Returns the function `mirror` of a Python file.

  Raises:
    UserError: if there is none, or the file cannot be run.
  """
  try:
    found: Any = runpy.run_path(str(path)).get('mirror')
  except Exception as error:
    raise UserError(f'--mirror={path} cannot be run: {error!r}') from error
  if not callable(found):
    raise UserError(
      f'--mirror={path} has no function mirror(workdir, config); docs/studies.md shows one'
    )
  return cast(Mirror, found)


class Mirrors:
  """The mirrors of a cell, told of each row until they are closed or fail.

  Args:
    mirrors: to open.
    workdir: of the cell.
    config: of the cell.
  """

  def __init__(
    self, mirrors: Sequence[Mirror], workdir: pathlib.Path, config: ConfigDict
  ):
    self._open = contextlib.ExitStack()
    self._writes: list[Write] = []
    for mirror in mirrors:
      with _warning('cannot be opened'):
        self._writes.append(self._open.enter_context(mirror(workdir, config)))

  def write(self, step: int, row: Mapping[str, float]) -> None:
    """Tells them of a row."""
    for write in list(self._writes):
      with _warning(f'is left at step {step}') as failed:
        write(step, row)
      if failed:
        self._writes.remove(write)

  def close(self) -> None:
    """Ends them."""
    with _warning('could not be closed'):
      self._open.close()


@contextlib.contextmanager
def _warning(what: str) -> Iterator[list[Exception]]:
  """Logs an error in the block instead of raising it, and lists it."""
  failed: list[Exception] = []
  try:
    yield failed
  except Exception as error:
    failed.append(error)
    LOG.warning('a mirror of the metrics %s: %r', what, error)
