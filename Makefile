# Everything a person or CI calls. Each target sets up what is missing first (seconds when nothing changed).
#   make demo          the whole nightly job on the embedded world, with vLLM on this CPU
#   make test          every test that can run here
#   make check         lint and test: exactly what CI calls
#   make coverage      the tests again, and which branches none of them takes: none in the store's core, a tenth at most
#   make mutation      would a test notice if the store's core did something else? ARGS="--sample 60" for 60 of 438 changes
# Options: PYTHON=python3.12 for another Python, EXTRAS=gpu,dev for a machine with a GPU, ARGS="..." for pytest.

PYTHON ?= python3
EXTRAS ?= cpu,dev
BIN := .venv/bin

.PHONY: help setup demo test lint format bench check coverage mutation clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#  *\(make [a-z]*\)/\1/p' $(MAKEFILE_LIST)

setup:
	@$(PYTHON) deploy/install.py --extras $(EXTRAS)

demo: setup
	$(BIN)/nightshift nightly --config deploy/configs/demo.toml

test: setup
	$(BIN)/pytest $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/hadolint deploy/docker/*.Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python -m tests.benchmarks

check: lint test

CORE := storage/files.py,storage/cache.py,storage/disk.py,storage/lock.py,storage/snapshot.py,storage/features.py
coverage: setup
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage report --include=$(CORE) --fail-under=100
	$(BIN)/coverage report --fail-under=90

mutation: setup
	$(BIN)/python -m tests.faults.mutation $(ARGS)

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage
