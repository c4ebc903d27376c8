"Run by tests/test_cuda.py: deterministic training on a GPU, twice, once with a stop, once with another seed; prints digests and torch's warnings."
import hashlib, io, json, sys, warnings
from dataclasses import replace

import torch
from simseg.config import config
from simseg.loop import State, checkpoint, fit, restore
from simseg.training import begin

c = config('smoke', device='cuda', deterministic=True, steps=24, warmup_share=.3, head=sys.argv[1], precision=sys.argv[2], method='sim',
           save_every=1000)


def digest(state): # of all that the loop owns
    sha = hashlib.sha256()
    def add(value):
        if isinstance(value, torch.Tensor): sha.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(value, dict): [add(v) for _, v in sorted(value.items(), key=lambda kv: str(kv[0]))]
        elif isinstance(value, (list, tuple)): [add(v) for v in value]
        else: sha.update(repr(value).encode())
    add(state.state_dict())
    return sha.hexdigest()


def trained(stop=None, seed=0):
    fabric, full, data = begin(replace(c, seed=seed))
    state = State(full, len(data.train.classes), fabric.device)
    for net in (state.model, state.teacher.module): # else all masks are one half and nothing is pasted
        if hasattr(net, 'controller'): net.controller.weight.data *= 5
    fit(full, fabric, state, data, None, False, stop_at=stop)
    if stop: # through a file, into a new state
        file = io.BytesIO()
        torch.save(checkpoint(fabric, state), file)
        file.seek(0)
        state = State(full, len(data.train.classes), fabric.device)
        restore(fabric, state, torch.load(file, weights_only=True))
        fit(full, fabric, state, data, None, False)
    return digest(state), len(state.memory.bank)


with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter('always')
    once, again, stopped, other = trained(), trained(), trained(stop=15), trained(seed=1)
named = sorted({str(w.message).split(' does not have')[0] for w in said if 'does not have a deterministic' in str(w.message)})
print('RESULT', json.dumps(dict(once=once, again=again, stopped=stopped, other=other, named=named)))
