"""Does the method work? Trains every row of a table with every seed, several at once, and skips what is recorded.

python experiments/gain.py SETTING [--seeds 0 1 2] [--rows boxinst sim ...] [--parallel 2] [--threads 1] [--out results/runs] [--data FOLDER]
                           [--camouflage 0 .5 1] [--overlap 0 .5 1] [--set NAME=VALUE ...] [--dry-run]

A run that fails or is stopped leaves the others alone; the same command goes on where it stopped. Logs lie in OUT/../logs.
"""
import argparse, itertools, os, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from simseg.sweep import read_setting

ROWS = {
    'supervised': dict(method='supervised'),
    'boxinst': dict(method='boxinst'),
    'boxinst+semantic': dict(method='boxinst', semantic_loss=.1),
    'pseudo': dict(method='pseudo'),
    'sim': dict(method='sim'),
    'sim+semantic': dict(method='sim', semantic_loss=.1, similarity='contrast'),
}


def setting(name, **changes): # of settings.yaml, as parameters of a run
    found = read_setting(name, Path(__file__).parent / 'settings.yaml')
    return dict(preset=found.preset, precision=found.precision) | found.changes | changes


SETTINGS = {name: setting(name) for name in ('tangle-quick', 'tangle-small', 'tangle-bench')}
SETTINGS['tangle-dev'] = setting('tangle-quick', data_seed=1) # to choose on: other scenes
SETTINGS |= {f'data-{scale}': setting(f'car-parts{name}') for scale, name in (('quick', ''), ('small', '-small'), ('bench', '-bench'))} # with --data

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('setting', choices=SETTINGS)
parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
parser.add_argument('--rows', nargs='+', choices=ROWS, default=list(ROWS))
parser.add_argument('--parallel', type=int, default=2, help='runs at once')
parser.add_argument('--threads', type=int, help='threads a run; the cores over the runs at once unless given')
parser.add_argument('--out', type=Path, default=Path('results/runs'))
parser.add_argument('--data', help='folder of a COCO-form set, for the data- settings')
for knob in ('camouflage', 'overlap'): parser.add_argument(f'--{knob}', type=float, nargs='+', help='of tangle: all combinations')
parser.add_argument('--set', nargs='*', default=[], metavar='NAME=VALUE', help='more parameters, for every row: steps=1200')
parser.add_argument('--dry-run', action='store_true', help='print the commands alone')
args = parser.parse_args()
if args.setting.startswith('data-') != bool(args.data): parser.error('--data goes with the data- settings, and they need it')


def command(row, seed, cell):
    values = SETTINGS[args.setting] | cell | ROWS[row] | dict(seed=seed, out=args.out.resolve(), save_every=200)
    if args.data: values['data'] = args.data
    values |= dict(pair.split('=', 1) for pair in args.set)
    return [sys.executable, '-m', 'simseg.training', *(str(part) for k, v in values.items() for part in (f'--{k}', v))]


def train(job):
    row, seed, cell = job
    name = '-'.join([args.setting, row, *(f'{v:g}' for v in cell.values()), f's{seed}'])
    logs = args.out.resolve().parent / 'logs'
    logs.mkdir(parents=True, exist_ok=True)
    threads = str(args.threads or max(1, (os.cpu_count() or 1) // args.parallel))
    with open(logs / f'{name}.log', 'w') as log:
        done = subprocess.run(command(*job), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                              env=os.environ | dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS'), threads))
    print(f'{name}:', 'done' if not done.returncode else f'failed, see {log.name}', flush=True)
    return done.returncode


knobs = {k: v for k in ('camouflage', 'overlap') if (v := getattr(args, k))}
cells = [dict(zip(knobs, values)) for values in itertools.product(*knobs.values())]
jobs = [(row, seed, cell) for seed in args.seeds for cell in cells for row in args.rows] # seed by seed: what is there is comparable at any time
if args.dry_run: print(*(' '.join(command(*job)) for job in jobs), sep='\n')
else:
    with ThreadPoolExecutor(args.parallel) as pool: sys.exit(any(list(pool.map(train, jobs)))) # also where one was killed
