# Everything runs in .venv, which the first target you call makes. ARGS adds arguments: make test ARGS="-k grammar"

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
INSTALLED := .venv/.installed
RECENT := import sys; sys.exit(sys.version_info < (3, 10))

# Tests share two cores through three workers, as some wait for processes of their own, and benchmarks want a quiet
# core, so torch gets a single thread in both.
ONE_THREAD := OMP_NUM_THREADS=1

# With ARGS that choose among tests, one of the two calls may have none to run, which pytest exits with 5 for.
OR_NONE := $(if $(ARGS),|| [ $$? -eq 5 ])

.DEFAULT_GOAL := help
.PHONY: help demo test ray configs lint types dist docs bench ops results memory clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s  %s\n", $$1, $$2 }' Makefile

demo: $(INSTALLED) ## learn the structure of MultiMNIST scenes, the quick settings
	$(BIN)/ms2 fit --config multimnist_quick $(ARGS)

test: $(INSTALLED) ## run the tests
	$(ONE_THREAD) $(BIN)/pytest -n 3 --dist worksteal --ignore tests/cli/test_wandb.py $(ARGS) $(OR_NONE)
	$(ONE_THREAD) $(BIN)/pytest tests/cli/test_wandb.py $(ARGS) $(OR_NONE) # alone: on busy cores wandb's own process falls behind

ray: $(INSTALLED) ## make data sets by a Ray cluster of two machines here, one of which is killed; two minutes
	MS2_RAY=1 $(ONE_THREAD) $(BIN)/pytest tests/datasets/test_ray.py $(ARGS)

configs: $(INSTALLED) ## run every shipped configuration to its end, with small images and batches; part of make test
	$(ONE_THREAD) $(BIN)/pytest -n 2 --dist worksteal --durations=0 --durations-min=1 tests/cli/test_configs.py \
		-k "runs or lists" $(ARGS)

lint: $(INSTALLED) ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED) ## check types
	$(BIN)/mypy

docs: $(INSTALLED) ## build the documentation into site/, notebooks with their outputs, and open every page in Chromium
	NO_MKDOCS_2_WARNING=1 $(ONE_THREAD) $(BIN)/mkdocs build -q
	PYTHONPATH=tests/report $(BIN)/python tools/check_site.py site

bench: $(INSTALLED) ## measure speed; on a GPU: make bench ARGS="--device cuda"
	@mkdir -p .benchmarks
	$(ONE_THREAD) $(BIN)/pytest benchmarks/ --benchmark-only --benchmark-group-by=group --benchmark-sort=name \
		--benchmark-columns=min,median,iqr,rounds --benchmark-json=.benchmarks/latest.json $(ARGS)
	@$(BIN)/python benchmarks/table.py .benchmarks/latest.json

ops: $(INSTALLED) ## count the operators and the waits for a GPU of each configuration's training steps, on the CPU
	$(ONE_THREAD) $(BIN)/python benchmarks/ops.py $(ARGS)

dist: $(INSTALLED) ## build sdist and wheel, check them, install the wheel into an empty environment and use it there
	rm -rf dist
	$(BIN)/python -m build -q
	$(BIN)/twine check --strict dist/*
	$(ONE_THREAD) $(BIN)/python tools/check_wheel.py $(ARGS)

results: $(INSTALLED) ## results tables: make results ARGS="multimnist" or another world, "ablation" or "search"; hours. --jobs 2 runs two at a time
	$(BIN)/python experiments/results.py $(ARGS)

memory: $(INSTALLED) ## memory of a run over 2,000 steps, or of 5,000 driving scenes: make memory ARGS=driving
	$(BIN)/python experiments/memory.py $(ARGS)

clean: ## remove caches and build leftovers; .venv and runs stay
	rm -rf build dist site src/*.egg-info .benchmarks .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -path ./runs -prune -o -type d -name __pycache__ -exec rm -rf {} +

# The stamp is written last, so the next call takes up an interrupted install again.
$(INSTALLED): SHELL := bash
$(INSTALLED): pyproject.toml requirements.txt setup.py
	@if ! $(BIN)/python -c 'import pip; $(RECENT)' 2>/dev/null; then \
		if ! $(PYTHON) -c '$(RECENT)' 2>/dev/null; then \
			echo "ms2 needs Python 3.10 or newer; $(PYTHON) is: $$($(PYTHON) --version 2>&1)" >&2; \
			echo "Name a newer one, for example: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
			exit 1; \
		fi; \
		if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
			echo "$(PYTHON) cannot make virtual environments. Try: apt install python3-venv" >&2; \
			exit 1; \
		fi; \
		$(PYTHON) -m venv --clear .venv; \
	fi
	@echo "Installing ms2 into .venv. The first time takes about 3 minutes and 6 GB, most of it torch."
	@set -o pipefail; export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1; \
		$(BIN)/python -m pip install -e '.[dev]' | awk '$(BIG_STEPS)'
	@touch $@

# Of pip's hundreds of lines: the packages of 10 MB and more, and the long step in which pip is silent.
define BIG_STEPS
/\([0-9][0-9]+\.[0-9] MB\)/ { sub(/^ */, "  "); print; fflush() } \
/^Installing collected packages/ { print "  Unpacking all of it"; fflush() }
endef
