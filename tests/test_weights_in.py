"Published weights: the command as a process, student and teacher from one pickle, training from a converted network, nothing of a file run."
import json, os, pickle, shutil

import pytest
import torch
from conftest import ROOT, clean_env, python
from PIL import Image
from simseg.config import config
from simseg.convert import convert
from simseg.convert import main as convert_main
from simseg.core import torch_rng
from simseg.export import Graph, run_graph
from simseg.files import load_checkpoint
from simseg.inference import predict_image
from simseg.loop import State
from simseg.models.adelaidet import random_adelaidet
from simseg.models.mask2former import mask2former
from simseg.models.resnet import R101, random_msra, resnet_state
from simseg.runs import run_hash
from simseg.training import load_model, train


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    "R-50.pkl in Detectron2's form, and a CondInst on ResNet-101 with an auxiliary semantic head in AdelaiDet's, both random."
    folder = tmp_path_factory.mktemp('published')
    arrays = {k: v.numpy() for k, v in random_msra().items()}
    (folder / 'R-50.pkl').write_bytes(pickle.dumps(dict(model=arrays, __author__='MSRA', matching_heuristics=True), 2))
    torch.save(dict(model=random_adelaidet(blocks=R101, semantic=True), iteration=1), folder / 'CondInst_MS_R_101_3x_sem.pth')
    return folder


def process(module, *words, cwd):
    return python(['-c', f'import sys; from {module} import main; sys.exit(main())', *words], clean_env(PYTHONPATH=str(ROOT)), cwd)


def test_convert_then_predict(files, tmp_path):
    "As a user does it, in processes of their own: every tensor is printed, and the new file alone is enough to predict."
    source = shutil.copy(files / 'CondInst_MS_R_101_3x_sem.pth', tmp_path / 'net.pth')
    done = process('simseg.convert', source, tmp_path / 'net.safetensors', cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr, done.stderr
    names = list(random_adelaidet(blocks=R101, semantic=True))
    assert [line[10:].split()[0] for line in done.stdout.splitlines()[:len(names)]] == names
    os.unlink(source)
    Image.radial_gradient('L').convert('RGB').resize((100, 80)).save(tmp_path / 'image.png')
    done = process('simseg.predict', tmp_path / 'net.safetensors', tmp_path / 'image.png', '--size', 96, '--score', .1, '--quiet', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'predictions/predictions.json').read_text())
    assert len(found['categories']) == 80 and found['annotations']


SMOKE = dict(device='cpu', backbone='msra_resnet50', scene=64, sizes=(64,), test_size=64, train_images=4, val_images=2)


def test_student_and_teacher_from_a_pickle(files, tmp_path, monkeypatch):
    "One file fills both; stem, res2 and batch norm stay as they are in it; the finished run needs the file no more."
    monkeypatch.setenv('SIMSEG_CACHE', str(tmp_path / 'cache'))
    weights = str(shutil.copy(files / 'R-50.pkl', tmp_path / 'R-50.pkl'))
    theirs = resnet_state(random_msra())[0]
    c = config('smoke', weights=weights, out=str(tmp_path / 'runs'), **SMOKE)
    state = State(c, 3)
    for network in (state.model, state.teacher.module):
        found = network.backbone.net.state_dict()
        assert all(found[k].equal(v) for k, v in theirs.items())
    run = train(c, progress=False)
    last = load_checkpoint(run.folder / 'last.pt')
    for part, prefix in ((last['model'], 'backbone.net.'), (last['teacher'], 'module.backbone.net.')):
        for name, value in theirs.items():
            frozen = name.startswith(('conv1', 'bn1', 'layer1')) or 'bn' in name or 'downsample.1' in name
            assert part[prefix + name].equal(value) == frozen, name
    os.unlink(weights)
    model, kept, _, _ = load_model(run.folder)
    assert kept.backbone == 'msra_resnet50' and model.backbone.bgr
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch_rng(0))
    seen = predict_image(model, image, 64, 128, score_threshold=0., nms_threshold=.6, limit=20)
    with torch.no_grad(): same = run_graph(Graph(model, config('smoke', score_threshold=0., detections=20)), image, (64, 64)) # what would be exported
    assert len(seen) == len(same) == 20 and torch.allclose(seen.scores, same.scores, atol=1e-5)
    blue = predict_image(model, image.flip(0), 64, 128, score_threshold=0., nms_threshold=.6, limit=20)
    assert not torch.allclose(blue.scores, seen.scores, atol=1e-5), 'the order of colours matters'


