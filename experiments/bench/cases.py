"""What is measured: inputs that depend on a seed alone, ours and the other ways on them, and whether their results agree."""
import contextlib, copy, gc, io, time
from dataclasses import replace

import numpy as np
import pandas as pd
import textbook
import torch
from simseg.config import config
from simseg.copy_paste import Bank, copy_paste
from simseg.core import Batch, Instances, torch_rng
from simseg.loop import State, make_fabric, train_step
from simseg.losses.box import box_masks, colour_similarity, pairwise_loss, rgb_to_lab
from simseg.models.condinst import condinst, dynamic_masks, head_sizes
from simseg.models.ema import Teacher
from simseg.prototypes import sinkhorn
from simseg.recipe import resolved
from timing import Events, peak_mib, ratio, ready, side_by_side, slope
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
    "A training step of a configuration on given images, past its warm-up. Weights are random, norms frozen as loaded ones are."
    def __init__(self, c, batch, classes=80, device='cpu'):
        self.c = resolved(replace(c, device=device, schedule_batch=0))
        self.fabric = make_fabric(self.c)
        self.state, self.batch = State(self.c, classes, self.fabric.device), batch.to(self.fabric.device)
        for net in (self.state.model, self.state.teacher and self.state.teacher.module): # else all masks are one half, no pixel sure
            if hasattr(net, 'controller'): net.controller.weight.data *= 5
        backbone = self.state.model.backbone
        backbone.fixed_norms = True
        for m in backbone._norms(backbone.net): m.requires_grad_(False)
        self.state.step = self.c.steps // 2
        for group in self.state.optimizer.param_groups: group['base'] = 0. # every step is of the same weights
        self.wrapped, self.optimizer = self.fabric.setup(self.state.model, self.state.optimizer)

    def __call__(self):
        return train_step(self.c, self.fabric, self.state, self.wrapped.train(), self.optimizer, self.batch)


def stages(step, repeats=3, warm=1, device='cpu') -> pd.DataFrame:
    """Where the time of a step goes, median of steps: on a CPU torch.profiler's time of named stages, on a GPU that between two events of its queue.
    'forward' and 'backward' are the student's."""
    import simseg.loop as loop
    mark = Events() if device != 'cpu' else None
    named = dict(augment='pasting', step_losses='low-level losses', correct='correction', sim_losses='pseudo and paste loss',
                 note='bank, pixels', settle='prototypes')
    kept = {k: getattr(loop, k) for k in named}
    def stage(name): return mark(name) if mark else record_function(f'stage {name}')
    def wrap(fn, name):
        def inner(*a, **k):
            with stage(name): return fn(*a, **k)
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
            if mark:
                mark.clear()
                with stage('whole step'): step()
                rows.append(mark.seconds())
            else:
                with torch.profiler.profile() as profile, stage('whole step'): step()
                rows.append({e.key[6:]: e.cpu_time_total / 1e6 for e in profile.key_averages() if e.key.startswith('stage ')})
    finally:
        for k, fn in kept.items(): setattr(loop, k, fn)
        for o, name, fn in old:
            if fn is None: object.__delattr__(o, name)
            else: object.__setattr__(o, name, fn)
    table = pd.DataFrame(rows).median().rename('seconds').rename_axis('stage').reset_index()
    table['share'] = table.seconds / table.seconds[table.stage == 'whole step'].item()
    return table.sort_values('seconds', ascending=False)


def kernels(step, most=25) -> pd.DataFrame:
    "What a GPU did in one step, by torch.profiler: kernels, by the time they took; the last row is all of them."
    step()
    with torch.profiler.profile() as profile:
        step()
        ready('cuda')
    found = [(e.key, e.count, e.self_device_time_total / 1e6) for e in profile.key_averages()
             if str(e.device_type).endswith('CUDA') and e.self_device_time_total]
    table = pd.DataFrame(found, columns=['kernel', 'calls', 'seconds']).sort_values('seconds', ascending=False)
    table = pd.concat([table.head(most), pd.DataFrame([dict(kernel='all', calls=table.calls.sum(), seconds=table.seconds.sum())])])
    table['share'] = table.seconds / table.seconds.iloc[-1]
    return table.assign(kernel=table.kernel.str.slice(0, 110))


def targets(size, images, repeats, device, objects=7) -> pd.DataFrame:
    "A step of each method of `coco_r50_1x` on the same images, `objects` in each (COCO has 7.3), in turn: what they take, and their ratios."
    def step(**given):
        c = config('coco_r50_1x', weights='none', batch_size=images, workers=0, **given)
        return Step(c, with_masks(batch, size) if c.method == 'supervised' else batch, 80, device)
    batch = scenes(size, objects * images, images)
    ways = {m: step(method=m) for m in ('supervised', 'boxinst', 'sim')}
    for way in ways.values(): way() # allocations, and what is tuned at first
    seconds = side_by_side(ways, repeats, device=device)
    rows = [dict(way=k, images=images, pixels=f'{size[0]}x{size[1]}', objects=objects * images, precision=ways[k].c.precision, seconds=np.median(s),
                 images_a_second=images / np.median(s), times_boxinst=ratio(s, seconds['boxinst']), times_supervised=ratio(s, seconds['supervised']))
            for k, s in seconds.items()]
    return pd.DataFrame(rows)


