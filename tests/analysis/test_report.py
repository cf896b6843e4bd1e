"""Figures and reports: written, deterministic, self-contained, honest about gaps."""

import html.parser
import re

import numpy as np
import pandas as pd
import pytest

from analysis import words
from analysis.document import (
  Item,
  Items,
  Paragraph,
  Table,
  to_html,
  to_markdown,
  to_text,
)
from analysis.figures import save_figure
from analysis.fit_table import fit_table, kind_of
from analysis.laws import LAWS
from analysis.report import write_fit_report, write_report
from analysis.study_figures import accuracy_against_depth, accuracy_against_images


def words_of(report) -> str:
  """The terminal text with its line breaks undone."""
  return ' '.join(report.text.split())


def test_writes_everything_and_says_the_answer(make_study):
  report = write_report(make_study())
  names = {path.name for path in report.paths}
  assert names == {
    'results.csv',
    'fits.csv',
    'interaction.csv',
    'accuracy_vs_images.png',
    'accuracy_vs_images.svg',
    'accuracy_vs_depth.png',
    'accuracy_vs_depth.svg',
    'report.md',
    'report.html',
  }
  # Nothing else stays behind: every file was replaced whole.
  assert {path.name for path in report.folder.iterdir()} == names
  assert max(map(len, report.text.splitlines())) <= 100
  assert 'Doubling the data from 1,437 images is forecast to bring' in words_of(report)
  assert 'between depths' in report.text or 'Deeper gains' in report.text
  fits = pd.read_csv(report.folder / 'fits.csv')
  assert {'c', 'c_lo', 'c_hi', 'predict_10x_lo', 'grade_reason'} <= set(fits.columns)
  assert len(fits) == 2 * 3  # depths and metrics, a row a curve
  assert set(fits['status']) == {'fitted'}
  assert fits.loc[fits['law'] == 'power_floor', 'c_lo'].notna().all()
  assert set(fits['law']) <= set(LAWS)
  assert fits['predict_10x_lo'].notna().all()
  assert 'all laws together missed by' in words_of(report)
  assert 'Had you stopped at half the data' in report.text


def test_two_reports_are_equal(make_study, tmp_path):
  folder = make_study()
  one = write_report(folder, tmp_path / 'one')
  two = write_report(folder, tmp_path / 'two')
  assert one.text == two.text
  for left, right in zip(one.paths, two.paths, strict=True):
    assert left.read_bytes() == right.read_bytes(), left.name


class _Page(html.parser.HTMLParser):
  def __init__(self):
    super().__init__()
    self.loads, self.ids, self.tags = [], [], set()

  def handle_starttag(self, tag, attrs):
    self.tags.add(tag)
    for name, value in attrs:
      if name == 'id':
        self.ids.append(value)
      if name in ('src', 'href', 'xlink:href', 'data', 'srcset') and value[:1] != '#':
        self.loads.append(value)


def test_html_stands_alone(make_study):
  text = (write_report(make_study()).folder / 'report.html').read_text()
  page = _Page()
  page.feed(text)
  assert page.loads == []
  assert 'http' not in text
  assert '@import' not in text
  assert not re.search(r'url\((?!#)', text)
  assert page.tags.isdisjoint({'script', 'link', 'img', 'iframe'})
  assert len(page.ids) == len(set(page.ids))
  referred = set(re.findall(r'(?:url\(|href=")#([^)"]+)', text))
  assert referred <= set(page.ids)
  for part in ('jax', '0.10.0', 'abc1234', 'num_images', 'scaling sweep --config='):
    assert part in text


def test_missing_cells_and_their_reasons(make_study):
  states = {
    (20, 0, 1): ('failed', 'ValueError: <nan> & co'),
    (8, 50, 0): ('pending', None),
  }
  report = write_report(make_study(states=states))
  assert '2 of 36 cells have no result: 1 failed, 1 pending.' in report.text
  page = (report.folder / 'report.html').read_text()
  assert 'ValueError: &lt;nan&gt; &amp; co' in page


