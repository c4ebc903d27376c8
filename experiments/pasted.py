"""How well a finished Mask2Former names what was pasted: of training images, clean and with pasted objects, the share of objects whose matched query
has the right class (last output), the share called no object, and the mean cross-entropy; own objects and pasted ones apart.

python experiments/pasted.py RUN --data SET --out results/checks/mask2former/pasted.csv

RUN is the folder of a run of SIM with its last.pt (teacher and prototypes). The bank is filled anew: from one batch is pasted onto the next.
"""
import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from simseg.data.loader import eval_loader
from simseg.figures import trained
from simseg.runs import provenance
from simseg.sim import augment, correct, remember


@torch.no_grad()
def named(model, batch) -> pd.DataFrame:
    "A row an object: whether it was pasted, named right, called no object, and its cross-entropy."
    outputs = model.look(batch)
    pos, _ = model.supervise(outputs, batch)
    last = pos.level == pos.level.max()
    logits = outputs.classes[pos.level, pos.image, pos.location].float()[last]
    thing = pos.object[last]
    wanted = batch.flat()[1][thing]
    found = logits.argmax(1)
    columns = dict(pasted=batch.pasted()[thing], right=found == wanted, no_object=found == logits.shape[1] - 1,
                   cross_entropy=F.cross_entropy(logits, wanted, reduction='none'))
    return pd.DataFrame({k: v.tolist() for k, v in columns.items()})


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('run', type=Path)
    p.add_argument('--data', help='folder of the data set, unless tangle')
    p.add_argument('--batches', type=int, default=24, help='of 4 images')
    p.add_argument('--out', type=Path, required=True)
    args = p.parse_args()
    run = trained(args.run, data=args.data)
    if run.c.head != 'mask2former' or run.memory is None: p.error(f'{args.run} is no run of SIM on Mask2Former with its last.pt')
    model, memory, rows = run.model.eval(), run.memory, []
    loader = eval_loader(run.data.train, run.c.test_size, run.c.max_size, batch_size=4)
    for k, (batch, _) in enumerate(zip(loader, range(args.batches))):
        clean = replace(batch, targets=[replace(t, masks=None) for t in batch.targets])
        if len(memory.bank):
            for images, b in (('clean', clean), ('with pasted objects', augment(run.c, clean, memory, run.c.steps + k))):
                rows.append(named(model, b).assign(images=images))
        with torch.no_grad():
            seen = run.teacher(clean)
            remember(run.c, seen, correct(run.c, seen, clean, memory.prototypes), clean, clean, memory, len(run.data.train.classes))
    rows, made = pd.concat(rows), provenance(0)
    table = rows.groupby(['images', 'pasted']).agg(objects=('right', 'size'), right=('right', 'mean'), no_object=('no_object', 'mean'),
                                                   cross_entropy=('cross_entropy', 'mean')).round(3).reset_index()
    table = table.assign(run=args.run.parent.name, seed=run.c.seed, commit=(made['commit'] or '')[:7], device=made['device'])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out, index=False)
    print(table.to_string(index=False))


if __name__ == '__main__': main()
