"""The report of a study: what more images and more depth bought, and how sure that is.

Everything is computed afresh from the study's folders and written whole into
WORKDIR/report, so a report can be made at any time, also of a study half done, and two
reports of equal results are equal.
"""

# pandas types most results as "frame or series or scalar", which no code can satisfy.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportReturnType=false, reportOperatorIssue=false, reportIndexIssue=false

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis import words
from analysis.document import (
  Block,
  Code,
  Heading,
  Paragraph,
  Picture,
  Table,
  to_html,
  to_markdown,
  to_text,
)
from analysis.figures import (
  accuracy_against_depth,
  accuracy_against_images,
  save_figure,
  series_label,
)
from analysis.files import write_text
from analysis.fit import Fit, Kind, Refusal
from analysis.fit_table import FitTable, Key, fit_table
from analysis.forecast import Difference, Interaction, forecasts, interaction
from analysis.laws import LAWS
from analysis.results import Study, read_study

_GROUP = ('depth', 'width')
_SHOWN_LAWS = ('log_linear', 'power_floor')
_METRICS = {
  'test/top1': 'test top-1 accuracy',
  'test/top5': 'test top-5 accuracy',
  'test/loss': 'test loss (nats)',
}
_Fits = Mapping[Key, Mapping[str, Fit | Refusal]]


@dataclasses.dataclass(frozen=True)
class Report:
  """What was written.

  Attributes:
    folder: holds the files.
    paths: every file written.
    text: summary for the terminal, at most 100 columns.
  """

  folder: pathlib.Path
  paths: tuple[pathlib.Path, ...]
  text: str


def write_report(
  workdir: str | os.PathLike[str], out: str | os.PathLike[str] | None = None
) -> Report:
  """Writes tables, figures and the report of the study in `workdir`.

  Args:
    workdir: the study's folder.
    out: folder for the files; default WORKDIR/report.

  Raises:
    FileNotFoundError: `workdir` holds no study.
    TableError: the study's results are not one table (see `analysis.results`).
  """
  study = read_study(workdir)
  folder = pathlib.Path(out) if out is not None else study.workdir / 'report'
  folder.mkdir(parents=True, exist_ok=True)
  fitted = fit_table(study.table, group=_GROUP)
  paths = [
    write_text(folder / 'results.csv', _csv(study.table)),
    write_text(folder / 'fits.csv', _csv(fitted.frame)),
  ]
  title = f'{study.name}: accuracy against images and depth'
  metric = _primary(study.table)
  pictures: list[Picture] = []
  blocks: list[Block] = []
  if metric is None:
    blocks.append(
      Paragraph(
        f'No cell of this study has a result yet ({len(study.cells)} listed), so '
        'nothing is fitted.',
        lead=True,
      )
    )
    compared: dict[int, Interaction] = {}
  else:
    table = study.table[study.table['metric'] == metric]
    fits, kind = fitted.fits[metric], fitted.kinds[metric]
    compared = _interactions(fits)
    law = _headline_law(fits)
    files, pictures = _figures(study, table, fits, kind, metric, law, folder)
    paths += files
    paths.append(
      write_text(folder / 'interaction.csv', _csv(_interaction_frame(compared)))
    )
    blocks += _answer(study, table, fits, kind, metric, law, compared)
    blocks += pictures
    blocks += _result_blocks(table, fits, kind, metric)
    blocks += fit_blocks(fits, _GROUP, kind)
    blocks += _gain_blocks(compared, kind)
    blocks += _protocol_blocks(study)
  blocks += _missing_blocks(study)
  blocks += _cost_blocks(study)
  blocks += _origin_blocks(study)
  paths.append(write_text(folder / 'report.md', to_markdown(title, blocks)))
  paths.append(write_text(folder / 'report.html', to_html(title, blocks)))
  return Report(folder, tuple(paths), to_text(title, blocks))


