# Everything runs from .venv, made on first use from what requirements/development.txt locks. Needs Python 3.11 or later and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help setup demo test test-all lint dev docs site site-serve bench soak lock licences clean

help:  ## These lines
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(READY)  ## Make .venv and install what is locked

# The programs in .venv hold its path: after the checkout was moved, renamed or copied, it is made anew
MOVED := $(shell test -f .venv/pyvenv.cfg && made=$$(sed -n 's/^command = //p' .venv/pyvenv.cfg) && \
	here=$$(cd .venv && pwd -P) && case "$$made" in (''|*" $$here") ;; (*) echo yes;; esac)
ifeq ($(MOVED),yes)
.PHONY: $(READY)
endif

$(READY): pyproject.toml requirements/development.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(f"Python 3.11 or later is needed, this is {v.major}.{v.minor}: make PYTHON=python3.12 …") if v < (3, 11) else 0'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "this Python cannot make virtual environments: install its venv package (Debian: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(if $(MOVED),--clear) .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/development.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

demo: setup  ## A sandbox account, mirrored through Dagster into an embedded Postgres, and queried
	@$(BIN)/amocrm-mirror demo

test: setup lint  ## What CI runs: linters, types, and the whole suite on a real Postgres and the sandbox
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: setup lint  ## Adds what takes long, and the suite on a system PostgreSQL where there is one
	@failed=0; KILLS=200 ROUNDS=200 DRAWS=2000 FUZZ_DRAWS=5000 $(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder || failed=1; \
	bindir=$$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1); \
	if [ -n "$$bindir" ]; then echo "again on $$bindir"; \
	TEST_PG_BINDIR=$$bindir $(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder -m "not slow" || failed=1; \
	else echo "no system PostgreSQL found: that half is left out (Debian: apt install postgresql)"; fi; \
	exit $$failed

ROUNDS ?= 20
SEED ?= 1
FIRST ?= 0
soak: setup  ## Rounds of random changes, faults and kills, each compared: make soak ROUNDS=300 SEED=2
	$(BIN)/python -m tests.support.soak --rounds $(ROUNDS) --seed $(SEED) --first $(FIRST)

lint: setup  ## ruff and strict types
	$(BIN)/ruff check .
	$(BIN)/mypy

dev: setup  ## Dagster's web UI with every asset
	@$(BIN)/amocrm-mirror dev

docs: setup  ## Write again what docs/ takes from the code: dictionary, diagram, options, settings
	@$(BIN)/amocrm-mirror dictionary --base --format md --out docs
	@$(BIN)/python -m tests.support.reference_pages

MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs
site: setup  ## docs/ as a site in build/site: English and Russian, with a search that needs no network
	@$(MKDOCS) build --strict
	@$(MKDOCS) build --strict --config-file mkdocs.ru.yml
	@echo "open $(CURDIR)/build/site/index.html"

site-serve: setup  ## The site while you write, on http://127.0.0.1:8000; SITE=mkdocs.ru.yml for the Russian one
	@$(MKDOCS) serve --config-file $(or $(SITE),mkdocs.yml)

# What the tests of Superset install, in an environment of its own: it leaves out some of what it needs
SUPERSET := apache-superset==6.1.0\npsycopg2-binary\nrich\ncachetools\nFlask-Caching<2.4\nsetuptools\n
UV ?= uv
LOCK := --universal --no-strip-extras --python-version 3.11 --generate-hashes --custom-compile-command 'make lock' --quiet
lock:  ## Write requirements/ again from pyproject.toml; needs uv. UPGRADE=--upgrade takes newer versions
	$(UV) pip compile $(LOCK) $(UPGRADE) pyproject.toml --extra embedded --extra ui --extra dagster-postgres --extra celery \
		--extra k8s --extra metrics --extra mcp -o requirements/runtime.txt
	$(UV) pip compile $(LOCK) $(UPGRADE) pyproject.toml --extra embedded --extra ui --extra dagster-postgres --extra celery \
		--extra k8s --extra dev -c requirements/runtime.txt -o requirements/development.txt
	printf 'build\nsetuptools\n' | $(UV) pip compile $(LOCK) $(UPGRADE) - -c requirements/development.txt -o requirements/build.txt
	printf '$(SUPERSET)' | $(UV) pip compile $(LOCK) $(UPGRADE) - -o requirements/superset.txt

licences: setup  ## Write THIRD-PARTY-LICENSES.md again, after `make lock`
	@$(BIN)/python .ci/licences.py

clean:  ## Remove .venv and what the tools left
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache

LANE ?=
bench: setup  ## Speed, throttle, memory, linearity, the second sync; against dlt, Singer and a hand-written floor
	$(BIN)/python -m benchmarks $(LANE)
