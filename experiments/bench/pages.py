"""What `keep_pages` brings: a training step on a CPU with glibc as it is and with freed memory kept, in turn, in one process.

python experiments/bench/pages.py [--preset small] [--rounds 8] [--out results/bench/cpu/pages.csv] [NAME=VALUE ...]

"plain" is where glibc's own adjusting ends: blocks above 32 MiB are mapped, more than 64 MiB of free memory at the end go back. A round is four steps
of each. What "plain" gave back "kept" has to fetch again, so this is the least that it brings.
"""
import argparse, ctypes, resource, statistics
from pathlib import Path

import pandas as pd
import torch
from timing import ratio, side_by_side
from simseg.config import config
from simseg.data.loader import loader
from simseg.loop import State, keep_pages, make_fabric, train_step
from simseg.recipe import data_sets
from simseg.runs import provenance

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--preset', default='small')
parser.add_argument('--rounds', type=int, default=8)
parser.add_argument('--out', type=Path, help='a CSV file to write')
parser.add_argument('set', nargs='*', metavar='NAME=VALUE', help='more parameters')
args = parser.parse_args()

c = config(args.preset)
given = dict(pair.split('=', 1) for pair in args.set)
c = config(args.preset, device='cpu', **{k: type(getattr(c, k))(v) for k, v in given.items()})
fabric, data = make_fabric(c), data_sets(c)
if not keep_pages(): raise SystemExit('This C library has no mallopt: nothing to compare.')
state = State(c, len(data.train.classes), fabric.device)
state.step = c.steps // 2 # after the warm-up
if hasattr(state.model, 'controller'): # a random network's masks are all one half: no pixel would be sure
    for net in (state.model, state.teacher and state.teacher.module):
        if net: net.controller.weight.data *= 5
model, optimizer = fabric.setup(state.model, state.optimizer)
batches = list(loader(data.train, c.sizes, c.max_size, c.flip, c.batch_size, 4 * (args.rounds + 2), c.seed))

def plain():
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(-3, 32 << 20), mallopt(-1, 64 << 20)

faults = dict(plain=[], kept=[])
def way(name, switch):
    todo = iter(batches) # the same batches for both
    def steps():
        switch()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4): train_step(c, fabric, state, model.train(), optimizer, next(todo))
        faults[name].append((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 4)
    return steps

seconds = side_by_side(dict(plain=way('plain', plain), kept=way('kept', keep_pages)), repeats=args.rounds, warm=2)
made = provenance(c.seed, fabric.device)
rows = [dict(preset=args.preset, way=name, seconds_a_step=round(statistics.median(taken) / 4, 4), over_plain=round(ratio(taken, seconds['plain']), 3),
             page_faults_a_step=round(statistics.median(faults[name][2:]))) for name, taken in seconds.items()]
table = pd.DataFrame(rows).assign(**{k: made[k] for k in ('commit', 'dirty', 'device', 'threads')}, torch=torch.__version__)
if args.out:
    args.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out, index=False)
print(table.to_string(index=False))
