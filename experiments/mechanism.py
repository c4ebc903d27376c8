"""Where do semantics help? From recorded runs over tangle's knobs to one figure.

First the runs, some six hours on two cores:
    python experiments/gain.py tangle-quick --rows boxinst sim sim+semantic --seeds 0 --camouflage 0 .5 1 --overlap 0 .5 1
Then the figure and its numbers, from the records alone:
    python experiments/mechanism.py [--runs results/runs] [--out results/figures/mechanism]

Top: mask AP of each method at each pair of knobs. Middle: IoU of the pseudo masks with the true masks of held-out objects, from the semantic map
alone, from the instance map alone and from both, each cut at one half, beside that of the filled box. Bottom: how well the semantic map ranks the
pixels of a box, whatever its threshold (area under the ROC curve, .5 is chance). A cell without a record stays empty.
"""
import argparse
from pathlib import Path

import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
import pandas as pd
from simseg.config import config
from simseg.report import changes
from simseg.runs import load_runs

STAGES = {'iou_box': 'the box', 'iou_semantic': 'M_S alone', 'iou_instance': 'M_I alone', 'iou': 'both: M'}
AUC = 'pseudo.separation'
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--runs', type=Path, default=Path('results/runs'))
parser.add_argument('--out', type=Path, default=Path('results/figures/mechanism'))
parser.add_argument('--preset', default='quick')
parser.add_argument('--steps', type=int, default=800)
args = parser.parse_args()

runs = load_runs(args.runs)
wanted = dict(data='tangle', preset=args.preset, steps=args.steps, data_seed=0, degenerate='skip') # the rule of these runs
runs = runs[(runs[list(wanted)] == pd.Series(wanted)).all(axis=1) & ((runs['warmup_share'] - 1/9).abs() < 1e-6)].copy() # the paper's warm-up
ours = 'similarity contrast, semantic_loss 0.1' # as in gain.py; whatever else was changed has no place here
usual = config(args.preset)
besides = runs.assign(warmup_share=usual.warmup_share, degenerate=usual.degenerate).apply(changes, axis=1)
runs = runs[besides.isin(['–', ours])]
runs['row'] = runs['method'] + besides.map({ours: '+semantic', '–': ''})
stages = [k for k in (*(f'pseudo.{k}' for k in STAGES), AUC) if k in runs]
cells = runs.groupby(['overlap', 'camouflage', 'row'])[['mask_AP', *stages]].agg(['mean', 'count'])
means = cells[[(m, 'mean') for m in ('mask_AP', *stages)]].droplevel(1, axis=1)
table = pd.concat([means, cells[('mask_AP', 'count')].rename('seeds')], axis=1).reset_index()
args.out.parent.mkdir(parents=True, exist_ok=True)
table.round(4).to_csv(args.out.with_suffix('.csv'), index=False)

NAMES = {'boxinst': ('BoxInst', 'C3'), 'sim': ('SIM', 'C0'), 'sim+semantic': ('SIM, contrast and semantic loss', 'C2'),
         'supervised': ('full supervision', 'C7')} # red and blue as in the paper's Figure S3
COLOURS = ('0.6', 'C1', 'C2', 'C0')
overlaps = sorted(table['overlap'].unique())
figure, axes = plt.subplots(3, len(overlaps), figsize=(3.2 * len(overlaps), 7), dpi=100, layout='constrained', squeeze=False, sharex=True,
                            sharey='row')
for column, overlap in zip(axes.T, overlaps):
    here = table[table['overlap'] == overlap]
    for row, one in here.groupby('row'):
        if row in NAMES: column[0].plot(one['camouflage'], one['mask_AP'], 'o-', label=NAMES[row][0], color=NAMES[row][1], markersize=5)
    column[0].set_title(f'overlap {overlap:g}', fontsize=10)
    for style, (row, one) in zip(('-', '--'), here[here['row'].isin(['sim', 'sim+semantic'])].groupby('row')):
        own = '' if row == 'sim' else f' ({NAMES[row][0]})'
        for colour, (stage, name) in zip(COLOURS, STAGES.items()):
            if f'pseudo.{stage}' not in one: continue
            column[1].plot(one['camouflage'], one[f'pseudo.{stage}'], 'o' + style, color=colour, label=name + own, markersize=4)
        if AUC in one: column[2].plot(one['camouflage'], one[AUC], 'o' + style, color=COLOURS[1], label='M_S' + own, markersize=4)
    column[2].axhline(.5, color='0.6', linewidth=1, label='chance')
    column[2].set(xlabel='camouflage', xticks=sorted(table['camouflage'].unique()))
for row, label in zip(axes, ('mask AP, held-out scenes', 'IoU with true masks', 'area under the ROC curve')): row[0].set_ylabel(label)
for row in axes: row[-1].legend(*max((a.get_legend_handles_labels() for a in row), key=lambda found: len(found[1])), fontsize=7)
figure.savefig(args.out.with_suffix('.png'), metadata=dict(Description=args.out.with_suffix('.csv').read_text(encoding='utf-8')))
print(table.round(3).to_string(index=False))
