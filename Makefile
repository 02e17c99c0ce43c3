# run   the whole graph on the bundled corpus, offline; sets up what it needs first
# test  every test, slow ones too        lint  style, types, import contracts
# bench every benchmark; each says what it needs, which for most is POLAR_DATA_DIR
# ui    Dagster and MLflow over this folder's home

PYTHON ?= python3
# On Linux without a GPU: TORCH_INDEX=https://download.pytorch.org/whl/cpu saves gigabytes of CUDA libraries.
TORCH_INDEX ?=
PIP = .venv/bin/python -m pip --disable-pip-version-check

export POLAR_HOME ?= $(CURDIR)/.polar

.PHONY: run test lint bench ui
.DELETE_ON_ERROR:

run: .venv/installed
	.venv/bin/polar run --all --profile demo

ui: .venv/installed
	.venv/bin/polar ui --profile demo

test: .venv/installed-dev
	.venv/bin/python -m pytest -n 3 --dist loadfile

lint: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/dg check defs

bench: .venv/installed
	for script in benchmarks/*.py; do echo "$$script"; .venv/bin/python $$script || failed=1; done; exit $${failed:-0}

# A stamp per set of packages: a second `make` installs nothing again unless these files changed.
.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) install --quiet --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

.venv/bin/python:
	$(PYTHON) -m venv .venv
