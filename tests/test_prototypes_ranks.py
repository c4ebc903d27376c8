"Prototypes of two processes on the CPU (gloo) under torchrun are those of one process on the joint batch."
import json, subprocess, sys

import pytest
from conftest import ROOT, clean_env

TORCHRUN = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
WORKER = str(ROOT / 'tests' / 'prototypes_worker.py')


def ranks(arguments):
    env = clean_env(PYTHONPATH=str(ROOT), GLOO_SOCKET_IFNAME='lo')
    done = subprocess.run([sys.executable, *arguments], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout[done.stdout.index('RESULT') + 6:].splitlines()[0])


@pytest.fixture(scope='module')
def alone():
    return ranks([WORKER, 'alone'])[0]


@pytest.mark.parametrize('kind', ['half', 'classes', 'nothing'])
def test_two_ranks_are_one(kind, alone):
    "Half of the pixels each; classes that the other rank lacks; one rank with nothing, in turn."
    first, second = ranks([*TORCHRUN, WORKER, kind])
    assert first == second, 'the ranks end alike, to the bit'
    assert first['vectors'] == pytest.approx(alone['vectors'], abs=1e-5)
    assert first['seen'] == alone['seen'] and 0 < sum(alone['seen']) == 40, 'four classes of ten have been seen'
    assert first['plan'] == pytest.approx(alone['plan'], abs=1e-6), "the plan's marginals are those of the joint batch"
    for one, two in zip(alone['health'], first['health'], strict=True): assert two == pytest.approx(one, abs=1e-5)
    assert alone['health'][4] == dict(used=0, balance=0, moved=0), 'a step without pixels'
    assert all(h['used'] > 0.9 and h['moved'] > 0 for h in (alone['health'][k] for k in (1, 2, 3, 5)))
