"""What is measured: inputs that depend on a seed alone, ours and the other ways on them, and whether their results agree."""
import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import textbook
import torch
from simseg.config import config
from simseg.copy_paste import Bank, copy_paste
from simseg.core import Batch, Instances, Positives, torch_rng
from simseg.loop import State, make_fabric, train_step
from simseg.losses.box import box_masks, colour_similarity, pairwise_loss, rgb_to_lab
from simseg.models.condinst import condinst, dynamic_masks, head_sizes
from simseg.models.ema import Teacher
from simseg.prototypes import sinkhorn
from timing import peak_mib, ratio, side_by_side
from torch.profiler import record_function


def scenes(size, objects, images=1, classes=80, seed=0, largest=.5) -> Batch:
    "Images of noise with boxes of many sizes; in all `objects` of them."
    g, (h, w) = torch_rng(seed, 'bench', objects, images, h := size[0]), size
    pixels = torch.nn.functional.interpolate(torch.rand(images, 3, h // 8, w // 8, generator=g), (h, w), mode='bilinear')
    targets = []
    for i in range(images):
        n = objects // images + (i < objects % images)
        side = 16 + torch.rand(n, 2, generator=g) * torch.tensor([w, h]) * largest
        corner = torch.rand(n, 2, generator=g) * (torch.tensor([w, h]) - side)
        targets.append(Instances(size, torch.cat([corner, corner + side], 1), torch.randint(0, classes, (n,), generator=g), image_id=i))
    return Batch((pixels * 255).to(torch.uint8), targets)


def _gradient(way, leaf): # value and gradient of a way that returns a scalar
    def run():
        leaf.grad = None
        value = way()
        value.backward()
        return value.detach(), leaf.grad
    return run


def pairwise(n, size, device):
    batch = scenes(size, n).to(device)
    similar, valid = colour_similarity(batch)
    box = box_masks(batch.flat()[0], valid.shape[1:])
    logits = torch.randn(box.shape, generator=torch_rng(1), device='cpu').to(device).requires_grad_()
    lab = rgb_to_lab(torch.nn.functional.avg_pool2d(batch.images.float(), 4).floor() / 255)
    image = torch.zeros(n, dtype=torch.long, device=device)
    return {'ours': _gradient(lambda: pairwise_loss(logits, box, similar, valid, image), logits),
            'unfold': _gradient(lambda: textbook.pairwise(logits, box, image, lab, valid), logits)}


def dynamic(n, size, device):
    g = torch_rng(2, n)
    features = torch.randn(1, 16, size[0] // 8, size[1] // 8, generator=g).to(device)
    params = (torch.randn(n, sum(map(sum, head_sizes())), generator=g) * .1).to(device).requires_grad_()
    image, points = torch.zeros(n, dtype=torch.long, device=device), (torch.rand(n, 2, generator=g) * torch.tensor(size[::-1])).to(device)
    scale = torch.full((n,), 128., device=device)
    ways = dict(ours=dynamic_masks) | {'grouped convolution': textbook.dynamic_grouped, 'loop': textbook.dynamic_loop}
    return {k: _gradient(lambda way=way: way(features, params, image, points, scale).square().mean(), params) for k, way in ways.items()}


def boxes(n, size, device):
    flat = scenes(size, n).to(device).flat()[0]
    flat = flat.floor() # the loop knows whole pixels alone
    return {'ours': lambda: box_masks(flat, (size[0] // 4, size[1] // 4)), 'loop': lambda: textbook.box_masks(flat, size)}


def transport(n, size, device):
    g, classes, pixels = torch_rng(3, n), 20, 200 * n
    z, p = (torch.nn.functional.normalize(torch.randn(k, 16, generator=g), dim=1) for k in (pixels, 10))
    scores, label = (z @ p.T).to(device), torch.randint(0, classes, (pixels,), generator=g).to(device)
    return {'ours': lambda: sinkhorn(scores, label, classes) * torch.bincount(label, minlength=classes)[label][:, None],
            'POT': lambda: textbook.sinkhorn(scores, label, classes) * torch.bincount(label, minlength=classes)[label][:, None]}


def pasting(n, size, device):
    if device != 'cpu': return {} # the loop is written for the host
    batch, bank = scenes(size, n, images=4, largest=.25), Bank(4)
    h, w = size[0] // 4, size[1] // 4
    for t in batch.targets: t.boxes = t.boxes.round()
    source = scenes(size, max(n, 12), images=4, seed=1, largest=.25)
    round_ = torch.rand(source.flat()[0].shape[0], h, w, generator=torch_rng(4)) * .6 + .35
    bank.push(source, round_ * box_masks(source.flat()[0], (h, w)), torch.ones(len(round_)))
    def ours():
        out = copy_paste(batch, bank, (0, 1, 0))
        return out.images, torch.cat([t.boxes for t in out.targets]), out.pasted_masks.sum((1, 2))
    def loop():
        images, found, masks = textbook.copy_paste(batch, bank, (0, 1, 0))
        return images, torch.cat(found), torch.stack(masks).sum((1, 2))
    return {'ours': ours, 'loop': loop}


def colours(n, size, device): # n images
    images = scenes(size, 0, images=n).images.to(device)
    return {'ours': lambda: rgb_to_lab(images.float() / 255), 'scikit-image': lambda: textbook.lab(images).float()}


def momentum(n, size, device):
    student = condinst(config('coco_r50_1x', weights='none'), 80).to(device)
    ours, theirs = Teacher(student, .5), copy.deepcopy(student)
    for p in student.parameters(): p.data += 1
    def tensors(net): return tuple(p.detach().double().sum() for p in list(net.parameters())[::20])
    return {'ours': lambda: (ours.update(student, 10**6), tensors(ours))[1], 'loop': lambda: (textbook.ema(theirs, student, .5), tensors(theirs))[1]}


CASES = dict(pairwise=(pairwise, 1e-4), dynamic_head=(dynamic, 1e-3), box_masks=(boxes, 0), sinkhorn=(transport, 1e-3), copy_paste=(pasting, 0),
             cielab=(colours, 2e-2), ema=(momentum, 1e-4))


def agree(a, b, tolerance) -> bool:
    "Whether two results are the same, up to `tolerance` of the largest number in each tensor."
    if isinstance(a, (tuple, list)): return len(a) == len(b) and all(agree(x, y, tolerance) for x, y in zip(a, b))
    x, y = a.double(), b.double()
    return x.shape == y.shape and bool((x - y).abs().max() <= tolerance * max(1, y.abs().max()) if x.numel() else True)


def against_textbook(counts, size, repeats, device, names=CASES) -> pd.DataFrame:
    "Time and peak memory of ours and of the textbook's forms; AssertionError where their results differ."
    rows = []
    for name in names:
        case, tolerance = CASES[name]
        for n in {'cielab': [1, 8], 'ema': [1]}.get(name, counts):
            ways = case(n, size, device)
            results = {k: way() for k, way in ways.items()}
            for k, found in results.items(): assert agree(found, results['ours'], tolerance), f'{name} at {n}: {k} is not what ours is'
            del results
            seconds = side_by_side(ways, repeats, device=device)
            memory = {k: peak_mib(way, device) for k, way in ways.items()}
            rows += [dict(case=name, n=n, way=k, seconds=np.median(s), times_ours=ratio(s, seconds['ours']), peak_mib=memory[k],
                          memory_times_ours=memory[k] / max(memory['ours'], 1e-3)) for k, s in seconds.items()]
    return pd.DataFrame(rows)


class Step:
    "A training step of a configuration on given images, past its warm-up. Weights are random; norms and stages are frozen as with loaded ones."
    def __init__(self, c, batch, classes=80, device='cpu'):
        self.c, self.fabric = replace(c, device=device), make_fabric(replace(c, device=device))
        self.state, self.batch = State(self.c, classes, self.fabric.device), batch.to(self.fabric.device)
        backbone = self.state.model.backbone
        backbone.fixed_norms = True
        for m in backbone._norms(backbone.net): m.requires_grad_(False)
        self.state.step = self.c.steps // 2
        for group in self.state.optimizer.param_groups: group['base'] = 0. # every step is of the same weights
        self.wrapped, self.optimizer = self.fabric.setup(self.state.model, self.state.optimizer)

    def __call__(self):
        return train_step(self.c, self.fabric, self.state, self.wrapped.train(), self.optimizer, self.batch)


STAGES = { # functions of `simseg.loop` and of the network whose time is told apart
    'teacher': ('teacher', '__call__'), 'pasting': 'augment', 'detector losses': None, 'low-level losses': 'step_losses', 'correction': 'correct',
    'pseudo and paste loss': 'sim_losses', 'bank, pixels': 'note', 'prototypes': 'settle'}


def stages(step, repeats=3, warm=1, device='cpu') -> pd.DataFrame:
    "Where the time of a step goes: torch.profiler's time of named stages, median of steps; 'forward' and 'backward' are the student's."
    import simseg.loop as loop
    named = dict(augment='pasting', step_losses='low-level losses', correct='correction', sim_losses='pseudo and paste loss',
                 note='bank, pixels', settle='prototypes')
    kept = {k: getattr(loop, k) for k in named}
    def wrap(fn, name):
        def inner(*a, **k):
            with record_function(f'stage {name}'): return fn(*a, **k)
        return inner
    model, teacher, optimizer, fabric = step.state.model, step.state.teacher, step.optimizer, step.fabric
    calls = [(model.backbone, 'forward', 'backbone and pyramid'), (model.detector, 'forward', 'detector head'),
             (model.mask_branch, 'forward', 'mask branch'), (model, 'masks', 'dynamic masks'), (fabric, 'backward', 'backward'),
             (step.wrapped, 'forward', 'student forward'), (optimizer, 'step', 'optimiser')]
    if teacher: calls += [(teacher, 'forward', 'teacher forward'), (teacher, 'update', 'teacher update')]
    old = [(o, name, o.__dict__.get(name)) for o, name, _ in calls]
    try:
        for k, name in named.items(): setattr(loop, k, wrap(kept[k], name))
        for o, name, label in calls: object.__setattr__(o, name, wrap(getattr(o, name), label))
        for _ in range(warm): step()
        rows = []
        for _ in range(repeats):
            with torch.profiler.profile() as profile, record_function('stage whole step'): step()
            key = 'device_time_total' if device == 'cuda' else 'cpu_time_total'
            rows.append({e.key[6:]: getattr(e, key) / 1e6 for e in profile.key_averages() if e.key.startswith('stage ')})
    finally:
        for k, fn in kept.items(): setattr(loop, k, fn)
        for o, name, fn in old:
            if fn is None: object.__delattr__(o, name)
            else: object.__setattr__(o, name, fn)
    table = pd.DataFrame(rows).median().rename('seconds').rename_axis('stage').reset_index()
    table['share'] = table.seconds / table.seconds[table.stage == 'whole step'].item()
    return table.sort_values('seconds', ascending=False)


def positives_of(batch, n): # n positives, spread over the objects
    object = torch.arange(n, device=batch.device) % len(batch.flat()[0])
    image = batch.flat()[2][object]
    order = image.argsort(stable=True)
    return Positives(image[order], object[order], torch.zeros_like(object), torch.zeros_like(object))
