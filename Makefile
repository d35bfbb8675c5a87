# Every target sets everything up by itself: a virtual environment in .venv, then what it needs.
# Another Python: make test PYTHON=python3.13. Arguments for pytest: make test ARGS="-k windows".

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: help demo test slow docs check bench gpu venv
.DEFAULT_GOAL := help

help:
	@echo 'make demo    enlarge a clip that ships with the package; results in demo/'
	@echo 'make test    the tests (minutes)'
	@echo 'make slow    the long tests'
	@echo 'make docs    the pages of docs/ as a site in docs/_build/'
	@echo 'make check   format, lint, types'
	@echo 'make bench   speed and memory of the model'
	@echo 'make gpu     all that a GPU is measured by (minutes); results in benchmarks/gpu.md'
	@echo 'make venv    only set .venv up'

demo: $(READY)
	$(BIN)/iart demo --overwrite

# Every process that tests start would compile all of the package anew, were bytecode not kept.
test slow: export PYTHONDONTWRITEBYTECODE =

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal $(ARGS)

slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --dist worksteal $(ARGS)

docs: $(READY)
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

check: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/basedpyright --pythonpath $(BIN)/python

bench: $(READY)
	$(BIN)/iart bench

gpu: $(READY)
	$(BIN)/python benchmarks/gpu.py $(ARGS)

venv: $(READY)

# pip is upgraded first: dependency groups need 25.1. An environment without pip is what is left
# where the system's Python lacks ensurepip, or where setting up was interrupted.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 11) else \
	  "error: iart needs Python 3.11 or newer, but $(PYTHON) is %d.%d. Name another: make $(MAKECMDGOALS) PYTHON=python3.12" % v)'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  echo 'making .venv'; $(PYTHON) -m venv --clear .venv; }
	@echo 'installing into .venv (PyTorch is large: this takes minutes)'
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --editable '.[train,metrics,web,cluster]' --group dev
	@touch $@
