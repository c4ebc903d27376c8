"Whatever stands in a COCO json: it is read, or refused by an error that names the file and the field; nothing outside the image folder is opened."
import builtins, copy, io, json, os, struct, zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from simseg.data.coco import ground_truth, read, read_image

H, W = 12, 16
GOOD = dict(images=[dict(id=k, file_name=f'{k}.png', height=H, width=W) for k in (1, 2)], categories=[dict(id=3, name='cat'), dict(id=5, name='dog')],
            annotations=[dict(id=10 + k, image_id=1 + k % 2, category_id=3 + 2 * (k % 2), bbox=[1 + k, 2, 5, 6], iscrowd=0, area=30,
                              segmentation=[[1, 1, 8, 1, 8, 8, 1, 8]]) for k in range(4)])
FIELDS = dict(images=['id', 'file_name', 'height', 'width'], categories=['id', 'name'],
              annotations=['id', 'image_id', 'category_id', 'bbox', 'iscrowd', 'area', 'segmentation'])
NAMES = ['../secret.png', '../../etc/passwd', '/etc/passwd', 'a/../../secret.png', 'link.png', 'folder', '', '.', '\0', 'x' * 5000, '\ud800',
         '1.png/', '~/x']
numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([0, -1, 1e9, 1e308, 2**62, 2**64, 10**400, True, 0.5]))
anything = st.recursive(st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=8), st.sampled_from(NAMES)),
                        lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=4), inner, max_size=3)), max_leaves=6)
shapes = st.one_of(
    st.lists(numbers, min_size=4, max_size=4), st.lists(st.lists(numbers, min_size=6, max_size=8), max_size=2),
    st.fixed_dictionaries(dict(size=st.sampled_from([[H, W], [W, H], [12.0, 16.0], [2**31, 2**31], None]), counts=st.one_of(
        st.text(max_size=12), st.lists(numbers, max_size=4), st.sampled_from([[H * W], [0, H * W], [90.5, 101.5], [-1, H * W + 1]]), st.none()))))
change = st.one_of(*[st.tuples(st.just(part), st.integers(0, 3), st.sampled_from(fields), st.sampled_from(['set', 'delete', 'repeat']),
                               st.one_of(anything, shapes)) for part, fields in FIELDS.items()],
                   st.tuples(st.sampled_from(list(FIELDS)), st.just(0), st.just(''), st.sampled_from(['list', 'row']), anything))


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    base = tmp_path_factory.mktemp('set')
    folder = base / 'data'
    (folder / 'images/folder').mkdir(parents=True)
    picture = Image.fromarray(np.full((H, W, 3), 90, np.uint8))
    picture.save(base / 'secret.png')
    for k in (1, 2): picture.save(folder / f'images/{k}.png')
    (folder / 'images/link.png').symlink_to(base / 'secret.png')
    (folder / 'annotations').mkdir()
    return folder


def changed(changes):
    data = copy.deepcopy(GOOD)
    for part, n, field, how, value in changes:
        rows = data[part]
        if how == 'list': data[part] = value; return data
        if not rows: continue
        row = rows[n % len(rows)]
        if how == 'row': rows[n % len(rows)] = value; return data
        if how == 'set': row[field] = value
        elif how == 'delete': row.pop(field, None)
        else: rows.append(dict(row))
    return data


