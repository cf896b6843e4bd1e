"""Figures of fitted curves: what is drawn is what was fitted, for every kind of data."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from analysis.curve_figures import curve_figure, curves_figure
from analysis.drawing import CHOSEN, FORECAST, forecast
from analysis.evidence_figures import (
  images_figure,
  residual_figure,
  ridge_figure,
  rolling_figure,
)
from analysis.figures import save_figure
from analysis.fit import Fit, fit
from analysis.laws import LAWS
from analysis.prediction import Refusal
from analysis.ridge import Ridge, ridge

SINGLE = (curve_figure, residual_figure, rolling_figure, ridge_figure, images_figure)


def simulated(kind: str) -> Fit:
  rng = np.random.default_rng(3)
  if kind == 'loss':
    sizes = np.geomspace(1e4, 1e7, 7)
    values = 2.7 + 30 * sizes**-0.3 + 0.02 * rng.standard_normal(7)
  else:
    sizes = np.repeat([50.0, 100, 200, 400, 600, 800, 1100, 1437], 3)
    values = 0.02 + 2 * sizes**-0.6 + 0.006 * rng.standard_normal(24)
    values = 1 - values if kind == 'accuracy' else values
  return fitted(sizes, values, kind=kind)


def fitted(sizes, values, **options) -> Fit:
  found = fit(sizes, values, draws=50, **options)
  assert isinstance(found, Fit)
  return found


@pytest.fixture(scope='module')
def fits() -> dict[str, Fit]:
  falling = np.maximum(0.3 * np.exp(-np.array([50, 100, 200, 400, 800, 1600]) / 150), 0)
  falling[-2:] = 0
  few = np.array([1e6, 3e6, 1e7, 3e7])
  rng = np.random.default_rng(0)
  many = np.geomspace(100, 1e6, 20)
  noisy = 0.05 + 2 * many**-0.35 + rng.normal(0, 0.015, 20)
  return {kind: simulated(kind) for kind in ('accuracy', 'error', 'loss')} | {
    'few': fitted(few, [0.38, 0.42, 0.455, 0.495]),
    'constant': fitted([10, 20, 40, 80], [0.5] * 4),
    'perfect': fitted([10, 20, 40, 80], [1.0] * 4),
    'zeros': fitted([50, 100, 200, 400, 800, 1600], falling, kind='error'),
    'many': fitted(many, noisy, kind='error'),
  }


ALL = ('accuracy', 'error', 'loss', 'few', 'constant', 'perfect', 'zeros', 'many')


def texts(figure) -> str:
  found = [text.get_text() for axes in figure.axes for text in axes.texts]
  found += [text.get_text() for legend in figure.legends for text in legend.get_texts()]
  return ' | '.join(text.replace('\n', ' ') for text in found)


def marked(axes, gid):
  return next(line for line in axes.lines if line.get_gid() == gid)


@pytest.mark.parametrize('name', ALL)
@pytest.mark.parametrize('scale', ['score', 'error'])
def test_one_curve(fits, name, scale):
  found = fits[name]
  figure = curve_figure(found, scale=scale, title='title', metric='top-1 accuracy')
  axes = figure.axes[0]
  assert axes.get_xscale() == 'log'
  assert axes.get_yscale() == ('log' if scale == 'error' else 'linear')
  low, high = axes.get_ylim()
  left, right = axes.get_xlim()
  assert np.isfinite([low, high]).all()
  assert low < high
  # Every run and the whole forecast line are in view.
  seen = [line for line in axes.lines if line.get_color() == FORECAST]
  for line in seen:
    x, y = (np.asarray(part, float) for part in line.get_data())
    assert ((x >= left) & (x <= right) & (y >= low) & (y <= high)).all()
  sizes = found.points.sizes
  lines = [line for line in seen if len(line.get_xdata()) > len(found.runs[0])]
  solid, dashed = lines[:2]
  assert solid.get_linestyle() == '-'
  assert solid.get_xdata()[-1] == sizes[-1] == dashed.get_xdata()[0]
  assert dashed.is_dashed()
  assert dashed.get_xdata()[-1] == pytest.approx(10 * sizes[-1])
  bands = [
    c for c in axes.collections if type(c).__name__ == 'FillBetweenPolyCollection'
  ]
  bands = bands or [c for c in axes.collections if 'Poly' in type(c).__name__]
  assert len(bands) == 2
  assert len({band.get_alpha() for band in bands}) == 2
  window = marked(axes, 'window')
  assert tuple(window.get_xdata()[1:3]) == found.window
  assert window.get_color() == CHOSEN
  words = texts(figure)
  for part in ('all laws', 'window', '90% band of the curve', '90% band of a new run'):
    assert part in words
  assert found.law == 'log_linear' or LAWS[found.law].title in words
  assert ('log-linear (2017)' in words) == ('log_linear' in str(drawn(axes)))
  repeats = len(found.runs[0]) > len(sizes)
  assert ('range of seeds' in words) == repeats


def drawn(axes) -> set[str]:
  return {
    line.get_gid()[4:] for line in axes.lines if str(line.get_gid()).startswith('law-')
  }


def is_dotted(line) -> bool:
  return line.get_linestyle() == ':'


def test_laws_behind_the_forecast(fits):
  found = fits['accuracy']
  axes = curve_figure(found).axes[0]
  heard = {law for law, weight in found.weights.items() if weight >= 0.02}
  assert drawn(axes) == heard | {found.law, 'log_linear'}
  assert is_dotted(marked(axes, 'law-log_linear'))
  chosen = marked(axes, f'law-{found.law}')
  assert chosen.get_color() == CHOSEN
  x = chosen.get_xdata()
  np.testing.assert_array_equal(chosen.get_ydata(), 100 * found.best.curve(x))
  alone = curve_figure(found, others=False).axes[0]
  assert drawn(alone) == {found.law, 'log_linear'}
  # The claim is drawn and named in full even where a law without a say would not be.
  silent = dataclasses.replace(found, weights={**found.weights, 'log_linear': 0.0})
  assert 'log_linear' in drawn(curve_figure(silent).axes[0])


def test_axis_names_carry_units(fits):
  def name(kind, scale, metric=''):
    return curve_figure(fits[kind], scale=scale, metric=metric).axes[0].get_ylabel()

  assert name('accuracy', 'score') == 'accuracy (%)'
  assert name('accuracy', 'error', 'top-1 accuracy') == 'top-1 error (%, log scale)'
  assert name('loss', 'score', 'loss (nats)') == 'loss (nats)'
  axes = curve_figure(fits['loss']).axes[0]
  assert axes.get_xlabel() == 'training images (log scale)'
  # A loss is drawn as it is, a fraction in percent.
  assert axes.get_ylim()[1] < 6


def test_errors_of_zero_are_clipped_and_it_is_said(fits):
  found = fits['zeros']
  figure = curve_figure(found, scale='error')
  lowest = 100 * found.points.means[found.points.means > 0].min() / 2
  assert f'errors of 0 are drawn at {lowest:.3g}%' in texts(figure)
  assert 'errors of 0' not in texts(curve_figure(found, scale='score'))
  points = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 6]
  assert points[0].get_ydata().min() == pytest.approx(lowest)


def test_forecast_is_that_of_the_fit(fits):
  found = fits['accuracy']
  x, said = forecast(found, 3e3)
  start = found.points.sizes[max(draws.member.skip for draws in found.draws)]
  told = x >= start
  expected = found.predict(x[told])
  for drawn_band, band in zip(said, expected, strict=True):
    np.testing.assert_allclose(drawn_band[told], band, rtol=1e-12)


def test_targets_are_marked_with_what_they_need(fits):
  figure = curve_figure(fits['accuracy'], targets=[0.97, 0.9999])
  words = texts(figure)
  assert '97.0%: ' in words
  assert 'never' in words
  assert figure.axes[0].get_ylim()[1] > 99.99
  assert '3.0%: ' in texts(
    curve_figure(fits['accuracy'], scale='error', targets=[0.97])
  )


def test_unknown_scale_is_named(fits):
  with pytest.raises(ValueError, match="scale='log' is not one of 'score', 'error'"):
    curve_figure(fits['loss'], scale='log')  # pyright: ignore


@pytest.mark.parametrize('make', SINGLE)
def test_forecast_bands_need_no_draws_of_the_laws(make):
  found = fit([50, 100, 200, 400, 800], [0.6, 0.7, 0.78, 0.83, 0.88], draws=0)
  assert isinstance(found, Fit)
  assert make(found).axes


@pytest.mark.parametrize('make', SINGLE)
def test_equal_input_gives_equal_bytes(fits, make, tmp_path):
  for turn in 'ab':
    save_figure(make(fits['accuracy'], title='title', note='note'), tmp_path / turn)
  for suffix in ('svg', 'png'):
    one, two = ((tmp_path / f'{turn}.{suffix}').read_bytes() for turn in 'ab')
    assert one == two
    assert len(one) > 5000


@pytest.mark.parametrize('make', SINGLE)
@pytest.mark.parametrize('name', ALL)
def test_no_name_runs_off_the_page(fits, make, name, tmp_path):
  figure = make(fits[name], title='title', note='note')
  save_figure(figure, tmp_path / 'drawn')
  width, height = figure.get_size_inches()
  assert width <= 4
  page = figure.get_tightbbox()
  assert page.x0 >= -0.02
  assert page.x1 <= width + 0.02
  assert page.y0 >= -0.02
  assert page.y1 <= height + 0.02


@pytest.fixture(scope='module')
def table() -> pd.DataFrame:
  rng = np.random.default_rng(0)
  rows = [
    (depth, size, 0.9 - 2 / depth - 2 * size**-0.45 + 0.005 * rng.standard_normal())
    for depth in (8, 20, 50)
    for size in (50, 100, 200, 400, 800)
    for _ in range(2)
    if depth < 50 or size < 400
  ]
  return pd.DataFrame(rows, columns=['depth', 'num_images', 'value'])


@pytest.fixture(scope='module')
def by_depth(table) -> dict[tuple, Fit | Refusal]:
  return {
    (depth,): fit(rows['num_images'].to_numpy(), rows['value'].to_numpy(), draws=50)
    for depth, rows in table.groupby('depth')
  }


@pytest.mark.parametrize('scale', ['score', 'error'])
def test_several_curves(table, by_depth, scale, tmp_path):
  assert isinstance(by_depth[(50,)], Refusal)
  options = {'group': ['depth'], 'scale': scale, 'table': table, 'title': 'depths'}
  figure = curves_figure(by_depth, **options)
  axes = figure.axes[0]
  words = texts(figure)
  for part in ('depth 8', 'depth 20', 'depth 50 (no fit)', '90% band of a new run'):
    assert part in words
  bands = [c for c in axes.collections if 'Poly' in type(c).__name__]
  assert len(bands) == 2 * 2
  low, high = axes.get_ylim()
  shown = 100 * (1 - table['value'] if scale == 'error' else table['value'])
  assert low < shown.min() < shown.max() < high
  for turn in 'ab':
    save_figure(curves_figure(by_depth, **options), tmp_path / turn)
  assert (tmp_path / 'a.svg').read_bytes() == (tmp_path / 'b.svg').read_bytes()


def test_more_curves_than_can_be_told_apart(by_depth):
  many = dict.fromkeys([(depth,) for depth in range(11)], by_depth[(8,)])
  words = texts(curves_figure(many, group=['depth']))
  assert '3 more curves are not shown' in words
  assert 'depth 7' in words
  assert 'depth 8' not in words


def test_curves_that_cannot_share_a_figure(fits, by_depth):
  with pytest.raises(ValueError, match='accuracy and loss share no axis'):
    curves_figure({(8,): fits['accuracy'], (20,): fits['loss']}, group=['depth'])
  with pytest.raises(ValueError, match='no curve'):
    curves_figure({}, group=['depth'])
  # Refused, and nothing to draw it from: an empty figure rather than none.
  assert curves_figure({(50,): by_depth[(50,)]}, group=['depth']).axes


@pytest.mark.parametrize('name', ALL)
def test_residuals(fits, name):
  found = fits[name]
  axes = residual_figure(found).axes[0]
  law = next(line for line in axes.lines if line.get_marker() == 'o')
  unit = 1 if found.kind == 'loss' else 100
  expected = unit * (found.points.means - found.best.curve(found.points.sizes))
  np.testing.assert_allclose(law.get_ydata(), expected)
  low, high = axes.get_ylim()
  inside = found.points.sizes >= found.window[0]
  assert (low < expected[inside]).all()
  assert (expected[inside] < high).all()
  assert axes.get_xscale() == 'log'
  assert tuple(marked(axes, 'window').get_xdata()[1:3]) == found.window
  deviation = np.sqrt(
    found.best.noise.run_variance(found.points.sizes, found.best.points)
  )
  top = axes.collections[0].get_paths()[0].vertices[:, 1].max()
  assert top == pytest.approx(2 * unit * deviation.max(), rel=0.02, abs=1e-12)
  assert '±2 sd of one run' in texts(residual_figure(found))


@pytest.mark.parametrize('name', ALL)
def test_rolling(fits, name):
  found = fits[name]
  figure = rolling_figure(found, note='note')
  hits = sum(held.lo <= held.observed <= held.hi for held in found.held)
  words = texts(figure)
  assert f'note; {hits} of {len(found.held)} held-out means' in words
  axes = figure.axes[0]
  origins = {held.origin for held in found.held}
  assert len(axes.texts) == 2 + len(origins) + 1  # title, note, names, their heading
  fans = [c for c in axes.collections if 'Poly' in type(c).__name__]
  assert len(fans) == len(origins)
  low, high = axes.get_ylim()
  shown = np.array([held.observed for held in found.held])
  shown = shown if found.kind == 'loss' else 100 * shown
  assert (low < shown).all()
  assert (shown < high).all()


def test_rolling_without_anything_held_out(fits):
  figure = rolling_figure(dataclasses.replace(fits['few'], held=()))
  assert 'too few sizes to hold any out' in texts(figure)


@pytest.mark.parametrize('name', ['accuracy', 'error', 'loss'])
def test_the_ridge_agrees_with_the_profile_intervals(fits, name):
  found = fits[name]
  law = found.laws['power_floor']
  shape = ridge(found)
  assert isinstance(shape, Ridge)
  assert shape.excess.shape == (len(shape.exponents), len(shape.floors))
  # Nothing on the grid beats the optimum by more than rounding.
  assert shape.excess.min() > -1e-6 * shape.limits[0]
  inside = shape.excess <= shape.limits[1]
  for values, axis, parameter in (
    (shape.floors, 0, 'e'),
    (shape.exponents, 1, 'c'),
  ):
    reached = values[inside.any(axis=axis)]
    lo, hi = law.intervals[parameter]
    # A cell of either grid: the profile's steps are a few percent at its ends.
    slack = 2 * np.diff(values).max() + 0.04 * (hi - lo)
    assert reached[0] == pytest.approx(lo, abs=slack)
    assert reached[-1] == pytest.approx(hi, abs=slack)


def test_ridge_figure(fits):
  found = fits['accuracy']
  figure = ridge_figure(found)
  axes = figure.axes[0]
  assert axes.get_yscale() == 'log'
  best = found.laws['power_floor'].params
  star = marked(axes, 'optimum')
  assert star.get_xdata()[0] == 100 * best['e']
  assert star.get_ydata()[0] == best['c']
  words = texts(figure)
  for part in ('50% region', '90% region', '99% region', 'bootstrap draw'):
    assert part in words
  assert 'all 4 values are equal' in texts(ridge_figure(fits['constant']))


def test_ridge_without_the_law():
  found = fit([50, 100, 200, 400], [0.6, 0.7, 0.78, 0.83], laws=['power'], draws=0)
  assert isinstance(found, Fit)
  assert isinstance(ridge(found), Refusal)
  assert 'told to leave out power_floor' in texts(ridge_figure(found))


@pytest.mark.parametrize('name', ['accuracy', 'loss'])
def test_images_for_targets(fits, name):
  found = fits[name]
  targets = [0.9, 0.95, 0.97, 1.0] if name == 'accuracy' else [3.2, 3.0, 2.8, 1.0]
  figure = images_figure(found, targets)
  axes, below = figure.axes
  unit = 100 if name == 'accuracy' else 1
  answers = [found.images_for(target) for target in targets]
  reached = [answer for answer in answers if answer.probability >= 0.5]
  line = next(line for line in axes.lines if len(line.get_xdata()) == len(reached))
  np.testing.assert_allclose(line.get_xdata(), [unit * a.target for a in reached])
  np.testing.assert_allclose(line.get_ydata(), [a.size for a in reached])
  np.testing.assert_allclose(
    below.lines[0].get_ydata(), [100 * answer.probability for answer in answers]
  )
  assert axes.get_yscale() == 'log'
  assert axes.get_xlim() == below.get_xlim()
  # Better is to the right, whatever the kind.
  assert (axes.get_xlim()[0] < axes.get_xlim()[1]) == (name == 'accuracy')
  assert ('never' in texts(figure)) == (len(reached) < len(answers))
  assert len(reached) < len(answers)
  with pytest.raises(ValueError, match='no target'):
    images_figure(found, [])
