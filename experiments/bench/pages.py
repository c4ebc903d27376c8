"""What `keep_pages` brings: a training step on a CPU with and without it. Two processes, since it is a switch of a whole process, that work in turn.

python experiments/bench/pages.py [--preset small] [--rounds 8] [--out results/bench/cpu/pages.csv]

A round is four steps of each on the same batches; two rounds warm up. Seconds are those that a process worked where torch has one thread, else the
clock's.
"""
import argparse, multiprocessing, resource, statistics, time
from pathlib import Path

import pandas as pd
import torch
from timing import ratio
from simseg import loop
from simseg.config import config
from simseg.data.loader import loader
from simseg.recipe import data_sets
from simseg.runs import provenance

STEPS, WARM = 4, 2 # steps a round, rounds


def work(pipe, keep, preset, rounds):
    "One of the two processes: a round each time it is asked."
    if not keep: loop.keep_pages = lambda: False
    c = config(preset, device='cpu', steps=max(config(preset).steps, 2 * STEPS * (rounds + WARM))) # all rounds are after the warm-up
    fabric, data = loop.make_fabric(c), data_sets(c)
    state = loop.State(c, len(data.train.classes), fabric.device)
    state.step = c.steps // 2
    for net in (state.model, state.teacher and state.teacher.module): # a random network's masks are all one half: no pixel would be sure
        if hasattr(net, 'controller'): net.controller.weight.data *= 5
    model, optimizer = fabric.setup(state.model, state.optimizer)
    batches = iter(list(loader(data.train, c.sizes, c.max_size, c.flip, c.batch_size, STEPS * (rounds + WARM), c.seed)))
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pipe.send(provenance(c.seed, fabric.device))
    for _ in range(rounds + WARM):
        pipe.recv()
        start, before = clock(), faults()
        for _ in range(STEPS): loop.train_step(c, fabric, state, model.train(), optimizer, next(batches))
        pipe.send(((clock() - start) / STEPS, (faults() - before) / STEPS))
    pipe.recv()
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--preset', default='small')
    parser.add_argument('--rounds', type=int, default=8)
    parser.add_argument('--out', type=Path, help='a CSV file to write')
    args = parser.parse_args()
    if not loop.keep_pages(): raise SystemExit('This C library has no mallopt: nothing to compare.')
    start, ways = multiprocessing.get_context('spawn'), {}
    for name, keep in dict(plain=False, kept=True).items():
        here, there = start.Pipe()
        start.Process(target=work, args=(there, keep, args.preset, args.rounds), daemon=True).start()
        there.close() # else this process would wait for a child that has died
        ways[name] = here
    made = [pipe.recv() for pipe in ways.values()][0]
    said = {name: [] for name in ways}
    for _ in range(args.rounds + WARM):
        for name, pipe in ways.items():
            pipe.send('go')
            said[name].append(pipe.recv())
    rows = []
    for name, pipe in ways.items():
        pipe.send('end')
        seconds, faults = zip(*said[name][WARM:])
        rows.append(dict(preset=args.preset, way=name, seconds_a_step=round(statistics.median(seconds), 4),
                         over_plain=round(ratio(seconds, [s for s, _ in said['plain'][WARM:]]), 3),
                         page_faults_a_step=round(statistics.median(faults)), peak_mib=round(pipe.recv())))
    table = pd.DataFrame(rows).assign(**{k: made[k] for k in ('commit', 'dirty', 'device', 'threads')}, torch=torch.__version__)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(args.out, index=False)
    print(table.to_string(index=False))


if __name__ == '__main__': main()
