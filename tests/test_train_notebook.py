"The commands of the README, word for word, through real subprocesses and a real terminal where they train. IN_TEST makes it the smoke preset."
import json, os, pty, re, select, subprocess, sys, sysconfig, time
from pathlib import Path

import pytest
from conftest import ROOT, clean_env, python

BIN = Path(sysconfig.get_path('scripts'))


def shell(**changes):
    return clean_env(IN_TEST='1', PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}", PYTHONPATH=str(ROOT), **changes)


@pytest.fixture
def cache(tmp_path): return dict(SIMSEG_CACHE=str(tmp_path / 'cache'))


def outputs(path):
    cells = json.loads(Path(path).read_text(encoding='utf-8'))['cells']
    return [o for cell in cells for o in cell.get('outputs', [])], cells


def check(path, mu):
    "The executed notebook trained with this mu and shows its pictures; returns the folder of its run."
    shown, cells = outputs(path)
    assert not [o for o in shown if o['output_type'] == 'error']
    assert sum('image/png' in o.get('data', {}) for o in shown) >= 3, 'training images, curves and predictions'
    folder = Path([o['data']['application/x-simseg-run'] for o in shown if 'application/x-simseg-run' in o.get('data', {})][-1])
    assert json.loads((folder / 'config.json').read_text())['mu'] == mu
    assert {'mask_AP', 'box_AP50', 'mask_APs'} <= json.loads((folder / 'metrics.json').read_text()).keys()
    assert any(f'mu = {mu}' in ''.join(cell['source']) for cell in cells), 'papermill injected the parameter'
    return folder


def test_papermill_to_standard_output(tmp_path, cache):
    "`papermill nbs/train.ipynb -p mu 5.0` writes the executed notebook to a stdout that is no terminal."
    before = (ROOT / 'nbs/train.ipynb').read_bytes()
    with open(tmp_path / 'out.ipynb', 'wb') as out:
        done = subprocess.run('papermill nbs/train.ipynb -p mu 5.0', shell=True, cwd=ROOT, env=shell(**cache), stdin=subprocess.DEVNULL, stdout=out,
                              stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    check(tmp_path / 'out.ipynb', 5.0)
    assert (ROOT / 'nbs/train.ipynb').read_bytes() == before


def in_terminal(command, env, cwd, limit=300):
    "Run a command whose standard streams are a terminal. Returns (exit code, what it showed)."
    parent, child = pty.openpty()
    process = subprocess.Popen(command, shell=True, cwd=cwd, env=env, stdin=child, stdout=child, stderr=child, start_new_session=True)
    os.close(child)
    shown, end = b'', time.monotonic() + limit
    while time.monotonic() < end:
        if select.select([parent], [], [], 1)[0]:
            try: part = os.read(parent, 65536)
            except OSError: break # the terminal closes with the process
            if not part: break
            shown += part
        elif process.poll() is not None: break
    else: process.kill()
    os.close(parent)
    return process.wait(), shown.decode(errors='replace')


def test_papermill_in_a_terminal(tmp_path, cache):
    "In a terminal papermill wants the output's path: the form that the README gives."
    code, shown = in_terminal('papermill nbs/train.ipynb -p mu 5.0', shell(**cache), ROOT)
    assert code != 0 and 'OUTPUT_PATH' in shown, shown[-2000:]
    code, shown = in_terminal(f'papermill nbs/train.ipynb {tmp_path}/out.ipynb -p mu 2.5', shell(**cache), ROOT)
    assert code == 0, shown[-3000:]
    check(tmp_path / 'out.ipynb', 2.5)


def test_wrong_parameter_stops_before_training(tmp_path, cache):
    "Here a name that the notebook does not know, of which papermill itself only warns; what `config` refuses it tests itself."
    done = python(['-m', 'papermill', 'nbs/train.ipynb', tmp_path / 'out.ipynb', '-p', 'lamda1', '.5'], shell(**cache))
    assert done.returncode != 0 and "Did you mean 'lambda1'?" in done.stderr
    assert not (tmp_path / 'cache').exists(), 'nothing was made before the parameters were checked'


def test_command_line(tmp_path, cache):
    command = [sys.executable, '-m', 'simseg.training', '--preset', 'smoke', '--method', 'supervised', '--out', str(tmp_path / 'runs')]
    done = subprocess.run(command, cwd=tmp_path, env=shell(**cache), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r'mask_AP50 +\d', done.stdout) and 's0' in done.stdout
    wrong = python([*command[1:], '--lambda1', '-1'], shell(**cache), tmp_path)
    assert wrong.returncode == 2 and 'lambda1 must not be negative' in wrong.stderr and 'Traceback' not in wrong.stderr


def test_every_parameter_of_the_method_is_in_the_notebook():
    "papermill -p reaches all of SIM's parameters, and every name in the parameter cell is one that `config` knows and the notebook passes on."
    from dataclasses import fields

    from simseg.config import Config
    cells = json.loads((ROOT / 'nbs/train.ipynb').read_text(encoding='utf-8'))['cells']
    source, = (''.join(c['source']) for c in cells if 'parameters' in c['metadata'].get('tags', []))
    names = set(re.findall(r'^(\w+) = None', source, re.M))
    method = 'mu tau_low tau_high tau lambda1 lambda2 alpha prototypes prototype_momentum ema_momentum bank rectification'
    assert set(method.split()) <= names <= {f.name for f in fields(Config)}
    passed, = (''.join(c['source']) for c in cells if 'parameters = (' in ''.join(c['source']))
    assert set(re.findall(r'\w+', ''.join(re.findall(r"'([^']*)'", passed.split('parameters = ')[1].split('.split')[0])))) | {'preset'} == names


def test_papermill_sets_what_the_cell_does_not_name():
    "Fields of `config` that papermill injects reach it; of several such cells, as after a second run in one kernel, the last counts."
    cells = json.loads((ROOT / 'nbs/train.ipynb').read_text(encoding='utf-8'))['cells']
    named, = (''.join(c['source']) for c in cells if 'parameters' in c['metadata'].get('tags', []))
    body, = (''.join(c['source']) for c in cells if 'parameters = (' in ''.join(c['source']))
    space = {'In': ['', '# Parameters\ntypo = 1\n', named, '# Parameters\npreset = "smoke"\nhead_channels = 4\n']}
    exec(named, space)
    exec(space['In'][-1] + body, space)
    assert (space['c'].preset, space['c'].head_channels) == ('smoke', 4)
