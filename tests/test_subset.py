"experiments/subset.py on a small COCO-form set: classes, image ids, a val of its own, and what is wrong with them."
import json

import numpy as np
from conftest import ROOT, python
from PIL import Image
from simseg.config import config
from simseg.recipe import data_sets


def make(folder):
    "Six images with a cat each, odd ones with a dog too; train and val in folders of their own, as COCO has them."
    for split, ids in dict(train=range(1, 5), val=range(5, 7)).items():
        images = [dict(id=i, file_name=f'{i:012}.png', width=40, height=30) for i in ids]
        (folder / f'{split}2017').mkdir(parents=True)
        for i in images: Image.fromarray(np.full((30, 40, 3), i['id'], np.uint8)).save(folder / f'{split}2017' / i['file_name'])
        marks = [dict(id=10 * i + k, image_id=i, category_id=3 * k, bbox=[2, 3, 9, 8], area=72, iscrowd=0)
                 for i in ids for k in (1, 2) if k == 1 or i % 2]
        (folder / 'annotations').mkdir(exist_ok=True)
        (folder / 'annotations' / f'instances_{split}2017.json').write_text(json.dumps(dict(
            images=images, annotations=marks, categories=[dict(id=3, name='cat'), dict(id=6, name='dog')])))
    return folder


def subset(*arguments): return python([ROOT / 'experiments/subset.py', *arguments])


def read(folder, split):
    d = json.loads((folder / 'annotations' / f'instances_{split}.json').read_text())
    return [i['id'] for i in d['images']], [a['id'] for a in d['annotations']], [c['name'] for c in d['categories']]


def test_subset(tmp_path):
    coco, out = make(tmp_path / 'coco'), tmp_path / 'out'
    assert subset(coco, out, '--images', '3').returncode == 0
    assert read(out, 'train') == read(out, 'val') == ([1, 2, 3], [11, 12, 21, 31, 32], ['cat', 'dog'])
    dogs, ids = tmp_path / 'dogs', tmp_path / 'ids.json'
    done = subset(coco, dogs, '--classes', 'dog', '--val', 'val')
    assert done.returncode == 0, done.stderr
    assert read(dogs, 'train') == ([1, 3], [12, 32], ['dog']), 'images without a dog do not train'
    assert read(dogs, 'val') == ([5, 6], [52], ['dog']), 'and judge'
    for split, i in (('train', 3), ('val', 6)): assert np.asarray(Image.open(dogs / 'images' / split / f'{i:012}.png')).max() == i
    assert len(data_sets(config('smoke', data=str(dogs))).train) == 2, 'a set that training takes'
    ids.write_text('{"train": [3], "val": [6]}')
    assert subset(coco, tmp_path / 'few', '--classes', 'dog', '--val', 'val', '--ids', ids).returncode == 0
    assert [read(tmp_path / 'few', s)[0] for s in ('train', 'val')] == [[3], [6]]


def test_what_is_not_there(tmp_path):
    coco, ids = make(tmp_path / 'coco'), tmp_path / 'ids.json'
    wrong = subset(coco, tmp_path / 'out', '--classes', 'cow')
    assert wrong.returncode == 1 and 'no category cow. It has cat, dog.' in wrong.stderr
    ids.write_text('{"train": [3, 99]}')
    wrong = subset(coco, tmp_path / 'out', '--ids', ids)
    assert wrong.returncode == 1 and f'1 images of {ids} are not there' in wrong.stderr and 'first 99.' in wrong.stderr
    assert not (tmp_path / 'out').exists()
    assert subset(coco, tmp_path / 'out', '--images', '1').returncode == 0
    again = subset(coco, tmp_path / 'out', '--images', '2')
    assert again.returncode == 1 and 'is not empty' in again.stderr and read(tmp_path / 'out', 'train')[0] == [1]
    path = coco / 'annotations' / 'instances_train2017.json'
    path.write_text(path.read_text().replace('"000000000002.png"', '"../../../000000000002.png"'))
    wrong = subset(coco, tmp_path / 'away', '--images', '2')
    assert wrong.returncode == 1 and 'leads out of the folder' in wrong.stderr
