"""Every notebook runs from top to bottom by nbdev's own runner, each in a process of its own, and is not changed by it. fastcore's comparisons
broadcast, and cut the longer of two lists: here both sides must have one shape."""
import json

import pytest
from conftest import ROOT, notebooks, papermill, python

TIMEOUT = 900 # seconds for one notebook
RUN = """
import sys, json
from pathlib import Path
import fastcore.test
from nbdev.config import get_config
from nbdev.test import test_nb

def shape(x):
    own = getattr(x, 'shape', None)
    return own if isinstance(own, tuple) else (len(x),) if isinstance(x, (list, tuple)) else None
def strict(compare):
    def compare_alike(a, b, *more, **how):
        ours, theirs = shape(a), shape(b)
        if ours and theirs: # neither is a number
            n = 1 if isinstance(a, (list, tuple)) or isinstance(b, (list, tuple)) else None # of a list the length alone
            assert ours[:n] == theirs[:n], f'alike only by broadcasting: shapes {ours} and {theirs}'
        return compare(a, b, *more, **how)
    return compare_alike
for name in ('test_eq', 'test_close'): setattr(fastcore.test, name, strict(getattr(fastcore.test, name)))
skip, force = get_config().tst_flags.split(), json.loads(sys.argv[2])
passed, seconds = test_nb(Path(sys.argv[1]), skip_flags=skip, force_flags=force, basepath=get_config().config_path)
print(f'{seconds:.1f} seconds')
sys.exit(0 if passed else 1)
"""


def run_notebook(path, flags=()):
    "Runs the notebook at `path` as nbdev_test does, from the notebook's own folder; returns the finished process."
    return python(['-c', RUN, path, json.dumps(list(flags))], cwd=path.parent, timeout=TIMEOUT)


def name(path): return str(path.relative_to(ROOT / 'nbs')).removesuffix('.ipynb')


@pytest.mark.parametrize('path', notebooks(), ids=name)
def test_notebook(path, request):
    before = path.read_bytes()
    done = run_notebook(path, request.config.getoption('--flags').split())
    if done.returncode: pytest.fail(f'{path.relative_to(ROOT)} failed (status {done.returncode})\n{done.stdout}{done.stderr}', pytrace=False)
    assert path.read_bytes() == before, 'the notebook changed while it ran'


def test_a_failing_cell_is_seen(tmp_path):
    "The runner reports the cell, the error and its line; a test that could not fail would be worth nothing."
    import nbformat
    cells = [nbformat.v4.new_code_cell('kept = 2'), nbformat.v4.new_code_cell('assert kept == 3, "two is not three"')]
    (tmp_path / 'settings.ini').write_text((ROOT / 'settings.ini').read_text())
    (tmp_path / 'nbs').mkdir()
    path = tmp_path / 'nbs' / '00_wrong.ipynb'
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    done = papermill(path, tmp_path / 'out.ipynb', {})
    assert done.returncode == 1 and 'two is not three' in done.stderr, 'without a kernel too'
    done = run_notebook(path)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and 'two is not three' in said and 'kept == 3' in said
    cells[1] = nbformat.v4.new_code_cell('#| slow\nassert kept == 3')
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    assert run_notebook(path).returncode == 0
    assert run_notebook(path, flags=['slow']).returncode == 1
    for code in ('test_eq(torch.zeros(3, 4), torch.zeros(4))', 'test_close([1., 2.], [1.])'):
        cells = [nbformat.v4.new_code_cell(f'import torch\nfrom fastcore.test import test_close, test_eq\n{code}')]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        done = run_notebook(path)
        assert done.returncode == 1 and 'alike only by broadcasting' in done.stdout + done.stderr
