"On a GPU: the same numbers as on the host, the same bits again, and as many waits whatever the images hold."
import json, subprocess, sys, warnings

import pytest
import torch
from conftest import ROOT, clean_env
from simseg.config import config
from simseg.core import Batch
from simseg.data.loader import eval_loader, loader
from simseg.evaluate import encode
from simseg.inference import predict
from simseg.loop import IN_ANY_ORDER, State, train_step
from simseg.recipe import data_sets
from simseg.training import train
from test_syncs import batch_of, past_warmup

pytestmark = [pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU'), pytest.mark.usefixtures('scene_cache')]


@pytest.fixture
def exact(): # float32 without TF32
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False): yield # products have none by default


def stepped(device, batch, **given):
    """A step past the warm-up, from a network whose masks have sure pixels and a bank with something to paste. Norms are frozen: with a batch's own
    statistics a change of the weights by 1e-6 turns the gradient by 2 percent."""
    c = config('smoke', device=device, precision='32', steps=20, optimizer='sgd', lr=.1, warmup_steps=0, batch_size=len(batch), tau_low=.5,
               tau_high=.5, clip_norm=0., backbone='tf_efficientnet_lite0', weights='package', **given)
    fabric, state, wrapped = past_warmup(c, batch_of(3, 8), device)
    losses, health, out, seen = train_step(c, fabric, state, *wrapped, batch.to(device))
    grads = [p.grad.double().cpu().flatten() for p in state.model.parameters() if p.grad is not None]
    return state, {k: v.item() for k, v in losses.items()}, torch.cat(grads), health, seen


@pytest.mark.parametrize('method, head', [('supervised', 'condinst'), ('boxinst', 'condinst'), ('sim', 'condinst'), ('sim', 'mask2former')])
def test_a_step_is_the_hosts(method, head, exact):
    "Losses, gradient, pasted objects and prototypes of one step in float32. (Supervised, Mask2Former draws points on the device: other ones.)"
    c = config('smoke', method=method, scene=96)
    batch = next(iter(loader(data_sets(c).train, (96,), 128, 0., 4, 1, 0)))
    (a, ours, grad, health, seen), (b, theirs, wanted, _, host) = (stepped(d, batch, head=head, method=method) for d in ('cuda', 'cpu'))
    assert ours == {k: pytest.approx(v, rel=2e-3, abs=2e-4) for k, v in theirs.items()}
    assert len(grad) == len(wanted) and (grad - wanted).norm() < 5e-2 * wanted.norm(), ((grad - wanted).norm() / wanted.norm()).item()
    assert torch.equal(seen.images.cpu(), host.images)
    if method == 'sim':
        assert seen.pasted().any() and torch.equal(seen.pasted_masks.cpu(), host.pasted_masks)
        x, y = a.memory.prototypes.vectors.cpu(), b.memory.prototypes.vectors
        assert y.abs().sum() > 0 and (x * y).sum(-1)[y.norm(dim=-1) > 0].min() > .99


@pytest.mark.parametrize('head', ['condinst', 'mask2former'])
@pytest.mark.parametrize('precision', ['32', 'bf16'])
def test_a_run(head, precision, tmp_path):
    "A whole run on the GPU, with workers and pinned memory, is recorded with the GPU's name and finite numbers."
    run = train(config('smoke', device='cuda', head=head, precision=precision, workers=2, out=str(tmp_path)), progress=False)
    told = json.loads((run.folder / 'provenance.json').read_text())
    assert told['device'] == torch.cuda.get_device_name() and 10 < told['peak_memory_mib'] < 8000
    assert run.metrics['steps'] == 6 and all(v == v for row in run.entries for v in row.values() if isinstance(v, float))
    saved = torch.load(run.folder / 'model.pt', weights_only=True, map_location='cpu')
    assert all(v.isfinite().all() for v in saved['model'].values() if v.is_floating_point())


@pytest.mark.parametrize('precision', ['32', 'bf16'])
@pytest.mark.parametrize('head', ['condinst', 'mask2former'])
def test_deterministic(head, precision, tmp_path):
    "`deterministic`: the same bits again, also through a checkpoint, where torch has such kernels; the operations without are those that we name."
    env = clean_env(PYTHONPATH=str(ROOT), SIMSEG_CACHE=str(tmp_path))
    done = subprocess.run([sys.executable, str(ROOT / 'tests' / 'cuda_worker.py'), head, precision], env=env, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout[done.stdout.index('RESULT') + 6:].splitlines()[0])
    assert all(name.startswith(IN_ANY_ORDER[head]) for name in told['named']) if IN_ANY_ORDER[head] else not told['named'], told['named']
    assert told['once'] != told['other'], 'another seed, other weights: the comparison can fail'
    if head == 'condinst':
        assert told['once'][1] > 0, 'the bank is part of it'
        assert told['once'] == told['again'] == told['stopped']


def test_predictions_are_the_hosts(exact):
    c = config('smoke', method='boxinst')
    net, batch = State(c, 9).model.eval(), next(iter(eval_loader(data_sets(c).val, 96, 128)))
    here, = predict(net, batch, 0., .6, 20)
    there, = predict(net.to('cuda'), batch.to('cuda'), 0., .6, 20)
    assert len(here) == len(there) > 0
    assert torch.allclose(here.scores, there.scores.cpu(), atol=1e-4) and torch.allclose(here.boxes, there.boxes.cpu(), atol=.05)
    assert (here.masks == there.masks.cpu()).float().mean() > .999
    left, = predict(net, batch.to('cuda'), 0., .6, 20, host=False)
    assert left.masks.is_cuda and encode(left.masks) == encode(there.masks), 'run lengths counted on the GPU'


def waits(method, images, objects):
    c = config('smoke', method=method, batch_size=images, device='cuda', precision='bf16', max_positives=1000, tau_low=.5, tau_high=.5,
               lr=1e-9) # the first step must not change the masks
    fabric, state, wrapped = past_warmup(c, batch_of(images, objects), 'cuda')
    batch = batch_of(images, objects).to('cuda')
    train_step(c, fabric, state, *wrapped, Batch(batch.images, list(batch.targets))) # what a first step alone waits for
    torch.cuda.set_sync_debug_mode('warn')
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter('always')
            _, health, _, seen = train_step(c, fabric, state, *wrapped, batch)
    finally: torch.cuda.set_sync_debug_mode('default')
    if method == 'sim': assert seen.pasted().any() and health['used'] > 0
    return [f'{w.filename.rpartition("/")[2]}:{w.lineno}' for w in said if 'synchroniz' in str(w.message)]


@pytest.mark.parametrize('method', ['boxinst', 'sim'])
def test_waits(method):
    "torch's own count of the host's waits: the same for one image with few objects as for four with many."
    few, many = waits(method, 1, 8), waits(method, 4, 32)
    assert len(few) == len(many), (few, many)
    assert 0 < len(few) <= (5 if method == 'boxinst' else 26), few
