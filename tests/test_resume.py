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


def reached(out, process, step):
    "Waits until `step` steps are logged below `out`, or `process` has ended; returns the log."
    log, end = None, time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        log = log or next(out.glob('*/s0/log.jsonl'), None)
        if log and log.read_text().count('\n') >= step: break
        time.sleep(0.005)
    return log


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
        log = reached(tmp_path / 'runs', process, stop)
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


def stopped(out, process, stop):
    "Calls `stop` once five steps are logged; returns what `process` says of its end, and the step that is saved."
    log = reached(out, process, 5)
    stop()
    return process.wait(120), torch.load(log.parent / 'last.pt', weights_only=True)['step']


def goes_on(out, alone, step):
    assert 5 <= step < STEPS
    finish(start(out, alone / 'cache'))
    (ours, metrics), (theirs, reference) = weights(out), weights(alone / 'runs')
    assert equal(ours, theirs) and metrics == reference


@pytest.mark.parametrize('how_so', ['by hand', 'by a cluster'])
def test_stopped_and_resumed_is_bit_identical(how_so, alone, tmp_path):
    """Ctrl-C to one process; SIGTERM to every process of a job, the loader's too: the step it falls in is saved, the exit code is 130, the message
    says how to go on, and the same command does."""
    out, (arguments, env) = tmp_path / 'runs', how(tmp_path / 'runs', alone / 'cache')
    if how_so == 'by a cluster': arguments += ['--workers', '1']
    process = Python(arguments, env, session=True)
    kill = (os.killpg, signal.SIGTERM) if how_so == 'by a cluster' else (os.kill, signal.SIGINT)
    done, step = stopped(out, process, lambda: kill[0](process.pid, kill[1]))
    text = done.stdout + done.stderr
    assert done.returncode == 130 and 'goes on from there' in text and 'Traceback' not in text, text[-2000:]
    assert f'Stopped after step {step} of {STEPS}' in text
    goes_on(out, alone, step)


def test_stopped_unheard(alone, tmp_path):
    "The same after Ctrl-C when nobody reads on, as `| tee` leaves it: what Python does at its end with such a stdout is Python's own."
    out, (arguments, env) = tmp_path / 'runs', how(tmp_path / 'runs', alone / 'cache')
    process = subprocess.Popen([sys.executable, *arguments], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    code, step = stopped(out, process, lambda: (process.stdout.close(), process.send_signal(signal.SIGINT)))
    assert code == 130
    goes_on(out, alone, step)
