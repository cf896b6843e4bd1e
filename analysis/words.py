"""How numbers read in figures and reports: one place, so that they agree."""

import math


def count(number: float) -> str:
  """Images as people write them: 50, 1.5k, 10k, 1M, 300M."""
  if not math.isfinite(number):
    return '?'
  for power, suffix in ((9, 'G'), (6, 'M'), (3, 'k')):
    # 999,600 is 1M, not 1000k: compare after rounding to three digits.
    if float(f'{number:.3g}') >= 10**power:
      return f'{number / 10**power:.3g}{suffix}'
  return f'{number:.3g}'


def images(number: float) -> str:
  """A number of images in a sentence or table: exact below a million."""
  exact = math.isfinite(number) and number < 1e6
  return f'{number:,.10g}' if exact else count(number)


def needed(number: float) -> str:
  """Images that something takes, which may be more than any."""
  return 'infinitely many' if math.isinf(number) else count(number)


def score(value: float, kind: str) -> str:
  """A value of the curve: percent for fractions, four digits for a loss."""
  if not math.isfinite(value):
    return '?'
  return f'{value:.4g}' if kind == 'loss' else f'{100 * value:.1f}%'


def gain(value: float, kind: str, signed: bool = True) -> str:
  """A difference of values: points for fractions."""
  shown = value if kind == 'loss' else 100 * value
  text = f'{shown:+.3g}' if kind == 'loss' else f'{shown:+.2f}'
  text = text.replace('-', '−')
  if text.strip('+−0.') == '':
    text = text.lstrip('+−')
  return text if signed else text.lstrip('+')


def points(kind: str) -> str:
  """What stands behind a gain in a sentence: nothing for a loss, which has any unit."""
  return '' if kind == 'loss' else ' points'


def interval(lo: float, hi: float, kind: str, signed: bool = False) -> str:
  """An interval of values, or of differences when `signed`."""
  if signed:
    return f'{gain(lo, kind)} to {gain(hi, kind)}'
  if kind == 'loss':
    return f'{lo:.4g} to {hi:.4g}'
  return f'{100 * lo:.1f} to {100 * hi:.1f}%'


def parameter(value: float) -> str:
  """A parameter in a table; the CSV has all digits."""
  return f'{value:.3g}'


def estimate(value: float, lo: float, hi: float) -> str:
  """A parameter with its interval."""
  return f'{parameter(value)} ({parameter(lo)} to {parameter(hi)})'


def p_value(value: float) -> str:
  """Behind a 'p'."""
  return '< 0.001' if value < 0.001 else f'= {value:.2g}'


def seconds(value: float) -> str:
  """A duration, in the largest unit that keeps it above one."""
  if not math.isfinite(value):
    return '?'
  for size, unit in ((86400, 'days'), (3600, 'h'), (60, 'min')):
    if value >= size:
      return f'{value / size:.1f} {unit}'
  return f'{value:.1f} s'


def flops(value: float) -> str:
  """Floating-point operations with an SI prefix."""
  if not math.isfinite(value):
    return '?'
  for power, prefix in ((18, 'E'), (15, 'P'), (12, 'T'), (9, 'G'), (6, 'M')):
    if value >= 10**power:
      return f'{value / 10**power:.3g} {prefix}FLOP'
  return f'{value:.3g} FLOP'


def listed(items: list[str]) -> str:
  """'a, b and c'."""
  return ' and '.join([', '.join(items[:-1]), items[-1]] if items[1:] else items)