def write_fit_report(
  out: str | os.PathLike[str],
  table: pd.DataFrame,
  *,
  group: Sequence[str] = (),
  kind: Kind = 'accuracy',
  metric: str = 'value',
  num_test: float | None = None,
  draws: int = 200,
  rng: int = 0,
) -> Report:
  """Fits a table from anywhere and writes fits.csv, predictions.csv and a figure.

  Args:
    out: folder for the files.
    table: of `analysis.results.read_csv`.
    group: columns that tell curves apart.
    kind: what the values are.
    metric: words on the value axis.
    num_test: images in the test set, if known.
    draws, rng: see `analysis.fit.fit`.
  """
  folder = pathlib.Path(out)
  folder.mkdir(parents=True, exist_ok=True)
  fitted = fit_table(
    table.drop(columns='metric', errors='ignore'),
    group=group,
    kinds={'value': kind},
    num_test=num_test,
    draws=draws,
    rng=rng,
  )
  fits = fitted.fits['value']
  law = _headline_law(fits)
  figure = accuracy_against_images(
    table,
    {key: found[law] for key, found in fits.items()},
    title=f'{metric} against training images',
    group=group,
    compare=_compare(fits, law),
    kind=kind,
    metric=metric,
    note=f'curve: {LAWS[law].title}, {LAWS[law].formula}',
  )
  blocks = [*fit_blocks(fits, group, kind), *_law_blocks(fits)]
  text = to_text('Fits', blocks)
  paths = (
    write_text(folder / 'fits.csv', _csv(_renamed(fitted, metric))),
    write_text(
      folder / 'predictions.csv', _csv(fitted.predictions.assign(metric=metric))
    ),
    *save_figure(figure, folder / 'curves'),
    write_text(folder / 'fit.md', to_markdown('Fits', blocks)),
  )
  return Report(folder, paths, text)


def fit_blocks(fits: _Fits, group: Sequence[str], kind: Kind) -> list[Block]:
  """Tables of forecasts, parameters and refusals of some curves."""
  unit = '' if kind == 'loss' else ' (points)'
  forecast_rows, parameter_rows, limits, refused = [], [], [], []
  levels = set()
  for key, name, law, found in _each(fits, group):
    del key
    if isinstance(found, Refusal):
      refused.append([name, LAWS[law].title, found.reason])
      continue
    levels.add(found.level)
    near, far = forecasts(found)
    held = (
      '—'
      if found.rolling_error is None
      else words.gain(found.rolling_error, kind, False)
    )
    forecast_rows.append(
      [
        name,
        LAWS[law].title,
        *(
          f'{words.score(f.value, kind)} ({words.interval(f.lo, f.hi, kind)})'
          for f in (near, far)
        ),
        f'{near.grade} / {far.grade}',
        held,
      ]
    )
    shown = '; '.join(
      f'{p} {words.parameter(v)} ({words.parameter(found.intervals[p][0])} to '
      f'{words.parameter(found.intervals[p][1])})'
      for p, v in found.params.items()
    )
    window = f'{words.images(found.window[0])} to {words.images(found.window[1])}'
    parameter_rows.append(
      [name, LAWS[law].title, shown, window, ', '.join(found.flags) or '—']
    )
    limits.append([name, LAWS[law].title, near.grade_reason, far.grade_reason])
  blocks: list[Block] = [Heading('What the curves predict for more images')]
  if forecast_rows:
    level = f'{100 * max(levels):.0f}%'
    blocks.append(
      Table(
        ['curve', 'law', 'at 2x', 'at 10x', 'grade', 'held-out'],
        forecast_rows,
        f'In brackets the {level} interval of one new run at that size. Grades at 2x / '
        '10x the largest size go from A (as good as measured) to D (do not rely on it). '
        f'Held-out{unit}: how far the law missed the largest sizes when fitted to the '
        'smaller ones.',
      )
    )
    blocks.append(
      Table(
        ['curve', 'law', 'limit of trust at 2x the data', 'at 10x'],
        limits,
        brief=False,
      )
    )
    blocks.append(Heading('Fitted laws'))
    blocks.append(
      Table(
        ['curve', 'law', 'parameters', 'sizes used', 'flags'],
        parameter_rows,
        f'{level} intervals in brackets; full precision is in fits.csv. Laws: '
        + '; '.join(f'{LAWS[law].title}: {LAWS[law].formula}' for law in _SHOWN_LAWS)
        + '.',
        brief=False,
      )
    )
  if refused:
    blocks.append(Heading('Fits refused'))
    blocks.append(Table(['curve', 'law', 'why'], refused))
  return blocks


