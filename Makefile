# Everything a contributor runs. The settings live in pyproject.toml, the versions in constraints.txt.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint format typecheck check wheel figure clean

demo: .venv/installed  ## Reconstruct a phantom's CT from two of its X-rays; look at demo/report.html
	$(BIN)/fewview demo

test: .venv/installed  ## The whole test suite; tests on real CT run if FEWVIEW_TEST_DATA is set
	$(BIN)/python -m pytest

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: .venv/installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

typecheck: .venv/installed
	$(BIN)/mypy src

check: lint typecheck test  ## What pre-commit and CI ask for

wheel: .venv/installed  ## A wheel in dist/, with the bundled models inside
	rm -rf build dist
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

figure: .venv/installed  ## The README's figure
	$(BIN)/python docs/make_figure.py

# The build tool is installed first and used without isolation, so that it is pinned as well.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -c 'import sys; assert sys.version_info >= (3, 11), "fewview needs Python 3.11 or newer: make PYTHON=python3.11"'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	touch $@

clean:  ## Remove what can be made again; the virtual environment stays
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
