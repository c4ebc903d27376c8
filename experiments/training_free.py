"""What the parameters do at the source: masks of one fixed teacher against the true masks of held-out objects, without any training.

python experiments/training_free.py RUN SETTING [--data FOLDER] [--images 0] [--out results/tables]

RUN is a finished run of the setting's default row. Two tables. `training_free`: its pseudo masks with the parameters of every row of tables s1, s2,
s3 and t4; wants the run's folder with last.pt (teacher and prototypes). `positives`: what weighting an object's positives (mu, Eq. 6) could gain at
most, over objects that have two or more; by the teacher, or by the network where RUN is a model.pt alone. Values are means over objects.
"""
import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from simseg.data.loader import eval_loader
from simseg.figures import trained
from simseg.files import read_json
from simseg.losses.box import mask_targets
from simseg.pseudo_quality import qualities, weightings
from simseg.report import markdown
from simseg.runs import provenance
from simseg.sweep import read_setting, read_table

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('run', type=Path)
parser.add_argument('setting')
parser.add_argument('--data', help='folder of the data set, unless tangle')
parser.add_argument('--images', type=int, default=0, help='first so many held-out images; 0 = all')
parser.add_argument('--experiments', type=Path, default=Path('experiments'))
parser.add_argument('--out', type=Path, default=Path('results/tables'))
args = parser.parse_args()

setting, run = read_setting(args.setting, args.experiments / 'settings.yaml'), trained(args.run, data=args.data)
device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
net = (run.teacher.module if run.teacher else run.model).to(device).eval()
record = (args.run if args.run.is_dir() else args.run.parent) / 'provenance.json'
record = read_json(record) if record.exists() else {}
of_run, made = {k: record.get(k) or '–' for k in ('commit', 'device')}, provenance(run.c.seed, device)
made = {k: made[k] or '–' for k in ('commit', 'device')}
folder = args.out / setting.name
folder.mkdir(parents=True, exist_ok=True)


def batches():
    loaded = eval_loader(run.data.val, run.c.test_size, run.c.max_size, workers=run.c.workers)
    return (batch.to(device) for batch, _ in zip(loaded, range(args.images or len(run.data.val))))


def write(name, table, text):
    table.assign(**made).to_csv(folder / f'{name}.csv', index=False)
    text += f"\ncommit: {made['commit'][:7]}; device: {made['device']}.\n"
    (folder / f'{name}.md').write_text(text, encoding='utf-8')
    print(text)


if run.teacher:
    rows = [(t, r) for t in (read_table(args.experiments / f'{n}.yaml') for n in ('s1', 's2', 's3', 't4')) for r in t.rows]
    measured = qualities([replace(run.c, **r.changes) for _, r in rows], net, run.memory.prototypes.to(device), batches())
    shown = dict(iou_pseudo='IoU', precision='precision', recall='recall', iou='IoU of M > .5', used='used', score='score S')
    table = pd.DataFrame([dict(table=t.name.upper(), parameter=t.parameter, value=r.label + (' (default)' if r.default else ''))
                          | {name: m[k] for k, name in shown.items()} for (t, r), m in zip(rows, measured)]).round(4)
    objects, name = measured[0]['objects'], f'{args.run.resolve().parent.name}/{args.run.resolve().name}'
    write('training_free', table.assign(objects=objects, run=name), f"""# Tables S1 to S3 and 4 without training

One teacher, that of `{name}` ({setting.name}: {setting.about}; commit {of_run['commit'][:7]}),
trained with the default parameters, and {objects} held-out objects, their pseudo masks against their true masks.
Means over objects. A teacher trained with other parameters would be another one: this is what a parameter does to the pseudo masks of this one,
free of training noise.

{markdown(table.map(lambda v: f'{v:.3f}' if isinstance(v, float) else v))}
""")

found = []
for batch in batches():
    if not len(batch.flat()[0]): continue
    with torch.no_grad(): found.append(weightings(net(batch), batch, mask_targets(batch)))
found = pd.concat(found)
means, positives, rank = found.drop(columns=['positives', 'rank correlation']).mean(), found['positives'].mean(), found['rank correlation'].mean()
table = pd.DataFrame(dict(masks=means.index, IoU=means.to_numpy(), more=means.to_numpy() - means['mu = 0'])).round(4)
shown = table.assign(IoU=table['IoU'].map('{:.3f}'.format), more=table['more'].map('{:+.3f}'.format)).rename(columns=dict(more='less mu = 0'))
whose, counted = 'Teacher' if run.teacher else 'Network', dict(objects=len(found), positives=round(positives, 2), rank_correlation=round(rank, 4))
write('positives', table.assign(**counted, **{f'run_{k}': v for k, v in of_run.items()}), f"""# What weighting positives could gain at most

{whose} of one run: {run.about}; commit {of_run['commit'][:7]}, {of_run['device']}. {len(found)} objects of held-out images that have
two positives or more ({positives:.1f} in the mean): IoU of the masks, cut at one half and at their box, with the true masks.
`mu` weights positives by the IoU of their boxes (Eq. 6); `by mask` by the IoU of their own masks with the truth, which training cannot know; `best`,
`best box` and `worst` are single positives, `mean` the mean of each alone. Rank correlation of box IoU and mask IoU within an object: {rank:.2f}.

{markdown(shown)}
""")
