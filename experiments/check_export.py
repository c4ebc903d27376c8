"""Is the exported graph the network? Both on the same photographs: detections, scores and masks side by side.

python experiments/check_export.py RUN PHOTOGRAPHS... [--out results/bench/export_photographs.csv]

RUN is a finished run's folder (head condinst). A graph has one input size, so one is exported for each size that the photographs need.
Exits with 1 where a detection, a score (by more than 1e-4) or a pixel in a thousand differs.
"""
import argparse, tempfile
from pathlib import Path

import pandas as pd
import torch
from simseg.export import export_graph, run_graph
from simseg.inference import predict_image
from simseg.runs import provenance
from simseg.training import load_model
from torchvision.io import ImageReadMode, decode_image

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('run', type=Path)
parser.add_argument('photographs', type=Path, nargs='+')
parser.add_argument('--out', type=Path, help='a CSV file to write')
args = parser.parse_args()

model, c, *_ = load_model(args.run / 'model.pt' if args.run.is_dir() else args.run)
graphs, rows = {}, []
with tempfile.TemporaryDirectory() as folder:
    for file in args.photographs:
        image = decode_image(str(file), ImageReadMode.RGB)
        h, w = image.shape[1:]
        scale = min(c.test_size / min(h, w), c.max_size / max(h, w))
        size = tuple(-(-round(side * scale) // 32) * 32 for side in (h, w))
        if size not in graphs:
            graphs[size] = torch.export.load(export_graph(model, c, Path(folder) / f'{size[0]}x{size[1]}.pt2', size)).module()
        a, b = predict_image(model, image, c.test_size, c.max_size), run_graph(graphs[size], image, size)
        same = len(a) == len(b) and torch.equal(a.labels, b.labels)
        rows.append(dict(photograph=file.name, size=f'{h}x{w}', graph=f'{size[0]}x{size[1]}', detections=len(a), same_labels=same,
                         score_difference=(a.scores - b.scores).abs().max().item() if same and len(a) else float('nan'),
                         pixels_that_differ=(a.masks != b.masks).float().mean().item() if same and len(a) else float('nan')))
table, made = pd.DataFrame(rows), provenance(c.seed)
for name in ('commit', 'dirty', 'device'): table[name] = made[name]
table['torch'] = made['versions']['torch']
if args.out:
    args.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out, index=False)
print(table.to_string(index=False))
good = table.same_labels & ~(table.score_difference > 1e-4) & ~(table.pixels_that_differ > 1e-3)
print(f'{good.sum()} of {len(table)} photographs: the graph finds what the network finds')
raise SystemExit(int(not good.all()))
