# SPDX-License-Identifier: MIT
# Every target works from a bare clone: it needs Python 3.11 or newer with venv, and a C compiler.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test test-all break lint clean

demo: $(STAMP)
	$(BIN)/python scripts/demo.py

# Two at a time: some tests start two processes themselves.
TESTS := $(BIN)/python -m pytest -n 2 --dist loadgroup

test: lint
	$(TESTS)

test-all: lint
	$(TESTS) -m "slow or not slow"

break: $(STAMP)
	$(BIN)/python scripts/break_promises.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache demo-output

$(STAMP): pyproject.toml constraints.txt setup.py hbae/_kernel.h $(wildcard hbae/*/*.[ch])
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with the venv module is needed" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".[dev,demo,compare,mpi]"
	@touch $@
