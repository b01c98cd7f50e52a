.DEFAULT_GOAL := help
.PHONY: help setup check format test sandbox demo bench benchtraining benchserving benchkills gallery pictures reference site history lock release updates clean
# On Windows: GNU make with the shell and tools of Git for Windows.
PYTHON ?= $(if $(filter Windows_NT,$(OS)),python,python3)
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
RUFF := $(BIN)/ruff --config ruff.toml
PROJECT := {{cookiecutter.project_slug}}
# Where the demo is generated, and for which task.
DEMO_DIR ?= build/demo
TASK ?= image-classification
MLOPS ?= full
ARGS ?=
TASKS := image-classification text-classification forecasting recommendation

help: ## list the targets
	@echo 'make TARGET'
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## ?/  \1|/' | awk -F'|' '{ printf "%-13s %s\n", $$1, $$2 }'

setup: ## create the environment .venv (with uv if installed, else pip)
	@$(PYTHON) "$(PROJECT)/scripts/setup.py" .

check: setup ## ruff on everything, the generated project's sources included
	$(RUFF) check
	$(RUFF) format --check

format: setup ## format the sources and fix lint errors with ruff
	$(RUFF) check --fix
	$(RUFF) format

test: setup ## generate projects, run their checks and tests, and run them from training to prediction
	$(BIN)/python -m pytest $(ARGS)

sandbox: setup ## a project in build/sandbox that edits the template (TASK=… MLOPS=basic ARGS="-k doctor")
	@$(BIN)/python scripts/sandbox.py --task "$(TASK)" --mlops "$(MLOPS)" $(ARGS)

demo: setup ## generate, train, report, deploy, serve and predict (DEMO_DIR=build/demo TASK=image-classification)
	@$(BIN)/python scripts/demo.py --task "$(TASK)" "$(DEMO_DIR)"

bench: setup ## measure what generation costs, against a template of one file
	$(BIN)/python benchmarks/generation.py

benchtraining: setup ## compare the training loop with Accelerate, Lightning and others (ARGS=--quick)
	@$(BIN)/python benchmarks/training $(ARGS)

benchserving: setup ## compare the server with FastAPI, LitServe and BentoML, 40 minutes (ARGS=--quick)
	@$(BIN)/python benchmarks/serving $(ARGS)

benchkills: setup ## kill training at random moments, resume, compare every bit (ARGS='--processes 2')
	@$(BIN)/python benchmarks/kills.py --task "$(TASK)" $(ARGS)

gallery: setup ## make all demos and their loops anew and take their pictures (needs Chromium)
	@for task in $(TASKS); do $(BIN)/python scripts/demo.py --task $$task build/demo || exit 1; done
	@for project in build/demo/*/; do $(MAKE) -C $$project loop || exit 1; done
	$(BIN)/python scripts/pictures.py

pictures: setup ## take screenshots of the demos for the README (needs Chromium; run make demo first)
	$(BIN)/python scripts/pictures.py

reference: setup ## write docs/reference from the questions and the settings' classes
	$(BIN)/python scripts/reference.py

site: setup ## build the documentation site from docs/ into build/site, without the internet
	$(BIN)/zensical build --clean --strict

history: setup ## run the experiments that led to a task's defaults and ship their records (TASK=…)
	$(BIN)/python scripts/history.py --task "$(TASK)"

lock: setup ## update the versions that generated projects install (needs uv)
	$(BIN)/python scripts/lock.py

release: ## date the changelog's section, commit and tag (VERSION=1.0.0)
	@$(PYTHON) scripts/release.py "$(VERSION)"

updates: setup ## update projects of every version, write the conflicts into docs/updating.md (10 minutes)
	$(BIN)/python scripts/updates.py --page

clean: ## remove environment, caches and everything in build/
	rm -rf .venv build .pytest_cache .ruff_cache
