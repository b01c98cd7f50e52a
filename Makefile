.DEFAULT_GOAL := help
.PHONY: help setup check format test demo bench benchserving pictures lock clean
PYTHON ?= python3
BIN := .venv/bin
RUFF := $(BIN)/ruff --config ruff.toml
PROJECT := {{cookiecutter.project_slug}}
# Where and for which task the demo is baked.
DEMO_DIR ?= build/demo
TASK ?= image-classification
ARGS ?=

help: ## this list
	@echo 'make TARGET'
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## ?/  \1|/' | awk -F'|' '{ printf "%-13s %s\n", $$1, $$2 }'

setup: ## make the environment .venv (uv if it is there, else pip)
	@$(PYTHON) "$(PROJECT)/scripts/setup.py" .

check: setup ## ruff on everything, the generated project's sources included
	$(RUFF) check
	$(RUFF) format --check

format: setup ## let ruff put the sources in order
	$(RUFF) check --fix
	$(RUFF) format

test: setup ## bake, check and test what comes out, and run it from training to prediction
	$(BIN)/python -m pytest $(ARGS)

demo: setup ## bake, train, report, deploy, serve and ask (DEMO_DIR=build/demo TASK=image-classification)
	@$(BIN)/python scripts/demo.py --task "$(TASK)" "$(DEMO_DIR)"

bench: setup ## what generation costs, against a template of one file
	$(BIN)/python benchmarks/generation.py

benchserving: setup ## the server beside FastAPI, LitServe and BentoML, 40 minutes (ARGS=--quick)
	@$(BIN)/python benchmarks/serving $(ARGS)

pictures: setup ## photograph the demo for the README (needs Chromium, and make demo before)
	$(BIN)/python scripts/pictures.py

lock: setup ## renew the versions that generated projects install (needs uv)
	$(BIN)/python scripts/lock.py

clean: ## remove environment, caches and everything baked into build/
	rm -rf .venv build .pytest_cache .ruff_cache
