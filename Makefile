# make demo [DATA=path/to/folder]   make test   make slow   make check   make bench   make torture
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test slow check bench torture clean

# The stamp is newer than pyproject.toml if and only if the environment is up to date.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/s5mars demo --out runs/demo $(if $(DATA),--data "$(DATA)")

test: $(VENV)/.installed
	$(BIN)/python -m pytest

slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/sample.py
	$(BIN)/python benchmarks/loader.py
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/predict.py
	$(BIN)/python benchmarks/export.py
	$(BIN)/python benchmarks/masks.py

# Takes about twenty minutes: damaged inputs, kills at random moments, concurrent runs, full disks.
torture: $(VENV)/.installed
	$(BIN)/python benchmarks/torture.py

clean:
	rm -rf $(VENV) build dist src/*.egg-info runs/demo
