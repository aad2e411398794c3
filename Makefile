# The two commands of the README. Each sets up what it needs: one virtual environment, made once and reused.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all setup clean

demo: setup
	$(BIN)/python examples/demo.py

# Each method and each kind of base once; no test takes more than ten seconds of a processor (tests/conftest.py).
test: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m "not full" -n 2 --dist worksteal --durations=15

# All products of methods and bases, the notebooks with their bases, SetFit, Ray, processes as a user starts them.
test-all: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist worksteal --durations=15

setup: $(VENV)/.ready

# torch first and by itself, so that no resolver picks it among others. On Linux the package index gives a CUDA build of
# several GB; for a processor only: make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "softprompt needs Python 3.10 or newer; set PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip<26' 'setuptools>=77'
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install --quiet torch==2.13.0 $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
