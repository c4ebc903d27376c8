"""A small COCO-form set from a larger one: its first images, or those of some classes.

python experiments/subset.py SOURCE OUT --images 16                      to over-fit: its val are the very images of its train
python experiments/subset.py SOURCE OUT --classes person --val val       one class; all images of SOURCE's val to judge by

Of train only images that have an object are taken. Crowd regions stay: evaluation ignores what lies in them.
"""
import argparse, json, os
from pathlib import Path

from simseg.data.annotations import find_split

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('source', type=Path, help='folder of a COCO-form set')
parser.add_argument('out', type=Path, help='folder to make')
parser.add_argument('--images', type=int, help='first so many images that have an object; else all')
parser.add_argument('--classes', nargs='+', metavar='NAME', help='the classes to keep; else all')
parser.add_argument('--split', default='train', help='of SOURCE, for train')
parser.add_argument('--val', help='of SOURCE, for val, whole; else val is what train is')
args = parser.parse_args()


def cut(split, whole): # the split's images folder, and its json with the chosen classes
    folder, path = find_split(args.source, split)
    full = json.loads(path.read_text())
    kinds = [c for c in full['categories'] if not args.classes or c['name'] in args.classes]
    missing = set(args.classes or ()) - {c['name'] for c in kinds}
    if missing: raise SystemExit(f"{path}: no category {', '.join(sorted(missing))}. It has {', '.join(c['name'] for c in full['categories'])}.")
    chosen = {c['id'] for c in kinds}
    marks = [a for a in full['annotations'] if a['category_id'] in chosen]
    having = {a['image_id'] for a in marks if not a.get('iscrowd')}
    images = full['images'] if whole else [i for i in full['images'] if i['id'] in having][:args.images]
    ids = {i['id'] for i in images}
    return folder, dict(images=images, categories=kinds, annotations=[a for a in marks if a['image_id'] in ids])


folder, train = cut(args.split, False)
val = cut(args.val, True)[1] if args.val else train
(args.out / 'annotations').mkdir(parents=True, exist_ok=True)
for split, part in dict(train=train, val=val).items():
    (args.out / 'annotations' / f'instances_{split}.json').write_text(json.dumps(part))
    print(f"{args.out}: {split} {len(part['images'])} images, {len(part['annotations'])} annotations")
if not (args.out / 'images').exists(): os.symlink(folder.resolve(), args.out / 'images')
