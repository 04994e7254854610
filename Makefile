# Everything runs in .venv, which is made on first use. CPU only on Linux? PyTorch's default wheels carry CUDA; with
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo
# pip may take the smaller ones.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help install demo claims test test-all lint format types contracts check audit clean

help: ## this list
	@echo "make TARGET, where TARGET is"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 14

install: $(VENV)/.installed ## make .venv and install the package with its pins

demo: $(VENV)/.installed ## align a tiny model three ways and compare them (under 5 minutes on 2 cores)
	$(BIN)/boresight demo

claims: $(VENV)/.installed ## what papers claim, tested again (SMOKE=1: only those that take seconds)
	$(BIN)/boresight claims --jobs $(WORKERS) $(if $(SMOKE),--smoke)

test: $(VENV)/.installed-dev ## the tests, without those that take minutes
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not slow"

test-all: $(VENV)/.installed-dev ## every test
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

lint: $(VENV)/.installed-dev ## style of the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev ## mend the style of the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-dev ## types
	$(BIN)/mypy -p boresight

contracts: $(VENV)/.installed-dev ## which room may import which
	$(BIN)/lint-imports

check: lint types contracts test ## what a change must pass before it is pushed

audit: | $(BIN)/python ## known advisories against the pins (asks a public service: needs the network)
	test -x $(VENV)-audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)-audit && \
		$(VENV)-audit/bin/python -m pip --disable-pip-version-check --quiet install pip-audit; }
	$(VENV)-audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r constraints.txt

clean: ## remove .venv and what tools left behind
	rm -rf $(VENV) $(VENV)-audit .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Boresight needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
		echo "  mend: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch goes first and alone: its index differs between machines, and everything after it must keep it as it is.
$(VENV)/.torch: constraints.txt | $(BIN)/python
	$(PIP) install "$$(grep '^torch==' constraints.txt)"
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt $(VENV)/.torch
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt $(VENV)/.torch
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed
