"experiments/car_parts.py on a made-up clone: classes merged, wheels apart, what our reader makes of it."
import json

from conftest import ROOT, python
from PIL import Image
from simseg.data.coco import read


def convert(*arguments): return python([ROOT / 'experiments/car_parts.py', *arguments])


def test_car_parts(tmp_path):
    def square(x, y, side): return [x, y, x + side, y, x + side, y + side, x, y + side]
    names = ['_background_', 'back_left_door', 'back_right_door', 'hood', 'wheel']
    categories = [dict(id=n + 1, name=name) for n, name in enumerate(names)]
    for folder, file in (('trainingset', 'train1.jpg'), ('testset', 'car1.jpg')):
        (tmp_path / 'clone' / folder / 'JPEGImages').mkdir(parents=True)
        Image.new('RGB', (60, 40), (9, 90, 9)).save(tmp_path / 'clone' / folder / 'JPEGImages' / file)
        speck, pieces = [50, 5, 50.6, 5, 50.3, 6], [square(26, 4, 6), square(34, 4, 6)]
        shapes = [(5, [square(2, 20, 8), square(30, 20, 10), speck]), (3, [square(12, 4, 12)]), (2, pieces)]
        (tmp_path / 'clone' / folder / 'annotations.json').write_text(json.dumps(dict(
            images=[dict(id=7, file_name=file, width=60, height=40)], categories=categories,
            annotations=[dict(id=n, image_id=7, category_id=k, segmentation=s) for n, (k, s) in enumerate(shapes)])))
    done = convert(tmp_path / 'clone', tmp_path / 'car_parts')
    assert done.returncode == 0, done.stderr
    for split, file in (('train', 'train_train1.jpg'), ('val', 'val_car1.jpg')):
        data = read(tmp_path / 'car_parts', split, masks=True)
        assert data.classes == ['back_door', 'hood', 'wheel'] and data.files == [file]
        _, objects = data[0]
        assert [data.classes[k] for k in objects.labels] == ['wheel', 'wheel', 'back_door', 'back_door'], 'the speck is gone'
        assert objects.boxes.tolist() == [[2, 20, 10, 28], [30, 20, 40, 30], [12, 4, 24, 16], [26, 4, 40, 10]]
        assert objects.masks.flatten(1).sum(1).tolist() == [64, 100, 144, 72]
    missing = convert(tmp_path, tmp_path / 'out')
    assert missing.returncode == 2 and 'trainingset' in missing.stderr and not (tmp_path / 'out').exists()
