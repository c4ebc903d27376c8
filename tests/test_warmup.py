"Runs of a seed share one warm-up: started together, killed in it and after it, they end as runs that warmed up alone. Forked processes."
import json, signal, time

import pytest
import torch
from conftest import ROOT, Python, clean_env
from test_resume import equal

STEPS, END = 30, 3 # a ninth of the steps is warm-up


def start(place, runs, warmups, *more):
    env = clean_env(PYTHONPATH=str(ROOT), SIMSEG_CACHE=str(place / 'cache'))
    return Python(['-m', 'simseg.training', '--preset', 'smoke', '--steps', str(STEPS), '--save_every', '2', '--device', 'cpu',
                   '--out', str(place / runs), '--warmups', str(place / warmups) if warmups else '', *more], env)


def finish(*processes):
    for process in processes:
        done = process.wait(800)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def kill_at(process, folder, lines):
    "Kills the process without warning when the log under `folder` has so many lines."
    end = time.monotonic() + 500
    while time.monotonic() < end and process.poll() is None:
        log = next(folder.glob('*/s0/log.jsonl'), None)
        if log and log.read_text().count('\n') >= lines: break
        time.sleep(.005)
    process.kill()
    assert process.wait().returncode == -signal.SIGKILL, 'killed before its end'


def left(folder):
    "All that a run leaves but its times, and its provenance."
    last = torch.load(folder / 'last.pt', weights_only=True)
    log = [{k: v for k, v in json.loads(line).items() if k != 'seconds'} for line in (folder / 'log.jsonl').read_text().splitlines()]
    return [last, log, json.loads((folder / 'metrics.json').read_text())], json.loads((folder / 'provenance.json').read_text())


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    place = tmp_path_factory.mktemp('alone')
    finish(start(place, 'alone', None))
    return place


def test_killed_and_branched_is_bit_identical(alone):
    "Killed in the shared warm-up, then after it has branched: it goes on from both, to the weights, prototypes, bank, log and metrics of one alone."
    kill_at(start(alone, 'branched', 'warm'), alone / 'warm', 2)
    warm, = (alone / 'warm').glob('*/s0')
    assert not (warm / 'metrics.json').exists() and not list((alone / 'branched').glob('*/s0/last.pt'))
    kill_at(start(alone, 'branched', 'warm'), alone / 'branched', 12)
    made = (warm / 'last.pt').stat().st_mtime_ns
    assert json.loads((warm / 'metrics.json').read_text()) == dict(steps=END)
    assert json.loads((warm / 'provenance.json').read_text())['resumed'] == 1
    finish(start(alone, 'branched', 'warm'))
    (one,), (other,) = ((alone / name).glob('*/s0') for name in ('alone', 'branched'))
    assert one.parent.name == other.parent.name, 'the same run'
    (theirs, told), (ours, tells) = left(one), left(other)
    assert equal(ours, theirs) and len(ours[0]['memory']['bank']['entries']) > 2
    assert [e['step'] for e in ours[1]] == list(range(1, STEPS + 1))
    assert 'branched' not in told and warm.parent.name.endswith(tells['branched']['run_hash']) and tells['resumed'] == 2
    assert {'commit', 'dirty', 'device', 'wall_seconds'} <= tells['branched'].keys()
    assert (warm / 'last.pt').stat().st_mtime_ns == made, 'made once'
    text = (other / 'config.json').read_text() + (other / 'provenance.json').read_text()
    assert str(alone) not in text, 'a record holds no path'


def test_two_at_once_make_one(alone):
    "Rows of one seed, started together: one makes the warm-up, the other waits for it; a row of another seed has its own."
    rows = [['--mu', '1'], ['--lambda1', '.3']]
    finish(*(start(alone, 'pair', 'shared', *row) for row in rows))
    warm, = (alone / 'shared').glob('*/s0')
    kept = [left(folder) for folder in sorted((alone / 'pair').glob('*/s0'))]
    assert len(kept) == 2 and len({provenance['branched']['run_hash'] for _, provenance in kept}) == 1
    assert equal(kept[0][0][1][:END], kept[1][0][1][:END]) and not equal(kept[0][0][0]['model'], kept[1][0][0]['model'])
    log = [json.loads(line) for line in (warm / 'log.jsonl').read_text().splitlines()]
    assert [e['step'] for e in log] == [1, 2, 3], 'nobody else wrote into it'
