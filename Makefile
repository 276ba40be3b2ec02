# Every target does its own set-up: a fresh machine needs Python 3 with venv, a C compiler and make.
#   make demo                          from nothing to a comparison report
#   make recon-demo                    the same for reconstruction
#   make test                          all tests that are not slow
#   make PYTHON=python3.12 VENV=/tmp/venv test
#   make PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu" test     a small torch without CUDA

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
PYTEST_ARGS ?=
DEMO_ARGS ?=
BENCH_ARGS ?=

BIN := $(VENV)/bin
SIBLINGS := trainers dataset_conversion recon
LINKS := build/links/nnunet_kd
# one thread per test process, so that parallel ones do not fight for the cores
TEST_PROCESSES ?= 2
PYTEST := OMP_NUM_THREADS=$(or $(OMP_NUM_THREADS),1) $(BIN)/python -m pytest -n $(TEST_PROCESSES)

.PHONY: help demo recon-demo test slow lint format types links docs bench clean
help:
	@echo "targets: demo recon-demo test slow lint format types docs bench clean (see the head of the Makefile)"

# one stamp per extra: a second run installs nothing unless the metadata changed
$(VENV)/.stamp-pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

$(VENV)/.stamp-%: $(VENV)/.stamp-pip pyproject.toml setup.py
	$(BIN)/python -m pip install $(PIP_ARGS) --editable '.[$*]'
	touch $@

demo: $(VENV)/.stamp-test
	$(BIN)/nnunet_kd demo $(DEMO_ARGS)

recon-demo: $(VENV)/.stamp-test
	$(BIN)/nnunet_kd recon demo $(DEMO_ARGS)

test: $(VENV)/.stamp-test
	$(PYTEST) --dist loadfile -m "not slow" $(PYTEST_ARGS)

slow: $(VENV)/.stamp-test
	$(PYTEST) --dist load -m slow $(PYTEST_ARGS)

lint: $(VENV)/.stamp-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

format: $(VENV)/.stamp-lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# static tools run no code and so cannot follow the finder of _checkout.py: they read a folder of links instead
links:
	@mkdir -p $(LINKS)
	@find -L $(LINKS) -type l -delete
	@for entry in $$(ls nnunet_kd | grep -v __pycache__); do ln -sfn ../../../nnunet_kd/$$entry $(LINKS)/$$entry; done
	@for name in $(SIBLINGS); do ln -sfn ../../../$$name $(LINKS)/$$name; done

types: $(VENV)/.stamp-lint links
	$(BIN)/mypy

docs: $(VENV)/.stamp-docs links
	$(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.stamp-test
	$(BIN)/python benchmarks/training_step.py $(BENCH_ARGS)
	$(BIN)/python benchmarks/cached_step.py
	$(BIN)/python benchmarks/network_speed.py

clean:
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
