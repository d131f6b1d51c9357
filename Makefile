# `make dev` runs Dialtone with a sandbox on this machine. `make test` runs every check.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CLIENT := clients/js
BUNDLERS := clients/js/bundlers
EXAMPLES := examples/plain examples/vite-react examples/nextjs
CONTRACT := tests/contract

.DEFAULT_GOAL := help
.PHONY: help dev test lint fast-test fault-test contract-test process-test proxy-test image image-test client client-test client-package-test browser-test firefox-test examples-test contract-tools serving-compat dial-tone faults rollout soak storm bench bench-quick openapi errors schema docs docs-serve docs-test lock clean release-check audit

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-20s %s\n", $$1, $$2}'

# PROVIDER=cognito simulates that identity provider. `dialtone sandbox identity --list` prints the names.
PROVIDER ?= demo
dev: $(VENV)/.runtime client ## Run sandbox, demo identity provider and service on this machine until Ctrl-C
	@$(BIN)/dialtone dev --provider $(PROVIDER)

test: lint client-test fast-test ## Check style, types and layers, and run the tests that need no browser, proxy or process of their own

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/zizmor --offline --quiet --no-progress .github

# Other uvicorn releases, each in a folder that precedes the environment's packages. The differential test is short here.
UVICORN_RELEASES := 0.46 0.51
serving-compat: $(UVICORN_RELEASES:%=$(VENV)/uvicorn-%/.installed) ## Run the tests of app/serving with other uvicorn releases
	@set -e; for release in $(UVICORN_RELEASES); do \
	  echo "uvicorn $$release"; \
	  UVICORN_RELEASE=$$release PYTHONPATH=$(CURDIR)/$(VENV)/uvicorn-$$release DIFFERENTIAL_REQUESTS=200 \
	    $(BIN)/pytest -n 3 --dist worksteal -W ignore::DeprecationWarning tests/serving; done

$(VENV)/uvicorn-%/.installed: requirements/uvicorn-%.lock | $(VENV)/.dev
	rm -rf $(@D)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --target $(@D) -r $<
	@touch $@

# Most tests wait more than they compute, so four workers share two cores. COVERAGE=1 measures coverage, which takes a third
# longer. The other groups have deadlines that tracing would break.
COVERAGE ?=
HAS_OWN_TARGET := tests/browser tests/contract tests/deploy tests/docs tests/faults tests/processes tests/proxies
fast-test: $(VENV)/.dev
	$(BIN)/pytest -n 4 --dist worksteal $(if $(COVERAGE),--cov --cov-report=) $(HAS_OWN_TARGET:%=--ignore %)

fault-test: $(VENV)/.dev ## Run the short fault tests: kills, stops, a failing Telnyx and database, hostile clients
	$(BIN)/pytest -n 3 --dist worksteal tests/faults

contract-test: $(VENV)/.dev contract-tools ## Check the OpenAPI documents with linters, and clients that are generated from them
	$(BIN)/pytest -n 3 --dist worksteal tests/contract

process-test: $(VENV)/.dev client ## Run the service as processes: replicas, workers, reload, stop, rotation, deployment files
	$(BIN)/pytest -n 3 --dist worksteal tests/processes tests/deploy --ignore tests/deploy/test_image.py

proxy-test: $(VENV)/.dev ## Run the service behind nginx, HAProxy and Caddy
	$(BIN)/pytest -n 3 --dist worksteal tests/proxies

# The SDK of the softphone page and the browser client need Node 20. Without it, the page shows an error, and its tests
# are skipped.
HAS_NODE := $(shell node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)' 2>/dev/null && echo yes)
ifeq ($(HAS_NODE),yes)
client: $(CLIENT)/dist/index.js
client-test: client
	cd $(CLIENT) && npm test --silent
client-package-test: client $(BUNDLERS)/node_modules/.installed ## Build the packed client with each bundler, and print the sizes
	cd $(CLIENT) && npm run size --silent
	cd $(BUNDLERS) && npm test --silent
browser-test: $(VENV)/.dev client contract-tools ## Test the softphone page, the operators' page and the browser client in Chromium
	$(BIN)/pytest -n 3 --dist worksteal tests/browser --ignore tests/browser/test_examples.py --ignore tests/browser/test_firefox.py
examples-test: $(VENV)/.dev $(EXAMPLES:%=%/node_modules/.installed) ## Build each example, and make a call with it in Chromium
	$(BIN)/pytest -rs tests/browser/test_examples.py
