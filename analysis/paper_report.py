"""The page of a study of the paper: question, claims, figures, tables, cost, threats."""

import collections
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis import words
from analysis.arm_figures import arms_figure
from analysis.claims import Verdict, verdict_blocks
from analysis.document import (
  Block,
  Code,
  Heading,
  Paragraph,
  Picture,
  Report,
  Table,
  to_html,
  to_markdown,
  to_text,
)
from analysis.figures import save_figure
from analysis.files import write_csv, write_text
from analysis.sheet import TableError
from analysis.threats import threats

_NEEDED = ('cell', 'metric', 'value', 'num_images', 'seed', 'depth', 'width', 'steps')


def read_results(path: str | os.PathLike[str]) -> pd.DataFrame:
  """Returns a stored table of results.

  Raises:
    TableError: when it is not one.
  """
  table = pd.read_csv(path, keep_default_na=False, na_values=['nan', 'NaN'])
  numbers = ('train_seconds', 'flops', 'num_test', 'params', 'images_per_second')
  for name in table.columns.intersection(numbers):
    table[name] = pd.to_numeric(table[name], errors='coerce')
  missing = [name for name in _NEEDED if name not in table]
  if missing:
    raise TableError(f'{path} has no column {missing[0]}; is it a results.csv?')
  return table


def write_paper_report(
  folder: pathlib.Path,
  table: pd.DataFrame,
  *,
  title: str,
  question: str,
  published: Table | None,
  verdicts: Sequence[Verdict],
  figures: Sequence[Any],
  tables: Sequence[Table],
  schedule: str,
  cooldown: float,
  missing: Sequence[str],
  how: str,
  about: Mapping[str, str],
) -> Report:
  """Writes results.csv, figures, report.md and report.html.

  Args:
    folder: for the files, made if missing.
    table: of all results.
    title, question: of the study.
    published: what others found.
    verdicts: of its claims.
    figures: stem, table, x, label, metric, caption and log of each.
    tables: to show.
    schedule, cooldown: of the learning rate.
    missing: why cells have no result, a line each.
    how: the command that makes the report again.
    about: versions and devices, by name.
  """
  folder.mkdir(parents=True, exist_ok=True)
  paths = [write_csv(folder / 'results.csv', table)]
  blocks: list[Block] = [Paragraph(question), Paragraph(_lead(verdicts), lead=True)]
  blocks += verdict_blocks(verdicts)
  for figure in figures:
    if not len(figure.table):
      continue
    drawn = arms_figure(
      figure.table,
      figure.x,
      title=title,
      label=figure.label,
      metric=figure.metric,
      log=figure.log,
    )
    written = save_figure(drawn, folder / figure.stem)
    paths += written
    caption = f'{figure.caption} Marks: runs; bars: 90% intervals of the means.'
    svg = written[1].read_text(encoding='utf-8')
    blocks.append(Picture(figure.stem, svg, caption))
  if tables:
    blocks += [Heading('Measured here'), *tables]
  if published is not None:
    blocks += [Heading('Published'), published]
  blocks += _threat_blocks(figures, schedule, cooldown, missing)
  blocks += _cost_blocks(table)
  blocks += [Heading('Made by'), Code(how)]
  if about:
    blocks.append(
      Code('\n'.join(f'{name:<22} {value}' for name, value in about.items()))
    )
  paths.append(write_text(folder / 'report.md', to_markdown(title, blocks)))
  paths.append(write_text(folder / 'report.html', to_html(title, blocks)))
  return Report(folder, tuple(paths), to_text(title, blocks))


def _lead(verdicts: Sequence[Verdict]) -> str:
  if not verdicts:
    return 'This study makes no claim.'
  if len(verdicts) == 1:
    return f'{verdicts[0].claim}: {verdicts[0].answer}.'
  names = {
    'holds': ('holds', 'hold'),
    'does not hold': ('does not hold', 'do not hold'),
    'cannot say': ('cannot be judged', 'cannot be judged'),
  }
  counts = collections.Counter(v.answer for v in verdicts)
  parts = [
    f'{counts[answer]} {names[answer][counts[answer] > 1]}'
    for answer in names
    if counts[answer]
  ]
  return f'Of {len(verdicts)} claims {words.listed(parts)}.'


def _threat_blocks(
  figures: Sequence[Any], schedule: str, cooldown: float, missing: Sequence[str]
) -> list[Block]:
  found: list[str] = []
  for figure in figures:
    if len(figure.table):
      found += threats(figure.table, schedule=schedule, cooldown=cooldown)
  blocks: list[Block] = [Heading('Threats to validity')]
  blocks += [Paragraph(text) for text in dict.fromkeys(found)]
  if missing:
    rows = [[name, why] for name, _, why in (line.partition(': ') for line in missing)]
    blocks.append(Table(['cell without a result', 'why'], rows))
  if len(blocks) == 1:
    blocks.append(Paragraph('None was found in the table of results.'))
  return blocks


def _cost_blocks(table: pd.DataFrame) -> list[Block]:
  cells = table.drop_duplicates('cell')
  flops, seconds = cells['flops'].sum(), cells['train_seconds'].sum()
  text = (
    f'{len(cells)} runs, {words.flops(float(flops))} and '
    f'{words.seconds(float(seconds))} of training.'
  )
  return [Heading('Cost'), Paragraph(text)]
