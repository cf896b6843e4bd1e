"""The sections of a report below its answer: tables of results, fits, gains and origin."""

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis import words
from analysis.document import Block, Code, Heading, Paragraph, Table
from analysis.fit import SHOWN, Fit
from analysis.fit_table import GROUP, METRICS, Fits
from analysis.forecast import forecasts
from analysis.groups import Key, names_of
from analysis.interaction import Interaction
from analysis.law_fit import LawFit
from analysis.laws import LAWS, Kind
from analysis.prediction import Refusal
from analysis.results import Study


def result_blocks(
  table: pd.DataFrame, fits: Fits, kind: Kind, metric: str
) -> list[Block]:
  """Returns the table of scores, a row for each size."""
  rows = []
  for size in sorted(set(table['num_images'])):
    row = [words.images(size)]
    for depth, width in fits:
      values = table[
        (table['num_images'] == size)
        & (table['depth'] == depth)
        & (table['width'] == width)
      ]['value']
      row.append(_mean_sd(values.to_numpy(float), kind))
    rows.append(row)
  label = METRICS.get(metric, metric)
  return [
    Heading('Results'),
    Table(
      ['images', *names_of(fits, GROUP).values()],
      rows,
      f'{label}: mean ± standard deviation over seeds (number of seeds). A single seed '
      'has no standard deviation.',
    ),
  ]


def _mean_sd(values: np.ndarray, kind: Kind) -> str:
  if not len(values):
    return '—'
  if len(values) == 1:
    return f'{words.score(float(values[0]), kind)} (1)'
  sd = values.std(ddof=1)
  spread = f'{sd:.2g}' if kind == 'loss' else f'{100 * sd:.1f}'
  return f'{words.score(float(values.mean()), kind)} ± {spread} ({len(values)})'


def fit_blocks(fits: Fits, group: Sequence[str], kind: Kind) -> list[Block]:
  """Tables of forecasts, tests, parameters and refusals of some curves."""
  unit = '' if kind == 'loss' else ' (points)'
  names = names_of(fits, group)
  fitted = {key: found for key, found in fits.items() if isinstance(found, Fit)}
  blocks: list[Block] = [Heading('What the curves predict for more images')]
  if fitted:
    level = f'{100 * next(iter(fitted.values())).level:.0f}%'
    rows, limits = [], []
    for key, found in fitted.items():
      near, far = forecasts(found)
      shown = (
        f'{words.score(f.value, kind)} ({words.interval(f.lo, f.hi, kind)})'
        for f in (near, far)
      )
      grades = f'{near.grade} / {far.grade}'
      rows.append([names[key], *shown, grades, _missed(found.rolling_error, kind)])
      limits.append([names[key], near.grade_reason, far.grade_reason])
    note = (
      f'All laws together. In brackets the {level} interval of one new run at that size. '
      'Grades at 2x / 10x the largest size go from A (as good as measured) to D (do not '
      f'rely on it). Held-out{unit}: how far the largest sizes were missed when only the '
      'smaller ones were seen.'
    )
    blocks += [
      Table(['curve', 'at 2x', 'at 10x', 'grade', 'held-out'], rows, note),
      Table(['curve', 'limit of trust at 2x', 'at 10x'], limits, brief=False),
      *_half_blocks(fitted, names, kind),
      *_law_blocks(fitted, names, kind, level),
    ]
  refused = [
    [names[key], found.reason]
    for key, found in fits.items()
    if isinstance(found, Refusal)
  ]
  if refused:
    blocks += [Heading('Fits refused'), Table(['curve', 'why'], refused)]
  return blocks


def target_blocks(
  fits: Fits, group: Sequence[str], targets: Sequence[float]
) -> list[Block]:
  """How many images each curve needs for each target."""
  names = names_of(fits, group)
  blocks: list[Block] = [
    Paragraph(f'{names[key]}: {found.images_for(target).words}.', lead=True)
    for key, found in fits.items()
    for target in targets
    if isinstance(found, Fit)
  ]
  return [Heading('Images needed'), *blocks] if blocks else []


def _half_blocks(
  fitted: Mapping[Key, Fit], names: Mapping[Key, str], kind: Kind
) -> list[Block]:
  """Had you stopped at half the data: what was forecast, and what happened."""
  rows = []
  inside = 0
  for key, found in fitted.items():
    largest = float(found.points.sizes[-1])
    then = found.stopped_at(largest / 2)
    if isinstance(then, Refusal):
      continue
    bands = then.predict(largest)
    lo, hi, seen = float(bands.lo[0]), float(bands.hi[0]), float(found.points.means[-1])
    inside += lo <= seen <= hi
    rows.append(
      [
        names[key],
        words.images(float(then.points.sizes[-1])),
        words.images(largest),
        f'{words.score(float(bands.value[0]), kind)} ({words.interval(lo, hi, kind)})',
        words.score(seen, kind),
        'inside' if lo <= seen <= hi else 'outside',
      ]
    )
  if not rows:
    return []
  header = [
    'curve',
    'seen up to',
    'asked for',
    'you would have been told',
    'happened',
    '',
  ]
  return [
    Heading('Had you stopped at half the data'),
    Table(
      header, rows, f'{inside} of {len(rows)} inside the interval that was stated.'
    ),
  ]


