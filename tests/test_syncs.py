"What makes a GPU's host wait is counted on a CPU: reading a number, and every operation whose result has as many rows as the data says."
import pytest
import torch
from simseg.config import config
from simseg.core import Batch, Instances, torch_rng
from simseg.losses.box import box_masks
from simseg.loop import State, make_fabric, train_step
from torch.utils._python_dispatch import TorchDispatchMode

WAITS = {'_local_scalar_dense', 'nonzero', 'masked_select', '_unique2', 'unique_dim', 'unique_consecutive', 'repeat_interleave', 'equal'}


class Waits(TorchDispatchMode):
    "Counts operations after which the host knows something that the device computed."
    def __init__(self):
        super().__init__()
        self.count = {}

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        name = op.overloadpacket.__name__
        masks = [i for i in (args[1] if name in ('index', 'index_put', 'index_put_') else ()) if i is not None]
        if name in WAITS or any(i.dtype in (torch.bool, torch.uint8) for i in masks): self.count[name] = self.count.get(name, 0) + 1
        return op(*args, **(kwargs or {}))


def batch_of(images, objects):
    g = torch_rng(0, images, objects)
    targets = []
    for _ in range(images):
        corner, side = torch.rand(objects, 2, generator=g) * 60, torch.rand(objects, 2, generator=g) * 24 + 8
        targets.append(Instances((96, 96), torch.cat([corner, corner + side], 1), torch.randint(0, 9, (objects,), generator=g)))
    return Batch(torch.randint(0, 256, (images, 3, 96, 96), dtype=torch.uint8, generator=g), targets)


def past_warmup(c, source, device='cpu'):
    "A step after the warm-up: masks with sure pixels, and under SIM the objects of `source` to paste; neither is in a random network."
    fabric, state = make_fabric(c), State(c, 9, device)
    state.step = c.steps // 2
    for net in (state.model, state.teacher and state.teacher.module):
        if hasattr(net, 'controller'): net.controller.weight.data *= 5
    if c.method == 'sim':
        source = source.to(device)
        boxes = source.flat()[0]
        state.memory.bank.push(source, .9 * box_masks(boxes, (24, 24)), torch.ones(len(boxes), device=device), c.tau_high)
    return fabric, state, fabric.setup(state.model.train(), state.optimizer)


def waits(method, images, objects, cap):
    c = config('smoke', backbone='tf_efficientnet_lite0', method=method, batch_size=images, device='cpu', optimizer='sgd', clip_norm=0.,
               max_positives=cap, tau_low=.5, tau_high=.5) # AdamW counts on the host
    fabric, state, wrapped = past_warmup(c, batch_of(images, objects))
    with Waits() as seen: _, health, _, batch = train_step(c, fabric, state, *wrapped, batch_of(images, objects))
    if method == 'sim': assert health['used'] > 0 and batch.pasted().any() and state.memory.prototypes.seen.any()
    return seen.count


@pytest.mark.parametrize('method, cap, most', [('boxinst', 1000, 3), ('sim', 1000, 13), ('boxinst', 2, 3), ('sim', 2, 15)])
def test_waits_are_constant(method, cap, most):
    "The host waits as often for one image with few objects as for four with many, also where they are more than learn in a step."
    few, many = waits(method, 1, 3, cap), waits(method, 4, 24, cap)
    assert few == many, 'no loop over images or objects reads the device'
    assert 0 < sum(few.values()) <= most, few


def test_a_wait_is_seen():
    x = torch.arange(5.)
    with Waits() as seen: x.sum().item(), x[x > 2], x.nonzero()
    assert seen.count['_local_scalar_dense'] == 1 and seen.count.get('nonzero', 0) >= 1 and sum(seen.count.values()) >= 3
