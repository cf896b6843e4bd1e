"""The report of a study: what more images and more depth bought, and how sure that is.

Everything is computed afresh from the study's folders and written whole into
WORKDIR/report, so a report can be made at any time, also of a study half done, and two
reports of equal results are equal.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from analysis.answer import answer_blocks, law_sentence
from analysis.audit import audit_json
from analysis.curve_figures import curve_figure, curves_figure
from analysis.document import (
  Block,
  Paragraph,
  Picture,
  Report,
  to_html,
  to_markdown,
  to_text,
)
from analysis.drawing import Scale
from analysis.evidence_figures import (
  images_figure,
  residual_figure,
  ridge_figure,
  rolling_figure,
)
from analysis.figures import save_figure
from analysis.files import write_csv, write_text
from analysis.fit import Fit
from analysis.fit_table import (
  GROUP,
  METRICS,
  Fits,
  fit_table,
  predict_rows,
)
from analysis.groups import names_of
from analysis.interaction import Interaction, interaction
from analysis.laws import Kind
from analysis.outlook import plateau_blocks, spend_blocks, together_blocks
from analysis.prediction import Refusal
from analysis.results import Study, read_study, refuse_duplicates
from analysis.sections import (
  cost_blocks,
  fit_blocks,
  gain_blocks,
  missing_blocks,
  origin_blocks,
  protocol_blocks,
  result_blocks,
  target_blocks,
)
from analysis.study_figures import accuracy_against_depth, accuracy_against_images

_MAX_EVIDENCE = 3  # curves with figures of their own


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
  refuse_duplicates(study.table)  # curves are of depth and width, and of nothing else
  folder = pathlib.Path(out) if out is not None else study.workdir / 'report'
  folder.mkdir(parents=True, exist_ok=True)
  fitted = fit_table(study.table, group=GROUP)
  paths = [
    write_csv(folder / 'results.csv', study.table),
    write_csv(folder / 'fits.csv', fitted.frame),
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
    files, pictures = _figures(study, table, fits, kind, metric, folder)
    paths += files
    paths.append(write_csv(folder / 'interaction.csv', _interaction_frame(compared)))
    blocks += answer_blocks(study, table, fits, kind, metric, compared)
    blocks += pictures
    blocks += result_blocks(table, fits, kind, metric)
    blocks += fit_blocks(fits, GROUP, kind)
    blocks += gain_blocks(compared, kind)
    blocks += plateau_blocks(fits, names_of(fits, GROUP), kind)
    for width in compared:
      family = {
        key[0]: found
        for key, found in fits.items()
        if key[1] == width and isinstance(found, Fit)
      }
      blocks += together_blocks(family, 'depth')
    blocks += protocol_blocks(study)
  blocks += missing_blocks(study)
  blocks += cost_blocks(study)
  blocks += origin_blocks(study)
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
  sizes: pd.DataFrame | None = None,
  size: str = 'num_images',
  targets: Sequence[float] = (),
  budget: float | None = None,
  chance: float | None = None,
  robust: bool = False,
  progress: Callable[[int, int], None] | None = None,
) -> Report:
  """Fits a table from anywhere; writes its fits, predictions, audit and figures.

  Args:
    out: folder for the files.
    table: of `analysis.tables.read_csv`.
    group: columns that tell curves apart.
    kind: what the values are.
    metric: words on the value axis.
    sizes: of `analysis.tables.read_sizes`: rows to answer in predictions.csv; without,
      the sizes of the table and 2 and 10 times the largest.
    size: name of the size column in predictions.csv.
    targets: values to find the images for.
    budget: images to spend on further runs; None asks nothing.
    chance, robust, progress: see `analysis.fit_table.fit_table`.
  """
  folder = pathlib.Path(out)
  (folder / 'figures').mkdir(parents=True, exist_ok=True)
  fitted = fit_table(
    table,
    group=group,
    kinds={'value': kind},
    chance=chance,
    robust=robust,
    progress=progress,
  )
  fits = fitted.fits['value']
  predictions = (
    fitted.predictions if sizes is None else predict_rows(fits, sizes, group)
  )
  names = names_of(fits, group)
  blocks = [
    *target_blocks(fits, group, targets),
    *fit_blocks(fits, group, kind),
    *plateau_blocks(fits, names, kind),
    *spend_blocks(fits, names, budget, kind),
  ]
  if len(group) == 1:
    family = {key[0]: one for key, one in fits.items() if isinstance(one, Fit)}
    blocks += together_blocks(family, group[0])
  sentence = law_sentence(fits)
  if sentence:
    blocks.insert(0, Paragraph(sentence, lead=True))
  paths = [
    write_csv(folder / 'fits.csv', fitted.frame.assign(metric=metric)),
    write_csv(folder / 'predictions.csv', _named(predictions, group, size)),
    write_text(folder / 'audit.json', audit_json(table, fits, group)),
    write_text(folder / 'fit.md', to_markdown('Fits', blocks)),
  ]
  paths += _fit_figures(folder, table, fits, group, metric)
  return Report(folder, tuple(paths), to_text('Fits', blocks))


def _named(predictions: pd.DataFrame, group: Sequence[str], size: str) -> pd.DataFrame:
  """Columns of predictions.csv; the sizes also under the name they came with."""
  column = 'fit_size' if 'size' in group else 'size'
  table = predictions.rename(columns={'num_images': column})
  own = [size] if size not in table else []
  table = table.assign(**{name: table[column] for name in own})
  first = ['value', 'lo', 'hi', 'curve_lo', 'curve_hi', 'observed', 'reason']
  # A group column of the same name keeps it, and the result has a longer one.
  first = [f'fit_{name}' if name in group else name for name in first]
  return table[[*group, *own, column, *(name for name in first if name in table)]]


def _fit_figures(
  folder: pathlib.Path,
  table: pd.DataFrame,
  fits: Fits,
  group: Sequence[str],
  metric: str,
) -> list[pathlib.Path]:
  """All curves in two scales; for the first few, the evidence behind each."""
  paths: list[pathlib.Path] = []
  stems: dict[Scale, str] = {'score': 'curves', 'error': 'curves_error'}
  for scale, stem in stems.items():
    figure = curves_figure(
      fits, group=group, scale=scale, title=metric, metric=metric, table=table
    )
    paths += save_figure(figure, folder / stem)
  fitted = {key: found for key, found in fits.items() if isinstance(found, Fit)}
  names = names_of(fits, group)
  for key, found in list(fitted.items())[:_MAX_EVIDENCE]:
    start = re.sub(r'\W+', '_', names[key]).strip('_') + '_' if group else ''
    title = names[key] if group else metric
    for stem, figure in (
      ('laws', curve_figure(found, scale='error', title=title, metric=metric)),
      ('residuals', residual_figure(found, title=title, metric=metric)),
      ('rolling', rolling_figure(found, title=title, metric=metric)),
      ('ridge', ridge_figure(found, title=title, metric=metric)),
      ('images_needed', images_figure(found, title=title, metric=metric)),
    ):
      paths += save_figure(figure, folder / 'figures' / f'{start}{stem}')
  return paths


def _primary(table: pd.DataFrame) -> str | None:
  metrics = list(dict.fromkeys(table['metric']))
  return next((m for m in METRICS if m in metrics), metrics[0] if metrics else None)


def _interactions(fits: Fits) -> dict[int, Interaction]:
  """By width: depths are compared at one width."""
  by_width: dict[int, dict[int, Fit | Refusal]] = {}
  for (depth, width), found in fits.items():
    by_width.setdefault(width, {})[depth] = found
  return {width: interaction(found) for width, found in by_width.items()}


def _figures(
  study: Study,
  table: pd.DataFrame,
  fits: Fits,
  kind: Kind,
  metric: str,
  folder: pathlib.Path,
) -> tuple[list[pathlib.Path], list[Picture]]:
  label = METRICS.get(metric, metric)
  note = _figure_note(table)
  classes = (study.config.get('data') or {}).get('num_classes')
  jobs = [
    (
      'accuracy_vs_images',
      accuracy_against_images(
        table,
        fits,
        title=f'{study.name}: more images',
        group=GROUP,
        kind=kind,
        metric=label,
        note=note,
        chance=1 / classes if classes and metric == 'test/top1' else None,
      ),
      f'{label[0].upper()}{label[1:]} against training images. Curve: all laws together, '
      'dashed beyond the largest size; dark band: the curve, light band: one new run; '
      'dotted: the log-linear law.',
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
