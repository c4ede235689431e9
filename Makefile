# One environment for every verb. It is made again when pyproject.toml changes, and only then.
#   PYTHON=python3.12 make test                 another interpreter
#   VENV_FLAGS=--system-site-packages make run  reuse packages that are installed already

PYTHON ?= python3
VENV_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
HASH := $(shell $(PYTHON) -c "import hashlib; print(hashlib.sha256(open('pyproject.toml', 'rb').read()).hexdigest()[:16])")
STAMP := $(VENV)/.made-$(HASH)
WORKERS ?= 2
METHODS := cam,gradcam,tscam,sat,attention,center-box,full-image

# Tests run in few processes of one thread each: more threads than cores make every one of them slower.
ONE_THREAD := OMP_NUM_THREADS=1

.PHONY: run test check format lint types bench test-oldest browser

run: $(STAMP)
	$(BIN)/wsolbench run --methods $(METHODS) --dataset badges

test: $(STAMP) browser
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

check: lint types test

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy

# Chromium for the tests of the report's page, where it can be had without asking anyone; they are skipped elsewhere.
browser:
	@sh tests/support/get_chromium.sh </dev/null

bench: $(STAMP)
	$(ONE_THREAD) $(BIN)/python -m pytest -o addopts="--import-mode=importlib --strict-markers" --benchmark-only tests/benchmarks

$(STAMP):
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'wsolbench needs Python 3.11 or newer, name one: make PYTHON=python3.12')"
	$(PYTHON) -m venv $(VENV_FLAGS) $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev,browser]"
	rm -f $(VENV)/.made-*
	touch $@

# The oldest supported version of every dependency, in an environment of its own.
OLDEST := .venv-oldest
OLDEST_STAMP := $(OLDEST)/.made-$(HASH)

test-oldest: $(OLDEST_STAMP)
	$(ONE_THREAD) $(OLDEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal

$(OLDEST_STAMP): tests/oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --constraint tests/oldest.txt --editable ".[test]"
	rm -f $(OLDEST)/.made-*
	touch $@