def _law_blocks(
  fitted: Mapping[Key, Fit], names: Mapping[Key, str], kind: Kind, level: str
) -> list[Block]:
  """Each law's say, and the parameters of those that are shown."""
  says, parameters, used = [], [], {}
  for key, found in fitted.items():
    shares = sorted(found.weights.items(), key=lambda pair: -pair[1])
    shown = [f'{LAWS[law].title} {share:.0%}' for law, share in shares if share >= 0.05]
    line = found.weights.get('log_linear', 0.0)
    says.append(
      [
        names[key],
        ', '.join(shown),
        f'{line:.0%}',
        _missed(found.rolling_error, kind),
        _missed(found.rolling_errors.get('log_linear'), kind),
      ]
    )
    for law in dict.fromkeys([found.law, *SHOWN]):
      one = found.laws.get(law)
      if not isinstance(one, LawFit):
        continue
      used[law] = LAWS[law]
      values = '; '.join(
        f'{p} {words.estimate(v, *one.intervals[p])}'
        if p in one.intervals
        else f'{p} {words.parameter(v)}'
        for p, v in one.params.items()
      )
      window = f'{words.images(one.window[0])} to {words.images(one.window[1])}'
      title = LAWS[law].title + (' *' if law == found.law else '')
      flags = found.flags if law == found.law else one.flags
      parameters.append(
        [names[key], title, values, window, ', '.join(dict.fromkeys(flags)) or '—']
      )
  formulas = '; '.join(f'{law.title}: {law.formula}' for law in used.values())
  return [
    Heading('Which law'),
    Table(
      ['curve', 'say in the forecast', 'log-linear', 'held-out', 'log-linear held-out'],
      says,
      "A law's say follows from how well it foretold larger sizes from smaller ones.",
    ),
    Table(
      ['curve', 'law', 'parameters', 'sizes used', 'flags'],
      parameters,
      f'* the law with the largest say. {level} intervals in brackets; full precision is '
      f'in fits.csv. {formulas}.',
      brief=False,
    ),
  ]


def _missed(error: float | None, kind: Kind) -> str:
  return '—' if error is None else words.gain(error, kind, False)


def gain_blocks(compared: Mapping[int, Interaction], kind: Kind) -> list[Block]:
  """Returns the gain per doubling of each depth, and what depth changes about it."""
  blocks: list[Block] = [Heading('Gain per doubling of the data')]
  unit = '' if kind == 'loss' else ', points'
  for width, found in compared.items():
    rows: list[list[str]] = []
    for depth in dict.fromkeys(gain.depth for gain in found.gains):
      row = [f'depth {depth}']
      for where in ('window', 'next'):
        gain = next(
          (g for g in found.gains if (g.depth, g.where) == (depth, where)), None
        )
        row.append(_banded(gain.value, gain.lo, gain.hi, kind) if gain else '—')
      rows.append([*row, ''])
    if found.differences:
      first = found.differences[0]
      row = [f'{first.deep} minus {first.shallow}']
      for where in ('window', 'next'):
        gap = next((d for d in found.differences if d.where == where), None)
        row.append(_banded(gap.value, gap.lo, gap.hi, kind) if gap else '—')
      verdict = '; '.join(dict.fromkeys(d.words for d in found.differences))
      if len({d.words for d in found.differences}) > 1:
        place = {'window': 'average', 'next': 'next doubling'}
        verdict = '; '.join(f'{place[d.where]}: {d.words}' for d in found.differences)
      rows.append([*row, verdict])
    size = next((gain.size for gain in found.gains), float('nan'))
    where = f'next, from {words.images(size)}' if np.isfinite(size) else 'next doubling'
    note = f'Left out: {found.note}.' if found.note else ''
    if len(compared) > 1:
      note = f'Width {width}. {note}'.strip()
    if rows:
      header = ['', f'average over the sizes{unit}', f'{where}{unit}', 'difference']
      if not found.differences:
        header, rows = header[:-1], [row[:-1] for row in rows]
      blocks.append(Table(header, rows, note))
    else:
      blocks.append(Paragraph(f'None: {found.note}.'))
  blocks.append(
    Paragraph(
      'Positive is better. The average is the slope of the log-linear law times '
      'log10(2); the next doubling is what all laws together say, at the largest size that '
      'all depths have. The average difference compares the depths size by '
      'size, so a bend they share does not blur it.'
    )
  )
  return blocks


def _banded(value: float, lo: float, hi: float, kind: Kind) -> str:
  return f'{words.gain(value, kind)} ({words.interval(lo, hi, kind, True)})'


