"Checkpoints under a kill at every point of a write, training without a network, nothing that runs from a file, the same bits again."
import ast, contextlib, io, os, re, signal, subprocess, sys

import pytest
import torch
from conftest import ROOT, clean_env
from simseg import runs
from simseg.config import config
from simseg.loop import IN_ANY_ORDER, make_fabric
from simseg.training import train


def state(step): return dict(step=step, model=dict(w=torch.full((200, 50), float(step))))


def killed_at(path, step, point):
    "Save in a process of its own that is killed at system call number `point` of the write, before it or after. Whether it was killed."
    child = os.fork()
    if child: return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    calls = [0]
    def count():
        calls[0] += 1
        if calls[0] == point: os.kill(os.getpid(), signal.SIGKILL)
    def watched(call):
        def inner(*words):
            count()
            result = call(*words)
            count()
            return result
        return inner
    os.fsync, os.replace, plain = watched(os.fsync), watched(os.replace), torch.save
    def save(value, file): # in two parts, with a place to be killed between
        content = io.BytesIO()
        plain(value, content)
        content = content.getvalue()
        file.write(content[:len(content) // 2])
        file.flush()
        count()
        file.write(content[len(content) // 2:])
    torch.save = save
    runs.save_checkpoint(path, state(step))
    os._exit(0)


def test_kill_inside_a_checkpoint_write(tmp_path):
    path, step, points, seen = tmp_path / 'last.pt', 1, 0, set()
    runs.save_checkpoint(path, state(1))
    while killed_at(path, step + 1, points + 1):
        points += 1
        found = runs.load_checkpoint(path)
        assert found['step'] in (step, step + 1) and found['model']['w'].eq(found['step']).all()
        seen.add(found['step'] - step)
        step += 1
        runs.save_checkpoint(path, state(step)) # what goes on from there
        runs.save_checkpoint(path, state(step))
    assert points >= 8 and seen == {0, 1}, 'before the last rename the old one counts, after it the new one'
    assert runs.load_checkpoint(path)['step'] == step + 1, 'the one that was not killed'


ALONE = """
import sys
def refuse(event, words):
    if event.startswith('socket.') or event in ('urllib.Request', 'http.client.connect'): raise RuntimeError(f'{event} {words}')
    if event == 'pickle.find_class' and armed: raise RuntimeError(f'{event} {words}')
armed = []
sys.addaudithook(refuse)
import socket
try: socket.socket(); raise SystemExit('the hook does nothing')
except RuntimeError: pass
from pathlib import Path
from simseg.training import load_model, main
from simseg.predict import main as predict
out = Path(sys.argv[1])
main(['--preset', 'smoke', '--device', 'cpu', '--out', str(out / 'runs')])
armed.append(True)
run, = (out / 'runs').glob('*/s0')
load_model(run)
image = next((out / 'cache').rglob('*.jpg'))
sys.exit(predict([str(run), str(image), '--out', str(out / 'found'), '--quiet']))
"""


def test_no_network_and_no_pickle(tmp_path):
    "Data, training, evaluation and prediction with every socket refused; loading the checkpoint imports nothing by name."
    done = subprocess.run([sys.executable, '-c', ALONE, str(tmp_path)], cwd=tmp_path, text=True, stdin=subprocess.DEVNULL, capture_output=True,
                          env=clean_env(PYTHONPATH=str(ROOT), SIMSEG_CACHE=str(tmp_path / 'cache')))
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize('folder', ['simseg', 'experiments'])
def test_no_code_is_read_from_files(folder):
    """Every torch.load is weights_only; pickle is not loaded, and read without its code in one place; eval and shell=True do not occur, exec once:
    for the plugin that whoever trains has named. Nothing but training runs one."""
    once = []
    for path in (ROOT / folder).rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if 'pickle' in [getattr(node, 'module', None), *(alias.name for alias in getattr(node, 'names', []) if isinstance(alias, ast.alias))]:
                assert path == ROOT / 'simseg/weight_files.py', path
            if not isinstance(node, ast.Call): continue
            name, more = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            if (path, name) == (ROOT / 'simseg/plugin.py', 'exec'): once.append(node); continue
            assert name not in ('eval', 'exec', 'os.system') and more.get('shell') != 'True', f'{path}: {name}'
            assert not name.startswith(('pickle.', 'marshal.', 'dill.')) and name != 'yaml.load', f'{path}: {name}'
            if name == 'torch.load': assert more.get('weights_only') == 'True', f'{path}: {name}'
            if name in ('np.load', 'numpy.load'): assert more.get('allow_pickle', 'False') == 'False', f'{path}: {name}'
    users = [path.name for path in (ROOT / folder).rglob('*.py') if re.search(r'^from \S*plugin import', path.read_text(), re.M)]
    assert (len(once), users) == ((1, ['training.py']) if folder == 'simseg' else (0, []))


def test_the_same_bits_again(tmp_path, monkeypatch):
    "Two runs of one seed, and one with two loader processes, end in the same weights, teacher, prototypes and metrics; another seed does not."
    monkeypatch.setenv('SIMSEG_CACHE', str(tmp_path / 'cache'))
    def end(name, **changes):
        run = train(config('smoke', device='cpu', out=str(tmp_path / name), **changes), progress=False)
        last = runs.load_checkpoint(run.folder / 'last.pt')
        return {k: last[k] for k in ('model', 'teacher', 'memory')}, run.metrics
    def equal(a, b):
        if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(equal, a, b))
        if isinstance(a, dict): return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
        return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    first = end('first')
    assert equal(first, end('second'))
    assert equal(first, end('workers', workers=2))
    assert not equal(first[0], end('other', seed=1)[0])


def test_sums_in_one_order(monkeypatch):
    "On a CPU always, on a GPU where a run asks for it, whatever an earlier run in this process asked for; then several threads give one gradient."
    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    for device, asked, wanted in (('cuda', True, True), ('cuda', False, False), ('cpu', True, True), ('cuda', False, False), ('cpu', False, True)):
        with contextlib.suppress(ValueError): make_fabric(config('smoke', device=device, deterministic=asked)) # ValueError: no GPU here
        assert torch.are_deterministic_algorithms_enabled() == wanted, (device, asked)
    threads, dice = torch.get_num_threads(), torch.Generator().manual_seed(0)
    x, index, w = torch.zeros(8, 64, requires_grad=True), torch.randint(8, (20000,), generator=dice), torch.rand(20000, 64, generator=dice)
    torch.set_num_threads(2)
    try: grads = [torch.autograd.grad((x[index] * w).sum(), x)[0] for _ in range(30)] # without it some differ, where two cores are free
    finally: torch.set_num_threads(threads)
    assert all(torch.equal(g, grads[0]) for g in grads)


# what torch.use_deterministic_algorithms lists as without a deterministic kernel on CUDA, as operators; replicate padding and bilinear
# interpolation, which it takes apart into others while that mode is on, left out
NO_KERNEL = ('adaptive_avg_pool', 'adaptive_max_pool', 'avg_pool3d_backward', 'fractional_max_pool', 'max_unpool', 'reflection_pad',
             'nll_loss2d', 'ctc_loss', 'put.', 'histc', 'median', 'kthvalue', 'grid_sampler_2d_backward', 'embedding_bag', 'weighted bincount')


@pytest.mark.parametrize('head', ['condinst', 'mask2former'])
def test_what_has_no_deterministic_kernel_is_named(head, tmp_path, monkeypatch):
    from torch.utils._python_dispatch import TorchDispatchMode
    monkeypatch.setenv('SIMSEG_CACHE', str(tmp_path / 'cache'))
    ran = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            name, kwargs = str(operator).removeprefix('aten.').removeprefix('_'), kwargs or {}
            if name.startswith('bincount') and [*args[1:2], kwargs.get('weights')][0] is not None: name = f'weighted {name}'
            ran.add(name)
            return operator(*args, **kwargs)

    how = dict(preset='smoke', device='cpu', head=head, tau_low=.5, tau_high=.5, out=str(tmp_path), deterministic=True)
    for method in ('sim', 'supervised'):
        with Watch(): train(config(**how, method=method), progress=False)
    found = {n.split('.')[0].replace('nll_loss2d_forward', 'nll_loss2d').replace('nll_loss2d_backward', 'nll_loss2d')
             for n in ran if n.startswith(NO_KERNEL)}
    assert found == set(IN_ANY_ORDER[head])
    assert len(ran) > 50
