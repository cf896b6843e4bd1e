"""One law fitted to runs, as the tests of it want it."""

import numpy as np

from analysis import noise
from analysis.law_fit import LawFit, fit_law


def fitted(
  sizes, values, law, *, kind='accuracy', num_test=None, seed=0, **options
) -> LawFit:
  points = noise.group(np.asarray(sizes, float), np.asarray(values, float))
  evidence = noise.known(points, None, num_test)
  return fit_law(
    law, points, evidence, kind=kind, generator=np.random.default_rng(seed), **options
  )
