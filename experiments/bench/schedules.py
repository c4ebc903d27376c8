"""Seconds of a step of SIM of the full-scale presets on images of 800 x 1344 (bf16 on a GPU, random weights), and the hours of their schedules.

python experiments/bench/schedules.py [--device cuda] [--size 800 1344] [--out results/bench/h100/full_scale.csv]
"""
import argparse
from pathlib import Path

import pandas as pd
import torch
from cases import Step, scenes
from simseg.config import config
from simseg.runs import provenance
from timing import side_by_side

IMAGES = dict(coco_r50_1x=16, coco_r101_3x=16, coco_swin_b_3x=8, coco_m2f_r50_50e=4) # a step, as many as one GPU of 80 GB holds at ease
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--device', default='cuda')
parser.add_argument('--size', type=int, nargs=2, default=[800, 1344])
parser.add_argument('--repeats', type=int, default=5)
parser.add_argument('--presets', nargs='+', default=list(IMAGES), choices=list(IMAGES))
parser.add_argument('--out', type=Path, default=Path('results/local/bench/full_scale.csv'))
args = parser.parse_args()
args.out.parent.mkdir(parents=True, exist_ok=True)
made, rows, gpu = provenance(0, args.device), [], args.device == 'cuda'
for name in args.presets:
    n, whole = IMAGES[name], config(name)
    if gpu: torch.cuda.reset_peak_memory_stats()
    step = Step(config(name, weights='none', batch_size=n, schedule_batch=0), scenes(tuple(args.size), 10 * n, n), 80, args.device)
    seconds = pd.Series(side_by_side({'sim': step}, args.repeats, device=args.device)['sim']).median()
    peak = torch.cuda.max_memory_allocated() / 2**30 if gpu else float('nan')
    hours = whole.steps * seconds * whole.batch_size / n / 3600
    rows.append(dict(preset=name, images=n, seconds_a_step=seconds, images_a_second=n / seconds, peak_gib=peak, schedule=whole.steps,
                     batch=whole.batch_size, hours=hours, **{k: made[k] for k in ('device', 'commit', 'dirty')}, torch=torch.__version__))
    del step
    if gpu: torch.cuda.empty_cache()
    print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(args.out, index=False, float_format='%.5g')
