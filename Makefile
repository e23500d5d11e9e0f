# Every verb says what it does: `make help`. A fresh machine needs Python 3.11-3.13, git and make, nothing else.

VENV := .venv
# Named after the content of the files, not after their times: switching branches and back rebuilds nothing.
STAMP := $(VENV)/.regraft-setup-$(shell cat requirements.lock locks/build.lock pyproject.toml setup.py | cksum | cut -d ' ' -f 1)
DEV_STAMP := $(STAMP)-dev-$(shell cksum < locks/dev.lock | cut -d ' ' -f 1)
# What is downloaded has a SHA-256 in a lock file. Nothing is built in an environment that pip fills by itself, unchecked.
PIP_INSTALL := $(VENV)/bin/python -m pip install --disable-pip-version-check --no-build-isolation
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)

# A file of tests goes to one process as a whole, because its tests share what is slow to build; each takes about 1.5 GB.
# Many tests wait for other processes, so there is one more than there are cores.
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST := python -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: setup setup-dev demo demo-more retrain serve ui test stress check bench renew-locks clean help
.DEFAULT_GOAL := help

setup: $(STAMP)  ## create .venv from requirements.lock, if it is missing or stale

$(STAMP):
	@test -w . || { echo "$(CURDIR) cannot be written to, and .venv belongs into it. Copy or clone the project to a folder of yours."; exit 1; }
	@test -n "$(PYTHON)" || { echo "Regraft needs Python 3.11, 3.12 or 3.13. None was found as python3, python3.13, python3.12 or python3.11."; exit 1; }
	@echo "Setting up .venv from requirements.lock: about 590 MB to download, two to five minutes."
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP_INSTALL) --require-hashes -r locks/build.lock
	$(PIP_INSTALL) --require-hashes -r requirements.lock
	$(PIP_INSTALL) --no-deps -e .
	@touch $@

setup-dev: $(DEV_STAMP)  ## add what tests and checks need, from locks/dev.lock

$(DEV_STAMP): $(STAMP)
	$(PIP_INSTALL) --require-hashes -r requirements.lock -r locks/dev.lock
	@touch $@

demo: setup  ## retrain on 1,000 real handwritten digits, from nothing to models/model.onnx
	regraft table demo:digits
	regraft retrain
	@regraft report

demo-more: setup  ## add 50 further digits and retrain: only they cost forward passes
	regraft table demo:more-digits
	regraft retrain
	@regraft report

retrain: setup  ## retrain on the photos in data/raw; what is up to date is skipped
	regraft retrain
	@regraft report

serve: setup  ## retrain every night and when photos arrive: server, schedule, worker, alarms; stop it with Ctrl-C
	@regraft serve

ui: setup  ## start the Prefect server on http://127.0.0.1:4200, with a password; stop it with Ctrl-C
	@regraft serve --only server

test: setup-dev  ## run all tests
	$(PYTEST)

stress: setup-dev  ## kill -9, faults, full disks and damaged files by the hundred: hours; PHOTOS=DIR for photos of your own
	$(PYTEST) tests/stress
	python -m tests.stress.faults $(PHOTOS)
	python -m tests.stress.training_kills $(PHOTOS)
	python -m tests.stress.state_machine
	python -m tests.stress.run_kills
	python -m tests.stress.promotion_kills
	python -m tests.stress.address_kills
	python -m tests.stress.night_kills
	python -m tests.stress.fuzz $(PHOTOS)

check: setup-dev  ## what CI checks: formatting, lint, types, imports, tests
	ruff format --check .
	ruff check .
	pyright
	lint-imports --no-cache
	$(PYTEST)

bench: setup-dev  ## print the benchmarks' ratios on the photos in data/raw; QUICK=1, SIZES="1000 64000"
	python -m benchmarks.speed.extraction data/raw $(if $(QUICK),--quick)
	python -m benchmarks.speed.retrain data/raw $(if $(QUICK),--quick)
	python -m benchmarks.speed.nights data/raw $(if $(QUICK),--quick)
	python -m benchmarks.speed.fine_tune data/raw $(if $(QUICK),--quick)
	python -m benchmarks.scaling data/raw --photos $(if $(QUICK),200 400,$(or $(SIZES),1000 4000))
	python -m benchmarks.checks.label_errors data/raw $(if $(QUICK),--quick)
	python -m benchmarks.checks.abstention $(if $(QUICK),--quick)
	python -m benchmarks.gate $(if $(QUICK),--quick)
	python -m benchmarks.accuracy data/raw $(if $(QUICK),--quick)

renew-locks: setup-dev  ## write the lock files anew and test what they install; UPGRADE=1 takes newer versions
	python .ci/renew_locks.py $(if $(UPGRADE),--upgrade)
	$(MAKE) setup-dev
	python .ci/licences.py
	$(MAKE) test

clean:  ## remove .venv and tool caches; data, models, reports and the store stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

help:  ## list the verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20
