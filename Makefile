# Two commands set everything up on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
PIE_HOME ?= $(CURDIR)/.build/home
export PIE_HOME
# The published clients that the tests of the server run, side by side.
CLIENTS := 0.2.0 0.2.1

# Processes that share the tests, a file of them at a time.
JOBS ?= 2

PROMPT ?= Name the capital of France.

.PHONY: demo test test-long check bench bench-peers clean

demo: $(VENV)/.demo
	$(BIN)/pie run text-completion -- --prompt "$(PROMPT)" --temperature 0 --max-tokens 64

test: $(VENV)/.test
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-long: $(VENV)/.test
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --run-long

check: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python tools/wit_check.py --check
	$(BIN)/python -m tools.conformance --check
	$(BIN)/python -m pytest -q tests/test_imports.py

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks.host
	$(BIN)/python -m benchmarks.concurrent
	$(BIN)/python -m benchmarks.scheduling
	$(BIN)/python -m benchmarks.server
	$(BIN)/python -m benchmarks.serving --json .build/serving.json --svg .build/serving.svg

# The engines that the last of them compares with: llama.cpp, OpenVINO GenAI and vLLM, in .build/peers.
bench-peers: $(VENV)/.test
	$(BIN)/python -m benchmarks.serving.install

clean:
	rm -rf $(VENV) .build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "pie needs CPython 3.11 to 3.13; choose one with: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "cannot make a virtual environment: on Debian, apt-get install python3-venv"; exit 1; }

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing pie (torch is large: a few minutes the first time)"
	$(PIP) torch
	$(PIP) -e '.[build,cpu]'
	@touch $@

$(VENV)/.test: $(VENV)/.demo tools/need_node.sh
	$(PIP) -e '.[build,cpu,dev]'
	@for version in $(CLIENTS); do \
	  $(PIP) --no-deps --upgrade --target .build/pie-client-$$version pie-client==$$version || exit 1; done
	@sh tools/need_node.sh
	@touch $@
