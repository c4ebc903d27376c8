"Detectron2 around our step: where it is built, its trainer trains what our loop trains; where it is not, nothing but this is missing."
import ast, importlib.util, json, re, subprocess, sys
from dataclasses import fields, replace

import pytest
import torch
import yaml
from conftest import ROOT, clean_env
from test_resume import equal

from simseg.config import Config, config

HERE = ROOT / 'experiments/detectron2'
BUILT = importlib.util.find_spec('detectron2') is not None
built = pytest.mark.skipif(not BUILT, reason='Detectron2 is not built here; the README says how, and make test-detectron2 runs this')
SURE = dict(tau=.1, device='cpu', warmup_share=.25) # with these and the thresholds below a network that has hardly learnt has pseudo masks
HEADS = pytest.mark.parametrize('head, level', [('condinst', .97), ('mask2former', .5)])

if BUILT:
    from detectron2.config import get_cfg
    from detectron2.data import DatasetCatalog, build_detection_test_loader
    from detectron2.evaluation import COCOEvaluator, inference_on_dataset
    from detectron2.modeling import META_ARCH_REGISTRY
    from detectron2_worker import batches, configured, ends, fill, trained

    from simseg.data.coco import ground_truth
    from simseg.detectron2 import add_simseg_config, to_config
    from simseg.detectron2_bridge import UNUSED, from_detectron, to_detectron
    from simseg.evaluate import evaluate
    from simseg.loop import State, make_fabric, train_step, weighted
    from simseg.recipe import data_sets, warmup_end
    from simseg.training import load_model

pytestmark = pytest.mark.usefixtures('scene_cache')


def python(arguments, **more):
    done = subprocess.run([sys.executable, *map(str, arguments)], env=clean_env(PYTHONPATH=str(ROOT), **more), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=900)
    return done


def test_absent_it_says_how_to_get_it():
    "No other module imports Detectron2; importing simseg.detectron2 without it gives the line that installs it."
    code = "import sys; sys.modules['detectron2'] = None; import simseg.detectron2" # as if it were not installed
    last = python(['-c', code]).stderr.strip().splitlines()[-1]
    assert last.startswith('ImportError') and 'pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2' in last
    others = [path for path in (ROOT / 'simseg').rglob('*.py') if not path.stem.startswith('detectron2') and path.stem != '_modidx']
    assert len(others) > 30 and not [path for path in others if re.search(r'^\s*(import|from) \S*detectron2', path.read_text(), re.M)]


@built
def test_the_model_zoo_backbone_fills_student_and_teacher(tmp_path):
    "ImageNetPretrained/MSRA/R-50.pkl, by its keys and shapes with random values."
    import pickle

    from detectron2.modeling import build_model
    from simseg.models.resnet import random_msra, resnet_state
    arrays = {k: v.numpy() for k, v in random_msra().items()}
    (tmp_path / 'R-50.pkl').write_bytes(pickle.dumps(dict(model=arrays, __author__='MSRA', matching_heuristics=True), 2))
    cfg = configured(config('smoke', device='cpu', method='sim', head='condinst'), tmp_path)
    cfg.merge_from_list(['SIMSEG.BACKBONE', 'msra_resnet50', 'SIMSEG.WEIGHTS', str(tmp_path / 'R-50.pkl'), 'SIMSEG.NUM_CLASSES', 9])
    sim, theirs = build_model(cfg), resnet_state(random_msra())[0]
    for net in (sim.student, sim.teacher.module):
        ours = net.state_dict()
        found = {k: next(v for n, v in ours.items() if n.endswith('.' + k)) for k in theirs}
        assert all(found[k].equal(theirs[k]) for k in theirs) and len(theirs) > 200
    cfg.MODEL.WEIGHTS = 'R-50.pkl'
    with pytest.raises(ValueError, match='SIMSEG.WEIGHTS'): to_config(cfg)


@built
def test_registered():
    for name in ('SIMCondInst', 'SIMMask2Former'): assert META_ARCH_REGISTRY.get(name).__module__ == 'simseg.detectron2'


FILES = pytest.mark.parametrize('file, preset, changes', [
    ('condinst_sim_r50_1x', 'coco_r50_1x', {}), ('condinst_boxinst_r50_1x', 'coco_r50_1x', dict(method='boxinst')),
    ('mask2former_sim_r50_50e', 'coco_m2f_r50_50e', {}), ('tangle', 'quick', {})])


@FILES
def test_what_the_files_set_is_what_the_presets_set(file, preset, changes):
    "What a file's node SIMSEG names has the preset's value. (That it names all that it must is the next test's, with Detectron2.)"
    given = yaml.safe_load((HERE / f'{file}.yaml').read_text())['SIMSEG']
    given = {k.lower(): ast.literal_eval(v) if str(v).startswith('(') else v for k, v in given.items() if k not in ('DATA', 'NUM_CLASSES')}
    ours = config(preset, **changes)
    assert 'method' in given and not {k: (v, getattr(ours, k)) for k, v in given.items() if v != getattr(ours, k)}


