# Everything that is done twice. `make demo` and `make test` need Python 3.11 or newer and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STOCK_CLIENT := tests/e2e/stock_client
BENCH := bench/fanout/node
CONSOLE := src/jobcast/_console/index.html
ELEMENT := src/jobcast/_element/jobcast.js
EXAMPLE := client/examples/react/dist/index.html
# The tests start hundreds of processes. Without bytecode each would compile all modules it imports.
unexport PYTHONDONTWRITEBYTECODE
# Node and npm come into the virtual environment, as the lock file has them.
NODE := PATH="$(CURDIR)/$(BIN):$$PATH"
# Tests wait more than they compute: three times as many processes as there are processors.
TEST_PROCESSES ?= $(shell $(PYTHON) -c 'import os; print(min(3 * (os.cpu_count() or 1), 6))')
# A process runs whole modules, but the classes of a module may run in several: that of the transports
# would be the last to finish. xdist would begin with those of many tests, which are the quick ones.
PYTEST = $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadscope --no-loadscope-reorder
# Of `make lowest` and `make latest`; tests of the other tiers need `make prepare` first.
TESTS ?= tests/unit
SCHEMA := $(BIN)/check-jsonschema --quiet --builtin-schema vendor.
CONSOLE_SOURCES := $(shell find client/src client/console -name node_modules -prune -o -type f -print)

.DEFAULT_GOAL := help
.PHONY: help demo dev console element test lint workflows format typecheck docs client client-check client-test servers prepare pytest \
	unit integration e2e coverage lowest latest containers bench dist clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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

$(ELEMENT): client/node_modules/.package-lock.json $(CONSOLE_SOURCES) client/scripts/element.mjs
	cd client && $(NODE) npm run --silent build:element
	@touch $@

client/dist/index.js: client/node_modules/.package-lock.json $(CONSOLE_SOURCES)
	cd client && $(NODE) npm run --silent build
	@touch $@

$(EXAMPLE): client/dist/index.js $(wildcard client/examples/react/* client/examples/react/src/*)
	cd client && $(NODE) npm run --silent build --workspace examples/react
	@touch $@

demo: $(VENV)/.synced $(CONSOLE) $(ELEMENT)  ## start everything on this machine and watch real jobs
	$(BIN)/jobcast demo

console: $(CONSOLE)  ## build the console's page into the package

element: $(ELEMENT)  ## build the element <jobcast-job> into the package

dev: $(VENV)/.synced .env  ## run the Procfile's worker and server, with the settings in .env
	$(NODE) $(BIN)/honcho start

.env: | $(VENV)/.synced
	$(BIN)/python -c "from pathlib import Path; from jobcast.reference import write_env; write_env(Path('.env'))"

# The checks compute in one process each, and the tests in several. Those of the TypeScript packages
# wait most of the time.
test:  ## everything that has to pass
	$(MAKE) --jobs=2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) typecheck client-check lint docs
	$(MAKE) prepare
	$(MAKE) --jobs=2 client-test pytest

lint: $(VENV)/.synced workflows  ## format, lint, directions of imports, workflows
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports

workflows: $(VENV)/.synced  ## check .github and docker-compose.yml
	$(SCHEMA)github-workflows .github/workflows/*.yml
	$(SCHEMA)dependabot .github/dependabot.yml
	$(SCHEMA)github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(SCHEMA)github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(SCHEMA)compose-spec docker-compose.yml
	$(BIN)/zizmor --offline --quiet .github

format: $(VENV)/.synced  ## put the code into shape
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

typecheck: $(VENV)/.synced  ## strict types, tests included
	$(BIN)/mypy

docs: $(VENV)/.synced  ## build the documentation into build/site; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

client: client-check client-test  ## check, test and build the TypeScript packages

client-check: client/node_modules/.package-lock.json
	cd client && $(NODE) npm run check
	cd client && $(NODE) npm run pack:check

client-test: client/node_modules/.package-lock.json
	cd client && $(NODE) npm test

servers:  ## install what the tests start: Redis, RabbitMQ, Chromium, proxies
	@sh tests/install_servers.sh

# What the integration and end-to-end tests need.
prepare: $(STOCK_CLIENT)/node_modules/.package-lock.json $(CONSOLE) $(ELEMENT) $(EXAMPLE) servers

pytest: prepare  ## the three tiers of tests, with the coverage of their own process
	$(PYTEST) --cov --cov-report=term:skip-covered

coverage: prepare  ## the same, with the coverage of all processes, and htmlcov/
	$(PYTEST) --cov --cov-config=tests/coverage.toml --cov-report=term:skip-covered --cov-report=html

unit: $(VENV)/.synced  ## the quick tests
integration: prepare  ## the tests with real servers
e2e: prepare  ## the tests with real workers, servers and clients
unit integration e2e:
	$(PYTEST) bench/tests/$@ tests/$@

lowest:  ## the unit tests with the lowest dependencies that pyproject.toml allows; TESTS=tests/e2e for others
latest:  ## the unit tests with the latest dependencies that pyproject.toml allows
lowest: RESOLUTION := lowest-direct
latest: RESOLUTION := highest
# The bounds that count are those of users, so the tools of the tests are the latest in both.
lowest latest: $(VENV)/.synced
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)-$@
	$(BIN)/uv pip compile --quiet --python $(VENV)-$@ --all-extras --resolution $(RESOLUTION) \
		--output-file $(VENV)-$@/constraints.txt pyproject.toml
	$(BIN)/uv pip install --quiet --python $(VENV)-$@ --constraint $(VENV)-$@/constraints.txt \
		--group dev --editable '.[all]'
	$(subst $(BIN),$(VENV)-$@/bin,$(PYTEST)) $(TESTS)

containers: $(VENV)/.synced  ## build the images and run jobs through Compose, with Docker or podman
	$(BIN)/python -m pytest tests/containers

bench: $(BENCH)/node_modules/.package-lock.json  ## jobcast beside the stock stack and Node's socket.io
	$(NODE) $(BIN)/python -m bench.fanout $(BENCH_OPTIONS)

dist: VERSION ?= $(shell $(BIN)/uv version --short)
dist: client/node_modules/.package-lock.json  ## build what a release publishes into dist/
	@test "$(VERSION)" = "$$($(BIN)/uv version --short)" || \
		{ echo "pyproject.toml has version $$($(BIN)/uv version --short), and not $(VERSION)"; exit 1; }
	rm -rf dist && mkdir -p dist/npm
	$(BIN)/python -m build --outdir dist/python
	cd client && $(NODE) npm pack --silent --pack-destination ../dist/npm

clean:  ## forget what was set up
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-latest $(STOCK_CLIENT)/node_modules $(BENCH)/node_modules dist htmlcov .coverage .mypy_cache .pytest_cache .ruff_cache
	rm -rf client/node_modules client/*/node_modules client/examples/*/node_modules client/dist client/examples/*/dist $(dir $(CONSOLE)) $(dir $(ELEMENT))