def test_nothing_done_yet(make_study):
  states = {(8, size, 0): ('pending', None) for size in (50, 100)}
  report = write_report(
    make_study(depths=(8,), sizes=(50, 100), seeds=(0,), states=states)
  )
  assert 'No cell of this study has a result yet (2 listed)' in report.text
  assert (report.folder / 'report.html').exists()
  assert pd.read_csv(report.folder / 'results.csv').empty


def test_one_depth(make_study):
  report = write_report(make_study(depths=(8,)))
  assert 'one depth (8)' in words_of(report)
  assert not (report.folder / 'accuracy_vs_depth.svg').exists()


def test_one_seed(make_study):
  report = write_report(make_study(seeds=(0,)))
  assert '% (1)' in report.text
  assert '±' not in report.text.split('Results')[1].split('test top-1')[0]
  fits = pd.read_csv(report.folder / 'fits.csv')
  assert fits['flags'].str.contains('no repeats').all()


def test_too_few_sizes_are_refused_in_the_report(make_study):
  report = write_report(make_study(sizes=(50, 100, 200)))
  assert '3 distinct sizes; a curve needs at least 4' in report.text
  assert 'nothing is forecast' in words_of(report)
  assert (report.folder / 'accuracy_vs_images.svg').exists()


def test_two_sizes_forecast_nothing(make_study):
  report = write_report(make_study(sizes=(50, 100)))
  assert 'nothing is forecast' in words_of(report)
  assert '2 distinct sizes; a curve needs at least 4' in words_of(report)


def test_several_widths_and_fixed_steps(make_study):
  report = write_report(make_study(widths=(16, 32), epochs=0.0, steps=300))
  page = (report.folder / 'report.html').read_text()
  assert 'every subset gets the same compute' in page
  assert 'depth 8, width 32' in report.text


FEW = ('constant', 'log_linear', 'power_floor')


def table(seeds=2):
  rng = np.random.default_rng(0)
  rows = [
    {
      'depth': depth,
      'num_images': size,
      'seed': seed,
      'value': 1 - (0.1 + 3 / depth * size**-0.4) + 0.01 * rng.standard_normal(),
    }
    for depth in (8, 20)
    for size in (50, 100, 200, 400, 800)
    for seed in range(seeds)
  ]
  return pd.DataFrame(rows)


def test_figures_are_deterministic(tmp_path):
  data = table()
  fits = fit_table(data, group=['depth'], laws=FEW, draws=50).fits['value']
  for turn in 'ab':
    figure = accuracy_against_images(
      data,
      fits,
      'title',
      group=['depth'],
      chance=0.1,
    )
    save_figure(figure, tmp_path / f'images-{turn}')
    save_figure(accuracy_against_depth(data, 'title'), tmp_path / f'depth-{turn}')
  for name in ('images', 'depth'):
    for suffix in ('svg', 'png'):
      pair = [(tmp_path / f'{name}-{turn}.{suffix}').read_bytes() for turn in 'ab']
      assert pair[0] == pair[1]
      assert len(pair[0]) > 5000


def test_figure_without_any_fit_shows_the_points(tmp_path):
  figure = accuracy_against_images(table(seeds=1), {}, 'points only')
  assert all(path.exists() for path in save_figure(figure, tmp_path / 'points'))


def test_axis_labels_are_image_counts():
  data = table().assign(num_images=lambda d: d['num_images'] * 20_000)
  axes = accuracy_against_images(data, {}).axes[0]
  labels = [label.get_text() for label in axes.get_xticklabels()]
  assert labels == ['1M', '2M', '5M', '10M', '20M']


def test_fits_any_table_and_refuses_groups_one_by_one(tmp_path):
  data = table()
  short = pd.concat([data, data[data['num_images'] <= 100].assign(depth=50)])
  report = write_fit_report(tmp_path, short, group=['depth'], metric='accuracy')
  fits = pd.read_csv(tmp_path / 'fits.csv')
  assert fits.set_index('depth')['status'].to_dict() == {
    8: 'fitted',
    20: 'fitted',
    50: 'refused',
  }
  assert set(fits['metric']) == {'accuracy'}
  predictions = pd.read_csv(tmp_path / 'predictions.csv')
  assert {1600, 8000} <= set(predictions['num_images'])
  assert set(predictions['depth']) == {8, 20}
  names = {path.name for path in report.paths}
  assert names >= {'audit.json', 'fit.md', 'curves.png', 'curves.svg'}
  # Nothing else stays behind.
  assert set(report.paths) == {p for p in tmp_path.rglob('*') if p.is_file()}
  assert '2 distinct sizes' in report.text


