"The notebooks of the figures, through papermill, from one smoke run: PNG and PDF with the panels of the paper. And its tables without training."
import csv, json, re

import pytest
from conftest import ROOT, clean_env, papermill, python
from PIL import Image

PANELS = {
    'fig_s1': (dict(rows=2, fill=12), {'fig_s1': (2, 5)}),
    'fig_s2': (dict(rows=1, pool=8), {'fig_s2': (1, 5), 'fig_s2_distance': None}),
    'fig_s3': (dict(rows=1, score=.01), {'fig_s3': (2, 6)}),
    'fig_s4': (dict(rows=1, columns=3, score=.01), {'fig_s4': (1, 3)}),
}


@pytest.fixture(scope='module')
def smoke(tmp_path_factory):
    "A run with thresholds that a network of some steps passes, and the environment that finds its scenes again."
    from simseg.figures import setting
    from simseg.training import train
    folder = tmp_path_factory.mktemp('figures')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('SIMSEG_CACHE', str(folder / 'cache'))
        how = dict(preset='smoke', backbone='tf_efficientnet_lite0', steps=16, tau_low=.4, tau_high=.5, train_images=24, val_images=12)
        run = train(setting(**how, out=str(folder / 'runs')), progress=False)
    return run.folder, clean_env(SIMSEG_CACHE=str(folder / 'cache'), PYTHONPATH=str(ROOT))


def pictures(pdf):
    "How many images a PDF shows (their transparency counts apart)."
    return len(re.findall(rb'/Subtype /Image', pdf)) - len(re.findall(rb'/SMask', pdf))


@pytest.mark.parametrize('name', PANELS)
def test_figure(name, smoke, tmp_path):
    run, env = smoke
    how, expected = PANELS[name]
    runs = dict(boxinst=run, sim=run) if name == 'fig_s3' else dict(run=run)
    done = papermill(f'experiments/{name}.ipynb', tmp_path / 'done.ipynb', how | runs | dict(out=tmp_path / 'out'), env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {p.stem for p in (tmp_path / 'out').iterdir()} == set(expected)
    for stem, panels in expected.items():
        picture, pdf, text = (tmp_path / 'out' / f'{stem}.{kind}' for kind in ('png', 'pdf', 'md'))
        image = Image.open(picture).convert('L')
        assert picture.stat().st_size < 700_000 and len(image.getcolors()) > 20, 'not empty'
        assert text.read_text(encoding='utf-8').startswith(f'![{stem}]({stem}.png)\n\n**Figure {name[-2:].upper()}')
        assert pdf.read_bytes().startswith(b'%PDF')
        if panels is None: continue
        rows, columns = panels
        assert pictures(pdf.read_bytes()) >= rows * columns, 'a picture in each panel'
        assert abs(image.width / image.height - columns / rows) < .4 * columns / rows, 'wide as its panels'
    shown = [output for cell in json.loads((tmp_path / 'done.ipynb').read_text())['cells'] for output in cell.get('outputs', [])]
    assert any('**Figure' in ''.join(output.get('text', '')) for output in shown)


def test_committed_notebooks_carry_no_outputs():
    for name in PANELS:
        cells = json.loads((ROOT / f'experiments/{name}.ipynb').read_text(encoding='utf-8'))['cells']
        assert not any(cell.get('outputs') or cell.get('execution_count') for cell in cells), name


def test_without_training(smoke, tmp_path):
    "The row of the defaults is what the run itself recorded; a network without its teacher has the table of positives alone."
    run, env = smoke
    def made(name, given):
        done = python([ROOT / 'experiments/training_free.py', given, 'tangle-quick', '--out', tmp_path / name], env)
        assert done.returncode == 0, done.stderr[-3000:]
        return {path.stem: list(csv.DictReader(open(path))) for path in (tmp_path / name / 'tangle-quick').glob('*.csv')}
    tables, recorded = made('whole', run), json.loads((run / 'metrics.json').read_text())['pseudo']
    own, = (r for r in tables['training_free'] if r['table'] == 'S1' and '(default)' in r['value'])
    assert [float(own[k]) for k in ('IoU', 'precision', 'recall')] == [round(recorded[k], 4) for k in ('iou_pseudo', 'precision', 'recall')]
    rows = {r['masks']: float(r['IoU']) for r in tables['positives']}
    assert 0 <= rows['worst'] <= rows['mean'] <= rows['best'] < 1 and rows['worst'] <= rows['best box'] <= rows['best'] and 0 < rows['best']
    (tmp_path / 'model.pt').write_bytes((run / 'model.pt').read_bytes())
    assert set(made('alone', tmp_path / 'model.pt')) == {'positives'}


def test_exchange(smoke, tmp_path):
    "At the run's own tau its own thresholds are as good as any; a network without its teacher is refused."
    run, env = smoke
    def chosen(given):
        return python([ROOT / 'experiments/exchange.py', given, '--tau', '1', '5', '--images', '4', '--show', '150'], env)
    done = chosen(run)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [[float(v) for v in line.split()] for line in done.stdout.splitlines() if line.split()[0].replace('.', '').isdigit()]
    own, *rest = rows
    c = json.loads((run / 'config.json').read_text())
    assert own[:3] == [c['tau'], c['tau_low'], c['tau_high']] and own in rest and sum(r[0] == 5 for r in rest) == sum(r[0] == 1 for r in rest) > 100
    assert {r[-1] for r in rest if r[0] == 1} != {0}, 'other thresholds are not as good'
    (tmp_path / 'model.pt').write_bytes((run / 'model.pt').read_bytes())
    alone = chosen(tmp_path / 'model.pt')
    assert alone.returncode == 1 and 'no last.pt' in alone.stderr
