# Everything happens in virtual environments beside this file; nothing else is touched. torch is installed first everywhere: a plain install
# takes the registry's newest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.saebench-installed
LOCK := requirements.lock
TORCH ?= $(shell grep '^torch==' $(LOCK))
PIP := -m pip install --quiet --disable-pip-version-check
# setuptools comes from the environment, so that nothing outside the lock is fetched for the build
ITSELF := --no-deps --no-build-isolation --editable .
# One worker a core, so one thread a worker. A file stays with one worker, as do its fixtures; the long files come first.
PYTEST := -m pytest --numprocesses auto --dist loadscope --no-loadscope-reorder --durations 10

.PHONY: help setup quickstart test test-latest test-lowest lint hook format perf gpu-check lock clean

help:
	@echo "make quickstart    set up .venv, run the built-in suite, print where the leaderboard is"
	@echo "make test          set up .venv if it is not there, run the tests"
	@echo "make test-latest   run the tests with the newest of everything, in .venv-latest"
	@echo "make test-lowest   run the tests with the lowest versions that pyproject.toml allows, in .venv-lowest"
	@echo "make lint          ruff, mypy, import contracts"
	@echo "make hook          git runs 'make lint' before each commit from now on"
	@echo "make perf          pytest-benchmark cases"
	@echo "make gpu-check     check everything on this machine's card, under eight minutes; GPU_CHECK='--device cpu --short' tries it"
	@echo "make lock          make requirements.lock anew; TORCH=torch==X moves torch"

setup: $(STAMP)

$(STAMP): $(LOCK) pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) "$$(grep '^torch==' $(LOCK))"
	$(BIN)/python $(PIP) --requirement $(LOCK)
	$(BIN)/python $(PIP) $(ITSELF)
	touch $(STAMP)

quickstart: $(STAMP)
	$(BIN)/saebench run quickstart

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST)

test-latest:
	$(PYTHON) -m venv --clear .venv-latest
	.venv-latest/bin/python $(PIP) torch
	.venv-latest/bin/python $(PIP) --editable ".[dev]"
	OMP_NUM_THREADS=1 .venv-latest/bin/python $(PYTEST)

test-lowest:
	$(PYTHON) -m venv --clear .venv-lowest
	$(PYTHON) .ci/lowest.py > .venv-lowest/requirements.txt
	.venv-lowest/bin/python $(PIP) "$$(grep '^torch==' .venv-lowest/requirements.txt)"
	.venv-lowest/bin/python $(PIP) --requirement .venv-lowest/requirements.txt
	.venv-lowest/bin/python $(PIP) $(ITSELF)
	OMP_NUM_THREADS=1 .venv-lowest/bin/python $(PYTEST)

# Build names (+cpu) and CUDA packages depend on the machine; torch brings what it needs of them.
lock:
	$(PYTHON) -m venv --clear .venv-lock
	.venv-lock/bin/python $(PIP) "$(TORCH)"
	.venv-lock/bin/python $(PIP) --editable ".[dev]"
	echo "# Exact versions of all that [dev] of pyproject.toml needs. Made by 'make lock'; do not edit by hand." > .venv-lock/$(LOCK)
	.venv-lock/bin/python -m pip freeze --all --exclude pip --exclude saebench-harness > .venv-lock/freeze.txt
	sed 's/+.*//' .venv-lock/freeze.txt | grep -Ev '^(nvidia|cuda|triton)' | LC_ALL=C sort -f >> .venv-lock/$(LOCK)
	mv .venv-lock/$(LOCK) $(LOCK)
	rm -rf .venv-lock

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

HOOK = $$(git rev-parse --git-path hooks/pre-commit)
hook: $(STAMP)
	@test ! -e "$(HOOK)" || grep -qx 'exec make lint' "$(HOOK)" || { echo "$(HOOK) exists and is yours: add 'make lint' to it"; exit 1; }
	printf '#!/bin/sh\nexec make lint\n' > "$(HOOK)"
	chmod +x "$(HOOK)"

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

perf: $(STAMP)
	$(BIN)/python -m pytest benchmarks/perf --benchmark-only

GPU_CHECK ?= --device cuda
gpu-check: $(STAMP)
	$(BIN)/python benchmarks/gpu/check.py $(GPU_CHECK)

clean:
	rm -rf .venv .venv-* build dist *.egg-info
