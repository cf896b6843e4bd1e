"""The command line in-process: what it answers, and that errors are one line."""

import json
import pathlib
import re
import shlex

import pandas as pd
import pytest

import configs
from experiments import cli, sweep

# ml_collections loads config files in a way that Python 3.11 already warns about.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')

SHIPPED = pathlib.Path(configs.__file__).parent


def test_no_verb_shows_all_of_them(call):
  status, out, err = call()
  assert (status, err) == (2, '')
  assert all(f'  {verb} ' in out for verb in cli.VERBS)
  assert call('--help') == (0, out, '')


@pytest.mark.parametrize('verb', cli.VERBS)
def test_help_of_every_verb_has_an_example_that_parses(verb, call, monkeypatch):
  status, out, err = call(*verb.split(), '--help')
  assert (status, err) == (0, '')
  (line,) = re.findall(r'^example: scaling (.*)$', out, re.MULTILINE)
  monkeypatch.chdir(SHIPPED.parent)
  words = shlex.split(line)
  length = len(verb.split())
  assert words[:length] == verb.split()
  assert cli.parse(verb, words[length:])
  for flag in cli.VERBS[verb].flags:
    assert f'--{flag}' in out


def test_unknown_verb(error):
  assert 'Did you mean "sweep"?' in error('sweeep')


@pytest.mark.parametrize(
  ('word', 'parts'),
  [
    ('--config.model.depht=14', ['depht', 'Did you mean "depth"']),
    ('--config.modle.depth=14', ['modle', 'model']),
    ('--config.train.steps=many', ['train.steps', 'many']),
    ('--config.model.depth=9', ['model.depth=9', '8, 14']),
    ('--workdri=x', ['workdri', 'workdir']),
    ('--num_devices=0', ['num_devices', '0']),
    ('--device=TPU v6', ['--device', 'Did you mean "TPU v6e"']),
    ('--mfu=2', ['mfu']),
  ],
)
def test_a_word_that_cannot_be_is_named(error, word, parts):
  line = error('plan', '--config=digits', word)
  for part in parts:
    assert part in line


def test_no_use_of_the_device_is_no_division_by_zero(error):
  assert 'mfu' in error('plan', '--config=digits', '--device=H100', '--mfu=0')


def test_words_that_are_no_flags_are_not_passed_over(error):
  # A forgotten `--config.` would run the whole sweep.
  assert 'model.depth=14' in error('plan', '--config=digits', 'model.depth=14')


def test_config_file_that_is_not_there(error, tmp_path):
  assert 'nothing.py' in error('plan', f'--config={tmp_path}/nothing.py')


def test_another_file_of_a_shipped_name_is_not_replaced(error, tmp_path):
  assert str(tmp_path) in error('plan', f'--config={tmp_path}/digits.py')


def test_missing_flags(error):
  assert '--workdir is missing' in error('sweep', '--config=digits')
  assert '--config is missing' in error('plan')
  assert 'CSV' in error('fit')


def test_config_without_a_sweep(error, tmp_path):
  path = tmp_path / 'alone.py'
  path.write_text('from configs.base import get_config\n')
  line = error('sweep', f'--config={path}', f'--workdir={tmp_path / "study"}')
  assert 'get_sweep()' in line
  assert 'scaling train' in line
  assert not (tmp_path / 'study').exists()


@pytest.mark.parametrize('words', [['--config=digits'], ['--config', 'digits']])
def test_shipped_config_by_its_name(call, tmp_path, monkeypatch, words):
  monkeypatch.chdir(tmp_path)
  status, out, err = call('plan', *words, '--config.model.depth=14')
  assert (status, err) == (0, '')
  assert '24 cells' in out
  (tmp_path / 'digits').mkdir()  # as a --workdir may be called
  assert call('plan', *words, '--config.model.depth=14') == (0, out, '')


def test_plan_lists_steps_flops_and_hours(call):
  status, out, err = call('plan', '--config=digits', '--num_devices=2')
  assert (status, err) == (0, '')
  header, *lines, total, source = out.splitlines()
  assert header.split() == ['cell', 'steps', 'FLOPs/image', 'FLOPs', 'hours']
  assert len(lines) == 72
  for line in lines:
    _, steps, per_image, flops, hours = line.split()
    assert steps == '120'
    # Three passes over 120 batches of 64; the table rounds to three digits.
    assert float(flops) == pytest.approx(3 * 120 * 64 * float(per_image), rel=0.01)
    assert float(hours) == pytest.approx(float(flops) / 20e9 / 3600, rel=0.01)
  assert total.startswith('72 cells')
  assert 'guess' in source


def test_plan_of_the_paper_on_a_pod(call):
  words = ('--config=jft', '--device=TPU v5e')
  status, out, _ = call('plan', *words, '--num_devices=32')
  assert status == 0
  (largest,) = [line for line in out.splitlines() if 'resnet101-n300000000' in line]
  assert '37,500,000' in largest  # four passes over 300 million images, 32 at once
  status, out, _ = call('plan', *words, '--num_devices=256')
  assert status == 0
  header, *lines, total = out.splitlines()[:14]
  columns = ['cell', 'steps', 'images/s', 'MFU', 'hours', 'USD', 'GB/chip', 'limit']
  assert header.split() == columns
  assert len(lines) == 12
  assert '146,485' in lines[-1]  # at 8,192, for 32 do not reach 256 devices
  assert '12 cells one after another on 256 x TPU v5e' in total
  assert 'train.batch_size=32 cannot be split' in out
  assert 'Nothing of this was measured by us' in out


def test_plan_at_a_stated_use_of_the_peak(call):
  words = ('--config=digits', '--device=H100', '--num_devices=8')
  status, out, _ = call('plan', *words, '--mfu=0.5')
  assert status == 0
  assert '8 x H100, 989 TFLOP/s peak at 50% use' in out.splitlines()[-1]


def test_plan_as_json(call):
  for words in ((), ('--device=H100', '--num_devices=8', '--price_per_hour=3')):
    status, out, _ = call('plan', '--config=digits', '--json', *words)
    assert status == 0
    data = json.loads(out)
    assert len(data['cells']) == 72
    assert data['notes']
  assert data['total']['cost'] == pytest.approx(3 * data['total']['chip_hours'])


def test_a_pinned_subset_seed_holds_while_the_seed_is_swept(tiny_file):
  words = [f'--config={tiny_file}', '--workdir=w', '--config.data.subset_seed=7']
  args = cli.parse('sweep', words)
  cells = sweep.make_cells(args.config, [{'seed': 0}, {'seed': 1}], args.overrides)
  seeds = [(cell.config.seed, cell.config.data.subset_seed) for cell in cells]
  assert seeds == [(0, 7), (1, 7)]


def test_status_and_report_without_a_study(error, tmp_path):
  for verb in ('status', 'report'):
    line = error(verb, f'--workdir={tmp_path}')
    assert f'{tmp_path} holds no study' in line


def test_workdir_below_a_file(error, tmp_path):
  (tmp_path / 'file').write_text('')
  line = error('sweep', '--config=digits', f'--workdir={tmp_path}/file/study')
  assert f'--workdir={tmp_path}/file/study' in line


def test_workdir_of_another_config_or_kind(error, tiny_file, config, tmp_path):
  cells = sweep.make_cells(config, [{'data.num_images': 10}])
  sweep.write_study(tmp_path, config, 'x.py', cells)
  line = error('sweep', f'--config={tiny_file}', f'--workdir={tmp_path}')
  assert re.search(r'checkpoint\.every_steps is 0 there and 4 here', line)
  assert 'holds a study' in error('train', '--config=digits', f'--workdir={tmp_path}')
  cell = sweep.cell_folder(tmp_path, cells[0].name)
  line = error('sweep', '--config=digits', f'--workdir={cell}')
  assert 'holds a single cell' in line


def test_status_of_a_study_not_begun(call, config, tmp_path):
  cells = sweep.make_cells(config, [{'data.num_images': n} for n in (10, 20)])
  sweep.write_study(tmp_path, config, 'x.py', cells)
  status, out, _ = call('status', f'--workdir={tmp_path}')
  assert status == 0
  assert all(cell.name in out for cell in cells)
  assert out.splitlines()[-1] == 'base: 2 pending'
  _, out, _ = call('status', f'--workdir={tmp_path}', '--json', '--price_per_hour=2')
  assert json.loads(out)['cost'] == 0.0
  _, out, _ = call('status', f'--workdir={tmp_path}', '--json')
  assert json.loads(out)['cost'] is None


def test_a_study_that_was_not_begun_cannot_be_resumed(error, config, tmp_path):
  assert 'holds no study' in error('resume', f'--workdir={tmp_path}')
  cells = sweep.make_cells(config, [{'data.num_images': 10}])
  sweep.write_study(tmp_path, config, 'x.py', cells)
  assert 'no sweep was started' in error('resume', f'--workdir={tmp_path}')


@pytest.mark.parametrize('told', ['[]', "{'slurm': 3}", "{'slurm': ['time']}"])
def test_options_of_an_engine_that_cannot_be(error, tiny_file, tmp_path, told):
  path = tmp_path / 'odd.py'
  path.write_text(f'{tiny_file.read_text()}\n\ndef get_launch():\n  return {told}\n')
  words = (f'--config={path}', f'--workdir={tmp_path / "w"}', '--on=slurm')
  assert 'get_launch() must return' in error('sweep', *words)


