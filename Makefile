# Everything a user or contributor runs. `make demo` and `make test` need nothing but Python 3.11+.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
BESIDE := build/downstream

export DO_NOT_TRACK = 1
export PREFECT_SERVER_ANALYTICS_ENABLED = false

SEED  ?= 0
KILLS ?= 60

.DEFAULT_GOAL := help
.PHONY: help install demo test test-cluster test-downstream chaos fuzz bench check lint-infra format docs site clean

help:  ## Show what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## Make the environment .venv with the command `tsp` in it

$(STAMP): pyproject.toml constraints.txt
	@echo "== installing into $(VENV) with $(PYTHON) (a few minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed, $(PYTHON) is older; call make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { echo "no venv in this Python; on Debian: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install  ## Make the demo dataset in demo-run/ and run the whole pipeline on it
	$(BIN)/tsp demo --out demo-run

test: install  ## Run the tests, all but the long ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-cluster: install  ## Run the tests that start whole clusters: Ray, PostgreSQL, catalogue, trainers
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster -p no:cacheprovider tests

test-downstream: $(BESIDE)/.installed  ## Train and evaluate ActionFormer on an export, with its own code
	OMP_NUM_THREADS=1 $(BESIDE)/bin/python -m pytest -m downstream -p no:cacheprovider tests

# Sees what is in .venv and adds to it; needs a C++ compiler (g++) and Python's headers.
$(BESIDE)/.installed: $(STAMP)
	$(BIN)/python -m venv --clear --without-pip $(BESIDE)
	$(BIN)/python -c 'from sysconfig import get_path; print("import site; site.addsitedir(%r)" % get_path("purelib"))' \
		> $$($(BESIDE)/bin/python -c 'from sysconfig import get_path; print(get_path("purelib"))')/beside.pth
	$(BIN)/python -m pip --python $(BESIDE)/bin/python install --disable-pip-version-check -c constraints.txt 'setuptools>=77'
	$(BIN)/python -m pip --python $(BESIDE)/bin/python install --disable-pip-version-check -c constraints.txt \
		--no-build-isolation actionformer
	@touch $@

chaos: install  ## Kill runs at random moments, on disk and on S3: SEED=0 KILLS=60
	TSP_CHAOS_SEED=$(SEED) TSP_CHAOS_KILLS=$(KILLS) OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -m chaos -s -p no:cacheprovider tests

fuzz: install  ## Damage videos at random and run them through ingest and export: SEED=0 COUNT=500
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.reliability.fuzz_media --seed $(or $(SEED),0) --count $(or $(COUNT),500)

bench: install  ## Run the CPU benchmarks; writes benchmarks/results/
	$(BIN)/python -m benchmarks.run_all

check: install  ## Formatter, linter, strict type check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) --no-print-directory lint-infra

lint-infra: install  ## Dockerfile, compose file, Kubernetes manifests and all YAML
	$(BIN)/hadolint -c infra/.hadolint.yaml infra/Dockerfile
	$(BIN)/yamllint --strict -c .yamllint.yaml infra examples prefect.yaml mkdocs.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec infra/compose.yaml
	$(BIN)/kubernetes-validate --strict --quiet $(filter-out %/ray-cluster.yaml,$(wildcard infra/kubernetes/*.yaml))

format: install  ## Format the code and fix what the linter can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: install  ## Write the generated pages (docs/configuration.md)
	$(BIN)/python -m tsp_core.config.reference docs/configuration.md

site: install  ## Build the documentation as a site in build/site/, checking its links
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:  ## Remove what running leaves behind, not the environment
	rm -rf demo-run build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