firefox-test: $(VENV)/.dev client ## Test the softphone page and React in Firefox: login, calls, refresh, reload, sleep
	$(BIN)/pytest -rs tests/browser/test_firefox.py
contract-tools: $(CONTRACT)/node_modules/.installed
else
client client-test client-package-test browser-test examples-test firefox-test:
	@echo "Node 20 is not installed: the softphone page, the browser client and the examples are not built."
endif

$(CLIENT)/node_modules/.installed: $(CLIENT)/package-lock.json
	cd $(CLIENT) && npm ci --no-audit --no-fund --silent
	@touch $@

$(BUNDLERS)/node_modules/.installed: $(BUNDLERS)/package-lock.json
	cd $(BUNDLERS) && npm ci --no-audit --no-fund --silent
	@touch $@

# npm copies the compiled client into each example.
$(EXAMPLES:%=%/node_modules/.installed): %/node_modules/.installed: %/package-lock.json $(CLIENT)/dist/index.js
	cd $* && npm ci --no-audit --no-fund --silent
	@touch $@

# Linters of the OpenAPI documents, and generators of clients. The Python generator requires an older typer than the
# service, so it has a separate environment.
contract-tools: $(CONTRACT)/.venv/.installed

$(CONTRACT)/node_modules/.installed: $(CONTRACT)/package-lock.json
	cd $(CONTRACT) && npm ci --no-audit --no-fund --silent
	@touch $@

$(CONTRACT)/.venv/.installed: requirements/contract.lock
	$(PYTHON) -m venv $(CONTRACT)/.venv
	$(CONTRACT)/.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/contract.lock
	@touch $@

