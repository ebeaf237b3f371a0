# Two commands from the README do everything: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# The quick tests in an environment of their own, without a network where Linux lets us take it away.
QUICK = $(PYTHON) .ci/quick.py $(shell unshare --net ip link set lo up 2>/dev/null && echo --offline)
TORCH := $(shell grep '^torch==' constraints.txt)
PYTHONS ?= $(shell for v in 3.11 3.12 3.13; do for p in python$$v $$HOME/.pyenv/versions/$$v.*/bin/python; do \
  $$p -c "" 2>/dev/null && echo $$p && break; done; done)

# Each worker takes whole files, so that the tests of a file share its fixtures.
WORKERS ?= 2
PYTEST = pytest -q -n $(WORKERS) --dist loadfile
TEST = $(BIN)/python -m $(PYTEST)
# What one machine without a GPU can run; the browser's tests need Chromium and have a target of their own.
ALL = not gpu and not browser

.PHONY: demo site serve-site check lint test test-all test-browser test-annotations coverage
.PHONY: test-wheel test-oldest test-newest test-pythons torture bench help clean

help:
	@echo "make demo      install, train the paper's network on 5,000 digits, write the report"
	@echo "make site      the tutorial, the explorer, the guides and the reference as static files, into site/ (needs npm, once)"
	@echo "make serve-site        build the site and show it at http://127.0.0.1:8000"
	@echo "make check     ruff, mypy and the quick tests (under 90 seconds on 2 cores)"
	@echo "make test      ruff, mypy and the tests of every day (under 7 minutes on 2 cores)"
	@echo "make test-all  ruff, mypy and all tests but the browser's and the GPU's"
	@echo "make test-browser      the site and the explorer in Chromium"
	@echo "make test-annotations  shapes and types, checked while tests run"
	@echo "make coverage  test-all's tests; which lines and branches of the package they run"
	@echo "make test-wheel        build the wheel, install it into a clean environment, run the quick tests on it"
	@echo "make test-oldest       the same with the oldest versions of what capsnet needs"
	@echo "make test-newest       the same with the newest (PyTorch as pinned)"
	@echo "make test-pythons      the same with every Python from 3.11 to 3.13 that is found and has this PyTorch"
	@echo "make torture   kills, full disks, fuzzing, load (hours); writes docs/reliability.md"
	@echo "make lint      ruff, mypy, and phrases that are hard to read (.ci/words.py)"
	@echo "make bench     every fast path against the plain one, in one run"
	@echo "make clean     remove the environment and what was built"

demo: $(VENV)/installed-demo
	$(BIN)/capsnet train --data mnist5k --epochs 12
	@echo
	@echo "Next: open the report above in a browser; '$(BIN)/capsnet explore' to watch it think;"
	@echo "      '$(BIN)/capsnet train --data mnist --epochs 3' for all 60,000 digits;"
	@echo "      '$(BIN)/capsnet --help' for the rest."

# The explorer's export takes a minute, so it is kept until the package changes.
build/explorer/site.json: $(VENV)/installed-docs $(shell find src/capsnet -type f -not -name '*.pyc' -not -name '*.nb[ci]')
	$(BIN)/capsnet export capsnet-mnist --site build/explorer
	@touch $@

build/measured.json: web/measured.py build/explorer/site.json
	$(BIN)/python web/measured.py $@

# A cell that fails stops the build.
build/notebooks/executed: web/notebooks.py $(wildcard docs/notebooks/*.py) build/explorer/site.json
	$(BIN)/python web/notebooks.py build/notebooks
	@touch $@

site: build/explorer/site.json build/measured.json build/notebooks/executed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	rm -f site/404.html site/sitemap.xml*
	cp -r build/explorer site/explorer
	@echo "site/: $$(du -sh site | cut -f1), for any web server; make serve-site shows it"

serve-site: site
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory site 8000

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python .ci/words.py

check: lint
	$(TEST) -m "quick and $(ALL)"

test: lint
	$(TEST) -m "not slow and $(ALL)"

test-all: lint
	$(TEST) -m "$(ALL)"

test-browser: $(VENV)/installed-test site
	CAPSNET_SITE=site $(BIN)/python -m pytest -q -m browser

# The annotations of shapes, while tests run that keep to them.
ANNOTATED := data/test_augmentation data/test_affine data/test_overlapping explain layers/test_decoder models properties \
  routing/test_route test_functional
test-annotations: $(VENV)/installed-test
	CAPSNET_CHECK_ANNOTATIONS=1 $(TEST) -m "not slow and not misuse and $(ALL)" \
	  $(foreach t,$(ANNOTATED),$(wildcard tests/$(t) tests/$(t).py))

# Numba's compiled functions count as missed: Python does not run them.
coverage: $(VENV)/installed-test
	rm -f .coverage .coverage.*
	$(BIN)/coverage run -m $(PYTEST) -m "$(ALL)"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	@$(BIN)/coverage json --quiet -o - | $(BIN)/python -c 'import json, sys; t = json.load(sys.stdin)["totals"]; \
	  print("lines    {covered_lines} of {num_statements}: {percent_statements_covered:.2f} %".format(**t)); \
	  print("branches {covered_branches} of {num_branches}: {percent_branches_covered:.2f} %".format(**t))'

test-wheel: $(BIN)/python
	$(QUICK) --constraint constraints.txt

test-oldest: $(BIN)/python
	$(QUICK) --constraint constraints-oldest.txt --old

test-newest: $(BIN)/python
	$(QUICK) --constraint $(TORCH)

# PyTorch for a Python for which no CPU build is found would be gigabytes of CUDA packages: CUDA=1 asks for them.
test-pythons:
	@set -e; found=$$(mktemp -d); trap 'rm -r "$$found"' EXIT; for python in $(PYTHONS); do \
	  $$python -c 'import sys; print("== Python", sys.version)'; \
	  if [ -z "$(CUDA)" ] && ! $$python -m pip download --quiet --no-deps --no-index --only-binary :all: \
	      --dest "$$found" $(TORCH) 2>/dev/null; then \
	    echo "not tested: no local build of $(TORCH) for this Python; CUDA=1 downloads it"; continue; \
	  fi; \
	  $(QUICK) --python $$python --constraint constraints.txt; \
	done

torture: $(VENV)/installed-torture
	$(BIN)/python -m torture $(PARTS)

bench: $(VENV)/installed-demo
	$(BIN)/capsnet bench

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "capsnet needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed-demo: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable '.[explorer]'
	@touch $@

$(VENV)/installed-docs: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

$(VENV)/installed-torture: $(VENV)/installed-test
	$(PIP) install --quiet --constraint constraints.txt --editable '.[torture]'
	@touch $@

$(VENV)/installed-test: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@ $(VENV)/installed-demo
