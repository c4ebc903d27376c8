"Prototypes of two processes on the CPU (gloo) are those of one process on the joint batch."
import json

import pytest
import conftest
from conftest import ROOT, clean_env


def ranks(kind, world):
    text = conftest.ranks([ROOT / 'tests' / 'prototypes_worker.py', kind], world, clean_env(PYTHONPATH=str(ROOT)), timeout=200)
    return json.loads(text[text.index('RESULT') + 6:].splitlines()[0])


@pytest.fixture(scope='module')
def alone():
    return ranks('alone', 1)[0]


@pytest.mark.parametrize('kind', ['half', 'classes', 'nothing'])
def test_two_ranks_are_one(kind, alone):
    "Half of the pixels each; classes that the other rank lacks; one rank with nothing, in turn."
    first, second = ranks(kind, 2)
    assert first == second, 'the ranks end alike, to the bit'
    assert first['vectors'] == pytest.approx(alone['vectors'], abs=1e-5)
    assert first['seen'] == alone['seen'] and 0 < sum(alone['seen']) == 40, 'four classes of ten have been seen'
    assert first['plan'] == pytest.approx(alone['plan'], abs=1e-6), "the plan's marginals are those of the joint batch"
    for one, two in zip(alone['health'], first['health'], strict=True): assert two == pytest.approx(one, abs=1e-5)
    assert alone['health'][4] == dict(used=0, balance=0, moved=0), 'a step without pixels'
    assert all(h['used'] > 0.9 and h['moved'] > 0 for h in (alone['health'][k] for k in (1, 2, 3, 5)))
