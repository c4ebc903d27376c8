"""Run the tests of Detectron2 where it is built, and write results/detectron2/tests.txt: versions, the outcome of each test, the count.

    make test-detectron2 PYTHON=/path/to/python        of the environment where it is built
    python experiments/detectron2/record.py -k resumed     arguments go to pytest; then nothing is written
"""
import datetime, importlib.metadata, json, platform, subprocess, sys, time
from pathlib import Path
from urllib.parse import urlparse

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ('detectron2', 'fvcore', 'torch', 'torchvision', 'timm', 'transformers', 'pycocotools', 'opencv-python-headless', 'numpy')


class Outcomes:
    "A plugin that keeps how each test ended."
    def __init__(self): self.found = {}

    def pytest_runtest_logreport(self, report):
        if report.when == 'call' or report.outcome != 'passed': self.found[report.nodeid] = report.outcome, report.duration


def head(folder): # commit of a checkout, or None
    done = subprocess.run(['git', '-C', str(folder), 'rev-parse', 'HEAD'], capture_output=True, text=True)
    return done.stdout.strip()[:12] if done.returncode == 0 else None


def built_from(name): # commit that an installed package was built from, where pip knows
    text = importlib.metadata.distribution(name).read_text('direct_url.json')
    origin = json.loads(text) if text else {}
    commit = origin.get('vcs_info', {}).get('commit_id') or head(urlparse(origin.get('url', '')).path or '.')
    return f', built from commit {commit[:12]} of github.com/facebookresearch/detectron2' if commit else ''


def version(name):
    try: return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError: return 'not installed'


def main(arguments):
    if version('detectron2') == 'not installed': sys.exit('Detectron2 is not built in this environment; README.md, "With Detectron2", says how.')
    outcomes, start = Outcomes(), time.monotonic()
    chosen = arguments or ['-k', 'detectron2', '--flags', 'detectron2']
    code = pytest.main(['-n', '0', 'tests/test_detectron2.py', 'tests/test_notebooks.py', *chosen], plugins=[outcomes])
    if arguments or not outcomes.found: return code
    from simseg.runs import device_name
    lines = [f"{datetime.date.today()}, simseg at commit {head(ROOT)}, {device_name()}", f'python {platform.python_version()}']
    lines += [f"{name} {version(name)}{built_from(name) if name == 'detectron2' else ''}" for name in PACKAGES] + ['']
    lines += [f'{outcome:8}{seconds:8.1f} s  {name}' for name, (outcome, seconds) in outcomes.found.items()]
    ends = [outcome for outcome, _ in outcomes.found.values()]
    lines += ['', f"{', '.join(f'{ends.count(e)} {e}' for e in dict.fromkeys(ends))} in {(time.monotonic() - start) / 60:.1f} minutes"]
    path = ROOT / 'results/detectron2/tests.txt'
    path.parent.mkdir(exist_ok=True)
    path.write_text('\n'.join(lines) + '\n')
    return code


if __name__ == '__main__': sys.exit(main(sys.argv[1:]))
