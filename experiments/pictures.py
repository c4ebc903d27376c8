"""Predictions of a finished run beside the truth, as a PNG.

python experiments/pictures.py RUN_FOLDER OUT.png [--data FOLDER] [--images 3] [--first 0] [--blank]

A record holds no path, so --data says where a set other than tangle lies. --blank leaves the photographs out (masks on white), for
photographs that may not be passed on.
"""
import argparse
from dataclasses import replace
from pathlib import Path

import torch

from simseg.inference import predict_image
from simseg.show import side_by_side
from simseg.recipe import data_sets
from simseg.training import load_model

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument('run', type=Path)
parser.add_argument('out', type=Path)
parser.add_argument('--data', help='folder of the data set, unless tangle')
parser.add_argument('--images', type=int, default=3)
parser.add_argument('--first', type=int, default=0, help='index of the first image')
parser.add_argument('--score', type=float, default=0.3, help='least score shown')
parser.add_argument('--blank', action='store_true')
args = parser.parse_args()

model, c, classes, _ = load_model(args.run)
val = data_sets(replace(c, data=args.data or 'tangle')).val
images, truth = zip(*[val[i] for i in range(args.first, min(args.first + args.images, len(val)))])
found = [predict_image(model, image, c.test_size, c.max_size) for image in images]
shown = [torch.full_like(image, 255) for image in images] if args.blank else images
args.out.parent.mkdir(parents=True, exist_ok=True)
side_by_side(shown, truth, found, classes, score_min=args.score).savefig(args.out)