def variants(size, images, repeats, device, objects=7, names=('float32', 'cudnn.benchmark', 'rows of pixels')) -> pd.DataFrame:
    "SIM's step as it is and with one thing changed, in turn: what each is worth."
    batch = scenes(size, objects * images, images)
    def step(**given): return Step(config('coco_r50_1x', weights='none', batch_size=images, workers=0, **given), batch, 80, device)
    ways = {'as it is': step()}
    if 'float32' in names: ways['float32'] = step(precision='32')
    if 'cudnn.benchmark' in names:
        other = step()
        def tuned():
            with torch.backends.cudnn.flags(enabled=True, benchmark=True): other()
        ways['cudnn.benchmark'] = tuned
    if 'rows of pixels' in names:
        rows = step()
        for net in (rows.state.model, rows.state.teacher.module): net.to(memory_format=torch.contiguous_format)
        ways['rows of pixels'] = rows # NCHW
    if 'compiled backbone' in names: ways['compiled backbone'] = step(compile=True)
    for _ in range(2):
        for way in ways.values(): way()
    seconds = side_by_side(ways, repeats, device=device)
    return pd.DataFrame([dict(way=k, images=images, pixels=f'{size[0]}x{size[1]}', seconds=np.median(s), times_as_it_is=ratio(s, seconds['as it is']))
                         for k, s in seconds.items()])


def whole_memory(size, device, images=2, objects=40, methods=('supervised', 'boxinst', 'sim')) -> pd.DataFrame:
    "A GPU's peak of memory in a few steps, all that torch holds included: weights, optimiser, images."
    rows = []
    for method in methods:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        batch = scenes(size, objects * images, images)
        step = Step(config('coco_r50_1x', weights='none', batch_size=images, workers=0, method=method),
                    with_masks(batch, size) if method == 'supervised' else batch, 80, device)
        for _ in range(3): step()
        ready(device)
        rows.append(dict(method=method, images=images, objects=objects * images, pixels=f'{size[0]}x{size[1]}',
                         allocated_gib=(torch.cuda.max_memory_allocated() - before) / 2**30, reserved_gib=torch.cuda.max_memory_reserved() / 2**30))
        del step, batch
    return pd.DataFrame(rows)


def evaluation(counts, size=(240, 320), images=20, repeats=3) -> pd.DataFrame:
    "COCOeval of pycocotools against faster-coco-eval, where that is installed, on masks of which each is found a little beside its place."
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    from simseg.evaluate import to_coco
    try: from faster_coco_eval import COCO as FasterCOCO
    except ImportError: return pd.DataFrame()
    from faster_coco_eval import COCOeval_faster
    rows = []
    for n in counts:
        batch, ids = scenes(size, n, images, classes=5), list(range(1, 6))
        true, found = [], []
        for i, t in enumerate(batch.targets):
            for shift, out in ((0, true), (3, found)):
                masks = box_masks(t.boxes + shift, size, 1)
                out += to_coco(replace(t, masks=masks, scores=torch.linspace(.1, .9, len(t)), image_id=i + 1), ids)
        for k, row in enumerate(true): row |= dict(id=k + 1, iscrowd=0, area=row['bbox'][2] * row['bbox'][3])
        data = dict(images=[dict(id=i + 1, height=size[0], width=size[1]) for i in range(images)], annotations=true,
                    categories=[dict(id=k, name=str(k)) for k in ids], info={})
        def run(coco_class, eval_class, data=data, found=found):
            truth = coco_class()
            truth.dataset = copy.deepcopy(data)
            with contextlib.redirect_stdout(io.StringIO()):
                truth.createIndex()
                judge = eval_class(truth, truth.loadRes(copy.deepcopy(found)), 'segm')
                judge.evaluate(), judge.accumulate(), judge.summarize()
            return torch.tensor(judge.stats[:6].astype(float))
        ways = {'pycocotools (ours)': lambda run=run: run(COCO, COCOeval), 'faster-coco-eval': lambda run=run: run(FasterCOCO, COCOeval_faster)}
        a, b = (way() for way in ways.values())
        assert torch.allclose(a, b, atol=1e-9), (a, b)
        seconds = side_by_side(ways, repeats)
        rows += [dict(case='evaluation', n=n, way=k, seconds=np.median(s), times_ours=ratio(s, seconds['pycocotools (ours)']))
                 for k, s in seconds.items()]
    return pd.DataFrame(rows)


