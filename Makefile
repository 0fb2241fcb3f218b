.DEFAULT_GOAL := help
.PHONY: help test test-all coverage lint format types docs notebooks bench check fuzz kills lock audit ci
BENCH ?= planar
BENCH_OPTIONS ?= --seeds 1 --scale 0.1

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

test: ## the quick tests
	pytest -n 2 -m "not slow"

test-all: ## all tests, as CI runs them
	pytest

coverage: ## all tests, and the lines that none of them reaches
	pytest --cov --cov-report=term-missing:skip-covered --cov-report=html

lint: ## style, format and the order of imports
	ruff check .
	ruff format --check .
	lint-imports

format: ## put code into the format
	ruff check --fix .
	ruff format .

types: ## static types of the numeric core
	mypy

docs: ## build the documentation into site/; fails on a broken link
	mkdocs build --strict

notebooks: ## execute the notebooks
	pytest --nbmake --nbmake-timeout=300 notebooks

bench: ## a benchmark: make bench BENCH=planar BENCH_OPTIONS="--seeds 5"
	python benchmarks/$(BENCH).py $(BENCH_OPTIONS)

check: ## closed forms on this machine
	sbflow check

fuzz: ## ten minutes of random command lines and damaged files, outside of CI
	pytest tests/fuzz/fuzz_command_line.py tests/fuzz/fuzz_files.py

kills: ## kill training, sampling and translating at random moments, and compare with undisturbed runs
	python benchmarks/kill_study.py --kills 30

lock: ## record the versions that would be installed today in requirements.lock
	python .ci/lock

audit: ## look the recorded versions up for known vulnerabilities (pip install pip-audit)
	python -m pip_audit --requirement requirements.lock --no-deps --disable-pip

ci: ## what a change must pass, in a fresh environment
	.ci/run
