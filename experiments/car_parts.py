"""The set `car-parts` of the settings, in COCO form, from its authors' repository (Pasupa et al. 2021, github.com/dsmlr/Car-Parts-Segmentation).

    git clone https://github.com/dsmlr/Car-Parts-Segmentation
    python experiments/car_parts.py Car-Parts-Segmentation /data/car_parts

400 photographs for training and 100 held out, as the authors part them. Left and right classes are one (13 remain of 18), so that a mirrored
photograph keeps its labels, and each wheel is an object of its own (theirs has all wheels of a car in one). The repository states no licence: the
photographs are not ours to pass on.
"""
import argparse, json, shutil
from pathlib import Path

from pycocotools import mask as rle

SPLITS = dict(train='trainingset', val='testset')
ABOUT = ('Car Parts (Pasupa et al. 2021, doi 10.1007/s40747-021-00397-8), github dsmlr/Car-Parts-Segmentation; left/right classes merged so '
         'that a mirrored image keeps its labels, wheels split into one instance each')


def merged(name): return name.replace('left_', '').replace('right_', '')


def converted(theirs, split): # their annotations as ours
    names = [c['name'] for c in theirs['categories'] if c['name'] != '_background_']
    ours = list(dict.fromkeys(map(merged, names)))
    label = {c['id']: ours.index(merged(c['name'])) + 1 for c in theirs['categories'] if c['name'] in names}
    sizes, rows = {i['id']: (i['height'], i['width']) for i in theirs['images']}, []
    for a in theirs['annotations']:
        for polygons in ([[p] for p in a['segmentation']] if ours[label[a['category_id']] - 1] == 'wheel' else [a['segmentation']]):
            code = rle.merge(rle.frPyObjects(polygons, *sizes[a['image_id']]))
            if rle.area(code) < 2: continue # a slip of the pen
            rows.append(dict(id=len(rows) + 1, image_id=a['image_id'], bbox=rle.toBbox(code).tolist(), area=float(rle.area(code)),
                             segmentation=polygons, iscrowd=0, category_id=label[a['category_id']]))
    images = [dict(id=i['id'], file_name=f"{split}_{i['file_name']}", width=i['width'], height=i['height']) for i in theirs['images']]
    return dict(info=dict(description=ABOUT), images=images, annotations=rows, categories=[dict(id=k + 1, name=n) for k, n in enumerate(ours)])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('clone', type=Path)
    p.add_argument('out', type=Path, help='folder, called car_parts for the settings')
    args = p.parse_args()
    missing = [args.clone / folder / 'annotations.json' for folder in SPLITS.values() if not (args.clone / folder / 'annotations.json').is_file()]
    if missing: p.error(f'{missing[0]} is not there: give the folder of a clone of github.com/dsmlr/Car-Parts-Segmentation')
    for name in ('images', 'annotations'): (args.out / name).mkdir(parents=True, exist_ok=True)
    for split, folder in SPLITS.items():
        theirs = json.loads((args.clone / folder / 'annotations.json').read_text())
        ours = converted(theirs, split)
        for a, b in zip(theirs['images'], ours['images']):
            shutil.copyfile(args.clone / folder / 'JPEGImages' / a['file_name'], args.out / 'images' / b['file_name'])
        (args.out / 'annotations' / f'instances_{split}.json').write_text(json.dumps(ours))
        print(f"{split}: {len(ours['images'])} photographs, {len(ours['annotations'])} objects of {len(ours['categories'])} classes")


if __name__ == '__main__': main()
