"""How many runs a GPU holds at once: so many trainings beside each other, forked from one process, steps and images a second of all of them.

python experiments/bench/throughput.py [--preset bench] [--runs 1 4 12] [--steps 60] [--out results/bench/h200/throughput.csv] [NAME=VALUE ...]

Runs are whole ones, with loader and logs, after their warm-up; log lines of the first third (starting up) are left out. Without `data` they train on
a few embedded scenes. `hours` is what a table of `--count` runs of the preset's schedule takes at that pace, without evaluation. `mps`: whether MPS
of NVIDIA runs, under which kernels of several processes overlap (`nvidia-cuda-mps-control -d`).
"""
import argparse, os, sys, tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import pandas as pd
import torch
from at_once import at_once, has_mps
from simseg.config import config
from simseg.files import read_json, read_log
from simseg.recipe import data_sets, resolved
from simseg.runs import provenance
from simseg.training import parse, train


def main(): # a loader's processes read this file too
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--preset', default='bench')
    parser.add_argument('--runs', type=int, nargs='+', default=[1, 4, 12])
    parser.add_argument('--steps', type=int, default=60)
    parser.add_argument('--count', type=int, default=45, help='runs of a table: 15 configurations, three seeds')
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--out', type=Path)
    parser.add_argument('set', nargs='*', metavar='NAME=VALUE')
    args = parser.parse_args()
    given = dict(preset=args.preset, weights='none', train_images=64, val_images=2, log_every=args.steps // 3, save_every=10**6, warmup_share=.001,
                 device=args.device, steps=args.steps, tau_low=.5, tau_high=.5) # at one half all pixels are sure: masks, bank, pasting have work
    given |= dict(pair.split('=', 1) for pair in args.set)
    whole = config(args.preset) # its schedule
    os.environ.setdefault('SIMSEG_CACHE', str(Path(tempfile.gettempdir()) / 'scenes'))

    def run(seed, folder): return parse([str(w) for k, v in (given | dict(seed=seed, out=folder)).items() for w in (f'--{k}', v)])
    data_sets(resolved(replace(run(0, ''), precision='32'))) # draws the scenes; to resolve `auto` would begin CUDA
    made, rows = provenance(0), []
    for n in args.runs:
        with tempfile.TemporaryDirectory() as folder:
            codes = at_once({f'{folder}/{seed}.log': partial(train, run(seed, folder), progress=False) for seed in range(n)}, n)
            bad = [Path(log).read_text(errors='replace')[-300:] for log, code in codes.items() if code]
            done = [path.parent for path in Path(folder).glob('*/s*/metrics.json')]
            logs = [read_log(path / 'log.jsonl') for path in done]
            told = [read_json(path / 'provenance.json') for path in done]
        if bad: print(n, 'runs:', len(bad), 'failed:', bad[0])
        seconds = [line['seconds'] for log in logs for line in log if line['step'] > args.steps // 3]
        if not seconds: continue
        each = sum(seconds) / len(seconds)
        pace = len(logs) / each
        rows.append(dict(preset=args.preset, setting=' '.join(args.set), runs=n, failed=len(bad), mps=has_mps(), seconds_a_step=each,
                         steps_a_second=pace, images_a_second=pace * int(given.get('batch_size', whole.batch_size)),
                         peak_mib_a_run=max(p['peak_memory_mib'] for p in told), hours=args.count * whole.steps / pace / 3600,
                         count=args.count, schedule=whole.steps, device=told[0]['device'],
                         **{k: made[k] for k in ('commit', 'dirty')}, cores=os.cpu_count(), torch=torch.__version__))
        print(rows[-1], flush=True)
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows).to_csv(args.out, index=False, float_format='%.5g')


if __name__ == '__main__': main()
