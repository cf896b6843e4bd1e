"""Seconds as people say them."""


def duration(seconds: float) -> str:
  """Returns '45 s', '3 min 20 s', '5 h 10 min' or '12 days'."""
  seconds = round(seconds)
  if seconds < 60:
    return f'{seconds:.0f} s'
  if seconds < 3600:
    return f'{seconds // 60:.0f} min {seconds % 60:.0f} s'
  if seconds < 48 * 3600:
    return f'{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min'
  return f'{seconds / 86400:,.0f} days'