def everything(root, masks):
    "All that training and evaluation do with a set."
    dataset = read(root, 'train', masks=masks)
    for i in range(len(dataset)):
        image, objects = dataset[i]
        assert image.shape == (3, H, W) and np.isfinite(objects.boxes.numpy()).all()
        x0, y0, x1, y1 = objects.boxes.T
        assert ((0 <= x0) & (x0 < x1) & (x1 <= W) & (0 <= y0) & (y0 < y1) & (y1 <= H)).all()
        assert ((0 <= objects.labels) & (objects.labels < len(dataset.classes))).all()
    given = [a for a in json.loads(dataset.coco_json.read_text())['annotations'] if not a.get('iscrowd')]
    assert dataset.report['objects'] + dataset.report['no_area_dropped'] <= len(given)
    ground_truth(dataset)
    return dataset


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=st.lists(change, min_size=1, max_size=3), masks=st.booleans())
@example(changes=[('annotations', 0, 'segmentation', 'set', [[0, 0, 1e8, 0, 1e8, 1e8]])], masks=True) # a polygon that would fill the memory
@example(changes=[('images', 0, 'height', 'set', 2**40), ('images', 0, 'width', 'set', 2**20)], masks=True)
@example(changes=[('annotations', 0, 'segmentation', 'set', dict(size=[H, W], counts=[90.5, 101.5]))], masks=True)
@example(changes=[('annotations', 0, 'segmentation', 'set', dict(size=[H, W], counts='\ud800'))], masks=True)
@example(changes=[('annotations', 0, 'bbox', 'set', [1, 2, float('nan'), 4])], masks=False)
@example(changes=[('annotations', 0, 'id', 'repeat', None)], masks=False)
def test_read_or_refused_by_name(root, changes, masks):
    path, opened, plain = root / 'annotations/instances_train.json', [], builtins.open
    path.write_text(json.dumps(changed(changes)))
    def watched(file, *words, **more):
        if isinstance(file, (str, bytes, os.PathLike)): opened.append(os.path.realpath(os.fsdecode(file)))
        return plain(file, *words, **more)
    builtins.open = io.open = watched
    try: everything(root, masks)
    except (ValueError, FileNotFoundError) as e:
        assert str(root) in str(e), e
        text = str(e).replace(str(path), '').replace(str(root / 'images'), '')
        assert any(f'`{field}`' in text for fields in FIELDS.values() for field in fields) or any(
            word in text for word in ('bbox', 'image file', '.png', '`images`', '`annotations`', '`categories`')), text
    finally: builtins.open = io.open = plain
    outside = [o for o in opened if not o.startswith(os.path.realpath(root)) and ('secret' in o or 'passwd' in o)]
    assert not outside


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=30).map(lambda t: t.encode('utf-8', 'surrogatepass')),
                         st.sampled_from([b'[' * 100_000, b'{"images": ' * 20_000, b'"file_name": "\\q', b'{"images": [{"file_name": "\\ud800"}]}',
                                          b'9' * 10_000, b'{"images": [{"file_name": "' + b'x' * 9000 + b'"}]}'])))
def test_any_bytes_for_a_json(root, content):
    (root / 'annotations/instances_train.json').write_bytes(content)
    with pytest.raises(ValueError, match='instances_train.json'): read(root, 'train')


def test_good_set_is_read(root):
    "The fuzz would prove nothing if the set it starts from were refused."
    (root / 'annotations/instances_train.json').write_text(json.dumps(GOOD))
    dataset = everything(root, masks=True)
    assert dataset.report['objects'] == 4 and dataset[0][1].masks.flatten(1).any(1).all()


@pytest.mark.parametrize('name', NAMES[:5])
def test_no_way_out_of_the_image_folder(root, name):
    data = copy.deepcopy(GOOD)
    data['images'][0]['file_name'] = name
    (root / 'annotations/instances_train.json').write_text(json.dumps(data))
    with pytest.raises(ValueError, match='image folder'): read(root, 'train')


def test_dropped_objects_are_counted(root):
    data = copy.deepcopy(GOOD)
    for row, box, crowd in zip(data['annotations'], ([-5, -5, 3, 3], [4, 4, -2, 5], [10, 8, 50, 50], [1, 1, 4, 4]), (0, 0, 0, 1)):
        row.update(bbox=box, iscrowd=crowd)
    (root / 'annotations/instances_train.json').write_text(json.dumps(data))
    report = read(root, 'train').report
    assert {k: report[k] for k in ('objects', 'no_area_dropped', 'clipped', 'crowd_dropped')} == dict(
        objects=1, no_area_dropped=2, clipped=1, crowd_dropped=1)


def test_decompression_bomb(tmp_path):
    "A PNG of 40 bytes that claims 60,000 x 60,000 pixels is refused before any is decoded."
    def chunk(kind, content): return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))
    head = struct.pack('>IIBBBBB', 60_000, 60_000, 8, 2, 0, 0, 0)
    path = Path(tmp_path / 'bomb.png')
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b''))
    with pytest.raises(ValueError, match='bomb.png'): read_image(path)
    with pytest.raises(ValueError, match='bomb.png'): read_image(path, (60_000, 60_000))
