"What all tests share: where the repository is, which files belong to it, an environment for subprocesses, and Pythons that start fast."
import json, multiprocessing, os, runpy, socket, subprocess, sys, tempfile, time, types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault('OMP_NUM_THREADS', '1') # two tests run at a time; before anything imports torch
os.environ.setdefault('MPLBACKEND', 'agg')
os.environ['HF_HUB_OFFLINE'] = '1' # nothing may be downloaded
SKIPPED = {'.git', '.venv', '__pycache__', '.pytest_cache', '.ruff_cache', '.ipynb_checkpoints', '.hypothesis'}

SHARING = {f'tests/test_{name}.py' for name in ('figures', 'resume', 'sweep', 'warmup')} # whose tests share a costly fixture


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "Each test on the next free worker, those of a file of SHARING on one. (xdist's own marks for that are without effect under pytest 9.2.)"
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid): return file if (file := nodeid.split('::')[0]) in SHARING else nodeid

    return Scheduler(config, log)


def pytest_addoption(parser):
    parser.addoption('--flags', default='', help='notebook cells to run that are left out otherwise, for example "slow cuda"')


def repository_files() -> list[Path]:
    "Files that are committed or would be, as paths under ROOT; without git (an unpacked archive) all but the known caches."
    if (ROOT / '.git').exists():
        command = ['git', '-c', 'safe.directory=*', 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
        names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split('\0')
        found = [Path(name) for name in names if name]
    else:
        found = [path.relative_to(ROOT) for path in ROOT.rglob('*') if not SKIPPED & set(path.relative_to(ROOT).parts)]
    return sorted(path for path in set(found) if (ROOT / path).is_file())


def notebooks() -> list[Path]:
    "The notebooks that nbdev knows: those in nbs/, without names that begin with _."
    return sorted(path for path in (ROOT / 'nbs').rglob('*.ipynb')
                  if not any(part[0] in '._' for part in path.relative_to(ROOT / 'nbs').parts))


def clean_env(**changes) -> dict:
    "The environment for a subprocess: one thread, no screen, and IN_TEST only where it is asked for. A PYTHONPATH that is there stays, behind ours."
    kept = os.environ.get('PYTHONPATH')
    if kept and 'PYTHONPATH' in changes: changes['PYTHONPATH'] += os.pathsep + kept
    env = {key: value for key, value in os.environ.items() if key != 'IN_TEST'}
    return env | {'OMP_NUM_THREADS': '1', 'MPLBACKEND': 'agg', 'PYTHONUNBUFFERED': '1'} | changes


# What most processes of the tests would import first: some five seconds, paid once. simseg is not among it: each imports what it names and no more.
PRELOAD = '''torch torchvision timm lightning_fabric matplotlib.pyplot pandas scipy.stats pycocotools.mask
    transformers.models.mask2former.modeling_mask2former nbdev.test nbdev.showdoc fastcore.test IPython papermill.cli'''.split()


def _as_python(arguments, cwd, env, files, session):
    "In the forked process: what `python *arguments` would do."
    if session: os.setsid()
    for number, path in enumerate([os.devnull, *files]): os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    os.environ.clear(), os.environ.update(env)
    os.chdir(cwd)
    first, *rest = arguments
    if first in ('-c', '-m'): what, *rest = rest
    sys.path[:0] = ['' if first in ('-c', '-m') else str(Path(first).parent), *filter(None, env.get('PYTHONPATH', '').split(os.pathsep))]
    sys.argv[:] = [first, *rest]
    if first == '-m': runpy.run_module(what, run_name='__main__', alter_sys=True)
    elif first == '-c':
        main = sys.modules['__main__'] = types.ModuleType('__main__')
        exec(compile(what, '<string>', 'exec'), main.__dict__)
    else: runpy.run_path(first, run_name='__main__')


class Python:
    """A Python that runs `arguments` as `python *arguments` would, with -c, -m or a script: a fork of a server that has imported PRELOAD, which
    starts in a tenth of a second, with `session` as the first of a session. What is of Python itself (imports, its end) is tested by subprocess."""

    def __init__(self, arguments, env=None, cwd=None, session=False):
        context = multiprocessing.get_context('forkserver')
        context.set_forkserver_preload(PRELOAD)
        self.folder = tempfile.TemporaryDirectory()
        self.files = [os.path.join(self.folder.name, name) for name in ('stdout', 'stderr')]
        given = [str(a) for a in arguments], str(cwd or ROOT), clean_env() if env is None else env, self.files, session
        self.process = context.Process(target=_as_python, args=given)
        self.process.start()

    @property
    def pid(self): return self.process.pid

    def poll(self): return self.process.exitcode

    def kill(self): self.process.kill()

    def wait(self, timeout=None):
        "Its `returncode`, `stdout` and `stderr` when it has ended; one that has not after `timeout` seconds is killed, as its `returncode` says."
        self.process.join(timeout)
        if self.poll() is None: self.kill(), self.process.join()
        stdout, stderr = (Path(f).read_text(errors='replace') if os.path.exists(f) else '' for f in self.files)
        self.folder.cleanup()
        return subprocess.CompletedProcess((), self.poll(), stdout, stderr)


def python(arguments, env=None, cwd=None, timeout=400):
    "Runs a `Python` to its end; returns its `returncode`, `stdout` and `stderr`."
    return Python(arguments, env, cwd).wait(timeout)


HERE = """
import json, sys
import nbformat, papermill
from execnb.shell import CaptureShell
from papermill.engines import Engine, papermill_engines

class Here(Engine):
    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **how):
        shell = CaptureShell()
        for index, cell in enumerate(nb_man.nb.cells):
            if cell.cell_type != 'code': continue
            nb_man.cell_start(cell, index)
            cell.outputs = [nbformat.from_dict(output) for output in shell.run(cell.source)]
            if shell.exc: nb_man.cell_exception(cell, index, exception=shell.exc); return
            nb_man.cell_complete(cell, index)

papermill_engines.register('here', Here)
how = dict(engine_name='here', kernel_name='python3', language='python', progress_bar=False)
papermill.execute_notebook(*sys.argv[1:3], json.loads(sys.argv[3]), **how)
"""


def papermill(notebook, out, parameters, env=None, timeout=400):
    "What papermill makes of `notebook`, in a `Python` from the top of the repository, without the process of a kernel."
    given = json.dumps({k: v if isinstance(v, int | float) else str(v) for k, v in parameters.items()})
    return python(['-c', HERE, ROOT / notebook, out, given], env, timeout=timeout)


def ranks(arguments, world=2, env=None, cwd=None, timeout=400):
    "Runs `world` of them side by side with what torchrun would tell each; where one fails, the rest are ended. Returns what the first one printed."
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = str(s.getsockname()[1])
    told = dict(WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world), GROUP_RANK='0', MASTER_ADDR='127.0.0.1', MASTER_PORT=port,
                TORCHELASTIC_RUN_ID='test', GLOO_SOCKET_IFNAME='lo') if world > 1 else {}
    env = clean_env() if env is None else env
    each = [Python(arguments, env | told | (dict(RANK=str(r), LOCAL_RANK=str(r)) if told else {}), cwd) for r in range(world)]
    end = time.monotonic() + timeout
    while None in (ends := [p.poll() for p in each]) and not any(ends) and time.monotonic() < end: time.sleep(.05)
    done = [p.wait(0) for p in each]
    for rank, d in enumerate(done): assert d.returncode == 0, f'rank {rank} ended with {d.returncode}\n{d.stdout[-2000:]}{d.stderr[-4000:]}'
    return done[0].stdout


@pytest.fixture
def env():
    "An environment for subprocesses without IN_TEST, which nbdev's runner sets for its whole process."
    return clean_env()


@pytest.fixture(scope='module')
def scene_cache(tmp_path_factory):
    "The embedded scenes of a module's tests are drawn once, in a folder of their own."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('SIMSEG_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield
