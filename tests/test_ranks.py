"Two processes on the CPU (gloo) agree with one process on the joint batch, and what torchrun starts leaves one record."
import json, os, signal, time

import pytest
import torch
import conftest
from conftest import ROOT, clean_env

TORCHRUN = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']


def environment(tmp_path): return clean_env(PYTHONPATH=str(ROOT), SIMSEG_CACHE=str(tmp_path / 'cache'), GLOO_SOCKET_IFNAME='lo')


def ranks(world, tmp_path, *arguments):
    "What each of `world` processes says that run tests/ranks_worker.py."
    text = conftest.ranks([ROOT / 'tests' / 'ranks_worker.py', *arguments], world, environment(tmp_path))
    return json.loads(text[text.index('RESULT') + 6:].splitlines()[0])


@pytest.mark.parametrize('kind', ['full', 'bare'])
def test_two_ranks_are_one_batch(kind, tmp_path):
    "Losses of the joint batch are the means over ranks, also where one rank has no object; all ranks end with the same weights."
    (one,), two = ranks(1, tmp_path, kind), ranks(2, tmp_path, kind)
    assert two[0]['total'] == two[1]['total'], 'the ranks have the same weights'
    for single, *each in zip(one['log'], *(rank['log'] for rank in two)):
        assert single['images'] == each[0]['images'] + each[1]['images'], 'each rank sees its half of the batch'
    single, *each = one['log'][0], *(rank['log'][0] for rank in two)
    for name in ('class', 'box', 'centre', 'projection', 'pairwise'):
        assert sum(e[name] for e in each) / 2 == pytest.approx(single[name], rel=1e-4), f'{name}: normalised over all ranks'
    for name in ('grad_length', 'grad_along'): assert each[0][name] == each[1][name] == pytest.approx(single[name], rel=1e-4), 'the gradient'
    assert all(value == value for rank in two for step in rank['log'] for value in step.values()), 'nothing is NaN'
    if kind == 'bare': assert each[1]['positives'] == 0 < each[0]['positives']
    else: assert each[0]['class'] != each[1]['class']


def test_parts_are_ranks(tmp_path):
    "One process that computes a batch in two parts ends with the weights, the teacher's pseudo masks and the prototypes of two processes."
    (one,), two = ranks(1, tmp_path, 'parts', '2'), ranks(2, tmp_path, 'parts')
    for name in ('total', 'prototypes'): assert one[name] == pytest.approx(two[0][name], rel=1e-6), name
    for single, *each in zip(one['log'], *(rank['log'] for rank in two), strict=True):
        assert single['images'] == each[0]['images'] + each[1]['images'], 'a part is a rank'
        for name in single.keys() - {'images', 'positives', 'objects'}:
            assert sum(e[name] for e in each) / 2 == pytest.approx(single[name], rel=1e-4, abs=1e-6), name
    assert one['log'][-1]['pseudo'] > 0 and one['prototypes'] != 0
    (whole,) = ranks(1, tmp_path, 'parts')
    at_once, in_parts = whole['log'][-1]['grad_along'], one['log'][-1]['grad_along']
    assert at_once != pytest.approx(in_parts, rel=1e-3), 'the mask losses are means over each part: the comparison can fail'


def test_pseudo_loss_of_the_joint_batch(tmp_path):
    "The pseudo loss is a mean over the positives of all ranks, one of which has more than the other."
    (one,), two = ranks(1, tmp_path, 'pseudo'), ranks(2, tmp_path, 'pseudo')
    single, *each = one['log'][1], *(rank['log'][1] for rank in two)
    assert each[0]['positives'] != each[1]['positives'] and sum(e['positives'] for e in each) == single['positives']
    assert each[0]['pseudo'] != pytest.approx(each[1]['pseudo'], rel=1e-2)
    assert sum(e['pseudo'] for e in each) / 2 == pytest.approx(single['pseudo'], rel=1e-4) != 0
    for name in ('grad_length', 'grad_along'): assert each[0][name] == each[1][name] == pytest.approx(single[name], rel=1e-4), 'the gradient'
    assert two[0]['prototypes'] == two[1]['prototypes'] == pytest.approx(one['prototypes'], rel=1e-5) != 0


