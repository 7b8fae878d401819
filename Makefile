# Everything that a fresh machine needs to run the demo, the tests and the benchmarks. The first run installs what is
# missing; later runs find the stamp files and start at once.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 3000
ARGS ?=
SECONDS ?= 30
TARGETS ?=
# Tests mostly wait, so run three at a time on two cores.
JOBS ?= 3
SEED ?= 0

VENV := .venv
PY := $(VENV)/bin/python
LOCK := requirements.txt
LOCKED := build dev fuzz bench node lock
# Install the locked dependencies of iogate or of a group in pyproject.toml.
INSTALL = $(PY) tools/locked.py $(1) | $(PY) -m pip install --quiet --require-hashes --requirement /dev/stdin
BENCH = $(VENV)/.bench benchmarks/peers/node/node_modules/.installed
# Node is the system's or, on a machine without it, the one from the wheel in the virtual environment.
WITH_NODE = PATH="$$("$(CURDIR)/tools/node.sh" --path)"

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
# npm trusts the machine's certificates, as pip does; this is necessary behind a proxy with its own certificate.
export NODE_USE_SYSTEM_CA := 1

.PHONY: help demo test test-asyncio test-versions check fuzz lock format bench bench-quick clean node chromium compiler redis

help: ## List the targets
	@echo "iogate: make TARGET"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 17
	@echo
	@echo "  PYTHON=python3.12   the Python to use, 3.11 or newer"
	@echo "  PORT=3000           where the demo listens"
	@echo "  ARGS='-k polling'   more arguments, for pytest, the benchmarks or uv"
	@echo "  SECONDS=600 TARGETS='token claims'   how long to fuzz, and what"
	@echo "  SEED=7              fuzz as the last time with that seed"

demo: $(VENV)/.demo examples/chat/node_modules/.installed ## Serve the chat demo on http://localhost:3000
	@trap : INT TERM; PORT=$(PORT) $(VENV)/bin/iogate run examples.chat.app:app --host $(HOST) --port $(PORT) \
	  || { code=$$?; test $$code -eq 130 || test $$code -eq 143 || exit $$code; }

test: $(VENV)/.dev $(VENV)/.older examples/chat/node_modules/.installed tests/e2e/js/node_modules/.installed tests/e2e/idp/node_modules/.installed clients/js/node_modules/.installed | node chromium compiler redis ## Run all tests, including those with real clients and a browser
	@$(WITH_NODE) $(PY) -m pytest -n $(JOBS) $(ARGS)

test-asyncio: $(VENV)/.dev ## Run the server tests on asyncio's event loop; `make test` uses uvloop, like `iogate run`
	@$(PY) -m pytest --loop asyncio -n $(JOBS) tests/server tests/attacks $(ARGS)

test-versions: $(VENV)/.lock ## Test with the oldest and the newest run-time dependencies
	@tools/test-versions.sh -n $(JOBS) $(ARGS)

check: $(VENV)/.dev ## Lint, and check the formatting, the types and the import layers
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy src tests examples benchmarks fuzz tools/*.py
	@$(VENV)/bin/lint-imports

fuzz: $(VENV)/.fuzz ## Fuzz each parser and a live server, for SECONDS each
	@$(PY) -m fuzz --seconds $(SECONDS) --seed $(SEED) $(TARGETS)

lock: $(VENV)/.lock ## Rewrite requirements.txt from pyproject.toml; ARGS=--upgrade takes the newest versions
	@$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-config \
	  --custom-compile-command "make lock" --extra chat $(addprefix --group ,$(LOCKED)) $(ARGS) --output-file $(LOCK) pyproject.toml

format: $(VENV)/.dev ## Fix lint errors and format the code
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

bench: $(BENCH) | node compiler ## Compare iogate with its peers, for docs/benchmarks; it takes about 25 minutes
	@$(WITH_NODE) $(PY) -m benchmarks.compare --json docs/benchmarks/results.json \
	  --markdown docs/benchmarks/results.md --plots docs/benchmarks $(ARGS)

bench-quick: $(BENCH) | node compiler ## Run the most important benchmarks, in three minutes
	@$(WITH_NODE) $(PY) -m benchmarks.compare --quick --json benchmarks/results/quick.json \
	  --markdown benchmarks/results/quick.md $(ARGS)

clean: ## Remove what the other targets made
	@rm -rf $(VENV) build dist benchmarks/results fuzz/found .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name node_modules -prune -exec rm -rf {} +
	@find . -name __pycache__ -prune -exec rm -rf {} +

# The virtual environment, in two steps: the dependencies of the demo, and the developers' tools.

$(VENV)/.made:
	@tools/venv.sh $(PYTHON) $(VENV)
	@touch $@

$(VENV)/.demo: $(LOCK) pyproject.toml | $(VENV)/.made
	@echo "==> installing iogate and what the demo needs"
	@$(call INSTALL,iogate build)
	@$(PY) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@echo "==> installing the tools of the tests and the checks"
	@$(call INSTALL,dev)
	@touch $@

# The earlier versions of python-socketio and Flask-SocketIO that the gate supports. The lock file cannot contain two
# versions of a package, so they are named here.
$(VENV)/.older: Makefile $(VENV)/.dev
	@echo "==> installing earlier versions of python-socketio"
	@rm -rf $(VENV)/older
	@for versions in "5.16.4 5.5.1 3.0.3" "5.17.1 5.6.1 3.1.3"; do set -- $$versions; \
	  $(PY) -m pip install --quiet --no-deps --target $(VENV)/older/$${1%.*} \
	  "python-socketio==$$1" "python-engineio==4.13.5" "flask-socketio==$$2" "flask==$$3"; done
	@touch $@

# If atheris cannot be installed, `python -m fuzz` says so, and names the platforms that have it.
$(VENV)/.fuzz: $(VENV)/.dev
	@echo "==> installing atheris, which fuzzes"
	@$(call INSTALL,fuzz) && touch $@ || { $(PY) -m fuzz --seconds 0; exit 1; }

$(VENV)/.bench: $(VENV)/.demo
	@echo "==> installing what the benchmarks compare with, and draw with"
	@$(call INSTALL,bench)
	@touch $@

$(VENV)/.lock: $(VENV)/.demo
	@echo "==> installing uv, which locks"
	@$(call INSTALL,lock)
	@touch $@

%/node_modules/.installed: %/package.json %/package-lock.json | node
	@echo "==> installing the JavaScript of $*"
	@cd $* && $(WITH_NODE) npm ci --no-audit --no-fund --no-update-notifier --loglevel=error
	@touch $@

# Programs of the machine are looked for on every run: that is fast, and they may have been removed.

node: | $(VENV)/.made
	@tools/node.sh --install $(PY)

chromium:
	@tools/system-package.sh "a browser for the tests of the demo" chromium chromium chromium-browser google-chrome

redis:
	@tools/system-package.sh "a broker, for the tests of several processes" redis-server redis-server

compiler:
	@tools/system-package.sh "a C compiler, for the load generator of the benchmarks" build-essential cc gcc clang
