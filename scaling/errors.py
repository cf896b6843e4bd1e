"""The one exception that a user can mend."""


class UserError(Exception):
  """Names the field or file, the value found and the way out, in one line.

  The command line prints it without a traceback and leaves with a status of 2.
  """
