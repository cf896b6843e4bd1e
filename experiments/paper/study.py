"""What a study of the paper is: a question, cells, and a judgement of their results."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from analysis.claims import Verdict
from analysis.document import Table
from experiments.paper.scales import Scale

Fields = Mapping[str, Any]


class Figure(NamedTuple):
  """A figure to draw of a table of arms; see `analysis.arm_figures.arms_figure`.

  Attributes:
    stem: name of its files.
    table: with a column `arm`.
    x: column of the horizontal axis.
    label: of that axis.
    metric: words on the vertical axis.
    caption: under it.
    log: whether the horizontal axis is logarithmic.
  """

  stem: str
  table: Any
  x: str
  label: str
  metric: str
  caption: str
  log: bool = True


class Findings(NamedTuple):
  """What a study found.

  Attributes:
    verdicts: a claim each.
    figures: to draw.
    tables: to show.
  """

  verdicts: Sequence[Verdict]
  figures: Sequence[Figure]
  tables: Sequence[Table]


@dataclasses.dataclass(frozen=True)
class PaperStudy:
  """A study that `scaling reproduce` runs.

  Attributes:
    title: a few words.
    question: one sentence.
    published: what was published of it, with its source; only values that were read
      in it.
    fields: fields of the config that all cells share, from config and scale.
    sweep: overrides of each cell, from config and scale.
    judge: from the table of results, config and scale.
    measure: what else the trained cells are asked: returns rows to add to the table,
      from the table, config, scale, the study's folder, that of its page, and data_dir.
    num_depths: how many depths it compares at least; 0: its networks have one depth, of
      scale or config.
    configs: {name of a scale: shipped config to start from there, not the scale's own}.
  """

  title: str
  question: str
  published: Table | None
  fields: Callable[[ConfigDict, Scale], Fields]
  sweep: Callable[[ConfigDict, Scale], list[dict[str, Any]]]
  judge: Callable[[Any, ConfigDict, Scale], Findings]
  measure: Callable[..., list[dict[str, Any]]] | None = None
  num_depths: int = 0
  configs: Mapping[str, str] = dataclasses.field(default_factory=dict)


def metric_of(config: ConfigDict) -> tuple[str, str]:
  """Returns the metric that a study is judged by, and its words."""
  if config.train.loss == 'sigmoid':
    return 'test/map100', 'test mAP at 100'
  return 'test/top1', 'test top-1 accuracy'
