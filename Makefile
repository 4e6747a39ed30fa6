# The commands of README.md. `make run` and `make test` need Debian 12 with python3 >= 3.11, no more.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run test check bench soak format lock packages

run: $(VENV)/appliance.stamp
	@exec $(BIN)/python manage.py up --demo

test: $(VENV)/dev.stamp packages
	@$(BIN)/python tests/run.py all

check: $(VENV)/dev.stamp
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	@$(BIN)/python tests/run.py fast

bench: $(VENV)/dev.stamp
	@exec $(BIN)/python -m tests.bench

# SOAK_MINUTES tells how long faults go on, and then kills of the worker beside real hosts; 10 where it is not set.
soak: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.bench.soak && exec $(BIN)/python -m tests.bench.scaling_live --kill-minutes $${SOAK_MINUTES:-10}

format: $(VENV)/dev.stamp
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

# The locks name versions and hashes, never a host: pip asks the index that the machine is set up for.
LOCK = uv pip compile pyproject.toml --universal --generate-hashes --no-emit-index-url --no-header \
	--python-version 3.11 --extra agent
lock:
	$(LOCK) -o requirements-appliance.txt
	$(LOCK) --extra dev -c requirements-appliance.txt -o requirements-dev.txt
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["agent"], sep="\n")' \
		| uv pip compile - --universal --generate-hashes --no-emit-index-url --no-header --no-annotate \
		--python-version 3.10 -o requirements-agent.txt

# Debian's own packages that the browser tests need; said, not fatal, where we may not install them.
packages:
	@sh tests/packages.sh

$(VENV)/appliance.stamp: requirements-appliance.txt | $(BIN)/pip
	@echo "installing the locked requirements" >&2
	@$(BIN)/pip install -qq --require-hashes -r requirements-appliance.txt
	@touch $@

$(VENV)/dev.stamp: requirements-dev.txt | $(BIN)/pip
	@echo "installing the locked requirements for development" >&2
	@$(BIN)/pip install -qq --require-hashes -r requirements-dev.txt
	@touch $@ $(VENV)/appliance.stamp

# Debian keeps `venv` in a package of its own.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python3 >= 3.11 is needed, this is " + sys.version)'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
		|| { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null; } \
		|| { echo "python3-venv is needed: sudo apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