def protocol_blocks(study: Study) -> list[Block]:
  """Returns what was held equal over the sizes, and what a number is."""
  blocks: list[Block] = [Heading('Protocol')]
  table = study.table
  for protocol, rows in table.groupby('protocol'):
    if protocol == 'epochs':
      passes = words.listed([f'{epochs:g}' for epochs in sorted(set(rows['epochs']))])
      blocks.append(
        Paragraph(
          f'Fixed epochs: each subset is passed over {passes} times, so data and '
          'compute grow together. A gain here is the gain of more images and of the '
          'longer training that comes with them.'
        )
      )
    else:
      steps = words.listed([f'{steps:,g}' for steps in sorted(set(rows['steps']))])
      blocks.append(
        Paragraph(
          f'Fixed steps ({steps}): every subset gets the same compute; large subsets '
          'are seen fewer times.'
        )
      )
  blocks.append(
    Paragraph(
      'Every number is the evaluation after the last step of a run that finished; no '
      'checkpoint was chosen by its test score. The seed of a run draws its subset, its '
      'order and its initial weights, so the spread over seeds holds all three.'
    )
  )
  return blocks


def missing_blocks(study: Study) -> list[Block]:
  """Returns the cells without a result, with the reasons."""
  missing = study.missing
  if not len(missing):
    text = f'Nothing: all {len(study.cells)} cells have a result.'
    return [Heading('What is missing'), Paragraph(text)]
  columns = (missing[column].astype(str) for column in ('name', 'state', 'reason'))
  rows = [[*row, reason or '—'] for *row, reason in zip(*columns, strict=True)]
  counts = missing['state'].value_counts().sort_index()
  summary = ', '.join(f'{number} {state}' for state, number in counts.items())
  return [
    Heading('What is missing'),
    Table(
      ['cell', 'state', 'reason'],
      rows,
      f'{len(missing)} of {len(study.cells)} cells have no result: {summary}.',
    ),
  ]


def cost_blocks(study: Study) -> list[Block]:
  """Returns what the study took."""
  done = study.table.drop_duplicates('cell')
  total = float(study.cells['device_seconds'].astype(float).sum())
  spent = float(done['flops'].astype(float).sum())
  starts = sorted(str(m['started']) for m in study.manifests.values() if 'started' in m)
  speed = (
    done['images_per_second'].astype(float).median() if len(done) else float('nan')
  )
  rows = [
    [
      'training',
      f'{words.seconds(total)} of device time ({total:,.1f} device-seconds)',
    ],
    ['operations', f'{words.flops(spent)} in finished cells'],
    ['cells', f'{len(done)} finished of {len(study.cells)}'],
  ]
  if np.isfinite(speed):
    rows.append(['speed', f'{speed:,.0f} images/s (median of cells)'])
  waited = done['input_wait_share'].astype(float).median() if len(done) else math.nan
  if np.isfinite(waited):
    rows.append(['input', f'{waited:.1%} of training waited for it (median of cells)'])
  if starts:
    rows.append(['started', f'{starts[0]} (first cell) to {starts[-1]} (last cell)'])
  return [Heading('Cost'), Table(['', 'spent'], rows, brief=False)]


def origin_blocks(study: Study) -> list[Block]:
  """Returns versions, config and commands."""
  found: dict[str, set[str]] = {}
  for manifest in study.manifests.values():
    single = {
      'git commit': manifest.get('git_commit'),
      'python': manifest.get('python'),
      'device': manifest.get('device_kind'),
      'devices per cell': manifest.get('num_devices'),
      'data fingerprint': manifest.get('data_fingerprint'),
    }
    for name, value in {**single, **(manifest.get('versions') or {})}.items():
      if value is not None:
        found.setdefault(name, set()).add(str(value))
  rows = [[name, ', '.join(sorted(values))] for name, values in found.items()]
  mixed = sorted(name for name, values in found.items() if len(values) > 1)
  note = f'Cells differ in {words.listed(mixed)}.' if mixed else ''
  varied = []
  for column, name in (
    ('depth', 'depths'),
    ('width', 'widths'),
    ('num_images', 'images'),
    ('seed', 'seeds'),
  ):
    values = study.cells[column].dropna().unique()
    varied.append(f'{name}: {", ".join(f"{value:g}" for value in sorted(values))}')
  config_file = study.config_file or 'CONFIG'
  commands = (
    f'scaling sweep --config={config_file} --workdir={study.workdir}\n'
    f'scaling report --workdir={study.workdir}'
  )
  return [
    Heading('Versions'),
    Table(['', 'of the cells'], rows, note, brief=False)
    if rows
    else Paragraph('No cell has started.'),
    Heading('Config'),
    Paragraph('The cells vary ' + '; '.join(varied) + '. All else is as follows.'),
    Code(json.dumps(study.config, indent=2)),
    Heading('How to reproduce'),
    Code(commands),
  ]
