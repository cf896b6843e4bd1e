"""The studies of Sun et al. (2017) and of its talk, one file each.

Each file has the question, the cells, and how the claims are judged; `study.py` says
what a study is, `scales.py` how large it is run. A study reads nothing but the table of
results, so that it can be judged again from the CSV that it left.
"""

import importlib
from typing import Any

NAMES = (
  'data_size',
  'depth',
  'width_or_depth',
  'epochs',
  'label_space',
  'label_noise',
  'transfer',
  'initialisation',
  'dedup',
  'schedule',
)


def load(name: str) -> Any:
  """Returns a `PaperStudy`; on demand, for it brings the tables along."""
  return importlib.import_module(f'experiments.paper.{name}').STUDY
