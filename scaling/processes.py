"""What the processes of one run must agree on.

A single process is asked nothing.

Every process runs the same program on its own part of the devices. Where what to do
next depends on something that they see differently (a signal, a clock, a broken file),
all must hear the same answer, or they wait for each other for ever.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def connect(
  coordinator: str, num_processes: int | None = None, process: int | None = None
) -> None:
  """Joins the processes of one run, before any of them looks for devices.

  Args:
    coordinator: HOST:PORT at which the first process can be reached, or 'auto' where
      the cluster tells, as on a TPU pod.
    num_processes: None where the cluster tells, as Slurm does.
    process: number of this one; likewise.
  """
  address = None if coordinator == 'auto' else coordinator
  # Without being told it listens to all of the network.
  bind = address if address and address.startswith('127.') else None
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(
    coordinator_address=address,
    coordinator_bind_address=bind,
    num_processes=num_processes,
    process_id=process,
  )


def disconnect() -> None:
  """Lets go of the others when all are at their end, so that none takes it for a death."""
  jax.distributed.shutdown()


def lost_peer(error: Exception) -> bool:
  """Returns whether an error says that another process of this run is gone.

  Seen on CPUs, where Gloo carries the sums. On other devices the process is aborted.
  """
  return 'Gloo' in str(error) and 'peer' in str(error)


def index() -> int:
  """Returns the number of this process."""
  return jax.process_index()


def is_first() -> bool:
  """Returns whether this process is the one that writes."""
  return jax.process_index() == 0


def meet(place: str) -> None:
  """Returns when all processes have come here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(place)


def all_true(answer: bool) -> bool:
  """Returns whether every process says so."""
  if jax.process_count() == 1:
    return answer
  return bool(multihost_utils.process_allgather(np.asarray(answer)).all())


def any_true(answer: bool) -> bool:
  """Returns whether any process says so."""
  return not all_true(not answer)


def first_says(number: int) -> int:
  """Returns the first process's number."""
  return int(multihost_utils.broadcast_one_to_all(np.asarray(number, np.int32)))


class Votes:
  """Whether any process asks to stop or to save, without waiting for the device.

  With several processes the answer is that of the call before: votes queue up behind
  the update that is running, and to wait for them at once would leave the device idle.
  """

  def __init__(self):
    self._pending = None
    self._several = jax.process_count() > 1
    if self._several:
      mesh = Mesh(np.array(jax.devices()), ('all',))
      self._split = NamedSharding(mesh, PartitionSpec('all'))
      whole = NamedSharding(mesh, PartitionSpec())
      self._any = jax.jit(lambda votes: jnp.any(votes, 0), out_shardings=whole)

  def cast(self, stop: bool, save: bool) -> tuple[bool, bool]:
    """Returns whether to stop and whether to save; all processes call it in step."""
    if not self._several:
      return stop, save
    heard = (False, False) if self._pending is None else tuple(np.array(self._pending))
    # Who hears that a save is due now need not ask for the same one again.
    votes = np.array([[stop, save and not heard[1]]] * jax.local_device_count())
    self._pending = self._any(
      jax.make_array_from_process_local_data(self._split, votes)
    )
    return bool(heard[0]), bool(heard[1])


def device_kind() -> str:
  """Returns what kind of device this process has, 'cpu' for those of a CPU."""
  return jax.devices()[0].device_kind
