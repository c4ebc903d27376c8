"""Predictions of finished runs beside the truth, as a PNG: a column a run.

python experiments/pictures.py RUN_FOLDER [RUN_FOLDER ...] OUT.png [--data FOLDER] [--images 3] [--first 0] [--blank] [--plain]

A record holds no path, so --data says where a set other than tangle lies. --blank leaves the photographs out (masks on grey), for
photographs that may not be passed on. The runs must share their evaluated set.
"""
import argparse
from dataclasses import replace
from pathlib import Path

import torch
from simseg.figures import NAMES
from simseg.files import read_json
from simseg.inference import predict_image
from simseg.recipe import data_sets
from simseg.show import panels, show_objects, truth_colours
from simseg.training import load_model

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument('runs', type=Path, nargs='+')
parser.add_argument('out', type=Path)
parser.add_argument('--data', help='folder of the data set, unless tangle')
parser.add_argument('--images', type=int, default=3)
parser.add_argument('--first', type=int, default=0, help='index of the first image')
parser.add_argument('--score', type=float, default=0.3, help='least score shown')
parser.add_argument('--blank', action='store_true')
parser.add_argument('--plain', action='store_true', help='masks alone, without boxes and names')
args = parser.parse_args()


def named(c, run):
    name = NAMES[c.method] + ('\nbackground outside the box' if c.outside_loss else '')
    if c.head == 'mask2former' and c.method != 'supervised': name += '\nbegun with filled boxes' if c.filled_start else '\nwithout that start'
    recorded = run/'metrics.json'
    return name + (f"\nmask AP {read_json(recorded)['mask_AP']:.1f}" if recorded.exists() else '')


models = [load_model(run) for run in args.runs]
_, c, classes, _ = models[0]
val = data_sets(replace(c, data=args.data or 'tangle')).val
chosen = [val[i] for i in range(args.first, min(args.first + args.images, len(val)))]
h, w = chosen[0][0].shape[1:]
style = dict(labels=False, boxes=False) if args.plain else {}
columns = ['ground truth', *(named(own, run) for run, (_, own, _, _) in zip(args.runs, models))]
if not args.blank: columns.insert(0, 'image')
figure, axes = panels(len(chosen), len(columns), 2.2, 2.2 * h / w + .3)
for row, (image, truth) in zip(axes, chosen):
    shown, (true, *others) = torch.full_like(image, 235) if args.blank else image, row[-1 - len(models):]
    if not args.blank: show_objects(row[0], shown)
    show_objects(true, shown, truth, classes, **style)
    for ax, (model, own, _, _) in zip(others, models):
        found = predict_image(model, image, own.test_size, own.max_size)
        show_objects(ax, shown, found, classes, score_min=args.score, index=truth_colours(truth, found), **style)
for ax, title in zip(axes[0], columns): ax.set_title(title, fontsize=8)
args.out.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(args.out)