def test_a_run_is_named_by_the_content_of_its_weights(files, tmp_path):
    one, other, changed = (shutil.copy(files / 'R-50.pkl', tmp_path / name) for name in ('R-50.pkl', 'copy.pkl', 'changed.pkl'))
    with open(changed, 'ab') as f: f.write(b'\0')
    names = [run_hash(config('smoke', weights=str(path), **SMOKE), 'data') for path in (one, other, changed)]
    assert names[0] == names[1] != names[2]


def test_mask2former_stands_on_it_too(files):
    pytest.importorskip('transformers')
    net = mask2former(config('smoke', head='mask2former', weights=str(files / 'R-50.pkl'), **SMOKE), 3)
    assert net.backbone.net.layer1[0].conv3.weight.equal(random_msra()['res2.0.conv3.weight']) and net.backbone.widths == [256, 512, 1024, 2048]


def test_training_from_a_converted_network(tmp_path, monkeypatch):
    "A BoxInst of 80 classes goes on with the data's own: all but the class layer is taken over, and it trains."
    monkeypatch.setenv('SIMSEG_CACHE', str(tmp_path / 'cache'))
    torch.save(random_adelaidet(mask_channels=16), tmp_path / 'BoxInst_MS_R_50_1x.pth')
    convert(tmp_path / 'BoxInst_MS_R_50_1x.pth', tmp_path / 'net.safetensors')
    whole = dict(levels=5, channels=256, tower=4, mask_branch=128, weights=str(tmp_path / 'net.safetensors'))
    c = config('smoke', method='boxinst', steps=2, out=str(tmp_path / 'runs'), **SMOKE, **whole)
    published = load_model(tmp_path / 'net.safetensors')[0].state_dict()
    with pytest.warns(UserWarning, match='80 classes'): start = State(c, 3).model.state_dict()
    anew = {k for k, v in start.items() if v.shape != published[k].shape or not v.equal(published[k])}
    assert anew == {'detector.class_out.weight', 'detector.class_out.bias'}
    with pytest.warns(UserWarning, match='80 classes'): run = train(c, progress=False)
    assert run.metrics['steps'] == 2 and not load_model(run.folder)[0].controller.weight.equal(published['controller.weight'])
    with pytest.raises(ValueError, match='simseg-convert'): State(config('smoke', weights=str(tmp_path / 'BoxInst_MS_R_50_1x.pth'), **SMOKE), 3)


class Runs:
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.mkdir, (str(self.path),)


@pytest.mark.parametrize('name', ['evil.pkl', 'evil.pth', 'evil.bin'])
def test_nothing_of_a_file_runs(tmp_path, name, capsys):
    "As weights of a run and through the command: refused by name, and what the file wanted to do has not happened."
    conv = torch.zeros(64, 3, 7, 7)
    content = dict(model={'stem.conv1.weight': conv.numpy() if name == 'evil.pkl' else conv, 'x': Runs(tmp_path / 'made')})
    if name.endswith('.pkl'): (tmp_path / name).write_bytes(pickle.dumps(content))
    else: torch.save(content, tmp_path / name)
    with pytest.raises(ValueError, match=name): State(config('smoke', weights=str(tmp_path / name), **SMOKE), 3)
    assert convert_main([str(tmp_path / name), str(tmp_path / 'out.safetensors')]) == 2
    said = capsys.readouterr()
    assert said.err.count('\n') == 1 and name in said.err and not said.out
    assert not (tmp_path / 'made').exists() and not (tmp_path / 'out.safetensors').exists()
    pickle.loads(pickle.dumps(Runs(tmp_path / 'made'))) # the file would have
    assert (tmp_path / 'made').exists()
