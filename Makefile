# Two commands do everything: `make demo` runs the main job, `make test` passes the tests.
# Set-up needs Python >= 3.11 and the package registries alone: Node, Anvil, Forge and Redis come as packages.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := .stamps
export PATH := $(CURDIR)/$(BIN):$(CURDIR)/node_modules/.bin:$(PATH)

.PHONY: help setup demo test lint format bench lock clean

help:  ## List the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

setup: $(STAMPS)/python $(STAMPS)/npm $(STAMPS)/contracts  ## Virtual environment, npm packages, compiled contracts

$(STAMPS)/python: requirements.lock pyproject.toml
	@mkdir -p $(STAMPS)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "DeCLAI needs Python >= 3.11, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --config-settings editable_mode=compat -e .
	@touch $@

$(STAMPS)/npm: package-lock.json package.json $(STAMPS)/python
	npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(STAMPS)/contracts: $(STAMPS)/npm foundry.toml $(shell find contracts/src -name '*.sol' 2>/dev/null)
	$(BIN)/python -m chain.compile
	@touch $@

demo: setup  ## A devnet, one streamed answer, its receipts and their settlement; leaves nothing running
	$(BIN)/python -m declai.demo

test: setup lint  ## All checks and tests
	$(BIN)/python -m pytest

lint: setup  ## Formatting, types, Solidity style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	contracts/bin/forge fmt --check
	contracts/bin/forge lint contracts/src
	npx --no-install solhint --disc --max-warnings 0 'contracts/src/**/*.sol'

format: setup  ## Write the formatting that `lint` checks
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	contracts/bin/forge fmt

bench: setup  ## Every benchmark; tables here, JSON under build/benchmarks/
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

lock:  ## Write the tested set of Python packages to requirements.lock
	$(BIN)/python -m pip freeze --exclude-editable | sed -E 's/^torch==([0-9.]+).*/torch==\1/' > requirements.lock

clean:  ## Remove all that set-up and builds made
	rm -rf $(VENV) $(STAMPS) node_modules build cache out artifacts .pytest_cache .mypy_cache .ruff_cache .hypothesis declai.egg-info