@built
@FILES
def test_the_files_say_what_the_presets_say(file, preset, changes):
    cfg = add_simseg_config(get_cfg())
    cfg.merge_from_file(str(HERE / f'{file}.yaml'))
    ours, theirs, skip = config(preset, **changes), to_config(cfg), {'preset', 'precision', *UNUSED}
    if ours.schedule == 'poly': skip |= {'milestones'}
    differ = {f.name: (getattr(ours, f.name), getattr(theirs, f.name)) for f in fields(Config) if f.name not in skip}
    def same(a, b): return a == b or isinstance(a, float) and a == pytest.approx(b, rel=1e-9)
    assert not {k: v for k, v in differ.items() if not same(*v)}


@built
@HEADS
def test_the_same_losses_and_weights_as_our_own_loop(head, level, tmp_path):
    "Twelve steps on the same batches: every loss of every step to 1e-6; then weights, teacher, prototypes and bank are the same."
    c = config('smoke', head=head, steps=12, tau_low=level, tau_high=level, **SURE)
    trainer, theirs = trained(c, tmp_path)
    c = to_config(trainer.cfg)
    state, fabric, ours = State(c, 9), make_fabric(c), []
    fill(state.memory, c)
    wrapped, optimizer = fabric.setup(state.model, state.optimizer)
    for batch in batches(c, 0): ours.append(train_step(c, fabric, state, wrapped.train(), optimizer, batch)[0])
    assert len(ours) == len(theirs) == 12 and warmup_end(c) == 3
    for step, (a, b) in enumerate(zip(ours, theirs)):
        named = {f'loss_{k}': v.item() for k, v in weighted(c, a).items()}
        assert named.keys() == {k for k in b if k in named} and ('loss_pseudo' in named) == (step >= 3)
        for k, v in named.items(): assert b[k] == pytest.approx(v, rel=1e-6, abs=1e-6), (step, k)
    assert ours[5]['paste'] > 0 and any(a['pseudo'] > 0 for a in ours[3:])
    left, right = {k: v for k, v in state.state_dict().items() if k != 'optimizer'}, ends(trainer)
    assert equal(left, right) and left['step'] == 12 and len(left['memory']['bank']['entries']) > 0


@built
@HEADS
def test_killed_and_resumed_is_bit_identical(head, level, tmp_path):
    "Killed in step 6 of 8, resumed by Detectron2's checkpointer from step 4: everything that remembers is as in a training left alone."
    c = config('smoke', head=head, steps=8, save_every=4, tau_low=level, tau_high=level, **SURE)
    alone, log = trained(c, tmp_path / 'alone')
    trained(c, tmp_path / 'killed', die=5)
    again, rest = trained(c, tmp_path / 'killed', resume=True)
    assert again.start_iter == 4 and rest == log[4:]
    assert equal(ends(again), ends(alone)) and len(ends(alone)['memory']['bank']['entries']) > 0
    assert any(not v.equal(ends(alone)['model'][k.removeprefix('module.')]) for k, v in ends(alone)['teacher'].items())


class Oracle:
    "Finds what is there, roughly: some objects not at all, some as another class, boxes and masks a little off."
    def __init__(self, dataset): self.dataset, self.found = dataset, []

    def __call__(self, inputs):
        for x in inputs:
            truth = self.dataset.annotation(self.dataset.image_ids.index(x['image_id']))
            rng = torch.Generator().manual_seed(x['image_id'])
            n = len(truth)
            labels = torch.where(torch.rand(n, generator=rng) < .2, (truth.labels + 1) % 9, truth.labels)
            masks = truth.masks.roll(1, 2) if x['image_id'] % 2 else truth.masks
            boxes, scores = truth.boxes + torch.randn(n, 4, generator=rng), torch.rand(n, generator=rng)
            some = replace(truth, boxes=boxes, labels=labels, scores=scores, masks=masks)
            self.found.append(some[torch.rand(n, generator=rng) < .8])
        return [dict(instances=to_detectron(f)) for f in self.found[-len(inputs):]]


