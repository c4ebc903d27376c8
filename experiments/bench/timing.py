"""Side by side: several ways to do one thing, in turn, in one process; medians, and ratios step by step, after warming up.

Seconds are a machine's; a ratio of two ways that ran one after the other hardly is, even where something else runs beside them.
"""
import gc, math, statistics, time

import torch


def ready(device='cpu'):
    "Wait until a GPU has done what it was asked."
    if torch.device(device).type == 'cuda': torch.cuda.synchronize()


def side_by_side(ways: dict, # name -> function without arguments
                 repeats=5, warm=1, device='cpu') -> dict: # name -> seconds of each repeat
    """Each way once a round. Rounds that warm up are not counted. On one thread of a CPU the seconds are those that the thread worked, which other
    programs disturb little; else they are the clock's."""
    clock = time.process_time if torch.device(device).type == 'cpu' and torch.get_num_threads() == 1 else time.perf_counter
    seconds = {name: [] for name in ways}
    for i in range(repeats + warm):
        for name, way in ways.items():
            gc.collect()
            ready(device)
            start = clock()
            way()
            ready(device)
            if i >= warm: seconds[name].append(clock() - start)
    return seconds


def ratio(a: list, b: list) -> float:
    "Median of a over b, round by round: what else the machine did at that moment hits both."
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def allocations(tree):
    "Signed bytes of every allocation that torch made, in the order of time."
    from torch._C._profiler import _EventType
    found, todo = [], list(tree)
    while todo:
        event = todo.pop()
        if event.tag == _EventType.Allocation: found.append((event.start_time_ns, event.extra_fields.alloc_size))
        todo += event.children
    return [size for _, size in sorted(found)]


def peak_mib(way, device='cpu') -> float:
    "The most memory that `way` held at a time beyond what there was, by torch's own count. What numpy holds is not in it."
    gc.collect()
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        way()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile: way()
    most = now = 0
    for size in allocations(profile.profiler.kineto_results.experimental_event_tree()):
        now += size
        most = max(most, now)
    return most / 2**20


def slope(sizes: list, costs: list) -> float:
    "Slope of the cost on log-log axes, by least squares: 1 is linear. A fixed part of the cost makes it smaller."
    x, y = ([math.log(v) for v in values] for values in (sizes, costs))
    a, b = statistics.mean(x), statistics.mean(y)
    return sum((u - a) * (v - b) for u, v in zip(x, y)) / sum((u - a)**2 for u in x)
