# The targets that people and CI use. Each one sets up what it needs first.
SHELL := /bin/sh
.NOTPARALLEL:
.DEFAULT_GOAL := help

# The tools of the private environment; the engine's network needs programs of /usr/sbin.
export PATH := $(CURDIR)/.venv/bin:$(PATH):/usr/sbin:/sbin
# Everything that is only kept for speed is kept in .cache.
export MOLECULE_GLOB := molecule/*/molecule.yml
export MYPY_CACHE_DIR := $(CURDIR)/.cache/mypy
export RUFF_CACHE_DIR := $(CURDIR)/.cache/ruff
export HYPOTHESIS_STORAGE_DIRECTORY := $(CURDIR)/.cache/hypothesis
pytest := python -m pytest -o cache_dir=.cache/pytest
# Two at a time, each file by one of them, unless tests/integration/conftest.py says otherwise: most tests wait for
# something else than the processor.
two := -n 2 --dist
# Where podman's own settings do not work, tools/bootstrap has written some that do.
engine := if [ -f .cache/containers.conf ]; then export CONTAINERS_CONF=$(CURDIR)/.cache/containers.conf; fi;

.PHONY: help setup setup-tests demo demo-down test lint unit integration molecule chaos bench bench-deploy reference lock build

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what the demo and the playbooks need: packages, .venv, container engine
	@tools/bootstrap demo

setup-tests:
	@tools/bootstrap tests

demo: setup ## Raise the sandbox fleet, deploy, deploy again under traffic, roll back; leaves the fleet running
	@$(engine) .venv/bin/python tools/demo.py

demo-down: ## Remove every trace of the demo: machines, network, images, keys, .cache
	@if [ -d .cache ]; then tools/bootstrap demo; fi
	@$(engine) tools/demo-down

test: lint unit integration molecule ## Run every test: lint, unit, integration, molecule

lint: setup-tests ## Check YAML, roles, playbooks and Python
	@echo "==> lint: yamllint" && yamllint --strict .
	@echo "==> lint: ansible-lint" && ansible-lint
	@echo "==> lint: ruff" && ruff check && ruff format --check
	@echo "==> lint: mypy" && mypy collections/ansible_collections/roastify/ops/plugins/module_utils tools

unit: setup-tests ## Test the Python code
	@echo "==> unit"; $(pytest) $(two) loadfile tests/unit

integration: setup-tests ## Test against real services: PostgreSQL, HTTP
	@echo "==> integration"; $(engine) $(pytest) $(two) loadgroup tests/integration

# Not in UTC, where the hosts are: who deploys is somewhere else.
molecule: export TZ := Europe/Berlin
molecule: setup-tests ## Test the roles on a fleet of their own; it is removed at the end, also after a failure
	@echo "==> molecule"; $(engine) trap 'molecule destroy; exit 130' INT TERM; rm -f .cache/molecule-failures; \
	  molecule test --destroy=always || { status=$$?; cat .cache/molecule-failures 2>/dev/null; exit $$status; }

chaos: setup-tests ## All drills on a fleet of their own, which stays (not part of test; CHAOS_KILLS=10 for a short run)
	@echo "==> chaos: the fleet"; $(engine) ansible-playbook -i tests/chaos/inventory playbooks/sandbox.yml
	@ansible-playbook -i tests/chaos/inventory setup.yml
	@echo "==> chaos"; $(engine) CHAOS_INVENTORY=tests/chaos/inventory $(pytest) -s tests/chaos

bench: setup-tests ## Measure migrations and environment against other tools (not part of test; rounds=5 for more rounds)
	@echo "==> bench: environment"; python tests/bench/environment.py
	@echo "==> bench: migrations"; python tests/bench/migrations.py --rounds $(or $(rounds),3)

bench-deploy: setup-tests ## Measure deployments against Capistrano and a bare script (not part of test; rounds=5 for more rounds)
	@echo "==> bench: deployments"; $(engine) python tests/bench/deployments.py --rounds $(or $(rounds),3)

reference: setup ## Write the READMEs of the roles and the reference in docs/ out of the code
	@python tools/reference.py

lock: setup ## Write requirements/*.txt anew from requirements/*.in
	@command -v uv >/dev/null || python -m pip install --quiet --target .cache/uv uv
	@for name in controller development; do \
	  PATH="$$PATH:$(CURDIR)/.cache/uv/bin" uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-header --no-emit-index-url --output-file requirements/$$name.txt requirements/$$name.in || exit; \
	done

build: setup ## Build the collection into .cache
	@ansible-galaxy collection build --force --output-path .cache