def _each(fits: _Fits, group: Sequence[str]):
  keys = list(fits)
  for key, found in fits.items():
    name = series_label(key, group, keys) if group else 'all'
    for law in _SHOWN_LAWS:
      if law in found:
        yield key, name, law, found[law]


def _law_blocks(fits: _Fits) -> list[Block]:
  sentence = _law_sentence(fits)
  return [Heading('Which law'), Paragraph(sentence, lead=True)] if sentence else []


def _primary(table: pd.DataFrame) -> str | None:
  metrics = list(dict.fromkeys(table['metric']))
  return next((m for m in _METRICS if m in metrics), metrics[0] if metrics else None)


def _held_out(fits: _Fits) -> dict[str, float]:
  """Mean held-out error by law, over the curves where both laws have one."""
  errors: dict[str, list[float]] = {law: [] for law in _SHOWN_LAWS}
  for found in fits.values():
    pair = [found[law] for law in _SHOWN_LAWS]
    scores = [f.rolling_error for f in pair if isinstance(f, Fit)]
    held = {f.rolling_sizes for f in pair if isinstance(f, Fit)}
    if len(scores) == 2 and None not in scores and len(held) == 1:
      for law, value in zip(_SHOWN_LAWS, scores, strict=True):
        errors[law].append(value)  # pyright: ignore[reportArgumentType]
  return {law: float(np.mean(v)) for law, v in errors.items() if v}


def _headline_law(fits: _Fits) -> str:
  """The law that better predicted held-out larger sizes; else the richest fitted."""
  held = _held_out(fits)
  if held:
    return min(reversed(_SHOWN_LAWS), key=lambda law: held[law])
  if any(isinstance(found['power_floor'], Fit) for found in fits.values()):
    return 'power_floor'
  return 'log_linear'


def _law_sentence(fits: _Fits) -> str:
  held = _held_out(fits)
  kind = next(
    (f.kind for found in fits.values() for f in found.values() if isinstance(f, Fit)),
    'accuracy',
  )
  if not held:
    return ''
  unit = '' if kind == 'loss' else ' points'
  best = _headline_law(fits)
  other = next(law for law in _SHOWN_LAWS if law != best)
  return (
    'Fitted to the smaller sizes only and asked for the largest, the '
    f'{LAWS[best].title} law missed by {words.gain(held[best], kind, False)}{unit} on '
    f'average and the {LAWS[other].title} law by '
    f'{words.gain(held[other], kind, False)}{unit}; the forecasts above are those of '
    f'the {LAWS[best].title} law.'
  )


def _compare(fits: _Fits, law: str) -> dict[Key, Fit | Refusal] | None:
  if law == 'log_linear':
    return None
  return {key: found['log_linear'] for key, found in fits.items()}


def _interactions(fits: _Fits) -> dict[int, Interaction]:
  """By width: depths are compared at one width."""
  by_width: dict[int, dict[int, Mapping[str, Fit | Refusal]]] = {}
  for (depth, width), found in fits.items():
    by_width.setdefault(width, {})[depth] = found  # pyright: ignore
  return {width: interaction(found) for width, found in by_width.items()}


