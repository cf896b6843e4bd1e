"""How a run ends other than by finishing."""


class UserError(Exception):
  """Names the field or file, the value found and the way out, in one line.

  The command line prints it without a traceback and leaves with a status of 2.
  """


class StorageError(UserError):
  """A run's folder cannot be written, which is no fault of the run."""


class DivergedError(UserError):
  """The loss or the gradient is no longer finite."""


class Stopped(Exception):
  """The run saved its state on request and can go on from there."""