def frameworks(size, images, repeats, device, train=True) -> pd.DataFrame:
    """Against torchvision's detectors with ResNet-50 and a pyramid: images of one size, random weights, one class and no threshold on scores, so
    that each has 100 detections an image."""
    from simseg.inference import predict
    from torchvision.models import detection
    sides = dict(min_size=min(size), max_size=max(size), weights=None, weights_backbone=None, num_classes=2)
    others = dict(maskrcnn_resnet50_fpn=detection.maskrcnn_resnet50_fpn(box_score_thresh=0., **sides),
                  fcos_resnet50_fpn=detection.fcos_resnet50_fpn(score_thresh=0., **sides))
    ours = condinst(config('coco_r50_1x', weights='none'), 1).to(device).eval()
    ways, found, rows = {}, {}, []
    batch = scenes(size, 10 * images, images, classes=1).to(device)
    inputs = [x.float() / 255 for x in batch.images]
    def run(name):
        with torch.inference_mode():
            if name == 'ours': found[name] = [len(p.scores) for p in predict(ours, batch, 0., .6, 100, host=False)] # as torchvision leaves them
            else: found[name] = [len(p['scores']) for p in others[name](inputs)]
    for net in others.values(): net.to(device).eval()
    ways = {name: lambda name=name: run(name) for name in ('ours', *others)}
    seconds = side_by_side(ways, repeats, device=device)
    rows += [dict(what='inference', way=k, images=images, pixels=f'{size[0]}x{size[1]}', detections=min(found[k]), seconds=np.median(s),
                  images_a_second=images / np.median(s), times_ours=ratio(s, seconds['ours'])) for k, s in seconds.items()]
    if not train: return pd.DataFrame(rows)
    targets = [dict(boxes=t.boxes, labels=t.labels + 1, masks=box_masks(t.boxes, size, 1).to(torch.uint8)) for t in batch.targets]
    net = others['maskrcnn_resnet50_fpn'].train()
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.)
    def mask_rcnn():
        optimizer.zero_grad()
        sum(net(inputs, targets).values()).backward()
        optimizer.step()
    c = config('coco_r50_1x', weights='none', batch_size=images, workers=0)
    ways = {f'ours, {m}': Step(replace(c, method=m), with_masks(batch, size) if m == 'supervised' else batch, 1, device)
            for m in ('supervised', 'boxinst', 'sim')}
    ways['maskrcnn_resnet50_fpn'] = mask_rcnn
    seconds = side_by_side(ways, repeats, device=device)
    rows += [dict(what='training step', way=k, images=images, pixels=f'{size[0]}x{size[1]}', seconds=np.median(s),
                  images_a_second=images / np.median(s), times_ours=ratio(s, seconds['ours, sim'])) for k, s in seconds.items()]
    return pd.DataFrame(rows)


def with_masks(batch, size):
    return Batch(batch.images, [replace(t, masks=box_masks(t.boxes, size, 1)) for t in batch.targets])


AXES = dict(pixels=[96, 192, 288, 384], objects=[4, 16, 64, 256], classes=[5, 20, 80, 320], prototypes=[1, 4, 16, 64], positives=[16, 64, 256, 1024])


def growth(repeats, device, axes=AXES, side=192, objects=16) -> pd.DataFrame:
    "A step of SIM by the network of `quick`, one image, as one thing grows. `pixels` is the side here and the area in the table."
    rows = []
    for axis, values in axes.items():
        steps = {}
        for v in values:
            square = (v, v) if axis == 'pixels' else (side, side)
            many = v if axis == 'objects' else 64 if axis == 'positives' else objects
            more = dict(prototypes=v) if axis == 'prototypes' else dict(max_positives=v) if axis == 'positives' else {}
            classes = v if axis == 'classes' else 9
            c = config('quick', weights='none', batch_size=1, **more)
            steps[v] = Step(c, scenes(square, many, classes=classes), classes, device)
        seconds = side_by_side(steps, repeats, device=device)
        for v, s in seconds.items():
            rows.append(dict(axis=axis, value=v * v if axis == 'pixels' else v, seconds=np.median(s), peak_mib=peak_mib(steps[v], device)))
    table = pd.DataFrame(rows)
    for what in ('seconds', 'peak_mib'):
        table[f'slope_{what}'] = [slope(*zip(*table[table.axis == a][['value', what]].values.tolist())) for a in table.axis]
    return table


def loading(data, sizes, max_size, workers, batches=4, batch_size=2) -> dict:
    "Images a second that the loader makes, with augmentation, after its first batch."
    from simseg.data.loader import loader
    from simseg.recipe import data_sets
    made = iter(loader(data_sets(config('quick', data=data)).train, sizes, max_size, .5, batch_size, batches + 1, 0, workers=workers))
    next(made)
    start = time.perf_counter()
    n = sum(len(b) for b in made)
    return dict(workers=workers, images=n, images_a_second=n / (time.perf_counter() - start))


def memory(device, counts=(30, 300), size=(384, 640), methods=('boxinst', 'sim')) -> pd.DataFrame:
    "Peak memory of a step (torch's count) with few and with many objects in an image."
    rows = []
    for method in methods:
        for n in counts:
            step = Step(config('coco_r50_1x', weights='none', batch_size=1, method=method), scenes(size, n, largest=.1), 80, device)
            step()
            rows.append(dict(method=method, objects=n, positives=len(step()[2].positives), peak_mib=peak_mib(step, device)))
            del step
    table = pd.DataFrame(rows)
    table['times_fewest'] = table.peak_mib / table.groupby('method').peak_mib.transform('first')
    return table
