"""A small COCO-form set from a larger one: its first images, or those of some classes.

python experiments/subset.py SOURCE OUT --images 16                      to over-fit: its val are the very images of its train
python experiments/subset.py COCO OUT --classes person --val val --ids experiments/coco_person.json      what the setting coco-person trains on

Images are copied, train's and val's apart. Of train only images that have an object are taken; of val, where it is one of its own, all. Crowd
regions stay: evaluation ignores what lies in them.
"""
import argparse, json, shutil
from pathlib import Path

from simseg.data.annotations import find_split

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('source', type=Path, help='folder of a COCO-form set')
parser.add_argument('out', type=Path, help='folder to make')
parser.add_argument('--images', type=int, help='first so many images that have an object; else all')
parser.add_argument('--classes', nargs='+', metavar='NAME', help='the classes to keep; else all')
parser.add_argument('--split', default='train', help='of SOURCE, for train')
parser.add_argument('--val', help='of SOURCE, for val; else val is what train is')
parser.add_argument('--ids', type=Path, help='json of the image ids to take: {"train": [...], "val": [...]}; else all')
args = parser.parse_args()

chosen_ids = json.loads(args.ids.read_text()) if args.ids else {}


def cut(name, split): # images folder of a split, and its json with the chosen classes and images
    folder, path = find_split(args.source, split)
    full = json.loads(path.read_text())
    kinds = [c for c in full['categories'] if not args.classes or c['name'] in args.classes]
    missing = set(args.classes or ()) - {c['name'] for c in kinds}
    if missing: raise SystemExit(f"{path}: no category {', '.join(sorted(missing))}. It has {', '.join(c['name'] for c in full['categories'])}.")
    chosen = {c['id'] for c in kinds}
    marks = [a for a in full['annotations'] if a['category_id'] in chosen]
    having = {a['image_id'] for a in marks if not a.get('iscrowd')}
    images = full['images'] if name == 'val' else [i for i in full['images'] if i['id'] in having][:args.images]
    if name in chosen_ids: images = [i for i in images if i['id'] in chosen_ids[name]]
    ids = {i['id'] for i in images}
    missing = sorted(set(chosen_ids.get(name, ())) - ids)
    if missing: raise SystemExit(f"{path}: {len(missing)} images of {args.ids} are not there, or have none of these objects; first {missing[0]}.")
    return folder, dict(images=images, categories=kinds, annotations=[a for a in marks if a['image_id'] in ids])


parts = dict(train=cut('train', args.split))
parts['val'] = cut('val', args.val) if args.val else parts['train']
if args.out.exists() and any(args.out.iterdir()): raise SystemExit(f'{args.out} is not empty: name a new folder.')
(args.out / 'annotations').mkdir(parents=True, exist_ok=True)
for split, (folder, part) in parts.items():
    (args.out / 'annotations' / f'instances_{split}.json').write_text(json.dumps(part))
    home = (args.out / 'images' / split).resolve()
    for image in part['images']:
        copy = (home / image['file_name']).resolve()
        if home not in copy.parents: raise SystemExit(f"{split}: file_name {image['file_name']!r} leads out of the folder of images.")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / image['file_name'], copy)
    print(f"{args.out}: {split} {len(part['images'])} images, {len(part['annotations'])} annotations")
