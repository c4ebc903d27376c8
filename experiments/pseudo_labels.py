"""Pseudo labels against true masks: what simseg-pseudo-label makes of the boxes of a set, for finished runs, at some sizes.

python experiments/pseudo_labels.py RUN ... --data SET [--splits val train] [--sizes 192 384] --out results/bench/pseudo_labels.csv
"""
import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd

from simseg.data.coco import read
from simseg.pseudo_label import label_set, labeller, summary
from simseg.files import read_json
from simseg.runs import provenance
from simseg.training import load_model


def measure(folder, dataset, size, student):
    "One row of the table."
    model, c, classes, _ = load_model(folder)
    c = replace(c, test_size=size or c.test_size, max_size=max(c.max_size, round(c.max_size * (size or c.test_size) / c.test_size)))
    made = labeller(folder, model, c, classes, student)
    _, faults, table, _ = label_set(made, dataset)
    found = summary(table, dataset.report)
    keep = ('objects', 'positives', 'no_positive', 'empty', 'mean_score', 'iou', 'iou_of_filled_boxes')
    run = read_json(folder / 'provenance.json')
    return dict(run=folder.parent.name, seed=c.seed, method=c.method, network='teacher' if made.prototypes is not None else 'model',
                test_size=c.test_size, unreadable=len(faults), run_commit=(run['commit'] or '')[:7]) | {
                    k: round(found[k], 4) if isinstance(found[k], float) else found[k] for k in keep}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('runs', nargs='+', type=Path, help='folders of finished runs')
    p.add_argument('--data', required=True, help='folder of a COCO-form set with masks')
    p.add_argument('--splits', nargs='+', default=['val'])
    p.add_argument('--sizes', nargs='+', type=int, default=[0], help='short sides; 0 = as in the run')
    p.add_argument('--student', action='store_true')
    p.add_argument('--out', type=Path, required=True)
    args = p.parse_args()
    here, rows = provenance(0), []
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for split in args.splits:
        dataset = read(args.data, split, masks=True)
        for folder in args.runs:
            for size in args.sizes:
                rows.append(dict(data=Path(args.data).resolve().name, split=split) | measure(folder, dataset, size, args.student) | dict(
                    commit=(here['commit'] or '')[:7], torch=here['versions']['torch'], device=here['device']))
                pd.DataFrame(rows).to_csv(args.out, index=False)
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == '__main__': main()
