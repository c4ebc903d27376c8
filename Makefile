# make help lists the commands. Needs only make and Python 3.11 to 3.13 with venv; everything is installed into .venv.
# PYTHON=/path/to/python chooses the interpreter of a new .venv; ARGS adds arguments to papermill or pytest.

PYTHON ?=
ARGS ?=
OUT ?= results/train.ipynb
WORKERS ?= 2
SETTING ?= tangle-quick
CORES ?= all
THREADS ?= 1

VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.ready-run
TEST := $(VENV)/.ready-test

IN_VENV := PATH="$(CURDIR)/$(BIN):$$PATH"
export JUPYTER_PREFER_ENV_PATH := 1
# timm's tqdm asks for Jupyter widgets, which nothing here needs
export PYTHONWARNINGS := ignore:IProgress not found
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONHOME

SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHONS := $(or $(PYTHON),python3.13 python3.12 python3.11 python3)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup train test test-detectron2 tables figures bench report lab export clean-notebooks lint

help: ## list the commands
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-24s %s\n", $$1, $$2 }'

train: $(RUN) ## train on the embedded data by nbs/train.ipynb; ARGS='-p preset smoke' sets parameters
	@mkdir -p "$(dir $(OUT))"
	$(IN_VENV) $(BIN)/papermill nbs/train.ipynb "$(OUT)" --kernel python3 --cwd . --log-output $(ARGS) </dev/null
	@$(IN_VENV) $(BIN)/python -c 'import sys; from simseg.training import keep_notebook; print("The run, with its executed notebook:", keep_notebook(sys.argv[1]).parent)' "$(OUT)"
	@echo "The executed notebook is $(OUT)"

test: $(TEST) ## run every notebook and the tests; ARGS='-k core' chooses among them
	$(IN_VENV) $(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

test-detectron2: $(if $(PYTHON),,$(TEST)) ## run what needs Detectron2 and record it; PYTHON=/path/to/python of the environment where it is built
	PYTHONPATH="$(CURDIR)" $(or $(PYTHON),$(BIN)/python) experiments/detectron2/record.py $(ARGS)

SWEEP := snakemake -s experiments/Snakefile --cores $(CORES) --keep-going --rerun-triggers mtime --rerun-incomplete --nolock
tables: $(TEST) ## train what SETTING's tables lack, then build them; DATA=folder, TABLES="s1 s2", SEEDS="0 1", THREADS of a run, ARGS for snakemake
	@code=0; $(IN_VENV) $(BIN)/$(SWEEP) $(ARGS) --config setting=$(SETTING) data="$(DATA)" tables="$(TABLES)" seeds="$(SEEDS)" threads=$(THREADS) || code=$$?; \
	$(IN_VENV) $(BIN)/python -m simseg.tables $(SETTING) $(if $(TABLES),--tables $(TABLES)) || code=$$?; exit $$code

report: $(TEST) ## renew every table from results/runs: the README's, results/README.md and results/tables
	$(BIN)/python -m simseg.report
	$(BIN)/python -m simseg.tables $(notdir $(wildcard results/tables/*)) --readme README.md --figure results/figures/tables.png >/dev/null
	$(BIN)/python experiments/one_knob.py >/dev/null
	$(BIN)/python experiments/mechanism.py >/dev/null

figures: $(RUN) ## draw figures S1-S4 in results/figures; without weights trains BoxInst and SIM first (some 15 minutes on two cores)
	@mkdir -p results/figures/local
	for n in 1 2 3 4; do $(IN_VENV) $(BIN)/papermill experiments/fig_s$$n.ipynb results/figures/local/fig_s$$n.ipynb --kernel python3 --cwd . \
	  $(ARGS) </dev/null || exit 1; done

bench: $(TEST) ## measure times and memory as ratios, into results/local/bench (long: name some parts); ARGS='-y "{parts: [textbook]}"' or those of a GPU
	@mkdir -p results/local/bench
	$(IN_VENV) $(BIN)/papermill experiments/bench/bench.ipynb results/local/bench/bench.ipynb --kernel python3 --cwd . $(ARGS) </dev/null

lab: $(TEST) ## open the notebooks in JupyterLab
	$(IN_VENV) $(BIN)/jupyter lab --notebook-dir=. --LabApp.default_url=/lab/tree/nbs/index.ipynb

export: $(TEST) ## write simseg/ from the notebooks
	$(IN_VENV) $(BIN)/nbdev_export

clean-notebooks: $(TEST) ## remove what should not be committed from the notebooks
	$(IN_VENV) $(BIN)/nbdev_clean

lint: $(TEST) ## check the style
	$(BIN)/ruff check .

setup: $(TEST) ## only install into .venv

# Makes .venv, or makes it anew if its Python does not start (moved with the folder, or its base was removed).
# One that starts is never removed; one without pip (stopped half way) gets it.
define ENVIRONMENT
if ! $(BIN)/python -c '' >/dev/null 2>&1; then \
  found=''; \
  for python in $(PYTHONS); do \
    if "$$python" -c '$(SUITABLE)' >/dev/null 2>&1; then found="$$python"; break; fi; \
  done; \
  if [ -z "$$found" ]; then \
    echo 'No Python 3.11, 3.12 or 3.13 with venv was found (tried: $(PYTHONS)).' >&2; \
    echo 'Install one (on Debian and Ubuntu python3-venv too), or name it: make PYTHON=/path/to/python3.12' >&2; exit 1; \
  fi; \
  echo "Making $(VENV) with $$("$$found" --version); some 5 GB (PyTorch) are installed once, in a few minutes"; \
  "$$found" -m venv --clear $(VENV) || exit 1; \
elif ! $(BIN)/python -c '$(SUITABLE)'; then \
  echo "$(VENV) is of $$($(BIN)/python --version); this project needs 3.11 to 3.13. Remove $(VENV) and try again." >&2; exit 1; \
elif ! $(BIN)/python -c 'import pip' 2>/dev/null; then \
  $(BIN)/python -m ensurepip --default-pip || exit 1; \
fi
endef

$(RUN): pyproject.toml settings.ini
	@$(ENVIRONMENT)
	$(BIN)/python -m pip install --editable .
	@touch $@

$(TEST): pyproject.toml settings.ini
	@$(ENVIRONMENT)
	$(BIN)/python -m pip install --editable '.[test]'
	@touch $(RUN) $@
