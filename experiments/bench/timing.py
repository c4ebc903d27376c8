"""Side by side: several ways to do one thing, in turn, in one process; medians, and ratios step by step, after warming up.

Seconds are a machine's; a ratio of two ways that ran one after the other hardly is, even where something else runs beside them.
"""
import contextlib, gc, math, statistics, time

import torch
from simseg.testing import peak_memory


def ready(device='cpu'):
    "Wait until a GPU has done what it was asked."
    if torch.device(device).type == 'cuda': torch.cuda.synchronize()


def side_by_side(ways: dict, # name -> function without arguments
                 repeats=5, warm=1, device='cpu') -> dict: # name -> seconds of each repeat
    """Each way once a round. Rounds that warm up are not counted. On one thread of a CPU the seconds are those that the thread worked, which other
    programs disturb little; else they are the clock's."""
    clock = time.process_time if torch.device(device).type == 'cpu' and torch.get_num_threads() == 1 else time.perf_counter
    seconds = {name: [] for name in ways}
    gc.collect()
    gc.freeze() # what is there already need not be looked at each time: .3 s, where a way takes a millisecond
    try:
        for i in range(repeats + warm):
            for name, way in ways.items():
                gc.collect()
                ready(device)
                start = clock()
                way()
                ready(device)
                if i >= warm: seconds[name].append(clock() - start)
    finally: gc.unfreeze()
    return seconds


def ratio(a: list, b: list) -> float:
    "Median of a over b, round by round: what else the machine did at that moment hits both."
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


class Events:
    "Stages of a GPU's queue: `with events(name): ...`; a stage that comes twice is summed, and one inside another counts in both."
    def __init__(self): self.pairs = []

    def clear(self): self.pairs = []

    @contextlib.contextmanager
    def __call__(self, name):
        pair = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        pair[0].record()
        try: yield
        finally:
            pair[1].record()
            self.pairs.append((name, *pair))

    def seconds(self) -> dict:
        torch.cuda.synchronize()
        out = {}
        for name, a, b in self.pairs: out[name] = out.get(name, 0) + a.elapsed_time(b) / 1000
        return out


def peak_mib(way, device='cpu') -> float:
    """The most memory that `way` held at a time beyond what there was: a GPU's by torch's count, a CPU's in tensors, without what an operation uses
    inside and what numpy holds."""
    gc.collect()
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        way()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    return peak_memory(way) / 2**20


def slope(sizes: list, costs: list) -> float:
    "Slope of the cost on log-log axes, by least squares: 1 is linear. A fixed part of the cost makes it smaller."
    x, y = ([math.log(v) for v in values] for values in (sizes, costs))
    a, b = statistics.mean(x), statistics.mean(y)
    return sum((u - a) * (v - b) for u, v in zip(x, y)) / sum((u - a)**2 for u in x)
