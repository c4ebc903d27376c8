"What all tests share: where the repository is, which files belong to it, and an environment for subprocesses."
import os, subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault('OMP_NUM_THREADS', '1') # two tests run at a time; before anything imports torch
os.environ['HF_HUB_OFFLINE'] = '1' # nothing may be downloaded
SKIPPED = {'.git', '.venv', '__pycache__', '.pytest_cache', '.ruff_cache', '.ipynb_checkpoints', '.hypothesis'}


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
    "The environment for a subprocess: one thread, no screen, and IN_TEST only where it is asked for."
    env = {key: value for key, value in os.environ.items() if key != 'IN_TEST'}
    return env | {'OMP_NUM_THREADS': '1', 'MPLBACKEND': 'agg', 'PYTHONUNBUFFERED': '1'} | changes


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