def _figures(
  study: Study,
  table: pd.DataFrame,
  fits: _Fits,
  kind: Kind,
  metric: str,
  law: str,
  folder: pathlib.Path,
) -> tuple[list[pathlib.Path], list[Picture]]:
  label = _METRICS.get(metric, metric)
  note = _figure_note(table)
  classes = (study.config.get('data') or {}).get('num_classes')
  jobs = [
    (
      'accuracy_vs_images',
      accuracy_against_images(
        table,
        {key: found[law] for key, found in fits.items()},
        title=f'{study.name}: more images',
        group=_GROUP,
        compare=_compare(fits, law),
        kind=kind,
        metric=label,
        note=note,
        chance=1 / classes if classes and metric == 'test/top1' else None,
      ),
      f'{label[0].upper()}{label[1:]} against training images. Curve: {LAWS[law].title} '
      f'({LAWS[law].formula}), dashed beyond the largest size; dark band: the curve, '
      'light band: one new run'
      + ('; dotted: the log-linear law.' if law != 'log_linear' else '.'),
    )
  ]
  if table['depth'].nunique() > 1:
    jobs.append(
      (
        'accuracy_vs_depth',
        accuracy_against_depth(
          table, title=f'{study.name}: more depth', kind=kind, metric=label, note=note
        ),
        f'{label[0].upper()}{label[1:]} against depth, one line per number of training '
        'images. Bars span the seeds.',
      )
    )
  paths: list[pathlib.Path] = []
  pictures = []
  for stem, figure, caption in jobs:
    written = save_figure(figure, folder / stem)
    paths += written
    pictures.append(Picture(stem, written[1].read_text(encoding='utf-8'), caption))
  return paths, pictures


def _figure_note(table: pd.DataFrame) -> str:
  parts = []
  if (table['protocol'] == 'epochs').all():
    epochs = sorted(set(table['epochs']))
    parts.append(f'{epochs[0]:g} epochs' if len(epochs) == 1 else 'fixed epochs')
  elif (table['protocol'] == 'steps').all():
    steps = sorted(set(table['steps']))
    parts.append(f'{steps[0]:,g} steps' if len(steps) == 1 else 'fixed steps')
  seeds = table['seed'].nunique()
  parts.append(f'{seeds} seed' + 's' * (seeds > 1))
  tests = set(table['num_test'].dropna())
  if len(tests) == 1:
    parts.append(f'{next(iter(tests)):,g} test images')
  return ' · '.join(parts)


def _answer(
  study: Study,
  table: pd.DataFrame,
  fits: _Fits,
  kind: Kind,
  metric: str,
  law: str,
  compared: Mapping[int, Interaction],
) -> list[Block]:
  """The question and one or two sentences that the fits can answer for."""
  label = _METRICS.get(metric, metric)
  unit = '' if kind == 'loss' else ' points'
  question = (
    f'What would more training images, and more depth, buy in {label} on {study.name}?'
  )
  keys = [key for key, found in fits.items() if isinstance(found.get(law), Fit)]
  sentences = []
  for key in keys if len(keys) <= 2 else [keys[0], keys[-1]]:
    found = fits[key][law]
    assert isinstance(found, Fit)
    value, lo, hi = found.gain_per_doubling(found.window[1])
    near = forecasts(found)[0]
    verb = 'cannot be told from zero' if lo <= 0 <= hi else f'grade {near.grade}'
    sentences.append(
      f'{words.gain(value, kind)}{unit} at {series_label(key, _GROUP, list(fits))} '
      f'({100 * found.level:.0f}% interval {words.interval(lo, hi, kind, True)}; {verb})'
    )
  blocks: list[Block] = [Paragraph(question)]
  if sentences:
    sizes = {fits[key][law].window[1] for key in keys}  # pyright: ignore
    start = (
      f'from {words.images(next(iter(sizes)))} images'
      if len(sizes) == 1
      else 'from the largest size measured'
    )
    blocks.append(
      Paragraph(
        f'Doubling the data {start} is forecast to bring {words.listed(sentences)}.',
        lead=True,
      )
    )
  else:
    blocks.append(
      Paragraph(
        'No curve has enough sizes for a fit, so nothing is forecast.', lead=True
      )
    )
  for width, found in compared.items():
    for difference in found.differences:
      if difference.where == 'window':
        at = f' at width {width}' if len(compared) > 1 else ''
        blocks.append(
          Paragraph(_difference_sentence(difference, kind) + at + '.', lead=True)
        )
  if table['depth'].nunique() == 1:
    blocks.append(
      Paragraph(
        f'The results so far have one depth ({table["depth"].iloc[0]:g}), so they say '
        'nothing about more depth.',
        lead=True,
      )
    )
  sentence = _law_sentence(fits)
  if sentence:
    blocks.append(Paragraph(sentence.replace('above', 'here'), lead=True))
  if len(study.missing):
    blocks.append(
      Paragraph(
        f'{len(study.missing)} of {len(study.cells)} cells have no result; they are '
        'listed below.',
        lead=False,
      )
    )
  return blocks


