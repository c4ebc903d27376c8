"""The runs of a sweep at once on one GPU, forked from one process that has imported everything.

python experiments/at_once.py car-parts-small --data PATH/car_parts [--tables s1 s2 s3 s4] [--seeds 0] [--runs 15] [--out results/runs]

The runs are those of `make tables`, with the same records; what is done is skipped, what was begun goes on. A run takes one core, and small
networks share a GPU best under NVIDIA's MPS (`nvidia-cuda-mps-control -d`). `--minutes` ends it in order: each run saves its step. `--pace` is a CSV
of how long it took. Exit code 1 where a run has failed (its train.log says why).
"""
import argparse, json, os, re, signal, subprocess, sys, time
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1') # before torch comes
os.environ['PYTORCH_NVML_BASED_CUDA_CHECK'] = '1' # to ask whether there is a GPU must not begin CUDA here: its children could not use it
import multiprocessing as mp

import pandas as pd
import torch
from simseg.config import config
from simseg.files import read_json
from simseg.runs import provenance, stop_after_step
from simseg.sweep import jobs, progress, read_setting, read_table
from simseg.training import prepare, train

HERE = Path(__file__).resolve().parent
forks = mp.get_context('fork') # nothing here may touch CUDA before


def _interrupt(*_): raise KeyboardInterrupt('Stopped.')


def _quiet(work, log, heard):
    "In a child: `work`, what it says into `log`. `heard`: the signals that came before it had handlers of its own."
    try:
        for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, _interrupt)
        if heard: raise KeyboardInterrupt('Stopped before it began.')
        with open(log, 'ab', buffering=0) as f: os.dup2(f.fileno(), 1), os.dup2(f.fileno(), 2)
        torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))
        work()
    except KeyboardInterrupt as e: # SIGTERM, after its step is saved
        print(e); sys.exit(130)


def at_once(work:dict, # log file -> function without arguments
            runs:int, until:float=float('inf'), # time.time() at which they are asked to stop
            look=None, pause=.5) -> dict: # log file -> exit code; None where there was no time for it
    """So many processes beside each other. `look(seconds)` is called every `pause`. The end of the time is SIGTERM to each; so is Ctrl-C or SIGTERM,
    and KeyboardInterrupt here when all have ended. SIGKILL here ends this process alone."""
    if torch.cuda.is_initialized(): raise RuntimeError('CUDA has begun in this process, its forks could not use it.')
    waiting, running, codes, start, told = dict(work), {}, {}, time.time(), None
    with stop_after_step(alone=False) as heard: # a handler that raises would do so anywhere, within a fork too
        try:
            while waiting or running:
                if heard or time.time() > until:
                    codes |= dict.fromkeys(waiting); waiting.clear()
                    if told is None or time.time() - told > 30: # again, in case one fell where nobody minds it
                        told = time.time()
                        for p in running.values(): p.terminate()
                while waiting and len(running) < runs and not heard:
                    log = next(iter(waiting)); Path(log).parent.mkdir(parents=True, exist_ok=True)
                    p = forks.Process(target=_quiet, args=(waiting.pop(log), log, heard)); p.start(); running[log] = p
                time.sleep(pause)
                for log in [log for log, p in running.items() if not p.is_alive()]:
                    p = running.pop(log); p.join(); codes[log] = None if told and p.exitcode in (130, -signal.SIGTERM) else p.exitcode
                if look: look(time.time() - start)
        finally:
            for p in running.values(): p.terminate()
            for p in running.values(): p.join()
    if heard: raise KeyboardInterrupt('Stopped. The same command goes on.')
    return codes


def has_mps() -> bool:
    "Whether NVIDIA's MPS runs, so that kernels of several processes overlap."
    names = (Path('/proc') / p / 'comm' for p in os.listdir('/proc') if p.isdigit()) if Path('/proc').is_dir() else ()
    def name(p):
        try: return p.read_text()
        except OSError: return ''
    return any(name(p).startswith('nvidia-cuda-mps') for p in names)