@pytest.mark.parametrize('word', ['--cores=x', '--cores=1,', '--coordinator=nonsense'])
def test_a_worker_s_words_that_cannot_be(error, tmp_path, word):
  line = error('worker', f'--workdir={tmp_path}', '--orders=0123456789', word)
  assert word in line


SIZES = (50, 100, 200, 400, 800, 1600)
COLUMNS = ('--size=images', '--value=top1', '--group=net')


@pytest.fixture
def csv(tmp_path):
  """Returns a function that writes two curves to runs.csv, times a factor."""

  def write(times=1.0, **columns):
    lines = [','.join(['images', 'top1', 'net', *columns])]
    for net, floor in (('small', 0.10), ('large', 0.05)):
      for n in SIZES:
        value = times * (1 - floor - 2 * n**-0.5)
        lines.append(','.join([f'{n},{value:.6g},{net}', *map(str, columns.values())]))
    path = tmp_path / 'runs.csv'
    path.write_text('\n'.join(lines))
    return path

  return write


def test_fit_of_any_csv(call, csv, tmp_path):
  out_folder = tmp_path / 'fit'
  status, out, err = call('fit', csv(), *COLUMNS, f'--out={out_folder}')
  assert (status, err) == (0, '')
  files = {'fits.csv', 'predictions.csv', 'audit.json', 'fit.md'}
  assert files <= {p.name for p in out_folder.iterdir()}
  assert {'curves.png', 'curves.svg'} <= {p.name for p in out_folder.iterdir()}
  assert 'large' in out
  (written,) = [line for line in out.splitlines() if line.startswith('written: ')]
  assert str(out_folder) in written
  assert all(name in written for name in files)
  fits = pd.read_csv(out_folder / 'fits.csv')
  assert list(fits['net']) == ['large', 'small']
  assert set(fits['metric']) == {'top1'}
  audit = json.loads((out_folder / 'audit.json').read_text())
  assert [curve['curve'] for curve in audit['curves']] == [
    {'net': 'large'},
    {'net': 'small'},
  ]


def test_fit_answers_rows_and_targets_in_percent(call, csv, tmp_path):
  rows = tmp_path / 'rows.csv'
  rows.write_text('net,images\nsmall,5000\nnone,50\nlarge,1k\nsmall,50\n')
  status, out, err = call(
    'fit', csv(100), *COLUMNS, '--percent', '--target=85', '--target=99.9',
    f'--predict={rows}', '--num_test=1000', '--chance=10', f'--out={tmp_path / "fit"}',
  )  # fmt: skip
  assert (status, err) == (0, '')
  found = pd.read_csv(tmp_path / 'fit' / 'predictions.csv')
  assert list(found['net']) == ['small', 'none', 'large', 'small']
  assert list(found['images']) == [5000, 50, 1000, 50]
  assert list(found['value'].isna()) == [False, True, False, False]
  assert found['reason'][1] == 'no such curve in the table'
  assert 'accuracy 85.0% needs' in ' '.join(out.split())
  assert 'accuracy 99.9%' in ' '.join(out.split())
  (settings, _) = settings_of(tmp_path / 'fit')
  assert settings['num_test'] == 1000
  assert settings['chance'] == pytest.approx(0.1)


def settings_of(folder):
  audit = json.loads((folder / 'audit.json').read_text())
  return [curve['settings'] for curve in audit['curves']]


def test_fit_takes_the_noise_from_columns(call, csv, tmp_path):
  path = csv(sd=0.01, tests=360)
  words = ('fit', path, *COLUMNS, '--robust')
  status, _, err = call(*words, '--num_test=tests', f'--out={tmp_path / "a"}')
  assert (status, err) == (0, '')
  for settings in settings_of(tmp_path / 'a'):
    assert settings['num_test'] == 360
    assert settings['robust'] is True
  status, _, err = call(*words, '--se=sd', f'--out={tmp_path / "b"}')
  assert (status, err) == (0, '')
  audit = json.loads((tmp_path / 'b' / 'audit.json').read_text())
  for curve in audit['curves']:
    assert curve['noise']['source'] == 'standard errors'
    assert curve['noise']['variance_of_means'] == pytest.approx([1e-4] * len(SIZES))


