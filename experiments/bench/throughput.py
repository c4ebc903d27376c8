"""How many runs a GPU holds at once: so many trainings beside each other, images a second of all of them.

python experiments/bench/throughput.py [--preset bench] [--runs 1 4 12] [--steps 60] [--out results/bench/h200/throughput.csv] [NAME=VALUE ...]

Runs are whole ones, with loader and logs, on a few embedded scenes, after their warm-up; the first log line (starting up) is left out. Beside `hours`
stands what a table of `--count` runs of the preset's schedule takes at that pace, without evaluation.
"""
import argparse, json, os, subprocess, sys, tempfile
from pathlib import Path

import pandas as pd
import torch
from simseg.config import config
from simseg.runs import provenance

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--preset', default='bench')
parser.add_argument('--runs', type=int, nargs='+', default=[1, 4, 12])
parser.add_argument('--steps', type=int, default=60)
parser.add_argument('--count', type=int, default=45, help='runs of a table: 15 configurations, three seeds')
parser.add_argument('--device', default='cuda')
parser.add_argument('--out', type=Path)
parser.add_argument('set', nargs='*', metavar='NAME=VALUE')
args = parser.parse_args()
given = dict(weights='none', train_images=64, val_images=2, log_every=args.steps // 3, save_every=10**6, warmup_share=.001, tau_low=.5, tau_high=.5,
             device=args.device) # at one half all pixels are sure: pseudo masks, bank and pasting have work
given |= dict(pair.split('=', 1) for pair in args.set)
c, rows = config(args.preset), []
for n in args.runs:
    with tempfile.TemporaryDirectory() as folder:
        def command(seed, steps=args.steps, folder=folder, **more):
            values = given | dict(preset=args.preset, steps=steps, seed=seed, out=folder) | more
            return [sys.executable, '-m', 'simseg.training', *(str(w) for k, v in values.items() for w in (f'--{k}', v))]
        env = os.environ | dict(OMP_NUM_THREADS='1', SIMSEG_CACHE=os.environ.get('SIMSEG_CACHE', str(Path(tempfile.gettempdir()) / 'scenes')))
        quiet = dict(env=env, stdout=subprocess.DEVNULL, text=True)
        if n == args.runs[0]: subprocess.run(command(99, 1), check=True, stderr=subprocess.DEVNULL, **quiet) # draws the scenes
        children = [subprocess.Popen(command(seed), stderr=subprocess.PIPE, **quiet) for seed in range(n)]
        said = [child.communicate()[1] for child in children]
        done = [path for path in Path(folder).glob('*/s*') if path.name != 's99']
        logs = [[json.loads(line) for line in (path / 'log.jsonl').read_text().splitlines()] for path in done if (path / 'log.jsonl').exists()]
        memory = [json.loads((path / 'provenance.json').read_text()).get('peak_memory_mib', 0) for path in done]
    bad = [text[-300:] for child, text in zip(children, said) if child.returncode]
    if bad: print(n, 'runs:', len(bad), 'failed:', bad[0])
    seconds = [line['seconds'] for log in logs for line in log[1:]]
    if not seconds: continue
    each = sum(seconds) / len(seconds)
    pace = len(logs) / each
    made = provenance(0, args.device)
    rows.append(dict(preset=args.preset, setting=' '.join(args.set), runs=n, failed=len(bad), seconds_a_step=each, steps_a_second=pace,
                     images_a_second=pace * int(given.get('batch_size', c.batch_size)), peak_mib_a_run=max(memory, default=float('nan')),
                     hours=args.count * c.steps / pace / 3600, count=args.count, schedule=c.steps,
                     **{k: made[k] for k in ('device', 'commit', 'dirty')}, cores=os.cpu_count(), torch=torch.__version__))
    print(rows[-1], flush=True)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(args.out, index=False, float_format='%.5g')