def gpu() -> tuple: # percent busy, MiB held; NaN where nvidia-smi does not say
    command = ['nvidia-smi', '--query-gpu=utilization.gpu,memory.used', '--format=csv,noheader,nounits']
    try: said = subprocess.run(command, capture_output=True, text=True)
    except OSError: return float('nan'), float('nan')
    found = [float(x) for x in re.findall(r'[\d.]+', said.stdout.splitlines()[0])] if said.returncode == 0 and said.stdout else []
    return tuple(found) if len(found) == 2 else (float('nan'), float('nan'))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('setting')
    parser.add_argument('--data')
    parser.add_argument('--tables', nargs='+', default=['s1', 's2', 's3', 's4'])
    parser.add_argument('--seeds', type=int, nargs='+')
    parser.add_argument('--runs', type=int, default=max(1, (os.cpu_count() or 2) - 1), help='so many at once')
    parser.add_argument('--out', default='results/runs')
    parser.add_argument('--experiments', type=Path, default=HERE, help='folder of settings.yaml and the tables')
    parser.add_argument('--minutes', type=float, default=float('inf'))
    parser.add_argument('--pace', type=Path)
    args = parser.parse_args()
    until, warmups = time.time() + 60 * args.minutes, Path(args.out).parent / 'warmups'
    setting = read_setting(args.setting, args.experiments / 'settings.yaml')
    tables, seeds = [read_table(args.experiments / f'{t}.yaml') for t in args.tables], args.seeds and tuple(args.seeds)
    work = jobs(setting, tables, args.data, args.out, seeds, str(warmups))
    left = [j for j in work if not j.done]
    whole = not any(j.begun for j in left) # else its time says nothing of a pace
    print(f'{setting.name}: {progress(work)}', flush=True)

    def waits(job): return job.warmup and not job.begun and not (job.warmup / 'metrics.json').exists()
    warm = {str(j.warmup / 'train.log'): (lambda j=j: prepare(json.dumps(j.parameters))) for j in left if waits(j)}
    told, busy = time.time(), []
    codes = at_once(warm, args.runs, until)
    warm_seconds, told = time.time() - told, time.time()

    def look(seconds):
        if seconds > 20 * (len(busy) + 1):
            busy.append(gpu())
            print(f'{seconds:.0f} s: {sum(j.done for j in left)} of {len(left)} done, {busy[-1][0]:.0f} % busy, {busy[-1][1]:.0f} MiB', flush=True)
    runs = {str(j.folder / 'train.log'): (lambda j=j: train(config(**j.parameters), progress=False)) for j in left if not waits(j)}
    codes |= at_once(runs, args.runs, until, look)
    seconds, done = time.time() - told, [j for j in left if j.done]
    print(f'{setting.name}: {progress(work)}', flush=True)
    for log, code in codes.items():
        if code not in (0, None): print(f'{log}: code {code}. {Path(log).read_text(errors="replace")[-300:]}')
    if args.pace and not whole: print(f'{args.pace} is not written: some runs had begun before.')
    if args.pace and whole and done:
        each = [read_json(j.folder / 'provenance.json') for j in done]
        shown = [b for b, _ in busy if b == b]
        told = provenance(0)
        row = dict(setting=setting.name, runs_at_once=min(args.runs, len(left)), mps=has_mps(), runs=len(done),
                   seconds_of_warmups=round(warm_seconds, 1), seconds_of_runs=round(seconds, 1),
                   seconds_a_run=round(sum(p['wall_seconds'] for p in each) / len(each), 1),
                   peak_mib_a_run=max(p.get('peak_memory_mib', float('nan')) for p in each),
                   most_mib_of_gpu=max((m for _, m in busy), default=float('nan')),
                   gpu_busy_percent=f'{min(shown):.0f} to {max(shown):.0f}' if shown else '', runs_an_hour=round(3600 * len(done) / seconds),
                   device=each[0]['device'], cores=os.cpu_count(), commit=told['commit'], dirty=told['dirty'], torch=torch.__version__)
        args.pace.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame([row]).to_csv(args.pace, index=False)
    return int(any(codes.values()))


if __name__ == '__main__':
    try: code = main()
    except KeyboardInterrupt: code = 130
    sys.exit(code)