def test_ungrouped_loss(tmp_path):
  data = table().query('depth == 8').drop(columns='depth')
  data['value'] = 2 * (1 - data['value'])
  report = write_fit_report(tmp_path, data, kind='loss', metric='loss')
  fits = pd.read_csv(tmp_path / 'fits.csv')
  assert len(fits) == 1
  assert (fits['gain_per_doubling'] > 0).all()
  # Shares of laws and the level are in percent, but no loss is.
  values = report.text.split('Which law')[0].replace('90%', '')
  assert '%' not in values
  assert 'points' not in values


def test_answers_targets_and_sizes(tmp_path):
  data = table()
  sizes = pd.DataFrame({'depth': [20, 99, 8, 20], 'num_images': [50.0, 9.0, 5e3, 1e5]})
  report = write_fit_report(
    tmp_path, data, group=['depth'], sizes=sizes, size='images', targets=[0.8, 0.999]
  )
  found = pd.read_csv(tmp_path / 'predictions.csv')
  assert list(found['depth']) == [20, 99, 8, 20]
  assert list(found['images']) == list(found['size']) == [50, 9, 5000, 1e5]
  assert found['reason'].isna().tolist() == [True, False, True, True]
  assert found['value'].isna().tolist() == [False, True, False, False]
  text = words_of(report)
  assert text.count('accuracy 80.0% needs') == 2
  assert text.count('accuracy 99.9%') == 2


@pytest.mark.parametrize(
  ('number', 'text'),
  [
    (50, '50'),
    (1437, '1.44k'),
    (10_000, '10k'),
    (999_600, '1M'),
    (3e8, '300M'),
    (1e9, '1G'),
  ],
)
def test_counts_read_well(number, text):
  assert words.count(number) == text


def test_kinds_by_name():
  assert kind_of('test/top1') == 'accuracy'
  assert kind_of('test/loss') == 'loss'
  assert kind_of('test_error_pct') == 'error'


def test_renderings_escape():
  blocks = [Paragraph('a < b', lead=True), Table(['x', 'y|z'], [['<b>', '*']])]
  assert '&lt;b&gt;' in to_html('t & u', blocks)
  assert r'y\|z' in to_markdown('t', blocks)
  assert 'a < b' in to_text('t', blocks)


def test_statements_are_rendered_alike():
  lines = [('measured', 'tale ' * 40), ('', 'why <so>')]
  blocks = [Items([Item('holds', 'a_claim', lines)], 'a note')]
  page, markdown, text = (
    render('t', blocks) for render in (to_html, to_markdown, to_text)
  )
  assert '<dt><b>holds</b> a_claim</dt>' in page
  assert 'why &lt;so&gt;' in page
  assert r'**holds** a\_claim' in markdown
  assert 'HOLDS          a_claim' in text
  assert max(map(len, text.splitlines())) <= 100
  for found in (page, markdown, text):
    assert found.count('tale') == 40
    assert found.count('a note') == 1


def test_average_precision_is_a_metric_among_the_others(make_study):
  folder = make_study(depths=(8,))
  for path in folder.glob('cells/*/metrics.jsonl'):
    # Half of the top-1, only to have numbers.
    text = re.sub(
      r'"test/top1": ([\d.]+)',
      lambda m: f'{m[0]}, "test/map100": {float(m[1]) / 2}',
      path.read_text(),
    )
    path.write_text(text)
  report = write_report(folder)
  fits = pd.read_csv(report.folder / 'fits.csv')
  assert set(fits['metric']) == {'test/top1', 'test/top5', 'test/loss', 'test/map100'}
  assert set(fits['status']) == {'fitted'}
  assert kind_of('test/map100') == 'accuracy'
  assert 'top-1' in report.text  # what the answer is about stays what it was
