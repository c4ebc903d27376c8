"Run by tests/test_ranks.py, alone or under torchrun: a few steps on given images; prints what each rank saw, as one JSON line."
import json, sys

import torch
from simseg.core import config
from simseg.data.loader import loader
from simseg.recipe import data_sets
from simseg.training import State, leave, make_fabric, train_step

bare = sys.argv[1] == 'bare' # the images of the second half of every batch have no object
c = config('smoke', method='boxinst', batch_size=4, steps=3, train_images=4, flip=0.0, device='cpu', warmup_steps=0, clip_norm=0.0,
           weights='package') # frozen norms: no batch statistics
fabric, data = make_fabric(c), data_sets(c)
state = State(c, len(data.train.classes))
model, optimizer = fabric.setup(state.model, state.optimizer)
log = []
for batch in loader(data.train, c.sizes, c.max_size, c.flip, c.batch_size, c.steps, c.seed, rank=fabric.global_rank, world=fabric.world_size):
    if bare:
        half = range(len(batch)) if fabric.world_size == 2 and fabric.global_rank == 1 else range(2, len(batch))
        for i in half: batch.targets[i] = batch.targets[i][:0]
    losses, _, out, _ = train_step(c, fabric, state, model.train(), optimizer, batch)
    log.append({k: v.item() for k, v in losses.items()} | dict(images=[t.image_id for t in batch.targets], positives=len(out.positives)))
total = sum(p.detach().double().abs().sum().item() for p in state.model.parameters())
everyone = [None] * fabric.world_size
if fabric.world_size > 1: torch.distributed.all_gather_object(everyone, dict(log=log, total=total))
else: everyone = [dict(log=log, total=total)]
if fabric.global_rank == 0: print('RESULT', json.dumps(everyone), flush=True)
leave()
