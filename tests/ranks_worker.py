"Run by tests/test_ranks.py, alone or as one of several ranks: a few steps on given images; prints what each rank saw, as one JSON line."
import io, json, sys

import torch
from simseg import copy_paste
from simseg.config import config
from simseg.data.loader import loader
from simseg.losses import box as losses_box, pseudo as losses_pseudo
from simseg.losses.box import box_masks
from simseg.recipe import data_sets
from simseg.loop import State, checkpoint, make_fabric, restore, train_step
from simseg.training import evaluate_model, leave

# full | bare (the images of the second half of every batch have no object) | sim (as bare, resumed half-way) | mask2former (full)
# | queries (Mask2Former from true masks, which are compared at the same points for every object)
# | parts (of a batch, under pseudo masks) | pseudo (the same, nothing made alike) | bf16 (SIM) | evaluate (three images)
kind = sys.argv[1]
accumulate = int(sys.argv[2]) if len(sys.argv) > 2 else 1
kinds = dict(sim=('sim', 6), mask2former=('sim', 6), bf16=('sim', 6), parts=('pseudo', 2), pseudo=('pseudo', 2), queries=('supervised', 2))
method, steps = kinds.get(kind, ('boxinst', 3))
more = dict(mask2former=dict(head='mask2former', warmup_share=.5), queries=dict(head='mask2former'), parts=dict(optimizer='sgd'),
            pseudo=dict(optimizer='sgd'),
            bf16=dict(precision='bf16', backbone='test_efficientnet', weights='none'), evaluate=dict(val_images=3, score_threshold=0.))
c = config('smoke', method=method, batch_size=4, steps=steps, train_images=4, flip=0.0, device='cpu', warmup_steps=0, clip_norm=0.0,
           accumulate=accumulate, **dict(backbone='tf_efficientnet_lite0', weights='package') | more.get(kind, {})) # frozen norms
fabric, data = make_fabric(c), data_sets(c)
if kind == 'parts': # the mask losses of a part are means of its own, those of processes are means over all: made alike
    for module in (losses_box, losses_pseudo, copy_paste):
        module.joint_mean = lambda each, count=None: each.sum() / max(float(len(each) if count is None else count), 1e-6)


if kind == 'queries':
    from transformers.models.mask2former import modeling_mask2former as theirs
    rand = torch.rand
    class Points: # torch, as transformers sees it
        def __getattr__(self, name): return getattr(torch, name)
        def rand(self, n, *size, **how): return rand(1, *size, generator=torch.Generator().manual_seed(0)).expand(n, *size).clone()
    theirs.torch = Points()


def begin():
    state = State(c, len(data.train.classes))
    if kind in ('parts', 'pseudo'): # masks with sure pixels: a random network's are all one half
        for net in (state.model, state.teacher.module): net.controller.weight.data *= 5
    return state, *fabric.setup(state.model, state.optimizer)


def go(state, model, optimizer, until=c.steps):
    log, rank = [], fabric.global_rank
    for batch in loader(data.train, c.sizes, c.max_size, c.flip, c.batch_size, until, c.seed, start=state.step, rank=rank,
                        world=fabric.world_size):
        if kind in ('bare', 'sim'):
            half = range(len(batch)) if fabric.world_size == 2 and fabric.global_rank == 1 else range(2, len(batch))
            for i in half: batch.targets[i] = batch.targets[i][:0]
        if kind == 'sim' and state.step == 0: # what six steps do not learn: masks to paste. On a rank without objects the bank stays empty
            boxes = batch.flat()[0]
            state.memory.bank.push(batch, .9 * box_masks(boxes, (batch.images.shape[2] // 4, batch.images.shape[3] // 4)), torch.ones(len(boxes)))
        model.train()
        for m in model.modules() if kind != 'sim' else (): # the mask branch's: statistics of half a batch are others than those of the whole
            if isinstance(m, torch.nn.BatchNorm2d): m.eval()
        losses, _, out, _ = train_step(c, fabric, state, model, optimizer, batch)
        grads = [p.grad.detach().double().flatten() for p in state.model.parameters() if p.grad is not None] # averaged over the ranks
        grad = dict(grad_length=sum((g @ g).item() for g in grads)**.5,
                    grad_along=sum((g * torch.linspace(-1, 1, len(g))).sum().item() for g in grads))
        log.append({k: v.item() for k, v in losses.items()} | grad | dict(images=[t.image_id for t in batch.targets], positives=len(out.positives),
                                                                           objects=sum(map(len, batch.targets))))
    return log


def told(state): # of this rank
    total = sum(p.detach().double().abs().sum().item() for p in state.model.parameters())
    if not state.memory: return dict(total=total)
    vectors = state.memory.prototypes.vectors.double()
    bank = [[e.labels.tolist(), e.place.tolist(), e.data.sum().item()] for e in state.memory.bank.entries]
    statistics = sum(b.double().abs().sum().item() for b in state.teacher.buffers())
    return dict(total=total, statistics=statistics, prototypes=(vectors * torch.arange(vectors.numel()).view_as(vectors)).sum().item(), bank=bank)


mine = begin()
if kind == 'sim':
    log = go(*mine, until=3)
    file = io.BytesIO()
    if fabric.global_rank == 0: torch.save(checkpoint(fabric, mine[0]), file)
    else: checkpoint(fabric, mine[0])
    saved = fabric.broadcast(torch.load(io.BytesIO(file.getvalue()), weights_only=True) if fabric.global_rank == 0 else None)
    half = dict(log=log, resumed_from=told(mine[0]), banks=len(saved.get('banks') or []), bank_in_memory='bank' in saved['memory'])
    go(*mine)
    state, model, optimizer = begin()
    restore(fabric, state, saved)
    go(state, model, optimizer)
    result = half | told(mine[0]) | dict(resumed=told(state))
elif kind == 'evaluate': result = dict(metrics=evaluate_model(c, fabric, mine[0].model, data.val, progress=False))
else: result = dict(log=go(*mine)) | told(mine[0])
everyone = [None] * fabric.world_size
if fabric.world_size > 1: torch.distributed.all_gather_object(everyone, result)
else: everyone = [result]
if fabric.global_rank == 0: print('RESULT', json.dumps(everyone), flush=True)
leave()