def test_sim_goes_on_with_every_bank(tmp_path):
    "Two processes under SIM, one of them without objects: same weights and prototypes; a checkpoint holds both banks, once, and gives each its own."
    two = ranks(2, tmp_path, 'sim')
    assert two[0]['log'][0]['positives'] > 0 == two[1]['log'][0]['positives']
    assert 'pseudo' in two[0]['log'][2] and all(value == value for rank in two for step in rank['log'] for value in step.values())
    for name in ('total', 'prototypes', 'statistics'): assert two[0][name] == two[1][name], f'{name}: the same on both ranks'
    assert two[0]['resumed_from']['bank'] and not two[1]['bank'], 'the banks differ'
    assert two[0]['banks'] == 2 and not two[0]['bank_in_memory']
    for rank in two:
        assert rank['resumed'] == {name: rank[name] for name in rank['resumed']}, 'to the bit'
        assert rank['resumed'] != rank['resumed_from']


def test_mask2former_under_sim(tmp_path):
    "Box losses of the joint batch are the means over ranks; weights and prototypes are the same on both, in steps that correct and paste."
    (one,), two = ranks(1, tmp_path, 'mask2former'), ranks(2, tmp_path, 'mask2former')
    for name in ('total', 'prototypes'): assert two[0][name] == two[1][name], f'{name}: the same on both ranks'
    for step in (0, 1): # the pairwise loss begins with the second
        single, *each = one['log'][step], *(rank['log'][step] for rank in two)
        for name in ('class', 'l1', 'giou', 'projection', 'pairwise', 'filled'):
            assert sum(e[name] for e in each) / 2 == pytest.approx(single[name], rel=1e-4 * 10**step), f'{name}: normalised over all ranks'
            assert single[name] > 0 or (name, step) == ('pairwise', 0)
        for name in ('grad_length', 'grad_along'):
            assert each[0][name] == each[1][name] == pytest.approx(single[name], rel=1e-4 * 10**step), 'the gradient'
    assert 'pseudo' in two[0]['log'][-1] and all(value == value for rank in two for step in rank['log'] for value in step.values())


def test_mask2former_from_true_masks(tmp_path):
    "Every loss of the joint batch is the mean over ranks, of which one has fewer objects than the other."
    (one,), two = ranks(1, tmp_path, 'queries'), ranks(2, tmp_path, 'queries')
    assert two[0]['total'] == two[1]['total']
    single, *each = one['log'][0], *(rank['log'][0] for rank in two)
    assert each[0]['objects'] != each[1]['objects'] and sum(e['objects'] for e in each) == single['objects']
    for name in ('class', 'mask', 'dice', 'l1', 'giou'):
        assert sum(e[name] for e in each) / 2 == pytest.approx(single[name], rel=1e-4) != 0, f'{name}: normalised over all ranks'
    for name in ('grad_length', 'grad_along'): assert each[0][name] == each[1][name] == pytest.approx(single[name], rel=1e-4), 'the gradient'


def test_bf16(tmp_path):
    "SIM in bf16 on two processes: finite, the same weights and prototypes on both."
    two = ranks(2, tmp_path, 'bf16')
    assert 'pseudo' in two[0]['log'][-1] and all(value == value for rank in two for step in rank['log'] for value in step.values())
    for name in ('total', 'prototypes'): assert two[0][name] == two[1][name], f'{name}: the same on both ranks'


def test_evaluation_gathers(tmp_path):
    "Three images on two processes, so that one has an image more: the numbers of one process, on the first alone."
    (one,), two = ranks(1, tmp_path, 'evaluate'), ranks(2, tmp_path, 'evaluate')
    assert two[1]['metrics'] == {} and two[0]['metrics'] == one['metrics'] and 'mask_AP' in one['metrics']


