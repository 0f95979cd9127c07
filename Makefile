# Two commands do everything: `make demo` runs the main job, `make test` passes the tests.
# Set-up needs Python >= 3.11 and the package registries alone: Node, Anvil, Forge and Redis come as packages.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BROWNIE_VENV := .venv-brownie
AUDIT_VENV := .venv-audit
STAMPS := .stamps
export PATH := $(CURDIR)/$(BIN):$(CURDIR)/node_modules/.bin:$(PATH)

.PHONY: help setup tools demo test part nightly brownie audit mutation lint lint-python lint-contracts format bench lock clean

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
	$(BIN)/python -m declai.chain.compile
	@touch $@

# Brownie's pins exclude our web3, so it has an environment of its own. It notices changed sources, but neither changed
# settings nor changed packages: then its build goes.
$(STAMPS)/brownie: requirements-brownie.lock brownie-config.yaml package-lock.json $(STAMPS)/python
	test -x $(BROWNIE_VENV)/bin/python || $(PYTHON) -m venv $(BROWNIE_VENV)
	$(BROWNIE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-brownie.lock
	rm -rf build/brownie
	@touch $@

# Slither's pins exclude our web3, too. It keeps what it keeps where VIRTUAL_ENV says, else in the home directory.
$(STAMPS)/audit: requirements-audit.lock $(STAMPS)/python
	test -x $(AUDIT_VENV)/bin/python || $(PYTHON) -m venv $(AUDIT_VENV)
	$(AUDIT_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-audit.lock
	@touch $@

demo: setup  ## A devnet, one streamed answer, its receipts and their settlement; leaves nothing running
	$(BIN)/python -m declai.demo

# Tests in as many processes as there are cores, four at most: each may hold a gigabyte.
TEST_PROCESSES ?= logical
PYTEST := $(BIN)/python -m pytest -n $(TEST_PROCESSES) --maxprocesses 4 --dist loadscope --no-loadscope-reorder

# What needs no other is made and checked beside it.
test:  ## All checks and tests
	@$(MAKE) --no-print-directory -j 2 tools lint
	$(PYTEST)

nightly: tools  ## What `test` has no time for: long fuzzing, invariants and games, all mutants; hours
	FOUNDRY_PROFILE=nightly contracts/bin/forge test --offline
	$(PYTEST) -m '' --hypothesis-profile thorough --timeout 3600
	$(BIN)/python contracts/audit/mutate.py

tools: setup $(STAMPS)/brownie $(STAMPS)/audit  ## The set-up with Brownie and Slither, each in an environment of its own

part: setup  ## A part of the tests, such as: make part TESTS="tests/api tests/planning"
	$(PYTEST) $(TESTS)

brownie: setup $(STAMPS)/brownie  ## The contracts as a Brownie project: compiled, deployed on Anvil, one settlement
	contracts/bin/brownie test

audit: $(STAMPS)/npm $(STAMPS)/audit  ## Slither over the contracts: each finding has its reason in contracts/audit/findings.toml
	VIRTUAL_ENV=$(CURDIR)/$(AUDIT_VENV) $(AUDIT_VENV)/bin/python contracts/audit/check.py

mutation: setup  ## Mutation tests of the contracts' money paths, about an hour; the next call goes on where one was stopped
	$(BIN)/python contracts/audit/mutate.py

lint: lint-python lint-contracts  ## Formatting, types, Solidity style

lint-python: $(STAMPS)/python
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

lint-contracts: $(STAMPS)/npm
	contracts/bin/forge fmt --check
	contracts/bin/forge lint contracts/src
	npx --no-install solhint --disc --max-warnings 0 'contracts/src/**/*.sol'

format: setup  ## Write the formatting that `lint` checks
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	contracts/bin/forge fmt

bench: setup  ## Every benchmark; tables here, JSON under build/benchmarks/
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

lock:  ## Write the tested sets of Python packages to requirements*.lock
	$(BIN)/python -m pip freeze --exclude-editable | sed -E 's/^torch==([0-9.]+).*/torch==\1/' > requirements.lock
	test ! -x $(BROWNIE_VENV)/bin/python || $(BROWNIE_VENV)/bin/python -m pip freeze > requirements-brownie.lock
	test ! -x $(AUDIT_VENV)/bin/python || $(AUDIT_VENV)/bin/python -m pip freeze > requirements-audit.lock

clean:  ## Remove all that set-up and builds made
	rm -rf $(VENV) $(BROWNIE_VENV) $(AUDIT_VENV) $(STAMPS) node_modules build cache out artifacts .pytest_cache .mypy_cache .ruff_cache .hypothesis declai.egg-info
