# Two commands do: `make up` to see it, `make test` to check it. Both set up what they need.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PINS := pyproject.toml constraints.txt

# One stamp for what running needs, one for what the tests need beside it: a second run looks at two dates and starts.
RUNTIME := $(VENV)/.stamp
DEVELOPMENT := $(VENV)/.stamp-dev

.PHONY: help up test fast lint venv services peer asr constraints clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Options: PYTHON=/path/to/python3.11 (or later) · ARGS='...' for up, test and asr · SERVICES=none make test"

up: $(RUNTIME) ## Serve everything in one process on http://127.0.0.1:8080.
	@$(BIN)/penstock up $(ARGS)

test: $(DEVELOPMENT) ## Lint, then all tests, on a real Kafka, Redis and Chromium.
	@scripts/test.sh $(ARGS)

fast: $(DEVELOPMENT) ## The tests that need no service and little time: a minute.
	@SERVICES=none scripts/pytest.sh -m "not slow" $(ARGS)

lint: $(DEVELOPMENT) ## ruff, mypy --strict and import-linter.
	@scripts/lint.sh

venv: $(DEVELOPMENT) ## The virtual environment with all that a developer needs.

services: $(DEVELOPMENT) ## Keep a Kafka and a Redis running to play with.
	@$(BIN)/python -m tests.services

peer: $(DEVELOPMENT) ## The program that `penstock bench voice` is compared with, in an environment of its own.
	@scripts/peer.sh $(VENV) $(VENV)/peer

asr: $(DEVELOPMENT) ## Train the demo's speech recogniser from nothing and evaluate it: an hour and a half on one core.
	@$(BIN)/python -m apps.demo.speech.train $(ARGS)
	@$(BIN)/python -m apps.demo.speech.evaluate

constraints: $(DEVELOPMENT) ## Pin the versions that are installed now (after the tests have passed with newer ones).
	@$(BIN)/python scripts/constraints.py > constraints.new && mv constraints.new constraints.txt

clean: ## Remove the environment and all caches of this checkout.
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info build dist
	find pipeline stages apps tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUNTIME): $(PINS)
	@scripts/venv.sh $(VENV) .
	@touch $@

$(DEVELOPMENT): $(PINS)
	@scripts/venv.sh $(VENV) '.[dev]'
	@touch $(RUNTIME) $@
