# Everything happens in .venv, made from requirements.lock. `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test soak mutants check format lock clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

.venv: .venv/.made ## the virtual environment, from requirements.lock

.venv/.made: requirements.lock pyproject.toml client/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Souk needs Python 3.11 or newer: make PYTHON=…'; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . -e client
	@touch $@

demo: .venv/.made ## the whole stack and a marketplace to watch; ONCE=1 ends by itself
	@$(BIN)/souk demo $(if $(ONCE),--once)

test: check ## every check and every test
	$(BIN)/pytest -n auto --dist loadfile

soak: .venv/.made ## what takes minutes: the model of the protocol in its large scope
	$(BIN)/python -m tests.protocol --scope large

mutants: .venv/.made ## take one defence out at a time and see which check notices; ONLY="M3 M7", CAMPAIGN=1
	$(BIN)/python -m tests.mutants.run $(ONLY) $(if $(CAMPAIGN),--campaign)

check: .venv/.made ## format, lint, types, floors
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.made ## put the code in form
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# With Python 3.11 on Linux x86-64, so that no marked dependency drops out, and from the public index alone, whatever else this machine's pip knows.
lock: .venv/.made ## new requirements.lock with the newest versions
	PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= PIP_EXTRA_INDEX_URL= $(BIN)/pip-compile --quiet --upgrade --extra dev --generate-hashes --strip-extras \
		--allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header --output-file requirements.lock pyproject.toml client/pyproject.toml

clean: ## remove what make and the tests left
	rm -rf .venv build client/build *.egg-info client/*.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
