# Every target makes what it needs: a virtual environment in .venv, filled by pip alone.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := @$(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo test test-long check audit bench bench-full format clean

demo: $(VENV)/.base
	$(BIN)/warmline run examples/tasks.jsonl --agent examples/files.py:agent --endpoint emulator \
	    --connections 8 --concurrency 32 --out demo-results.jsonl --overwrite

test: $(VENV)/.test
	$(BIN)/python -m pytest $(ARGS)

test-long: $(VENV)/.test
	$(BIN)/python -m pytest --long $(ARGS)

check: $(VENV)/.check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/flake8 --select ASYNC --enable-extensions ASYNC --extend-ignore ASYNC109,ASYNC116,ASYNC9 pool scheduler tests bench examples
	$(BIN)/mypy
	$(BIN)/python -m tests.audit --seconds 12

audit: $(VENV)/.check
	$(BIN)/python -m tests.audit --seconds 300

bench: $(VENV)/.bench
	$(BIN)/python -m bench

bench-full: $(VENV)/.bench
	$(BIN)/python -m bench --full

format: $(VENV)/.check
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .venv-bench .pytest_cache .mypy_cache .ruff_cache .hypothesis demo-results.jsonl

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "warmline needs Python 3.11 or newer; say which with: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml | $(VENV)/bin/python
	@echo "Installing warmline into $(VENV) ..."
	$(PIP) -e .
	@touch $@

$(VENV)/.test: pyproject.toml tests/constraints.txt | $(VENV)/bin/python
	@echo "Installing warmline and its tests into $(VENV) ..."
	$(PIP) --constraint tests/constraints.txt -e '.[test]'
	@touch $@ $(VENV)/.base

$(VENV)/.check: pyproject.toml tests/constraints.txt | $(VENV)/bin/python
	@echo "Installing warmline, its tests and linters into $(VENV) ..."
	$(PIP) --constraint tests/constraints.txt -e '.[test,check]'
	@touch $@ $(VENV)/.base

$(VENV)/.bench: pyproject.toml | $(VENV)/bin/python
	@echo "Installing warmline and its benchmarks into $(VENV) ..."
	$(PIP) -e '.[bench]'
	@touch $@ $(VENV)/.base
