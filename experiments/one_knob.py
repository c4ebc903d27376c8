"""Tables S2 and S3 on one axis: mask AP against the precision of the pseudo masks. From the records alone:

python experiments/one_knob.py [SETTING ...] [--runs results/runs] [--out results/figures/one_knob]

Thresholds (tau_low, tau_high) and temperature (tau) both move the edge of a pseudo mask. Precision: the share of its pixels inside the true mask, on
held-out objects, by the teacher at the end of training (`metrics.json`). AP is less that of the default row of the same seed. Small dots: seeds. The
ordinate is linear between -2 and 2, then logarithmic. Writes PNG and CSV, with the rank correlation of the rows' means. Then the runs of `--exchange`
(into FINDINGS), in which thresholds undo what a temperature does; they are made by

python -m simseg.training --preset quick --precision 32 --steps 800 --camouflage .5 --overlap .5 --val_images 500 --warmup_share .1111111111111111
    --tau .5 --tau_low .4 --tau_high .8 --seed 0 --out results/checks/one_knob --warmups results/warmups
"""
import argparse
from pathlib import Path

import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
import pandas as pd
from simseg.report import between, markdown
from simseg.runs import load_runs
from simseg.sweep import read_setting, read_table
from simseg.tables import collect

HERE = Path(__file__).resolve().parent
MARKS = '<!-- exchange: written by experiments/one_knob.py -->', '<!-- end of exchange -->'
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('settings', nargs='*', default=['tangle-quick', 'car-parts-warm', 'car-parts-small-warm'])
parser.add_argument('--runs', type=Path, default=Path('results/runs'))
parser.add_argument('--exchange', type=Path, default=Path('results/checks/one_knob'))
parser.add_argument('--findings', type=Path, default=Path('results/findings.md'))
parser.add_argument('--out', type=Path, default=Path('results/figures/one_knob'))
args = parser.parse_args()

runs, lines = load_runs(args.runs), []
for setting in (read_setting(name, HERE / 'settings.yaml') for name in args.settings):
    for table in (read_table(HERE / f'{name}.yaml') for name in ('s2', 's3')):
        rows = collect(table, setting, runs, also=('pseudo.precision', 'pseudo.recall')).dropna(subset='AP')
        default = [table.rows[i].default for i in rows['row']]
        rows = rows.assign(setting=setting.name, table=table.name.upper(), default=default, row=[table.rows[i].label for i in rows['row']],
                           precision=rows['pseudo.precision'], recall=rows['pseudo.recall'])
        rows['AP less default'] = rows['AP'] - rows['seed'].map(rows[rows.default].set_index('seed')['AP'])
        lines.append(rows.dropna(subset='AP less default'))
lines = pd.concat(lines)[['setting', 'table', 'row', 'default', 'seed', 'precision', 'recall', 'AP', 'AP less default', 'commit', 'device']]
if not len(lines): raise SystemExit(f'{args.runs} has no run of S2 or S3 in {", ".join(args.settings)}.')
lines = lines.reset_index(drop=True)
names = list(lines.setting.unique())
figure, axes = plt.subplots(1, len(names), figsize=(3.4 * len(names), 3.1), layout='constrained', squeeze=False)
for ax, name in zip(axes[0], names):
    here = lines[lines.setting == name]
    means = here.groupby(['table', 'row', 'default'], sort=False)[['precision', 'AP less default']].mean().reset_index()
    once = means[~(means.default & (means.table == 'S3'))]
    rank = once[['precision', 'AP less default']].corr(method='spearman').iloc[0, 1]
    lines.loc[lines.setting == name, 'rank correlation'] = rank
    for table, colour, what in (('S2', 'C0', 'thresholds'), ('S3', 'C1', 'tau')):
        ax.plot(here[here.table == table].precision, here[here.table == table]['AP less default'], '.', color=colour, markersize=3, alpha=.6)
        rows = means[(means.table == table) & ~means.default]
        ax.plot(rows.precision, rows['AP less default'], 'o', color=colour, markersize=5, label=f'{table}: {what}')
        left = table == 'S2'
        for label, x, y in rows[['row', 'precision', 'AP less default']].itertuples(index=False):
            ax.annotate(label, (x, y), xytext=(-4, 4) if left else (4, -4), textcoords='offset points', fontsize=6.5, color=colour,
                        ha='right' if left else 'left', va='bottom' if left else 'top')
    ax.plot(*means[means.default].iloc[0][['precision', 'AP less default']], 'k*', markersize=9, label='default')
    seeds = here.seed.nunique()
    ax.set_title(f"{name}, {seeds} seed{'s' * (seeds > 1)}: rank correlation {rank:.2f}", fontsize=8)
    ax.set_xlabel('precision of the pseudo masks, held-out objects', fontsize=7); ax.tick_params(labelsize=7); ax.margins(.22)
    ax.set_yscale('symlog', linthresh=2); ax.set_ylim(-30, 4); ax.set_yticks([-12, -8, -4, -2, -1, 0, 1, 2], [-12, -8, -4, -2, -1, 0, 1, 2])
    ax.axhline(0, color='.8', lw=.8, zorder=0); ax.spines[['top', 'right']].set_visible(False)
axes[0, 0].set_ylabel('mask AP less default, points\n(beyond 2 the axis is logarithmic)', fontsize=7)
axes[0, 0].legend(fontsize=7, loc='lower right')
args.out.parent.mkdir(parents=True, exist_ok=True)
lines.to_csv(args.out.with_suffix('.csv'), index=False, float_format='%.4f')
figure.savefig(args.out.with_suffix('.png'), dpi=130, metadata=dict(Description=args.out.with_suffix('.csv').read_text(encoding='utf-8')))
print(lines.groupby('setting', sort=False)['rank correlation'].first().round(2).to_string())

runs, rows = load_runs(args.exchange), []
for (tau, low, high), group in runs.groupby(['tau', 'tau_low', 'tau_high']):
    row = {'tau': tau, 'tau_low / tau_high': f'{low} / {high}', 'precision': f"{group['pseudo.precision'].mean():.3f}",
           'recall': f"{group['pseudo.recall'].mean():.3f}"}
    rows.append(row | {f'mask AP, seed {seed}': f'{ap:.1f}' for seed, ap in sorted(zip(group['seed'], group['mask_AP']))})
made = '; '.join(f'{k}: {", ".join(sorted(set(runs[f"provenance.{k}"].str[:n])))}' for k, n in (('commit', 7), ('device', None)))
body = f'{markdown(pd.DataFrame(rows).fillna("–"))}\n\n{made}.'
args.findings.write_text(between(args.findings.read_text(encoding='utf-8'), body, *MARKS), encoding='utf-8')
