"""What the laws' forecasts of sizes that they had not seen are worth.

`analysis.ensemble.roll` lets every member foretell the larger sizes from the smaller
ones. From that follow the say of each law, the window it is fitted in, how wide the
bands have to be, and the record of what was forecast and what was there.
"""

import dataclasses

import numpy as np

from analysis import ensemble
from analysis.prediction import as_error

# Rolling scores of one curve are sums over origins that share their held-out sizes, so
# they count for about half of what as many independent ones would.
_TEMPERATURE = 0.5
# Votes of a band being as wide as it says, against one from each rolling origin.
_SPREAD_PRIOR = 4.0
_HYSTERESIS = 1.5


@dataclasses.dataclass(frozen=True)
class Held:
  """One forecast of a size that was held out, and what was there.

  Attributes:
    origin: largest size seen, in images.
    size: asked for.
    value, lo, hi: what the laws together said.
    observed: the mean of the runs.
  """

  origin: float
  size: float
  value: float
  lo: float
  hi: float
  observed: float


def member_weights(rolled: ensemble.Rolled) -> np.ndarray:
  """[M] say of each member in the forecast; they add to 1."""
  scores = _TEMPERATURE * rolled.scores
  weights = np.exp(scores - scores.max())
  return weights / weights.sum()


def law_weights(rolled: ensemble.Rolled, weights: np.ndarray) -> dict[str, float]:
  """The say of each law: that of its members [M] together."""
  shares: dict[str, float] = {}
  for member, weight in zip(rolled.members, weights, strict=True):
    shares[member.law] = shares.get(member.law, 0.0) + float(weight)
  return shares


def law_scores(rolled: ensemble.Rolled) -> dict[str, float]:
  """Mean log density per origin of the best member of each law."""
  best: dict[str, float] = {}
  for member, score in zip(rolled.members, rolled.scores, strict=True):
    best[member.law] = max(best.get(member.law, -np.inf), float(score))
  return {law: score / max(len(rolled.origins), 1) for law, score in best.items()}


def window(rolled: ensemble.Rolled, weights: np.ndarray, law: str) -> int:
  """How many small sizes to leave out: the window in which the law forecast best."""
  share: dict[int, float] = {0: 0.0}
  for member, weight in zip(rolled.members, weights, strict=True):
    if member.law == law:
      share[member.skip] = share.get(member.skip, 0.0) + float(weight)
  # All sizes unless fewer did clearly better: one more run should not move the window.
  return max(share, key=lambda skip: share[skip] * (1.0 if skip else _HYSTERESIS))


def held_out(
  rolled: ensemble.Rolled,
  weights: np.ndarray,
  data: ensemble.Data,
  observed: np.ndarray,
  kind: str,
  level: float,
) -> tuple[Held, ...]:
  """What the members together said of each held-out size.

  Args:
    rolled: the forecasts, as errors.
    weights: [M] of the members.
    data: the curve as errors.
    observed: [J] means of the runs, in the unit of the data.
    kind: what the values are.
    level: nominal coverage of the intervals.
  """
  from scipy.special import stdtrit  # its import costs more than a fit

  tail = (1 - level) / 2
  shares = (np.arange(21) + 0.5) / 21
  heavy = weights > 1e-3 * weights.max()
  weight = np.repeat(weights[heavy] / len(shares), len(shares))
  held = []
  for origin, sizes, mean, deviation, dof in zip(
    rolled.origins,
    rolled.targets,
    rolled.means,
    rolled.deviations,
    rolled.dof,
    strict=True,
  ):
    t = stdtrit(dof[heavy][:, None], shares)  # [M, 21]
    values = mean[heavy][:, None] + deviation[heavy][:, None] * t[..., None]
    flat = values.reshape(-1, len(sizes))
    for index, size in enumerate(sizes):
      order = np.argsort(flat[:, index])
      edges = np.cumsum(weight[order])
      ends = np.searchsorted(edges / edges[-1], [tail, 0.5, 1 - tail])
      found = flat[order[np.minimum(ends, len(order) - 1)], index]
      if data.bounded:
        found = np.clip(found, 0.0, 1.0)
      lo, value, hi = np.sort(as_error(kind, found))
      there = float(observed[origin + index])
      held.append(
        Held(float(data.sizes[origin - 1]), float(size), value, lo, hi, there)
      )
  return tuple(held)


def misses(
  rolled: ensemble.Rolled,
  weights: np.ndarray,
  data: ensemble.Data,
  held: tuple[Held, ...],
) -> tuple[float | None, int, dict[str, float]]:
  """Mean absolute miss of the one or two largest sizes when they were held out.

  Returns:
    That of all laws together, None with too few sizes; how many sizes; and by law.
  """
  count = 2 if len(data.sizes) >= 6 else 1
  origin = len(data.sizes) - count
  if origin not in rolled.origins:
    return None, 0, {}
  seen = float(data.sizes[origin - 1])
  together = np.mean([abs(h.value - h.observed) for h in held if h.origin == seen])
  mean = rolled.means[rolled.origins.index(origin)]
  by_law = {}
  for law in dict.fromkeys(member.law for member in rolled.members):
    mine = np.array([member.law == law for member in rolled.members])
    weight = weights[mine] + 1e-300
    value = weight @ mean[mine] / weight.sum()
    by_law[law] = float(np.abs(value - data.errors[origin:]).mean())
  return float(together), count, by_law


def spread(held: tuple[Held, ...]) -> float:
  """How wide the bands should have been to hold the held-out sizes, as a factor.

  The root of the mean squared miss in units of the band's own deviation, one vote an
  origin (its sizes share their error), held towards 1 by `_SPREAD_PRIOR` votes. Good
  forecasts narrow them little: real curves bend where they have not bent before.
  """
  votes: dict[float, list[float]] = {}
  for one in held:
    end = one.hi if one.observed > one.value else one.lo
    half = max(abs(end - one.value), 1e-12)
    # 1.645 deviations of a normal are half a 90% band; far outliers count as 3 bands.
    votes.setdefault(one.origin, []).append(
      min(1.645 * abs(one.observed - one.value) / half, 5.0) ** 2
    )
  means = [float(np.mean(vote)) for vote in votes.values()]
  square = (_SPREAD_PRIOR + sum(means)) / (_SPREAD_PRIOR + len(means))
  return float(np.clip(np.sqrt(square), 0.85, 2.0))
