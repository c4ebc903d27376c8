"""A few real training steps of a full-scale preset, on photographs laid out as COCO 2017, at full resolution: seconds (of the clock,
and those that the CPU worked) and peak memory.

python experiments/full_scale.py my_set [--presets coco_r50_1x ...] [--steps 2] [--images 2] [--out results/bench/full_scale_steps.csv]

`my_set` is a COCO-form set. Steps are of SIM after its warm-up. Weights are random (nothing is downloaded), but stages and norms are frozen as loaded
ones are. Each preset runs in a process of its own, so that its peak memory is its own.
"""
import argparse, json, math, shutil, subprocess, sys, tempfile, time
from pathlib import Path

import pandas as pd

PRESETS = ('coco_r50_1x', 'coco_r101_3x', 'voc_r50', 'coco_swin_b_3x')


def laid_out(root: Path, out: Path) -> Path:
    "A copy of a COCO-form set in the layout of COCO 2017."
    from simseg.data.annotations import find_split
    (out / 'annotations').mkdir(parents=True)
    for split in ('train', 'val'):
        images, path = find_split(root, split)
        shutil.copyfile(path, out / f'annotations/instances_{split}2017.json')
        (out / f'{split}2017').mkdir()
        for one in json.loads(path.read_text())['images']: shutil.copyfile(Path(images) / one['file_name'], out / f'{split}2017' / one['file_name'])
    return out


def steps_of(preset, data, number, images, given) -> dict:
    import timm
    import torch
    from simseg.config import config
    from simseg.data.loader import loader
    from simseg.loop import State, make_fabric, train_step
    from simseg.recipe import data_sets, resolved
    from simseg.runs import peak_memory, provenance
    from simseg.training import parse
    backbone = config(preset).backbone
    with tempfile.TemporaryDirectory() as folder: # random weights in a file: such are frozen as loaded ones are
        path = Path(folder) / 'random.pt'
        swin = dict(strict_img_size=False) if backbone.startswith('swin') else {}
        torch.save(timm.create_model(backbone, features_only=True, **swin).state_dict(), path)
        words = dict(preset=preset, data=data, weights=path, batch_size=images, accumulate=images) | given
        c = resolved(parse([w for k, v in words.items() for w in (f'--{k}', *(v.split() if k in given else [str(v)]))]))
        fabric, sets = make_fabric(c), data_sets(c)
        state = State(c, len(sets.train.classes), fabric.device)
    for net in (state.model, state.teacher.module): # a random network's masks are all one half: no pixel would be sure
        if hasattr(net, 'controller'): net.controller.weight.data *= 5
    state.step, seconds, worked = c.steps // 2, [], []
    model, optimizer = fabric.setup(state.model, state.optimizer)
    batches = loader(sets.train, c.sizes[-1:], c.max_size, c.flip, c.batch_size, state.step + number, c.seed, state.step)
    for batch in batches:
        start, cpu = time.perf_counter(), time.process_time()
        losses, health, out, seen = train_step(c, fabric, state, model.train(), optimizer, batch.to(fabric.device))
        values = {k: v.item() for k, v in losses.items()}
        seconds.append(time.perf_counter() - start)
        worked.append(time.process_time() - cpu)
        assert all(map(math.isfinite, values.values())), values
    made = provenance(c.seed, fabric.device)
    return dict(preset=preset, backbone=backbone, images=images, parts=c.accumulate, pixels=f'{batch.images.shape[2]}x{batch.images.shape[3]}',
                objects=sum(map(len, batch.targets)), classes=len(sets.train.classes), seconds_a_step=round(seconds[-1], 2),
                cpu_seconds_a_step=round(worked[-1], 2), peak_memory_mib=peak_memory(fabric.device),
                parameters=sum(p.numel() for p in state.model.parameters()),
                trained=sum(p.numel() for p in state.model.parameters() if p.requires_grad), losses=' '.join(sorted(losses)),
                **{k: made[k] for k in ('commit', 'dirty', 'device', 'threads')}, torch=made['versions']['torch'])


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path)
    parser.add_argument('--presets', nargs='+', default=PRESETS)
    parser.add_argument('--steps', type=int, default=2)
    parser.add_argument('--images', type=int, default=1, help='a step, one after the other')
    parser.add_argument('--out', type=Path)
    parser.add_argument('--one', action='store_true', help='the only preset, in this process; `data` is laid out')
    parser.add_argument('set', nargs='*', metavar='NAME=VALUE')
    args, more = parser.parse_known_args()
    given = dict(pair.split('=', 1) for pair in (*args.set, *more))
    if args.one:
        print('ROW', json.dumps(steps_of(args.presets[0], args.data, args.steps, args.images, given)))
        sys.exit()
    rows = []
    if args.out: args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        data = laid_out(args.data, Path(folder) / 'coco')
        for preset in args.presets:
            done = subprocess.run([sys.executable, __file__, str(data), '--presets', preset, '--steps', str(args.steps), '--images', str(args.images),
                                   '--one', *(f'{k}={v}' for k, v in given.items())], stdout=subprocess.PIPE, text=True)
            if done.returncode: sys.exit(f'{preset} failed')
            rows.append(json.loads(done.stdout[done.stdout.index('ROW') + 4:]))
            print(rows[-1], flush=True)
            if args.out: pd.DataFrame(rows).to_csv(args.out, index=False)
