"""How many cells a worker trains side by side, and what that gains."""

import functools
import hashlib
import json
import pathlib
from collections.abc import Callable

from experiments import store
from experiments.orders import Orders
from scaling import processes
from scaling.packing import Pack

SIZE = 4  # cells in a program, where it is not said how many


def choose(workdir: pathlib.Path, orders: Orders) -> Pack | None:
  """Returns where cells are trained side by side, or None where they shall not be.

  Unless the orders say how many, it is not done on a CPU, where the studies that were
  measured lose by it (docs/studies.md), and elsewhere where it is measured to be faster.
  """
  if orders.pack == 1 or orders.model_devices > 1 or orders.fsdp:
    return None
  if orders.pack > 1:
    return Pack(orders.pack)
  if processes.device_kind() == 'cpu':
    return None
  return Pack(SIZE, functools.partial(gain, workdir))


def gain(workdir: pathlib.Path, key: str, measure: Callable[[], float]) -> float:
  """Returns how many times as fast the cells of a program are together.

  It is measured once for a study and a kind of device: a cell that was interrupted shall
  go on as it began.

  Args:
    workdir: of the study.
    key: of the program.
    measure: does so.
  """
  kind = processes.device_kind()
  name = f'{hashlib.sha256(f"{kind} {key}".encode()).hexdigest()[:16]}.json'
  folder = workdir / 'packing'
  folder.mkdir(exist_ok=True)
  there, generation = store.read(folder, name)
  if there is None:
    found = {'device_kind': kind, 'cells': SIZE, 'times_as_fast': measure()}
    there = json.dumps(found).encode()
    if not store.replace(folder, name, there, generation):
      there = store.read(folder, name)[0] or there  # another worker was faster
  return json.loads(there)['times_as_fast']
