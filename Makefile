# Everything happens in .venv; nothing else is touched. torch is pinned here and installed first: a plain install may pull gigabytes of CUDA.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
STAMP := $(VENV)/.saebench-installed

.PHONY: help quickstart test lint setup format perf clean

help:
	@echo "make quickstart   set up .venv, run the built-in suite, print where the leaderboard is"
	@echo "make test         set up .venv if it is not there, run the tests"
	@echo "make lint         ruff, mypy, import contracts"
	@echo "make perf         pytest-benchmark cases"

setup: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $(STAMP)

quickstart: $(STAMP)
	$(BIN)/saebench run quickstart

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

perf: $(STAMP)
	$(BIN)/python -m pytest benchmarks/perf --benchmark-only

clean:
	rm -rf $(VENV) build dist *.egg-info