def test_what_ranks_draw(tmp_path, monkeypatch):
    "Ranks share a batch without overlap, paste differently, and both again alike; a batch that they cannot share is refused."
    from simseg.config import config
    from simseg.data.loader import loader
    from simseg.losses.box import box_masks
    from simseg.recipe import data_sets
    from simseg.sim import Memory, augment
    monkeypatch.setenv('SIMSEG_CACHE', str(tmp_path / 'cache'))
    c = config('smoke', batch_size=4, flip=.5)
    train = data_sets(c).train
    def batch(rank, world): return next(iter(loader(train, c.sizes, c.max_size, c.flip, 4, 1, c.seed, rank=rank, world=world)))
    whole, first, second = batch(0, 1), batch(0, 2), batch(1, 2)
    names = [[t.image_id for t in b.targets] for b in (whole, first, second)]
    assert names[0] == names[1] + names[2] and len(set(names[0])) == 4
    assert torch.equal(torch.cat([first.images, second.images]), whole.images), 'an image is augmented alike wherever it goes'
    memory, boxes = Memory(c, 9), whole.flat()[0]
    memory.bank.push(whole, .9 * box_masks(boxes, (whole.images.shape[2] // 4, whole.images.shape[3] // 4)), torch.ones(len(boxes)))
    pasted = [augment(c, first, memory, 3, rank).images for rank in (0, 1, 0)]
    assert torch.equal(pasted[0], pasted[2]) and not torch.equal(pasted[0], pasted[1]) and not torch.equal(pasted[0], first.images)
    with pytest.raises(ValueError, match='multiple of the 3 devices'): batch(0, 3)


def test_a_cluster_stops_all_after_one_step(tmp_path):
    """SIGTERM to every process of a job, as Slurm sends it before it kills, or to the process that starts torchrun: all leave after the same step,
    which is saved, none stays behind, and the same run goes on, whoever starts it."""
    training = ['-m', 'simseg.training', '--preset', 'smoke', '--batch-size', '4', '--steps', '40', '--device', 'cpu', '--save-every', '100',
                '--out', str(tmp_path / 'runs')]
    starter, done = [*training, '--devices', '2'], 0
    for whom, arguments in {'a job of torchrun': [*TORCHRUN, *training], 'a job that starts torchrun': starter, 'the starter alone': starter}.items():
        process = conftest.Python(arguments, environment(tmp_path), session=True)
        end = time.monotonic() + 240
        while time.monotonic() < end and process.poll() is None:
            if any(log.read_text().count('\n') >= done + 4 for log in (tmp_path / 'runs').glob('*/s0/log.jsonl')): break
            time.sleep(0.01)
        (os.kill if whom == 'the starter alone' else os.killpg)(process.pid, signal.SIGTERM)
        ended = process.wait(120)
        text = ended.stdout + ended.stderr
        with pytest.raises(ProcessLookupError): os.killpg(process.pid, 0)
        if whom != 'a job of torchrun': assert ended.returncode == 130 and 'Traceback' not in text, text[-3000:]
        folder, = (tmp_path / 'runs').glob('*/s0')
        step = torch.load(folder / 'last.pt', weights_only=True)['step']
        assert ended.returncode and done + 4 <= step < 40 and text.count(f'Stopped after step {step} of 40') == 1, f'{whom}: {text[-3000:]}'
        assert json.loads((folder / 'log.jsonl').read_text().splitlines()[-1])['step'] == step
        done = step
    conftest.ranks(training, 2, environment(tmp_path)) # as torchrun starts them, but sooner
    assert json.loads((folder / 'metrics.json').read_text())['steps'] == 40
    assert [json.loads(line)['step'] for line in (folder / 'log.jsonl').read_text().splitlines()] == list(range(1, 41)), 'no step twice'


def test_a_notebook_starts_them(tmp_path):
    "`train` with devices=2, in one process: what torchrun would leave, with a part of one's own. Where they fail, it says what they said."
    code = """
import sys
from simseg.config import config
from simseg.training import train
usual = dict(batch_size=4, devices=2, device='cpu', out=sys.argv[1])
own = sys.argv[1] + '.py'
open(own, 'w').write('''
from simseg.losses.box import low_level
from simseg.plugin import knob, replaces
@replaces('simseg.losses.box.low_level')
def mine(out, batch, ramp=1., threshold=.3, bottom=0):
    return low_level(out, batch, ramp, threshold, bottom) | dict(mine=out.logits.sum() * 0 + knob())
''')
run = train(config('smoke', method='boxinst', plugin=own, knob=3., **usual), progress=False)
print('RUN', run.state, [e['step'] for e in run.entries], {e['mine'] for e in run.entries}, run.metrics['val_images'])
try: train(config('smoke', lr=1e30, clip_norm=0., optimizer='sgd', warmup_steps=0, **usual), progress=False)
except RuntimeError as e: print('FAILED', 'is not finite' in str(e))"""
    done = conftest.python(['-c', code, tmp_path / 'runs'], environment(tmp_path))
    assert 'RUN done [1, 2, 3, 4, 5, 6] {3.0} 4' in done.stdout and 'FAILED True' in done.stdout, done.stdout + done.stderr
