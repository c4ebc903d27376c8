"Every notebook runs from top to bottom by nbdev's own runner, each in a process of its own, and is not changed by it."
import json

import pytest
from conftest import ROOT, notebooks, python

TIMEOUT = 900 # seconds for one notebook
RUN = """
import sys, json
from pathlib import Path
from nbdev.config import get_config
from nbdev.test import test_nb
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
    done = run_notebook(path)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and 'two is not three' in said and 'kept == 3' in said
    cells[1] = nbformat.v4.new_code_cell('#| slow\nassert kept == 3')
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    assert run_notebook(path).returncode == 0
    assert run_notebook(path, flags=['slow']).returncode == 1