@pytest.mark.parametrize(
  ('words', 'parts'),
  [
    (['--target=85'], ['--target=85', '--percent']),
    (['--percent', '--target=850'], ['--target=850', '0 to 100']),
    (['--target=x'], ['--target=x']),
    (['--target=nan'], ['--target=nan']),
    (['--kind=loss', '--target=-1'], ['--target=-1', 'from 0 on']),
    (['--chance=10'], ['--chance=10', '--percent']),
    (['--percent', '--kind=loss'], ['--percent']),
    (['--kind=f1'], ['kind', 'f1']),
    (['--num_test=what'], ['--num_test=what']),
    (['--num_test=0'], ['--num_test=0']),
    (['--se=sd'], ["'sd'", '--se']),
    (['--predict=nowhere.csv'], ['nowhere.csv', 'does not exist']),
  ],
)
def test_a_flag_of_fit_that_cannot_be(error, csv, tmp_path, words, parts):
  times = 100 if '--percent' in words else 1
  line = error('fit', csv(times), *COLUMNS, f'--out={tmp_path / "fit"}', *words)
  for part in parts:
    assert part in line
  assert not (tmp_path / 'fit').exists()


def test_rows_to_predict_need_the_columns_of_the_fit(error, csv, tmp_path):
  rows = tmp_path / 'rows.csv'
  rows.write_text('images\n5000\n')
  line = error('fit', csv(), *COLUMNS, f'--predict={rows}', f'--out={tmp_path / "fit"}')
  assert 'rows.csv' in line
  assert "'net'" in line
  rows.write_text('images,net\n-5,small\n')
  line = error('fit', csv(), *COLUMNS, f'--predict={rows}', f'--out={tmp_path / "fit"}')
  assert 'row 2' in line
  assert not (tmp_path / 'fit').exists()


@pytest.mark.parametrize(
  ('text', 'parts'),
  [
    (None, ['bad.csv']),
    ('', ['bad.csv']),
    ('images,top1\n', ['no rows']),
    ('images,acc\n10,0.5\n', ["'top1'", 'images, acc']),
    ('images,top1\n10,0.5\n20,good\n', ['top1', 'row 3', 'good']),
    ('images,top1\n10,55\n20,60\n', ['percent']),
    ('images,top1\n0,0.5\n', ['row 2', 'above 0']),
  ],
)
def test_fit_of_a_csv_that_cannot_be(error, tmp_path, text, parts):
  path = tmp_path / 'bad.csv'
  if text is not None:
    path.write_text(text)
  words = ('--size=images', '--value=top1', f'--out={tmp_path / "fit"}')
  line = error('fit', path, *words)
  for part in parts:
    assert part in line
  assert not (tmp_path / 'fit').exists()


def test_doctor_says_what_the_machine_is_and_what_limits_it(call, error, tmp_path):
  status, out, _ = call('doctor')
  assert status == 0
  assert 'cores' in out
  assert re.search(r'^jax +\d', out, re.MULTILINE)
  assert '--perf needs --config' in error('doctor', '--perf')
  words = ['--config=digits', '--config.model.width=4', '--config.model.depth=8']
  status, out, err = call('doctor', '--perf', *words)
  assert status == 0
  assert 'compute: ' in out
  assert err.startswith('measuring: ')


def test_export_writes_the_weights_of_one_cell(call, error, tiny_config, tmp_path):
  from safetensors.numpy import load_file

  from scaling.train import train

  study, out = tmp_path / 'study', tmp_path / 'cell.safetensors'
  config = tiny_config({'train.steps': 2})
  cells = sweep.make_cells(config, [{'seed': 0}, {'seed': 1}])
  sweep.write_study(study, config, 'tiny.py', cells)
  folder = sweep.cell_folder(study, cells[0].name)
  train(config, folder)
  words = ('export', 'seed0', f'--workdir={study}', f'--out={out}')
  assert call(*words) == (
    0,
    f'written: {out}, 37 arrays such as params/stem_norm/scale\n',
    '',
  )
  assert load_file(out)['params/head/bias'].shape == (10,)
  assert call('export', folder, f'--out={tmp_path / "cell.npz"}')[0] == 0
  assert 'no checkpoint 1; use 2' in error(*words, '--step=1')
  assert "'resnet8' may be any of 2" in error('export', 'resnet8', *words[2:])
  line = error('export', 'seed1', *words[2:])
  assert 'has no checkpoint yet; train the cell first' in line
  assert 'must end in .safetensors or .npz' in error(*words[:3], '--out=cell.pt')


@pytest.mark.parametrize('folder', ['', 'gs://bucket/study'])
def test_a_workdir_has_to_be_a_folder(error, tiny_file, folder):
  for verb in ('sweep', 'train'):
    said = error(verb, f'--config={tiny_file}', f'--workdir={folder}')
    assert f'--workdir={folder} is no folder' in said


def test_an_error_in_the_config_file_names_it(error, tmp_path):
  path = tmp_path / 'broken.py'
  path.write_text(
    'from configs import base\nget_config = base.get_config\n'
    'def get_sweep():\n  return [1 / 0]\n'
  )
  said = error('sweep', f'--config={path}', f'--workdir={tmp_path}/w')
  assert 'broken.py: get_sweep() fails with ZeroDivisionError: division by zero' in said
