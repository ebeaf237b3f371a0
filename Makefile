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

.PHONY: demo test test-annotations test-wheel test-oldest test-newest test-pythons test-browser test-all
.PHONY: torture lint bench help clean

help:
	@echo "make demo      install, train the paper's network on 5,000 digits, write the report"
	@echo "make test      install what the tests need, run them (under 12 minutes on 2 cores)"
	@echo "make test-wheel    build the wheel, install it into a clean environment, run the quick tests on it"
	@echo "make test-oldest   the same with the oldest versions of what capsnet needs"
	@echo "make test-newest   the same with the newest (PyTorch as pinned)"
	@echo "make test-pythons  the same with every Python from 3.11 to 3.13 that is found and has this PyTorch"
	@echo "make test-browser  the explorer in Chromium"
	@echo "make test-annotations  shapes and types, checked while tests run"
	@echo "make test-all  the same and the slow ones"
	@echo "make torture   kills, full disks, fuzzing, load (hours); writes docs/reliability.md"
	@echo "make lint      ruff and mypy"
	@echo "make bench     every fast path against the plain one, in one run"

demo: $(VENV)/installed-demo
	$(BIN)/capsnet train --data mnist5k --epochs 12
	@echo
	@echo "Next: open the report above in a browser; '$(BIN)/capsnet explore' to watch it think;"
	@echo "      '$(BIN)/capsnet train --data mnist --epochs 3' for all 60,000 digits;"
	@echo "      '$(BIN)/capsnet --help' for the rest."

test: $(VENV)/installed-test lint
	$(BIN)/python -m pytest -q -m "not slow and not gpu and not browser"

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

test-browser: $(VENV)/installed-test
	$(BIN)/python -m pytest -q -m browser

# The annotations of shapes, while tests run that keep to them.
ANNOTATED := data/test_augmentation models data/test_affine data/test_overlapping explain test_functional properties \
  routing/test_route
test-annotations: $(VENV)/installed-test
	CAPSNET_CHECK_ANNOTATIONS=1 $(BIN)/python -m pytest -q -m "not slow and not gpu and not misuse" \
	  $(foreach t,$(ANNOTATED),$(wildcard tests/$(t) tests/$(t).py))

test-all: $(VENV)/installed-test lint
	$(BIN)/python -m pytest -q -m "not gpu"

torture: $(VENV)/installed-torture
	$(BIN)/python -m torture $(PARTS)

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed-demo
	$(BIN)/capsnet bench

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "capsnet needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed-demo: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable '.[explorer]'
	@touch $@

$(VENV)/installed-torture: $(VENV)/installed-test
	$(PIP) install --quiet --constraint constraints.txt --editable '.[torture]'
	@touch $@

$(VENV)/installed-test: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@ $(VENV)/installed-demo
