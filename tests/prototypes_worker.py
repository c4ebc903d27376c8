"Run by tests/test_prototypes_ranks.py, alone or as a rank: prototypes follow given pixels; prints what each rank ends with, as one JSON line."
import json, os, sys

import torch
from simseg.core import torch_rng
from simseg.prototypes import Prototypes, sinkhorn

kind, world = sys.argv[1], int(os.environ.get('WORLD_SIZE', 1))
if world > 1: torch.distributed.init_process_group('gloo')
rank = torch.distributed.get_rank() if world > 1 else 0


def share(step, label):
    "Which pixels of the joint batch are this rank's."
    if world == 1: return torch.ones(len(label), dtype=torch.bool)
    if kind == 'half': return torch.arange(len(label)) % 2 == rank
    if kind == 'classes': return (label < 2) == (rank == 0) # each rank has classes that the other lacks
    return torch.full((len(label),), rank == step % 2) # 'nothing': one rank has all, in turn


prototypes, health = Prototypes(5, 10, 16, momentum=0.9, seed=3), []
for step in range(6):
    g = torch_rng(1, 'pixels', step)
    label = torch.randint(0, 4, (0 if step == 4 else 200,), generator=g) # class 4 never comes; step 4 has no pixel at all
    z = torch.randn(len(label), 16, generator=g) + 1
    mine = share(step, label)
    health.append({k: v.item() for k, v in prototypes.update(z[mine], label[mine]).items()})
scores = torch.einsum('nd,nld->nl', torch.nn.functional.normalize(z, dim=1), prototypes.vectors[label])
plan = torch.zeros(len(label), 10)
plan[mine] = sinkhorn(scores[mine], label[mine], 5, epsilon=0.01)
if world > 1: torch.distributed.all_reduce(plan) # each rank holds its own rows
result = dict(vectors=prototypes.vectors.flatten().tolist(), seen=prototypes.seen.flatten().tolist(), health=health, plan=plan.flatten().tolist())
everyone = [result] * world
if world > 1: torch.distributed.all_gather_object(everyone, result)
if rank == 0: print('RESULT', json.dumps(everyone), flush=True)
if world > 1: torch.distributed.barrier(); torch.distributed.destroy_process_group()