@built
@pytest.mark.parametrize('fast', [True, False])
def test_both_evaluators_agree(fast, tmp_path):
    "COCOEvaluator, by its own compiled code and by pycocotools, and ours: on made predictions, and on those of a network."
    c = config('smoke', val_images=12, method='supervised', **SURE, score_threshold=0.)
    cfg, dataset = configured(c, tmp_path), data_sets(c).val
    names = dict(bbox='box', segm='mask')
    network = META_ARCH_REGISTRY.get('SIMCondInst')(cfg).eval()
    for model in (Oracle(dataset), network):
        seen = []
        def look(inputs, model=model, seen=seen):
            out = model(inputs)
            seen.extend(from_detectron(o['instances'], x['image_id']) for x, o in zip(inputs, out))
            return out
        with torch.no_grad():
            results = inference_on_dataset(look, build_detection_test_loader(cfg, 'simseg_val'), COCOEvaluator('simseg_val', use_fast_impl=fast))
        assert len(seen) == len(dataset) == len(DatasetCatalog.get('simseg_val'))
        ours = evaluate(seen, ground_truth(dataset), dataset.category_ids, progress=False)
        for theirs, kind in names.items():
            for name in ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl'):
                a, b = results[theirs][name], ours[f'{kind}_{name}']
                assert (b is None and a != a) or a == pytest.approx(b, abs=1e-3), (theirs, name)
        if model is not network: assert 20 < ours['mask_AP'] < 90 and 20 < ours['box_AP'] < 90


@built
def test_boxes_alone_are_evaluated_by_boxes(tmp_path):
    "A set without segmentations, and with neither area nor iscrowd, trains and is evaluated by box AP."
    from simseg.data import tangle
    source, root = tangle.make(train=8, val=4, size=96), tmp_path / 'boxes'
    (root / 'annotations').mkdir(parents=True)
    (root / 'images').symlink_to(source / 'images')
    for split in ('train', 'val'):
        found = json.loads((source / f'annotations/instances_{split}.json').read_text())
        found['annotations'] = [{k: a[k] for k in ('id', 'image_id', 'category_id', 'bbox')} for a in found['annotations']]
        (root / f'annotations/instances_{split}.json').write_text(json.dumps(found))
    trainer, _ = trained(config('smoke', steps=3, data=str(root), **SURE), tmp_path / 'out')
    assert set(trainer._last_eval_results) == {'bbox'}


@built
def test_two_processes(tmp_path):
    "Weights, teacher and prototypes are the same on both, the banks each one's own; resumed from one checkpoint, to the bit."
    done = python([ROOT / 'tests/detectron2_worker.py', tmp_path], GLOO_SOCKET_IFNAME='lo')
    assert done.returncode == 0, done.stderr[-4000:]
    first, second = json.loads(done.stdout[done.stdout.index('RESULT') + 6:].splitlines()[0])
    for name in ('step', 'model', 'teacher', 'prototypes'): assert first['whole'][name] == second['whole'][name], name
    assert first['whole']['bank'] and second['whole']['bank'] and first['whole']['bank'] != second['whole']['bank']
    for rank in (first, second): assert rank['start'] == 4 and rank['again'] == rank['whole']
    assert {'bbox', 'segm'} <= first['results'].keys() and 'loss_pseudo' in first['log'][-1]


@built
def test_the_script(tmp_path):
    "train_net.py: trains, goes on from its checkpoint, evaluates what it saved and its model.pt, and names what is wrong."
    small = ['SIMSEG.SCENE', 96, 'SIMSEG.TRAIN_IMAGES', 8, 'SIMSEG.VAL_IMAGES', 4, 'INPUT.MIN_SIZE_TRAIN', '(96,)', 'INPUT.MIN_SIZE_TEST', 96,
             'SOLVER.IMS_PER_BATCH', 2, 'SOLVER.CHECKPOINT_PERIOD', 2, 'SIMSEG.SCORE_THRESHOLD', '0.', 'OUTPUT_DIR', tmp_path]
    def script(*options, steps=3):
        done = python([HERE / 'train_net.py', '--config-file', HERE / 'tangle.yaml', *options, *small, 'SOLVER.MAX_ITER', steps])
        return done.returncode, done.stdout + done.stderr
    code, text = script()
    assert code == 0 and 'Starting training from iteration 0' in text and 'Evaluation results for segm' in text, text[-3000:]
    code, text = script('--resume', steps=5)
    assert code == 0 and 'Starting training from iteration 3' in text, text[-3000:]
    assert load_model(tmp_path / 'model.pt')[1].steps == 5
    def copypaste(text): return [line.split('copypaste: ')[1] for line in text.splitlines() if 'copypaste: ' in line and 'Task' not in line]
    last = copypaste(text)
    for weights in ('model_final.pth', 'model.pt'):
        code, text = script('--eval-only', 'MODEL.WEIGHTS', tmp_path / weights, steps=5)
        assert code == 0 and copypaste(text) == last and len(last) == 4, text[-3000:]
    code, text = script('SIMSEG.METHOD', 'simm')
    assert code != 0 and "Unknown value of method 'simm'. Did you mean 'sim'?" in text
