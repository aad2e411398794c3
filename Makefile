# `make demo` and `make test` are the two commands of the README. Each sets up what it needs: one virtual environment, made once
# and reused. VENV=… names another one.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# the versions that the tests were last run with; empty: the newest that pyproject.toml allows
PINS ?= -c constraints.txt
EXTRAS ?= dev

.PHONY: demo test test-all test-newest docs docs-links setup lock pages dist clean

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

# The same tests with the newest release of each package, in an environment of its own that is brought up to date each time.
test-newest:
	rm -f .venv-newest/.ready
	$(MAKE) test VENV=.venv-newest EXTRAS=dev,docs PINS='--upgrade --upgrade-strategy eager'

# The documentation as a site, docs/_build/html/index.html. A warning is an error.
docs: $(VENV)/.docs
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

# Whether links to other sites still lead somewhere: needs the network, so no test asks it.
docs-links: $(VENV)/.docs
	$(BIN)/sphinx-build -q -b linkcheck docs docs/_build/links

$(VENV)/.docs: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --editable '.[docs]' $(PINS)
	touch $@

setup: $(VENV)/.ready softprompt/adapters softprompt/benchmarks

# an sdist holds no links to folders; mypy reads the two packages through them
softprompt/adapters softprompt/benchmarks:
	ln -s ../$(@F) $@

# torch first and by itself, so that no resolver picks it among others. On Linux the package index gives a CUDA build of
# several GB; for a processor only: make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
# It is asked beside the usual index: what torch needs in turn is pinned, and that index need not have those versions. Of one
# version pip takes the build with a local tag, such as +cpu.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "softprompt needs Python 3.10 or newer; set PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PINS) --upgrade 'pip<26' 'setuptools>=77'
	$(BIN)/python -m pip install --quiet $(PINS) 'torch>=2.6' $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	$(BIN)/python -m pip install --quiet $(PINS) --editable '.[$(EXTRAS)]'
	touch $@

# constraints.txt anew, from what is installed. Install a new package with its extra first (CONTRIBUTING.md).
lock:
	$(BIN)/python .ci/lock.py

# The HTML pages in headless Chromium, by axe-core and by eye (PNG files in build/pages). Needs node and Chromium.
pages: setup
	npm install --silent --prefix tests/pages
	SHOTS=build/pages $(BIN)/pytest -q tests/test_pages.py

# The wheel is built from the sdist, so that both are whole.
dist: setup
	rm -rf dist
	$(BIN)/python -c "from setuptools import build_meta; build_meta.build_sdist('dist')"
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist dist/*.tar.gz

clean:
	rm -rf $(VENV) .venv-newest build dist *.egg-info
