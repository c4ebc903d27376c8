"""What weighting an object's positives (mu, Eq. 6) could gain at most: masks of one fixed teacher against the true masks, without any training.

python experiments/positives.py RUN SETTING [--data FOLDER] [--images 0] [--out results/tables]

RUN is a finished run (a folder), or its model.pt; its teacher is taken where it has one, else the network. Objects count that have two positives or
more. By box: the weights of Eq. 6. By mask: the same formula with the IoU of each positive's own mask with the true one in place of its box's, which
training cannot know.
"""
import argparse
from pathlib import Path

import pandas as pd
import torch
from simseg.data.loader import eval_loader
from simseg.figures import trained
from simseg.files import read_json
from simseg.losses.box import mask_targets
from simseg.pseudo_quality import weightings
from simseg.report import markdown
from simseg.runs import provenance
from simseg.sweep import read_setting

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('run', type=Path)
parser.add_argument('setting')
parser.add_argument('--data', help='folder of the data set, unless tangle')
parser.add_argument('--images', type=int, default=0, help='first so many held-out images; 0 = all')
parser.add_argument('--experiments', type=Path, default=Path('experiments'))
parser.add_argument('--out', type=Path, default=Path('results/tables'))
args = parser.parse_args()

setting, run = read_setting(args.setting, args.experiments / 'settings.yaml'), trained(args.run, data=args.data)
net, found = (run.teacher or run.model).eval(), []
for batch, _ in zip(eval_loader(run.data.val, run.c.test_size, run.c.max_size), range(args.images or len(run.data.val))):
    if not len(batch.flat()[0]): continue
    with torch.no_grad(): seen = net(batch)
    found.append(weightings(seen, batch, mask_targets(batch)))
found = pd.concat(found)
means = found.drop(columns=['positives', 'rank correlation']).mean()
table = pd.DataFrame(dict(masks=means.index, IoU=means.to_numpy(), more=means.to_numpy() - means['mu = 0'])).round(4)
folder = args.run if args.run.is_dir() else args.run.parent
record = read_json(folder / 'provenance.json') if (folder / 'provenance.json').exists() else {}
made, objects, positives, rank = provenance(run.c.seed, 'cpu'), len(found), found['positives'].mean(), found['rank correlation'].mean()
commit, device = record.get('commit') or '–', record.get('device') or '–'
out = args.out / setting.name
out.mkdir(parents=True, exist_ok=True)
table.assign(objects=objects, positives=round(positives, 2), rank_correlation=round(rank, 4), run_commit=commit, run_device=device,
             commit=made['commit'], device=made['device']).to_csv(out / 'positives.csv', index=False)
table = table.assign(IoU=table['IoU'].map('{:.3f}'.format), more=table['more'].map('{:+.3f}'.format)).rename(columns=dict(more='less mu = 0'))
text = f"""# What weighting positives could gain at most

{'Teacher' if run.teacher else 'Network'} of one run: {run.about}; commit {commit[:7]}, {device}. {objects} objects of held-out images that have
two positives or more ({positives:.1f} in the mean): IoU of the masks, cut at one half and at their box, with the true masks.
`mu` weights positives by the IoU of their boxes (Eq. 6); `by mask` by the IoU of their own masks with the truth, which training cannot know; `best`,
`best box` and `worst` are single positives, `mean` the mean of each alone. Rank correlation of box IoU and mask IoU within an object: {rank:.2f}.

{markdown(table)}

commit: {made['commit'][:7]}; device: {made['device']}.
"""
(out / 'positives.md').write_text(text, encoding='utf-8')
print(text)
