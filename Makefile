# Needs Python 3.11 or newer with venv, and nothing else. `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
OLDEST := .venv-oldest
OUT := demo-out
BENCH := bench/bench_*.py
PIP := -m pip --disable-pip-version-check --quiet
IN_VENV := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"
AS_PYTHON := NUMBA_DISABLE_JIT=1 $(IN_VENV)

# A process for each core; files stay whole, so that what one has compiled serves all its tests.
PARALLEL := -q -n auto
IN_PARALLEL := $(PARALLEL) --dist loadfile
# Files that also run as plain Python (JIT off) and for a processor without vector extensions.
# Peers get one thread, as what they are compared with.
ONE_THREAD := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1
PORTABLE := tests/kernels/test_softmax.py tests/kernels/test_gather.py tests/kernels/test_transpose.py \
	tests/kernels/test_ngrams.py tests/optim/test_rules.py tests/optim/test_averages.py

.DEFAULT_GOAL := help
.PHONY: help demo demo-fashion demo-text wheel test coverage test-fuzz test-objects test-crash test-shards test-oldest lint docs bench bench-quick clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1 - \2/p' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## train on real digits, evaluate on digits it never saw, write predictions
	@$(IN_VENV) examples/demo.sh $(OUT)/digits examples/data/digits-train.parquet \
		examples/data/digits-test.parquet digit

demo-fashion: $(VENV)/.installed ## the same on 70,000 images of 784 pixels (needs apt)
	@$(IN_VENV) python examples/fashion.py $(OUT)/fashion
	@$(IN_VENV) examples/demo.sh $(OUT)/fashion $(OUT)/fashion/fashion-train.parquet \
		$(OUT)/fashion/fashion-test.parquet label

demo-text: $(VENV)/.installed ## the same on 60,000 descriptions of Debian's packages (needs apt)
	@$(IN_VENV) python examples/descriptions.py $(OUT)/descriptions
	@$(IN_VENV) examples/demo.sh $(OUT)/descriptions $(OUT)/descriptions/descriptions-train.parquet \
		$(OUT)/descriptions/descriptions-test.parquet section --text title,body

# Machine code computes with infinities in silence, where NumPy warns.
test: $(VENV)/.with-test ## run the tests
	$(IN_VENV) python -m pytest $(IN_PARALLEL)
	$(AS_PYTHON) python -m pytest $(PARALLEL) -W ignore::RuntimeWarning $(PORTABLE)
	NUMBA_CPU_NAME=generic $(IN_VENV) python -m pytest $(IN_PARALLEL) -k "not float64" \
		$(filter-out tests/kernels/test_ngrams.py, $(PORTABLE))

# The second run counts the lines of the kernels, which coverage cannot see once compiled.
coverage: $(VENV)/.with-test ## run the tests and report the lines that none reaches (slower)
	$(IN_VENV) python -m pytest $(IN_PARALLEL) --cov --cov-report=
	$(AS_PYTHON) python -m pytest $(PARALLEL) -W ignore::RuntimeWarning $(PORTABLE) \
		--cov --cov-append --cov-report=
	$(IN_VENV) python -m coverage report

test-fuzz: $(VENV)/.with-test ## train on 500 damaged Parquet files (minutes)
	$(IN_VENV) python -m tests.fuzz_parquet

test-objects: $(VENV)/.with-test ## call everything with 2,000 objects of all kinds (minutes)
	$(IN_VENV) python -m tests.fuzz_objects

test-crash: $(VENV)/.with-test ## kill and resume runs in all ways, load 100,000 damaged models (hours)
	FASTSOFTMAX_CRASH=1 $(IN_VENV) python -m pytest $(PARALLEL) tests/training/test_checkpoint.py
	$(IN_VENV) python -m tests.fuzz_models 100000
	$(IN_VENV) python -m tests.fuzz_checkpoints 10000

test-shards: $(VENV)/.with-test ## 200 runs in chaos, 50 killed workers, all ways to take steps (minutes)
	FASTSOFTMAX_SHARDS=1 $(IN_VENV) python -m pytest -q tests/training/test_shards.py \
		tests/training/test_step_rounds.py tests/engines

test-oldest: $(OLDEST)/.installed ## run the tests with the oldest versions pyproject.toml allows
	$(OLDEST)/bin/python -m pytest $(IN_PARALLEL) -p no:cacheprovider

lint: $(VENV)/.with-lint ## check style, format and types
	$(IN_VENV) ruff check .
	$(IN_VENV) ruff format --check .
	$(IN_VENV) mypy

docs: $(VENV)/.with-docs ## make the documents a site, build/docs/docs/index.html
	$(IN_VENV) python -m sphinx -q -W --keep-going -c docs . build/docs

# Built with the versions of numba and llvmlite that users of the wheel then have.
wheel: $(VENV)/.installed ## build wheels, one with the kernels' machine code, into dist (minutes)
	$(VENV)/bin/python $(PIP) install build twine
	$(VENV)/bin/python -m build
	FASTSOFTMAX_WHEEL=platform $(VENV)/bin/python -m build --wheel
	$(VENV)/bin/python -m twine check --strict dist/*

bench: $(VENV)/.with-bench ## measure speed, all or BENCH=FILES, into bench/RESULTS.md (minutes)
	$(IN_VENV) $(ONE_THREAD) python -m pytest -q --timeout 0 -W default $(BENCH)

bench-quick: $(VENV)/.with-bench ## look at speed, on fewer rows (seconds)
	$(IN_VENV) $(ONE_THREAD) python -m pytest -q -W default bench/bench_*.py --quick

clean: ## remove everything that make has made
	rm -rf $(VENV) $(OLDEST) $(OUT) build dist .coverage .benchmarks .hypothesis \
		.mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps, so that nothing is installed twice; a changed pyproject.toml installs again.
$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "make: installing fastsoftmax into $(VENV)"
	@$(VENV)/bin/python $(PIP) install --editable .
	@$(VENV)/bin/python -m compileall -q fastsoftmax
	@touch $@

$(VENV)/.with-%: pyproject.toml | $(VENV)/bin/python
	@echo "make: installing fastsoftmax and its extra \"$*\" into $(VENV)"
	@$(VENV)/bin/python $(PIP) install --editable ".[$*]"
	@touch $@ $(VENV)/.installed

$(OLDEST)/.installed: pyproject.toml .ci/lower_bounds.py | $(OLDEST)/bin/python
	@echo "make: installing the oldest versions allowed into $(OLDEST)"
	@$(OLDEST)/bin/python .ci/lower_bounds.py > $(OLDEST)/pins.txt
	@$(OLDEST)/bin/python $(PIP) install --constraint $(OLDEST)/pins.txt --editable ".[test]"
	@touch $@

%/bin/python:
	@command -v $(PYTHON) > /dev/null || { echo "make: there is no $(PYTHON); install Python 3.11" \
		"or newer, or name it: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is" \
		"older than 3.11; install a newer one, or name it: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -m venv $* || { rm -rf $*; exit 2; }
