"""What mu, the thresholds and tau do at the source: pseudo masks of one fixed teacher against the true masks, without any training.

python experiments/training_free.py RUN_FOLDER SETTING [--data FOLDER] [--images 0] [--out results/tables]

RUN_FOLDER is a finished run of the setting's default row with its last.pt (teacher and prototypes). Every row of tables s1, s2, s3 and t4 is judged
on the same held-out objects. IoU, precision and recall are means over objects.
"""
import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd
from simseg.config import config
from simseg.data.loader import eval_loader
from simseg.pseudo_quality import qualities
from simseg.recipe import data_sets
from simseg.report import markdown
from simseg.files import load_checkpoint, read_json
from simseg.runs import provenance
from simseg.sweep import read_setting, read_table
from simseg.loop import State, make_fabric

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('run', type=Path)
parser.add_argument('setting')
parser.add_argument('--data', help='folder of the data set, unless tangle')
parser.add_argument('--images', type=int, default=0, help='first so many held-out images; 0 = all')
parser.add_argument('--experiments', type=Path, default=Path('experiments'))
parser.add_argument('--out', type=Path, default=Path('results/tables'))
args = parser.parse_args()

setting = read_setting(args.setting, args.experiments / 'settings.yaml')
recorded = read_json(args.run / 'config.json')
c = config(**recorded | ({'data': args.data} if args.data else {}))
if c.method not in ('pseudo', 'sim'): parser.error(f'{args.run} is a run of {c.method}: no teacher corrects anything there')
found, fabric = data_sets(c), make_fabric(c)
state = State(c, len(found.train.classes), fabric.device)
saved = load_checkpoint(args.run / 'last.pt')
state.teacher.load_state_dict(saved['teacher'])
state.memory.prototypes.load_state_dict(saved['memory']['prototypes'])

rows = [(t, r) for t in (read_table(args.experiments / f'{n}.yaml') for n in ('s1', 's2', 's3', 't4')) for r in t.rows]
images = args.images or len(found.val)
batches = (b.to(fabric.device) for b, _ in zip(eval_loader(found.val, c.test_size, c.max_size, workers=c.workers), range(images)))
measured = qualities([replace(c, **r.changes) for _, r in rows], state.teacher.module, state.memory.prototypes, batches)

shown = dict(iou_pseudo='IoU', precision='precision', recall='recall', iou='IoU of M > .5', used='used', score='score S')
table = pd.DataFrame([dict(table=t.name.upper(), parameter=t.parameter, value=r.label + (' (default)' if r.default else ''))
                      | {name: m[k] for k, name in shown.items()} for (t, r), m in zip(rows, measured)]).round(4)
made, trained, objects = provenance(c.seed, fabric.device), read_json(args.run / 'provenance.json'), measured[0]['objects']
folder = args.out / setting.name
folder.mkdir(parents=True, exist_ok=True)
table.assign(objects=objects, run=args.run.parent.name + '/' + args.run.name, commit=made['commit'], device=made['device']).to_csv(
    folder / 'training_free.csv', index=False)
text = f"""# Tables S1 to S3 and 4 without training

One teacher, that of `{args.run.parent.name}/{args.run.name}` ({setting.name}: {setting.about}; commit {str(trained['commit'])[:7]}),
trained with the default parameters, and {objects} held-out objects, their pseudo masks against their true masks.
Means over objects. A teacher trained with other parameters would be another one: this is what a parameter does to the pseudo masks of this one,
free of training noise.

{markdown(table.map(lambda v: f'{v:.3f}' if isinstance(v, float) else v))}

commit: {str(made['commit'])[:7]}; device: {made['device']}.
"""
(folder / 'training_free.md').write_text(text, encoding='utf-8')
print(text)
