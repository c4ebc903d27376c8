"The sweep over the tables' runs: stopped half-way, failed in one run, complete. Real processes, the smoke setting, three rows."
import json, os, re, shutil, signal, subprocess, sysconfig, time
from pathlib import Path

import psutil
import pytest
import torch
from conftest import ROOT, Python, clean_env, python

BIN = Path(sysconfig.get_path('scripts'))
ROWS = """caption: three rows
source: a test
parameter: lambda1
seeds: [0]
rows:
- {label: "0.1", changes: {lambda1: 0.1}, paper: {AP: 31.9}}
- {label: "0.5", changes: {}, default: true, paper: {AP: 32.2}}
- {label: "0.7", changes: {lambda1: 0.7}, paper: {AP: 31.4}}
"""


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp('sweep')
    (place / 'experiments').mkdir()
    shutil.copy(ROOT / 'experiments' / 'settings.yaml', place / 'experiments')
    (place / 'experiments' / 's9.yaml').write_text(ROWS)
    return place


@pytest.fixture(scope='module')
def environment(place):
    return clean_env(PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}", PYTHONPATH=str(ROOT), SIMSEG_CACHE=str(place / 'cache'),
                     JUPYTER_PREFER_ENV_PATH='1')


def command(place, *more):
    return ['snakemake', '-s', 'experiments/Snakefile', '--cores', '1', '--keep-going', '--rerun-triggers', 'mtime', '--rerun-incomplete', '--nolock',
            *more, '--config', 'setting=smoke', f"experiments={place / 'experiments'}", f"out={place / 'runs'}"]


def sweep(place, environment, *more):
    done = subprocess.run(command(place, *more), cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    return done.returncode, done.stdout + done.stderr


def declared(place):
    from simseg.sweep import read_setting, read_table
    return read_setting('smoke', place / 'experiments' / 'settings.yaml'), read_table(place / 'experiments' / 's9.yaml')


def kill(process):
    try: process.kill()
    except psutil.NoSuchProcess: pass


@pytest.fixture(scope='module')
def swept(place, environment):
    "A sweep that was killed in its second run and started again; in it one run that cannot succeed."
    from simseg.sweep import jobs
    os.environ['SIMSEG_CACHE'] = environment['SIMSEG_CACHE']
    setting, table = declared(place)
    folders = [j.folder for j in jobs(setting, [table], out=place / 'runs')]
    broken = folders[-1]
    broken.mkdir(parents=True)
    (broken / 'config.json').write_text(json.dumps(dict(mu=1.0))) # another configuration lies in its folder: the run refuses
    process = subprocess.Popen(command(place), cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.STDOUT, start_new_session=True)
    end = time.monotonic() + 300

    def done(): return [f for f in folders if (f / 'metrics.json').exists()]
    def begun(): return [f for f in folders if (f / 'log.jsonl').exists()]
    while time.monotonic() < end and process.poll() is None and not (done() and len(begun()) > 1): time.sleep(.02)
    family = psutil.Process(process.pid).children(recursive=True) # papermill and its kernel, which has a session of its own
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for one in family: kill(one)
    psutil.wait_procs(family, timeout=30)
    assert len(done()) == 1 and len(begun()) == 2, 'killed in the second run'
    return folders, broken, sweep(place, environment)


def test_a_failed_run_fails_alone(swept):
    folders, broken, (code, said) = swept
    assert code != 0 and '2 of 3 runs done' in said, said[-3000:]
    assert [f for f in folders if not (f / 'metrics.json').exists()] == [broken]
    assert 'holds another configuration' in (broken / 'train.ipynb').read_text(), 'its notebook is kept, with the error'


def test_killed_and_started_again(swept, place, environment):
    "The table is that of runs that nobody disturbed and that warmed up alone, with a dash for the run that failed."
    from simseg.tables import build
    (place / 'alone').mkdir()
    for folder in swept[0]:
        if folder == swept[1]: continue
        lambda1 = str(json.loads((folder / 'config.json').read_text())['lambda1'])
        values = ['--preset', 'smoke', '--method', 'sim', '--precision', '32', '--lambda1', lambda1, '--out', str(place / 'alone')]
        assert python(['-m', 'simseg.training', *values], environment).returncode == 0
    setting, table = declared(place)
    (ours, text), (theirs, _) = (build(setting, [table], place / runs, place / f'tables-{runs}') for runs in ('runs', 'alone'))
    last = -3 # columns: minutes, commit, device
    ours, theirs = ([line.split(',')[:last] for line in path.read_text().splitlines()] for path in (ours, theirs))
    assert ours == theirs and len(ours) == 4 and ours[1] != ours[2]
    shared, = (place / 'warmups').glob('*/s0')
    origins = [json.loads((folder / 'provenance.json').read_text()) for folder in swept[0] if folder != swept[1]]
    assert all(shared.parent.name.endswith(o['branched']['run_hash']) for o in origins), 'and all of them went on from one warm-up'
    assert '| 0.7 | 31.4 | – |' in text.read_text() and '| 0.1 | 31.9 | – |' not in text.read_text()


def test_complete_schedules_nothing(swept, place, environment):
    code, said = sweep(place, environment, '-n')
    assert code == 0 and 'rule train_s0' in said
    shutil.move(place / 'warmups', place / 'gone') # no record needs its warm-up again: a clone has none
    (swept[1] / 'metrics.json').write_text('{}')
    try: code, said = sweep(place, environment, '-n')
    finally:
        (swept[1] / 'metrics.json').unlink()
        shutil.move(place / 'gone', place / 'warmups')
    assert code == 0 and 'Nothing to be done' in said and 'rule train_s0' not in said and 'rule warmup_s0' not in said


def test_slurm_takes_the_same_file(swept, place, environment):
    cluster = ['--executor', 'slurm', '--jobs', '2', '--default-resources', 'slurm_partition=gpu', 'slurm_account=none']
    code, said = sweep(place, environment, '-n', *cluster)
    assert code == 0 and 'rule train_s0' in said, said[-2000:]


def _session(pid):
    try: return os.getsid(pid)
    except OSError: return None


def test_forked_runs_are_the_sweeps(place, environment, tmp_path):
    "`experiments/at_once.py`, which forks its runs from one process: the same weights as a run of its own; one that fails does so alone."
    out = tmp_path / 'runs'
    def at_once(*more):
        words = ['smoke', '--tables', 's9', '--experiments', place / 'experiments', '--runs', '2', '--out', out]
        return python(['experiments/at_once.py', *words, *more], environment)
    done = at_once('--minutes', '0')
    assert done.returncode == 0 and '0 of 3 runs done, 0 begun' in done.stdout.splitlines()[-1], 'no time'
    done = at_once('--pace', tmp_path / 'pace.csv')
    assert done.returncode == 0, done.stdout + done.stderr
    found = {p.parent: json.loads(p.read_text()) for p in out.glob('*/*/metrics.json')}
    assert len(found) == 3 and 'runs_an_hour' in (tmp_path / 'pace.csv').read_text()
    folder = next(p for p in found if json.loads((p / 'config.json').read_text())['lambda1'] == .7)
    own = ['-m', 'simseg.training', '--preset', 'smoke', '--precision', '32', '--lambda1', '.7', '--out', tmp_path / 'own']
    assert python(own, environment).returncode == 0
    other = next((tmp_path / 'own').glob('*/*/model.pt'))
    a, b = (torch.load(p, weights_only=True)['model'] for p in (folder / 'model.pt', other))
    assert other.parent.parent.name == folder.parent.name and all(torch.equal(v, b[k]) for k, v in a.items())
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / 'config.json').mkdir() # in the way
    done = at_once()
    assert done.returncode == 1 and f'{folder.name}/train.log: code 1' in done.stdout and '2 of 3 runs done' in done.stdout


