"Nothing is lost: a training process is killed without warning and started again; its weights are those of one left alone."
import os, random, signal, subprocess, sys, time

import pytest
import torch
from conftest import ROOT, Python, clean_env

STEPS = 30


def how(out, cache):
    "Arguments and environment of a Python that trains."
    arguments = ['-m', 'simseg.training', '--preset', 'smoke', '--steps', str(STEPS), '--save_every', '4', '--evaluate', 'teacher', '--device', 'cpu',
                 '--out', str(out)]
    return arguments, clean_env(PYTHONPATH=str(ROOT), SIMSEG_CACHE=str(cache))


def start(out, cache): return Python(*how(out, cache))


def finish(process):
    done = process.wait(300)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def weights(out):
    folder, = out.glob('*/s0')
    last = torch.load(folder / 'last.pt', weights_only=True)
    return {name: last[name] for name in ('model', 'teacher', 'memory', 'step')}, (folder / 'metrics.json').read_text()


def equal(a, b):
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, dict): return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp('alone')
    finish(start(folder / 'runs', folder / 'cache'))
    return folder


def test_killed_and_resumed_is_bit_identical(alone, tmp_path):
    chance = random.Random(20)
    stops = sorted(chance.sample(range(2, STEPS - 1), 2))
    for stop in stops:
        process = start(tmp_path / 'runs', alone / 'cache')
        log, end = None, time.monotonic() + 120
        while time.monotonic() < end and process.poll() is None:
            log = log or next((tmp_path / 'runs').glob('*/s0/log.jsonl'), None)
            if log and log.read_text().count('\n') >= stop: break
            time.sleep(0.005)
        process.kill()
        assert process.wait().returncode == -signal.SIGKILL
        assert not list((tmp_path / 'runs').glob('*/s0/metrics.json')), 'killed before its end'
        assert log and log.read_text().count('\n') >= stop
    finish(start(tmp_path / 'runs', alone / 'cache'))
    (ours, metrics), (theirs, reference) = weights(tmp_path / 'runs'), weights(alone / 'runs')
    assert ours['step'] == STEPS and equal(ours, theirs) and metrics == reference
    assert len(ours['memory']['bank']['entries']) > 2, 'the bank is part of it'
    other = {k: v + 1e-7 if v.is_floating_point() else v for k, v in ours['model'].items()}
    assert not equal(dict(ours, model=other), theirs), 'the comparison can fail'


def test_asked_twice_it_runs_once(alone):
    folder, = (alone / 'runs').glob('*/s0')
    before = (folder / 'last.pt').stat().st_mtime_ns
    finish(start(alone / 'runs', alone / 'cache'))
    assert (folder / 'last.pt').stat().st_mtime_ns == before


@pytest.mark.parametrize('how_so', ['by hand', 'by a cluster', 'unheard'])
def test_stopped_and_resumed_is_bit_identical(how_so, alone, tmp_path):
    """Ctrl-C to one process; SIGTERM to every process of a job, the loader's too; Ctrl-C after which nobody reads on, as `| tee` leaves it: the step
    it falls in is saved, the exit code is 130, the message says how to go on, and the same command does."""
    arguments, env = how(tmp_path / 'runs', alone / 'cache')
    if how_so == 'by a cluster': arguments += ['--workers', '1']
    if how_so == 'unheard': # what Python does at its end with a stdout that nobody reads is Python's own
        process = subprocess.Popen([sys.executable, *arguments], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    else: process = Python(arguments, env, session=True)
    log, end = None, time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        log = log or next((tmp_path / 'runs').glob('*/s0/log.jsonl'), None)
        if log and log.read_text().count('\n') >= 5: break
        time.sleep(0.005)
    if how_so == 'by a cluster': os.killpg(process.pid, signal.SIGTERM)
    else:
        if how_so == 'unheard': process.stdout.close()
        os.kill(process.pid, signal.SIGINT)
    ended, text = process.wait(120), ''
    if how_so != 'unheard': ended, text = ended.returncode, ended.stdout + ended.stderr
    assert ended == 130 and (how_so == 'unheard' or 'goes on from there' in text) and 'Traceback' not in text, text[-2000:]
    step = torch.load(log.parent / 'last.pt', weights_only=True)['step']
    assert 5 <= step < STEPS and (how_so == 'unheard' or f'Stopped after step {step} of {STEPS}' in text)
    finish(start(tmp_path / 'runs', alone / 'cache'))
    (ours, metrics), (theirs, reference) = weights(tmp_path / 'runs'), weights(alone / 'runs')
    assert equal(ours, theirs) and metrics == reference