$(CLIENT)/dist/index.js: $(CLIENT)/node_modules/.installed $(wildcard $(CLIENT)/tsconfig*.json) $(wildcard $(CLIENT)/src/*.ts) \
  $(wildcard $(CLIENT)/scripts/*)
	cd $(CLIENT) && npm run build --silent
	@touch $@

VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' app/__init__.py)
image: ## Build the image of the service with Docker
	docker build --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) -t dialtone:$(VERSION) .

# As root. The base image, which contains packages of this machine's distribution, is kept in .cache.
image-test: $(VENV)/.dev ## Build both images and run them, as root, with podman and debootstrap
	$(BIN)/pytest -s tests/deploy/test_image.py

dial-tone: $(VENV)/.dev client ## Measure the time to dial tone in a real browser, ten runs each
	DIAL_TONE_RUNS=10 $(BIN)/pytest tests/browser/test_dial_tone.py -s --timeout 600

faults: $(VENV)/.dev ## Run the long fault tests: all crash points on both databases, 100 kills, 30 s stops, attacks
	KILLS=100 STOP_SECONDS=30 EXAMPLES=200 $(BIN)/pytest -n 2 --dist worksteal tests/faults \
	  --ignore tests/faults/test_hostile_clients.py --timeout 3000
	HOSTILE_CONNECTIONS=2000 $(BIN)/pytest -s tests/faults/test_hostile_clients.py
	PGBOUNCER_LOGINS=1000 $(BIN)/pytest tests/deploy/test_pgbouncer.py

rollout: $(VENV)/.dev ## Replace three replicas one after another under load, with the times of the Kubernetes manifests
	ROLLOUT_REQUESTS=2000 $(BIN)/pytest -s tests/deploy/test_rolling_update.py

soak: $(VENV)/.dev ## Run ten minutes of random faults on three replicas
	SOAK_SECONDS=600 $(BIN)/pytest -s tests/faults/test_soak.py

storm: $(VENV)/.dev ## Reconnect ten thousand devices at once, with 50 Telnyx calls per second
	STORM_DEVICES=10000 $(BIN)/pytest -s tests/faults/test_storm.py

ifeq ($(HAS_NODE),yes)
BENCH_NODE := benchmarks/node_modules/.installed
endif

benchmarks/node_modules/.installed: benchmarks/package-lock.json
	cd benchmarks && npm ci --no-audit --no-fund --silent
	@touch $@

bench: $(VENV)/.dev client $(BENCH_NODE) ## Run all benchmarks: floors, peers, storm, a million leases (25 minutes); BENCH_ROWS="fresh workers" runs parts
	$(BIN)/python -m benchmarks $(if $(BENCH_ROWS),--only $(BENCH_ROWS))

bench-quick: $(VENV)/.dev ## Run short benchmarks without a network (1 minute); fails if a ratio fell by a fifth
	$(BIN)/python -m benchmarks --quick

openapi: $(VENV)/.runtime ## Regenerate the OpenAPI documents after a change of the API
	$(BIN)/dialtone openapi > openapi.json
	$(BIN)/dialtone openapi --api user > docs/openapi/user.json
	$(BIN)/dialtone openapi --api operators > docs/openapi/operators.json

errors: $(VENV)/.runtime ## Regenerate docs/errors.md after a change of problem codes
	$(BIN)/dialtone errors > docs/errors.md

# `zensical.toml` explains the folders. The site has no font and no script from another host.
SITE_FILES := '*.md' ':(glob)docs/**' ':(glob)deploy/**' ':(glob)examples/**' 'benchmarks/results/*' Dockerfile LICENSE docker-compose.yml \
  .env.example openapi.json dialtone.example.toml dialtone.schema.json ':!.github' ':!tests' ':!docs/site'
docs: $(VENV)/.dev ## Build the documentation site in build/site
	rm -rf build/docs build/site && mkdir -p build/docs
	git ls-files -z --cached --others --exclude-standard $(SITE_FILES) | xargs -0 cp --parents -t build/docs
	$(BIN)/python docs/site/reference.py build/docs/docs
	$(BIN)/python docs/site/lists.py build/docs
	cp docs/site/site.css build/docs/
	$(BIN)/zensical build --strict
	cp .env.example build/site/

docs-serve: docs ## Build the documentation site and serve it at http://127.0.0.1:8014
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site 8014

docs-test: docs ## Check the links, the search and the layout of the documentation site
	$(BIN)/pytest -n 2 tests/docs

schema: $(VENV)/.runtime ## Regenerate dialtone.schema.json after a change of the configuration file
	$(BIN)/dialtone config schema > dialtone.schema.json

# Extras stay in the lock files. If a package requires coverage[toml] and the lock has only coverage, pip takes the newest release.
lock: ## Update the lock files to the newest versions (requires uv)
	cd requirements && for name in runtime tracing dev build contract release; do \
	  uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-strip-extras \
	    --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $$name.in -o $$name.lock; done
	cd requirements && for release in $(UVICORN_RELEASES); do \
	  echo "uvicorn~=$$release.0" | uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-deps \
	    --no-annotate --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
	    - -o uvicorn-$$release.lock; done

clean: ## Delete the virtual environment and the data of `make dev`
	rm -rf $(VENV) .dialtone .coverage $(CLIENT)/dist $(CLIENT)/node_modules $(CONTRACT)/.venv $(CONTRACT)/node_modules \
	  $(EXAMPLES:%=%/dist) $(EXAMPLES:%=%/.next) $(EXAMPLES:%=%/node_modules)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Dialtone requires Python 3.11 or newer; select one with: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

# The project is installed in editable mode with the locked build tools, so this step downloads nothing.
$(VENV)/.runtime: requirements/build.lock requirements/runtime.lock pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.lock -r requirements/runtime.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.lock $(VENV)/.runtime
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@touch $@

# Tools that the service and its tests do not need.
RELEASE_TOOLS ?= $(VENV)/release
$(RELEASE_TOOLS)/.installed: requirements/release.lock | $(BIN)/python
	$(PYTHON) -m venv $(RELEASE_TOOLS)
	$(RELEASE_TOOLS)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/release.lock
	@touch $@

# RELEASE=0 rehearses a release with an unreleased version. TAG=v1.2.3 compares the version with a tag.
RELEASE := 1
release-check: $(VENV)/.dev client $(RELEASE_TOOLS)/.installed ## Check that HEAD can be released, and write dist/. RELEASE=0 rehearses it
	$(BIN)/python -m release --validator $(RELEASE_TOOLS)/bin/python $(if $(filter 0,$(RELEASE)),--rehearsal) --tag "$${TAG:-}"
	@if [ "$$(id -u)" = 0 ]; then $(MAKE) image-test || { rm -rf dist; exit 1; }; else echo "The images were not built: that requires root. Run: sudo make image-test"; fi

# The network must reach advisories. Without --strict, pip-audit accepts packages that it could not compare. Each command
# runs, and the target fails if one failed.
audit: $(RELEASE_TOOLS)/.installed ## Compare the locked packages with published advisories
	@failed=0; for name in runtime tracing build; do \
	  echo "requirements/$$name.lock"; \
	  $(RELEASE_TOOLS)/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off -r requirements/$$name.lock || failed=1; done; \
	for folder in $(CLIENT) $(EXAMPLES); do \
	  echo "$$folder/package-lock.json"; (cd $$folder && npm audit --package-lock-only) || failed=1; done; exit $$failed
