"""What a training step costs: supervised, boxinst, pseudo and sim on the same batches, in turn, in one process.

python experiments/cost.py [--preset quick] [--repeats 15] [--out results/bench/step_cost_cpu.csv] [NAME=VALUE ...]

The ratio to `boxinst` is what to read; the seconds are this machine's. Masks are made sure enough that pseudo masks, bank and prototypes have
work. Medians after three steps of warming up; a GPU is waited for.
"""
import argparse, os, statistics, time
from pathlib import Path

import pandas as pd
import torch
from simseg.config import config
from simseg.data.loader import loader
from simseg.recipe import data_sets
from simseg.runs import provenance
from simseg.loop import State, make_fabric, train_step
from simseg.training import parse

METHODS = dict(supervised=dict(method='supervised'), boxinst=dict(method='boxinst'), pseudo=dict(method='pseudo'), sim=dict(method='sim'))
METHODS['sim+semantic'] = dict(method='sim', semantic_loss=.1, similarity='contrast')

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--preset', default='quick')
parser.add_argument('--repeats', type=int, default=15)
parser.add_argument('--out', type=Path, help='a CSV file to write')
parser.add_argument('set', nargs='*', metavar='NAME=VALUE', help='more parameters')
args = parser.parse_args()

given = dict(pair.split('=', 1) for pair in args.set)
c = parse(['--preset', args.preset, '--method', 'supervised', *(word for k, v in given.items() for word in (f'--{k}', *v.split()))])
fabric, data = make_fabric(c), data_sets(c)
batches = [b.to(fabric.device) for b in loader(data.train, c.sizes, c.max_size, c.flip, c.batch_size, args.repeats + 3, c.seed)]
wait = torch.cuda.synchronize if fabric.device.type == 'cuda' else lambda: None
runs = {}
for name, changes in METHODS.items():
    own = config(args.preset, **{k: getattr(c, k) for k in given}, **changes)
    state = State(own, len(data.train.classes), fabric.device)
    state.step = own.steps // 2 # after the warm-up
    for net in (state.model, state.teacher and state.teacher.module): # a random network's masks are all one half: no pixel would be sure
        if hasattr(net, 'controller'): net.controller.weight.data *= 5
    runs[name] = own, state, fabric.setup(state.model, state.optimizer)
# on one thread of a CPU the seconds that it worked, which other programs disturb little
clock = time.perf_counter if fabric.device.type == 'cuda' or torch.get_num_threads() > 1 else time.process_time
seconds, used, pasted = {name: [] for name in runs}, {name: [] for name in runs}, {name: [] for name in runs}
for i, batch in enumerate(batches):
    for name, (own, state, (model, optimizer)) in runs.items():
        wait()
        start = clock()
        _, health, _, seen = train_step(own, fabric, state, model.train(), optimizer, batch)
        wait()
        if i < 3: continue
        seconds[name].append(clock() - start)
        used[name].append(health['used'].item() if health else 0.)
        pasted[name].append(seen.pasted().sum().item())
table = pd.DataFrame(dict(method=list(seconds), seconds=[round(statistics.median(s), 4) for s in seconds.values()]))
median = {name: statistics.median(s) for name, s in seconds.items()}
for base in ('supervised', 'boxinst'): # step by step: what else the machine did at that moment hits both
    table[f'over {base}'] = [round(statistics.median(a / b for a, b in zip(s, seconds[base])), 3) for s in seconds.values()]
table['objects with a pseudo mask'] = [round(statistics.mean(v), 2) for v in used.values()]
table['pasted a step'] = [round(statistics.mean(v), 1) for v in pasted.values()]
made = provenance(c.seed, fabric.device)
for name in ('commit', 'dirty', 'device', 'threads'): table[name] = made[name]
table['torch'] = made['versions']['torch']
table['setting'] = f'{args.preset} {" ".join(args.set)}, {c.batch_size} images of {tuple(batches[0].images.shape[2:])}'
if args.out:
    os.makedirs(args.out.parent, exist_ok=True)
    table.to_csv(args.out, index=False)
print(table.to_string(index=False))
