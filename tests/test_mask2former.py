"The second network under the whole method: every variant from end to end, resume, the teacher, sets with jitter, and the train notebook."
import json, math
from pathlib import Path

import pytest
import torch
from conftest import ROOT, clean_env, papermill
from test_resume import equal

from simseg.config import config
from simseg.recipe import data_sets, parameter_groups, resolved
from simseg.files import load_checkpoint
from simseg.pseudo_label import label_image, labeller
from simseg.runs import Run, run_dir
from simseg.loop import State, fit, make_fabric
from simseg.training import load_model, train

SMOKE = dict(preset='smoke', head='mask2former', device='cpu')
SURE = dict(tau_low=.5, tau_high=.5) # a network that has hardly learnt is sure of nothing: with these its pseudo masks have pixels

pytestmark = pytest.mark.usefixtures('scene_cache')


def weights(run): return load_checkpoint(run.folder / 'model.pt')['model']


@pytest.mark.parametrize('method', ['supervised', 'boxinst', 'pseudo', 'sim'])
def test_every_method(method, tmp_path):
    run = train(config(**SMOKE, **SURE, method=method, out=str(tmp_path), log_every=1), progress=False)
    first, last = run.entries[0], run.entries[-1]
    wanted = {'class', 'l1', 'giou'} | ({'mask', 'dice'} if method == 'supervised' else {'projection', 'pairwise'})
    assert wanted <= first.keys() and not {'centre', 'pseudo'} & first.keys()
    assert all(math.isfinite(v) for v in last.values() if isinstance(v, float))
    assert {'mask_AP', 'box_AP'} <= run.metrics.keys()
    correcting = {'pseudo', 'used', 'prototypes_moved', 'semantic_map'}
    assert correcting <= last.keys() if method in ('pseudo', 'sim') else not correcting & last.keys()
    if method in ('pseudo', 'sim'):
        assert any(e.get('pseudo', 0) > 0 for e in run.entries) and any(e.get('paste', 0) > 0 for e in run.entries) == (method == 'sim')
    assert ('paste' in last) == (method in ('pseudo', 'sim')) and ('pseudo' in run.metrics) == (method in ('pseudo', 'sim'))
    model, c, classes, _ = load_model(run.folder)
    assert c.head == 'mask2former' and model.classes == len(classes)
    image, objects = data_sets(c).val[0]
    assert len(objects) == len(list(label_image(labeller(run.folder, model, c, classes), image, objects))) > 0, 'masks of given boxes'


def test_interrupted_and_resumed_is_bit_identical(tmp_path):
    "With pasting, the teacher evaluated, and jitter with crops."
    how = dict(SMOKE, evaluate='teacher', crop=64, jitter=(.6, 2.), **SURE)
    alone = train(config(**how, out=str(tmp_path / 'a')), progress=False)
    c = resolved(config(**how, out=str(tmp_path / 'b')))
    data, fabric = data_sets(c), make_fabric(c)
    run = Run(run_dir(c, data.name, data.hash, c.out))
    run.open(c, data.name, data.hash)
    state = State(c, len(data.train.classes))
    run.load()
    fit(c, fabric, state, data, run, False, stop_at=4)
    run.close()
    again = train(c, progress=False)
    ours, theirs = weights(again), weights(alone)
    assert all(ours[k].equal(theirs[k]) for k in theirs) and again.metrics == alone.metrics
    last = load_checkpoint(again.folder / 'last.pt')
    assert len(last['memory']['bank']['entries']) > 0
    assert any(not v.equal(last['teacher'][f'module.{k}']) for k, v in last['model'].items()), 'the teacher is another network'


def test_a_run_that_branched_from_a_shared_warm_up(tmp_path):
    "Weights, teacher, prototypes and bank of a run after another's warm-up are those of the run alone."
    def ended(out, **more):
        run = train(config(**SMOKE, **SURE, method='sim', warmup_share=.5, out=str(tmp_path / out), **more), progress=False)
        return load_checkpoint(run.folder / 'last.pt')
    shared = dict(warmups=str(tmp_path / 'warm'))
    ended('first', mu=0., **shared)
    assert equal(ended('branched', **shared), ended('alone'))
    assert len(list((tmp_path / 'warm').glob('*/s0'))) == 1


@pytest.mark.parametrize('head', ['condinst', 'mask2former'])
def test_bf16_is_near_float32(head, tmp_path):
    "Losses of the first step, and of one after the warm-up: the network in bf16, the method in float32."
    log = {}
    for precision in ('32', 'bf16'):
        c = config(**SMOKE | dict(head=head), **SURE, precision=precision, out=str(tmp_path), log_every=1, steps=3)
        log[precision] = train(c, progress=False).entries
    full, half = log['32'], log['bf16']
    names = [k for k in ('class', 'box', 'centre', 'l1', 'giou', 'projection', 'pairwise') if k in full[0]]
    assert len(names) > 4
    for name in names: assert half[0][name] == pytest.approx(full[0][name], rel=.05, abs=.02), name
    assert any(half[0][name] != full[0][name] for name in names), 'bf16 was on'
    assert all(math.isfinite(v) for v in half[-1].values() if isinstance(v, float)) and 'pseudo' in half[-1]


def test_optimiser_groups():
    "Weight decay on neither norms nor embeddings, the backbone at a tenth: against the names of the weights."
    small = dict(channels=32, mask_channels=32, queries=12, encoder_layers=1, decoder_layers=2)
    c = config('coco_m2f_r50_50e', weights='none', backbone='swin-tiny', **small)
    net = State(c, 3).model
    groups = parameter_groups(c, net)
    told = {id(p): (g['weight_decay'], round(g['base'], 8)) for g in groups for p in g['params']}
    for name, p in net.named_parameters():
        if not p.requires_grad: continue
        spared = any(part in name for part in ('norm', 'level_embed', 'queries_', 'relative_position_bias', 'adapter_1.1', 'layer_1.1'))
        spared = spared or ('input_projections' in name and '.1.' in name.split('input_projections.')[1])
        assert told[id(p)] == (0. if spared else .05, 1e-5 if name.startswith('backbone.') else 1e-4), name


def test_a_batch_without_any_object():
    "It makes a gradient for every weight: two processes wait for each other's."
    from simseg.core import Batch, Instances
    from simseg.loop import step_losses, total_loss
    c = config(**SMOKE)
    net = State(c, 3).model.train()
    none = [Instances(size, torch.zeros(0, 4), torch.zeros(0).long()) for size in ((64, 96), (60, 50))]
    batch = Batch(torch.zeros(2, 3, 64, 96, dtype=torch.uint8), none)
    out = net(batch)
    total_loss(c, step_losses(c, out, batch, 1)).backward()
    assert not [n for n, p in net.named_parameters() if p.requires_grad and p.grad is None]


def test_train_notebook(tmp_path):
    out = tmp_path / 'out.ipynb'
    done = papermill('nbs/train.ipynb', out, dict(head='mask2former'), clean_env(IN_TEST='1', PYTHONPATH=str(ROOT)))
    assert done.returncode == 0, done.stderr[-3000:]
    shown = [o for cell in json.loads(out.read_text())['cells'] for o in cell.get('outputs', [])]
    folder = Path([o['data']['application/x-simseg-run'] for o in shown if 'application/x-simseg-run' in o.get('data', {})][-1])
    assert json.loads((folder / 'config.json').read_text())['head'] == 'mask2former'
