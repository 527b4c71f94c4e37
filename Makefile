# make setup | extras | demo | test | test-slow | test-trackers | fuzz | crash | lint | bench | study: each sets up .venv
# by itself first.
# Another interpreter: make setup PYTHON=/path/to/python3. Another source of torch, such as one without CUDA:
# make setup PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu".

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
EXTRAS := $(VENV)/.extras
PIP := $(PY) -m pip --disable-pip-version-check --quiet
PIP_ARGS ?=
PYTHON ?=
CANDIDATES := $(or $(PYTHON),python3.13 python3.12 python3.11 python3)

.PHONY: setup extras demo test test-slow trackers test-trackers fuzz crash lint bench study table1-nano table1-nano-adapters table1-nano-data
.DELETE_ON_ERROR:

setup: $(STAMP)

# sam2 comes as source that names torch as a build tool: in an isolated build pip would fetch torch a second time. Its
# CUDA extension fills holes in masks, which nothing here uses.
# The stamp is written last, so that an interrupted installation is taken up again.
$(STAMP): requirements.lock
	@rm -f $@
	@for python in $(CANDIDATES); do \
		if "$$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
			echo "Setting up $(VENV) with $$python (torch is large: this takes some minutes) ..."; \
			exec "$$python" -m venv $(VENV); \
		fi; \
	done; \
	echo "No Python 3.11 or newer with venv among: $(CANDIDATES). Install one, or name it: make PYTHON=/path/to/python3" >&2; \
	exit 1
	@grep -v '^sam2==' requirements.lock >$(VENV)/without-sam2.txt
	@$(PIP) install $(PIP_ARGS) -r $(VENV)/without-sam2.txt
	@SAM2_BUILD_CUDA=0 $(PIP) install $(PIP_ARGS) --no-deps --no-build-isolation "$$(grep '^sam2==' requirements.lock)"
	@$(PIP) check
	@touch $@

# What DICOM files, ONNX export and the page need; their tests are skipped without it.
extras: $(EXTRAS)

$(EXTRAS): $(STAMP) requirements-extras.lock
	@$(PIP) install $(PIP_ARGS) -c requirements.lock -r requirements-extras.lock
	@$(PIP) check
	@touch $@

demo: setup
	$(PY) main.py demo --output runs/demo

# Two workers, each with one thread: more threads than cores make torch slower.
test: setup
	OMP_NUM_THREADS=1 $(PY) -m pytest -m "not slow" -n 2 --durations=10

# Tests of one group go to one worker.
test-slow: setup
	OMP_NUM_THREADS=1 $(PY) -m pytest -m slow -n 2 --dist loadgroup --durations=25

# Runs that wandb, MLflow and Comet follow offline. The packages stay apart, so that no other test sees them.
trackers: extras
	@$(PIP) install --no-deps --upgrade --target $(VENV)/trackers -r requirements-trackers.lock

test-trackers: trackers
	PYTHONPATH=$(VENV)/trackers OMP_NUM_THREADS=1 $(PY) -m pytest -m slow tests/training/test_trackers.py

# Mutated files through the real commands for a minute, or FUZZ_SECONDS.
fuzz: setup
	OMP_NUM_THREADS=1 $(PY) -m pytest -p no:cacheprovider tests/fuzz.py

# 100 kills at random system calls, or KILLS; needs strace.
crash: setup
	OMP_NUM_THREADS=1 $(PY) -m tests.crash $(if $(KILLS),--kills $(KILLS))

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

# Ours beside the usual way; results go to runs/bench/. Takes an hour or more: BENCH="startup step" picks some.
bench: setup
	$(PY) -m benchmarks.run $(BENCH)

# Studies on nano models: docs/table1-nano and its page of adapters, from real sets in DATA. Each takes hours on two cores
# and goes on where it was stopped. With SEEDS="3 4", those seeds alone, to check what the page claims.
DATA := ../shared/data
PREPARE := $(PY) main.py prepare
FOLDER_OF = folder --images $(DATA)/$(1)/images --masks $(DATA)/$(1)/masks --threshold 127 --test_fraction $(2) --output data/$(1)

table1-nano-data: setup
	@test -e data/DRIVE || $(PREPARE) drive --source $(DATA)/DRIVE --output data/DRIVE
	@test -e data/DIAS || $(PREPARE) dias --source $(DATA)/DIAS --output data/DIAS
	@test -e data/XRay-Angio-80 || $(PREPARE) $(call FOLDER_OF,XRay-Angio-80,0.3)
	@test -e data/ROSSA-30 || $(PREPARE) $(call FOLDER_OF,ROSSA-30,0.267)

study: table1-nano table1-nano-adapters

table1-nano: table1-nano-data
	$(PY) -m study.run --plan configs/table1/nano.yaml --page docs/table1-nano $(if $(SEEDS),--seeds $(SEEDS))

table1-nano-adapters: table1-nano-data
	$(PY) -m study.run --plan configs/table1/nano/adapters.yaml --page docs/table1-nano/adapters $(if $(SEEDS),--seeds $(SEEDS))
