"""Leases that end or are forged as no worker would do it, for several tests."""

import json
import pathlib

from experiments import ledger


def let_go(lease: ledger.Lease) -> None:
  """Ends a lease's thread without a word, as the end of its process would."""
  lease._ended.set()
  lease._thread.join()


def forge(cell: pathlib.Path, **changes) -> None:
  """Writes a status as it was not meant to be written."""
  status = json.loads((cell / 'status.json').read_text())
  status['lease'] |= changes
  (cell / 'status.json').write_text(json.dumps(status))


END = {
  'done': lambda lease: lease.done(),
  'preempted': lambda lease: lease.preempted('why'),
  'retryable': lambda lease: lease.failed('why'),
  'failed': lambda lease: lease.failed('why', final=True),
}
