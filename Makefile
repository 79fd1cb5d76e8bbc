# Needs make and Python 3.11 or newer, nothing else. `make` alone lists what there is.

SHELL := /bin/sh
MAKEFLAGS += --no-print-directory

# The first Python that is new enough; `make run PYTHON=/path/to/python3.12` takes another.
OLD_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	if $$python -c '$(OLD_ENOUGH)' >/dev/null 2>&1; then echo $$python; break; fi; done)

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
# mypy and the checks load the settings, which want to know what kind of installation this is.
LOCAL := DEBUG=1 SECRET_KEY=only-for-checks

.DEFAULT_GOAL := help
.PHONY: help run test soak bench bench-pages screenshots lint fmt clean install venv

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(VENV)/.run-installed ## database, web and worker in this terminal (PORT=8000 WORKERS=cores)
	@exec $(BIN)/python -m config.dev

test: $(VENV)/.test-installed ## the whole test suite (ARGS="-k name -x")
	@exec $(BIN)/python -m pytest $(ARGS)

soak: $(VENV)/.test-installed ## random faults under load, and the proof that nothing was lost (MINUTES=5 SEED=by chance)
	@exec $(BIN)/python -m soak --minutes $(or $(MINUTES),5) $(if $(SEED),--seed $(SEED)) $(ARGS)

bench: $(VENV)/.run-installed bench/.venv/.installed ## speed beside the alternatives (ONLY=dumbwaiter,celery ROUNDS= TASKS= ROWS=)
	@$(BIN)/python -m bench $(if $(ONLY),--only $(ONLY)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(TASKS),--tasks $(TASKS)) $(if $(ROWS),--rows $(ROWS)) $(ARGS)

bench-pages: $(VENV)/.test-installed ## the pages with a million runs, and 200 readers (ARGS="--rows 10000 --write")
	@$(BIN)/python -m bench.pages $(ARGS)

screenshots: $(VENV)/.test-installed ## every page in both themes and on a phone, into docs/screenshots
	@exec $(BIN)/python -m pytest tests/centre/test_screenshots.py --screenshots $(ARGS)

install: $(VENV)/.test-installed ## .venv with everything for development, and nothing else

lint: $(VENV)/.test-installed ## ruff and mypy, changing nothing
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(LOCAL) $(BIN)/mypy .

fmt: $(VENV)/.test-installed ## ruff's repairs and format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## removes caches and collected files; the data in var/ stays
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis staticfiles
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

# The stamps are made last, so that an installation cut short is taken up again.
$(VENV)/.run-installed: requirements.txt constraints.txt | venv
	@echo "Installing requirements.txt into $(VENV) ..."
	@$(PIP) --requirement requirements.txt
	@touch $@

$(VENV)/.test-installed: requirements-dev.txt requirements.txt constraints.txt | venv
	@echo "Installing requirements-dev.txt into $(VENV) ..."
	@$(PIP) --requirement requirements-dev.txt
	@touch $(VENV)/.run-installed $@

bench/.venv/.installed: bench/requirements.txt | venv
	@echo "Installing bench/requirements.txt into bench/.venv ..."
	@$(BIN)/python -m bench.install

venv:
	@if $(BIN)/python -c '$(OLD_ENOUGH)' >/dev/null 2>&1; then exit 0; fi; \
	if [ -z "$(PYTHON)" ]; then \
		echo "Python 3.11 or newer was not found: install it, or name it: make run PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
	if ! $(PYTHON) -c '$(OLD_ENOUGH)' >/dev/null 2>&1; then \
		echo "$(PYTHON) is not Python 3.11 or newer: name another: make run PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
	if ! $(PYTHON) -c 'import venv, ensurepip' >/dev/null 2>&1; then \
		echo "$(PYTHON) cannot make virtual environments: install its venv module (Debian: apt install python3-venv)." >&2; exit 1; fi; \
	$(PYTHON) -m venv --clear $(VENV)