def test_forked_runs_stop_together_and_go_on(place, environment, tmp_path):
    "SIGTERM to the one that forked them: each saves its step, none stays behind, and the same command goes on from there."
    (tmp_path / 'e').mkdir()
    shutil.copy(place / 'experiments/settings.yaml', tmp_path / 'e')
    (tmp_path / 'e/s9.yaml').write_text(re.sub(r'lambda1: (0.[17])}', r'lambda1: \1, steps: 40}', ROWS))
    where = ['--experiments', str(tmp_path / 'e'), '--out', str(tmp_path / 'runs')]
    words = ['experiments/at_once.py', 'smoke', '--tables', 's9', '--runs', '3', *where]
    parent = Python(words, environment, session=True)
    def begun(): # past the warm-up that they share, which their logs begin with
        logs = [p for p in (tmp_path / 'runs').glob('*/*/log.jsonl') if json.loads((p.parent / 'config.json').read_text())['steps'] == 40]
        return [p.parent for p in logs if p.read_text().count('\n') > 4] if len(logs) == 2 else []
    while len(begun()) < 2 and parent.poll() is None: time.sleep(.02)
    os.kill(parent.pid, signal.SIGTERM)
    assert parent.wait(120).returncode == 130 and not [p for p in psutil.process_iter() if _session(p.pid) == parent.pid]
    steps = {folder: torch.load(folder / 'last.pt', weights_only=True)['step'] for folder in begun()}
    for folder, step in steps.items():
        assert 4 < step < 40 and json.loads((folder / 'log.jsonl').read_text().splitlines()[-1])['step'] == step
        assert f'Stopped after step {step} of 40' in (folder / 'train.log').read_text()
    assert len(steps) == 2 and python(words, environment).returncode == 0
    assert all(json.loads((folder / 'provenance.json').read_text())['resumed'] == 1 for folder in steps)
