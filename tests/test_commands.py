"The commands: declared twice and alike, each of them starts, and what simseg-pseudo-label writes feeds another trainer."
import contextlib, importlib, io, json, signal, subprocess, sys
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, clean_env, python
from test_repo import read_project, read_settings

SCRIPTS = read_project()['scripts']


def target(name):
    module, function = SCRIPTS[name].split(':')
    return getattr(importlib.import_module(module), function)


def test_declared_in_both_files():
    lines = [line.strip() for line in read_settings()['console_scripts'].splitlines() if line.strip()]
    assert dict(line.split('=') for line in lines) == SCRIPTS
    assert set(SCRIPTS) == {f'simseg-{name}' for name in ('predict', 'pseudo-label', 'eval', 'info', 'data', 'convert')}


@pytest.mark.parametrize('name', SCRIPTS)
def test_help_and_wrong_usage(name, capsys):
    for words, code in ((['--help'], 0), ([], 2)):
        with pytest.raises(SystemExit) as left: target(name)(words)
        shown = ''.join(capsys.readouterr())
        assert left.value.code == code and f'usage: {name}' in shown


def test_starts_as_a_process(tmp_path):
    "As the installed script does: `sys.exit(main())`; what is wrong is one line, not a traceback."
    command = [sys.executable, '-c', 'import sys; from simseg.tools import info_main; sys.exit(info_main())', str(tmp_path / 'none.pt')]
    done = subprocess.run(command, cwd=tmp_path, env=clean_env(PYTHONPATH=str(ROOT)), capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count('\n') == 1 and 'none.pt' in done.stderr


@pytest.fixture(scope='module')
def labelled(tmp_path_factory):
    "A boxes-only json of tangle scenes, and what simseg-pseudo-label makes of it with a random network."
    from simseg.config import config
    from simseg.data import tangle
    from simseg.data.coco import read
    from simseg.models.condinst import condinst
    from simseg.training import save_model
    tmp = tmp_path_factory.mktemp('labelled')
    root = tangle.make(tmp / 'cache', train=2, val=1, size=96, progress=False)
    data = json.loads((root / 'annotations/instances_train.json').read_text())
    for row in data['annotations']: del row['segmentation'], row['area']
    (tmp / 'boxes.json').write_text(json.dumps(data))
    train = read(root, 'train')
    torch.manual_seed(0)
    c = config('smoke', method='boxinst')
    save_model(tmp / 'model.pt', condinst(c, len(train.classes)), c, SimpleNamespace(classes=train.classes, category_ids=train.category_ids))
    words = [tmp / 'model.pt', '--images', root / 'images', '--boxes', tmp / 'boxes.json', '--out', tmp / 'masks.json', '--quiet']
    with contextlib.redirect_stdout(io.StringIO()): assert target('simseg-pseudo-label')(list(map(str, words))) == 0
    return root / 'images', tmp / 'masks.json', data


KILLED = """
import importlib, os, signal, sys
from simseg.files import Journal
main = importlib.import_module(sys.argv[1]).main
keep = Journal.keep
def killed(self, item, value): # when one image is done, in the middle of the next one's line
    keep(self, item, value)
    with open(self.path, 'a') as f: f.write('{"item": "hal')
    os.kill(os.getpid(), signal.SIGKILL)
Journal.keep = killed
sys.exit(main(sys.argv[2:]))
"""


def test_killed_labelling_goes_on(labelled, tmp_path, capsys):
    "kill -9 of a real process: the same command does the rest, and the json is that of a run at one go, to the byte."
    images, masks, _ = labelled
    out = tmp_path / 'masks.json'
    words = list(map(str, [masks.parent / 'model.pt', '--images', images, '--boxes', masks.parent / 'boxes.json', '--out', out, '--quiet']))
    done = python(['-c', KILLED, 'simseg.pseudo_label', *words])
    assert done.returncode == -signal.SIGKILL and not out.exists(), done.stderr
    assert target('simseg-pseudo-label')(words) == 0
    assert 'going on: 1 images' in capsys.readouterr().out
    assert out.read_bytes() == masks.read_bytes() and [p.name for p in tmp_path.iterdir()] == ['masks.json']


def test_killed_prediction_goes_on(labelled, tmp_path, capsys):
    "The same of simseg-predict, json and pictures."
    images, masks, _ = labelled
    def words(out): return list(map(str, [masks.parent / 'model.pt', images, '--score', 0, '--out', tmp_path / out, '--quiet']))
    def files(out): return {path.name: path.read_bytes() for path in (tmp_path / out).rglob('*') if path.is_file()}
    done = python(['-c', KILLED, 'simseg.predict', *words('killed')])
    assert done.returncode == -signal.SIGKILL and not (tmp_path / 'killed/predictions.json').exists(), done.stderr
    first, = (name for name in files('killed') if name.endswith('.png'))
    assert target('simseg-predict')(words('killed')) == 0 and 'going on: 1 images' in capsys.readouterr().out
    assert target('simseg-predict')(words('whole')) == 0
    assert files('killed') == files('whole') and len(files('whole')) == 1 + len(list(images.iterdir())) > 2 and first in files('whole')
    assert len(json.loads(files('whole')['predictions.json'])) > 0


def test_torchvision_mask_rcnn_trains_on_the_masks(labelled):
    "torchvision reads the set by pycocotools, and its Mask R-CNN takes a step: the loss is finite, and the mask head's weights move."
    from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
    from torchvision.models.detection import maskrcnn_resnet50_fpn
    from torchvision.transforms.v2 import ToDtype, ToImage
    images, masks, boxes = labelled
    with contextlib.redirect_stdout(io.StringIO()): coco = CocoDetection(str(images), str(masks))
    assert sorted(coco.coco.anns) == sorted(row['id'] for row in boxes['annotations'])
    coco = wrap_dataset_for_transforms_v2(coco, target_keys=('boxes', 'labels', 'masks'))
    image, wanted = coco[0]
    assert wanted['masks'].shape == (len(wanted['boxes']), 96, 96) and wanted['masks'].flatten(1).any(1).all()
    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=max(coco._dataset.coco.cats) + 1, min_size=96, max_size=96,
                                  rpn_pre_nms_top_n_train=50, rpn_post_nms_top_n_train=20, box_batch_size_per_image=32).train()
    before = model.roi_heads.mask_predictor.mask_fcn_logits.weight.detach().clone()
    losses = model([ToDtype(torch.float32, scale=True)(ToImage()(image))], [wanted])
    loss = sum(losses.values())
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    assert loss.isfinite() and losses['loss_mask'] > 0
    assert not torch.equal(before, model.roi_heads.mask_predictor.mask_fcn_logits.weight)
