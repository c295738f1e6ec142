# One command each. Every target that needs the environment makes it first (`setup` does nothing the second time).
.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench zoo soak gpu lock clean
PY := .venv/bin/python
PYTEST := $(PY) -m pytest
ARGS ?=
ONLY ?=
export MIDSTEP_PYTHON PIP_ARGS

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

setup: ## system packages, .venv, CRIU: only what is missing
	@./scripts/setup.sh

demo: setup ## two real training jobs suspended, moved and resumed in the middle of a step; under three minutes
	@$(PY) -m midstep.app.demo $(ARGS)

test: setup ## all tests but the long ones and those that need a GPU (ARGS='-k name')
	$(PYTEST) -m "not soak and not gpu" -n 2 --dist loadscope --durations 25 $(ARGS)

check: setup ## lint, format of imports, strict types
	$(PY) -m ruff check .
	$(PY) -m pyright

bench: setup ## every figure beside its bar, into build/bench.json (ONLY='name ...')
	@$(PY) -m benchmarks $(ONLY)

zoo: setup ## the libraries that some of the long tests train with, and a server of Azure's storage (where there is npm)
	@$(PY) -m pip install -qq --disable-pip-version-check $(PIP_ARGS) -r requirements.lock -r requirements-zoo.lock
	@if command -v npm >/dev/null; then npm install --silent --no-save --prefix .venv/azurite azurite@3.35.0; else echo "zoo: no npm: the tests with Azure's storage are skipped"; fi

soak: zoo ## the long tests
	$(PYTEST) -m "soak and not gpu" --timeout 7200 $(ARGS)

gpu: setup ## the tests that need an NVIDIA GPU
	$(PYTEST) -m gpu $(ARGS)

lock: setup ## resolve requirements.lock anew from pyproject.toml
	$(PY) scripts/lock.py

clean: ## remove what setup and the tests made here (CRIU's private prefix stays)
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
