"""How much memory the bank of copy-paste takes on photographs: the bytes of every image's entry, its true masks taken as pseudo masks.

python experiments/bench/bank.py SET --out results/bench/bank.csv

A bank of 100 holds those of 100 images: on average 100 times the mean, at worst the 100 largest.
"""
import argparse
from pathlib import Path

import pandas as pd
import torch
from simseg.copy_paste import Bank
from simseg.data.coco import read
from simseg.data.loader import collate, resize_test
from simseg.losses.box import mask_targets
from simseg.runs import provenance


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('data', help='folder of a COCO-form set with masks')
    p.add_argument('--split', default='train')
    p.add_argument('--size', type=int, default=800, help='short side, pixels')
    p.add_argument('--max-size', type=int, default=1333)
    p.add_argument('--length', type=int, default=100, help='images in a bank')
    p.add_argument('--out', type=Path, required=True)
    args = p.parse_args()
    photographs, found = read(args.data, args.split, masks=True), []
    for i in range(len(photographs)):
        batch, bank = collate([resize_test(*photographs[i], args.size, args.max_size)]), Bank(1)
        n = len(batch.targets[0])
        if n: bank.push(batch, mask_targets(batch).float(), torch.ones(n))
        found.append((bank.nbytes, sum(len(e.labels) for e in bank.entries)))
    taken = pd.DataFrame(found, columns=['bytes', 'objects']).query('objects > 0').sort_values('bytes', ascending=False)
    here, mb, n = provenance(0), 1e-6, min(args.length, len(taken))
    row = dict(data=Path(args.data).resolve().name, split=args.split, short_side=args.size, images=len(photographs), entries=len(taken), bank=n,
               objects=round(n * taken.objects.mean()), mean_mb=round(n * taken.bytes.mean() * mb, 1),
               largest_mb=round(taken.bytes.head(n).sum() * mb, 1), commit=(here['commit'] or '')[:7])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([row]).to_csv(args.out, index=False)
    print(pd.DataFrame([row]).to_string(index=False))


if __name__ == '__main__': main()
