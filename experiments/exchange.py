"""Thresholds that undo a temperature, on one fixed teacher: which tau_low and tau_high give its pseudo masks, at another tau, about the
precision, recall and precision of the background that they have with the run's own parameters. For the exchange of results/findings.md (S2 and S3).

python experiments/exchange.py RUN --tau 0.25 0.5 [--images 100]

RUN is the folder of a finished run with last.pt (teacher and prototypes). Over the first held-out images; the thresholds of a grid are ranked by the
distance of these three to the run's own.
"""
import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from simseg.data.loader import eval_loader
from simseg.figures import trained
from simseg.pseudo_quality import qualities

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('run', type=Path)
parser.add_argument('--data', help='folder of the data set, unless tangle')
parser.add_argument('--tau', type=float, nargs='+', default=[.25, .5])
parser.add_argument('--images', type=int, default=100, help='first so many held-out images')
parser.add_argument('--show', type=int, default=3, help='how many of the best to print')
args = parser.parse_args()

run = trained(args.run, data=args.data)
if not run.teacher: raise SystemExit(f'{args.run} has no last.pt with a teacher and prototypes: name the folder of a finished run of sim or pseudo.')
low = sorted({run.c.tau_low, *np.arange(.3, .85, .05).round(2).tolist()})
high = sorted({run.c.tau_high, .7, .75, .8, .85, .88, .9, .92, .93, .94, .95, .97})
grid = [(a, b) for a in low for b in high if a <= b]
configs = [run.c] + [replace(run.c, tau=tau, tau_low=a, tau_high=b) for tau in args.tau for a, b in grid]
loaded = eval_loader(run.data.val, run.c.test_size, run.c.max_size)
own, *found = qualities(configs, run.teacher.module.eval(), run.memory.prototypes, (batch for batch, _ in zip(loaded, range(args.images))))
MEASURES = ['precision', 'recall', 'negative_precision']
rows = pd.DataFrame([dict(tau=c.tau, tau_low=c.tau_low, tau_high=c.tau_high) | {k: q[k] for k in (*MEASURES, 'iou_pseudo')}
                     for c, q in zip(configs, [own, *found])])
rows['distance'] = np.sqrt(((rows[MEASURES] - rows.loc[0, MEASURES])**2).sum(1).astype(float))
print('The run itself:', rows.iloc[:1].round(3).to_string(index=False), sep='\n')
for tau, group in rows[1:].groupby('tau', sort=False):
    print(f'tau = {tau}, of {len(group)} pairs:', group.nsmallest(args.show, 'distance').round(3).to_string(index=False), sep='\n')