def _difference_sentence(found: Difference, kind: Kind) -> str:
  unit = '' if kind == 'loss' else ' points'
  start = {
    'deeper gains more': 'Deeper gains more',
    'deeper gains less': 'Deeper gains less',
    'no difference can be shown': 'No difference between depths can be shown',
  }[found.words]
  direction = 'more' if found.value >= 0 else 'less'
  return (
    f'{start}: averaged over the sizes, depth {found.deep} gains '
    f'{words.gain(abs(found.value), kind, False)}{unit} {direction} per doubling than '
    f'depth {found.shallow} (interval {words.interval(found.lo, found.hi, kind, True)})'
  )


def _result_blocks(
  table: pd.DataFrame, fits: _Fits, kind: Kind, metric: str
) -> list[Block]:
  keys = list(fits)
  rows = []
  for size in sorted(set(table['num_images'])):
    row = [words.images(size)]
    for depth, width in keys:
      values = table[
        (table['num_images'] == size)
        & (table['depth'] == depth)
        & (table['width'] == width)
      ]['value']
      row.append(_mean_sd(values.to_numpy(float), kind))
    rows.append(row)
  names = [series_label(key, _GROUP, keys) for key in keys]
  label = _METRICS.get(metric, metric)
  return [
    Heading('Results'),
    Table(
      ['images', *names],
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


def _gain_blocks(compared: Mapping[int, Interaction], kind: Kind) -> list[Block]:
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
      'log10(2); the next doubling is read from the power law with floor, at the largest '
      'size that all depths have. The average difference compares the depths size by '
      'size, so a bend they share does not blur it.'
    )
  )
  return blocks


def _banded(value: float, lo: float, hi: float, kind: Kind) -> str:
  return f'{words.gain(value, kind)} ({words.interval(lo, hi, kind, True)})'


def _interaction_frame(compared: Mapping[int, Interaction]) -> pd.DataFrame:
  rows = []
  for width, found in compared.items():
    for gain in found.gains:
      rows.append({'width': width, **dataclasses.asdict(gain)})
    for gap in found.differences:
      row = dataclasses.asdict(gap)
      rows.append({'width': width, 'depth': f'{gap.deep} minus {gap.shallow}', **row})
  columns = ['width', 'depth', 'law', 'where', 'size', 'value', 'lo', 'hi', 'words']
  return pd.DataFrame(rows, columns=pd.Index(columns))


def _protocol_blocks(study: Study) -> list[Block]:
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


def _missing_blocks(study: Study) -> list[Block]:
  missing = study.missing
  if not len(missing):
    text = f'Nothing: all {len(study.cells)} cells have a result.'
    return [Heading('What is missing'), Paragraph(text)]
  rows = [
    [row.name_, str(row.state), _failures(str(row.reason), int(row.failures))]
    for row in missing.rename(columns={'name': 'name_'}).itertuples()
  ]
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


def _failures(reason: str, failures: int) -> str:
  count = f'{failures} failed attempt' + 's' * (failures > 1) if failures else ''
  return '; '.join(part for part in (reason, count) if part) or '—'


def _cost_blocks(study: Study) -> list[Block]:
  done = study.table.drop_duplicates('cell')
  total = float(study.cells['device_seconds'].astype(float).sum())
  spent = float(study.table.drop_duplicates('cell')['flops'].astype(float).sum())
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
  if starts:
    rows.append(['started', f'{starts[0]} (first cell) to {starts[-1]} (last cell)'])
  return [Heading('Cost'), Table(['', 'spent'], rows, brief=False)]


def _origin_blocks(study: Study) -> list[Block]:
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


def _renamed(fitted: FitTable, metric: str) -> pd.DataFrame:
  return fitted.frame.assign(metric=metric)


def _csv(frame: pd.DataFrame) -> str:
  return frame.to_csv(index=False, lineterminator='\n')
