"""A small COCO-form set from a larger one, to over-fit: its val are the very images of its train.

python experiments/subset.py SOURCE OUT --images 16 [--split train]
"""
import argparse, json, os
from pathlib import Path

from simseg.data.annotations import find_split

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument('source', type=Path, help='folder of a COCO-form set')
parser.add_argument('out', type=Path, help='folder to make')
parser.add_argument('--images', type=int, default=16, help='first so many images that have an object')
parser.add_argument('--split', default='train')
args = parser.parse_args()

folder, path = find_split(args.source, args.split)
whole = json.loads(path.read_text())
having = {a['image_id'] for a in whole['annotations'] if not a.get('iscrowd')}
images = [i for i in whole['images'] if i['id'] in having][:args.images]
ids = {i['id'] for i in images}
part = dict(images=images, categories=whole['categories'], annotations=[a for a in whole['annotations'] if a['image_id'] in ids])
(args.out / 'annotations').mkdir(parents=True, exist_ok=True)
for split in ('train', 'val'): (args.out / 'annotations' / f'instances_{split}.json').write_text(json.dumps(part))
if not (args.out / 'images').exists(): os.symlink(folder.resolve(), args.out / 'images')
print(f"{args.out}: {len(images)} images, {len(part['annotations'])} annotations")
