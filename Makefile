# Everything that is done twice. `make demo` and `make test` need Python 3.11 or newer and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STOCK_CLIENT := tests/e2e/stock_client
BENCH := bench/fanout/node
CONSOLE := src/jobcast/_console/index.html
EXAMPLE := client/examples/react/dist/index.html
# Node and npm come into the virtual environment, as the lock file has them.
NODE := PATH="$(CURDIR)/$(BIN):$$PATH"
# Tests wait more than they compute: twice as many processes as there are processors.
TEST_PROCESSES ?= $(shell $(PYTHON) -c 'import os; print(min(2 * (os.cpu_count() or 1), 6))')
CONSOLE_SOURCES := $(shell find client/src client/console -name node_modules -prune -o -type f -print)

.DEFAULT_GOAL := help
.PHONY: help demo dev console test lint format typecheck docs client servers pytest bench unit clean

help:  ## say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "jobcast needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check uv

$(VENV)/.synced: $(BIN)/uv pyproject.toml uv.lock
	$(BIN)/uv sync --quiet --frozen --all-extras --inexact
	@touch $@

$(STOCK_CLIENT)/node_modules/.package-lock.json: $(VENV)/.synced $(STOCK_CLIENT)/package-lock.json
	$(NODE) npm ci --silent --prefix $(STOCK_CLIENT)
	@touch $@

$(BENCH)/node_modules/.package-lock.json: $(VENV)/.synced $(BENCH)/package-lock.json
	$(NODE) npm ci --silent --prefix $(BENCH)
	@touch $@

client/node_modules/.package-lock.json: $(VENV)/.synced client/package-lock.json
	cd client && $(NODE) npm ci --silent
	@touch $@

$(CONSOLE): client/node_modules/.package-lock.json $(CONSOLE_SOURCES)
	cd client && $(NODE) npm run --silent build --workspace console
	@touch $@

client/dist/index.js: client/node_modules/.package-lock.json $(CONSOLE_SOURCES)
	cd client && $(NODE) npm run --silent build
	@touch $@

$(EXAMPLE): client/dist/index.js $(wildcard client/examples/react/* client/examples/react/src/*)
	cd client && $(NODE) npm run --silent build --workspace examples/react
	@touch $@

demo: $(VENV)/.synced $(CONSOLE)  ## start everything on this machine and watch real jobs
	$(BIN)/jobcast demo

console: $(CONSOLE)  ## build the console's page into the package

dev: $(VENV)/.synced .env  ## run the reference application's processes, with the settings in .env
	$(NODE) $(BIN)/honcho start

.env: | $(VENV)/.synced
	$(BIN)/python -c "from pathlib import Path; from jobcast.reference import write_env; write_env(Path('.env'))"

test: lint typecheck docs client pytest  ## everything that has to pass

lint: $(VENV)/.synced  ## format, lint, directions of imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports

format: $(VENV)/.synced  ## put the code into shape
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

typecheck: $(VENV)/.synced  ## strict types, tests included
	$(BIN)/mypy

docs: $(VENV)/.synced  ## build the documentation into build/site; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

client: client/node_modules/.package-lock.json  ## check, test and build the TypeScript packages
	cd client && $(NODE) npm run check
	cd client && $(NODE) npm test
	cd client && $(NODE) npm run pack:check

servers:  ## install what the tests start: Redis, RabbitMQ, Chromium, proxies
	@sh tests/install_servers.sh

pytest: $(STOCK_CLIENT)/node_modules/.package-lock.json $(CONSOLE) $(EXAMPLE) servers  ## the three tiers of tests
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --cov --cov-report=term:skip-covered

bench: $(BENCH)/node_modules/.package-lock.json  ## jobcast beside the stock stack and Node's socket.io
	$(NODE) $(BIN)/python -m bench.fanout $(BENCH_OPTIONS)

unit: $(VENV)/.synced  ## the quick tests
	$(BIN)/python -m pytest tests/unit

clean:  ## forget what was set up
	rm -rf $(VENV) $(STOCK_CLIENT)/node_modules $(BENCH)/node_modules dist .mypy_cache .pytest_cache .ruff_cache
	rm -rf client/node_modules client/*/node_modules client/examples/*/node_modules client/dist client/examples/*/dist $(dir $(CONSOLE))
