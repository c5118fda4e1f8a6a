# SPDX-License-Identifier: BSD-3-Clause
# Development tasks; `make` lists them. Each target first brings .venv and the build up to date.
#
#   PYTHON=python3.12   interpreter of .venv (default: python3)
#   ARGS="-k ring"      arguments of the program that the target runs
#   RUNS=1000000        with `make fuzz`: number of inputs
#   STRICT=1            with `make test`: a skipped test fails the run

RUNS ?= 1000000
export PYTHON STRICT
.NOTPARALLEL:
.PHONY: help demo demo-vm test bench fuzz lint format clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 15

demo: ## exchange messages between a host and an emulated guest through shared memory
	@tools/venv.sh
	@.venv/bin/ivshmem demo $(ARGS)

demo-vm: ## exchange messages between a host and a QEMU virtual machine
	@tools/needs.sh install vm
	@tools/venv.sh
	@.venv/bin/ivshmem demo --vm $(ARGS)

test: ## run all tests; as root with apt, install missing packages first
	@tools/needs.sh install tests
	@tools/venv.sh test
	@tools/test.sh $(ARGS)

bench: ## compare rings and mempools with DPDK, and Python rings with other IPC libraries
	@tools/needs.sh install dpdk
	@tools/needs.sh install vm
	@tools/venv.sh test bench
	@.venv/bin/python -P tests/benchmarks/run.py $(ARGS)
	@.venv/bin/python -P tests/benchmarks/bench_cpu_layout.py
	@.venv/bin/python -P tests/benchmarks/bench_scale.py --vm

fuzz: ## test RUNS malformed headers and tables, in C with sanitizers and in a guest process
	@tools/needs.sh install tests
	@tools/venv.sh test
	@.venv/bin/python -P tests/fuzz/fuzz.py --runs $(RUNS) $(ARGS)

lint: ## run ruff, mypy --strict, clang-format and shellcheck on all files
	@tools/venv.sh test dev
	.venv/bin/pre-commit run --all-files

format: ## format the Python and C sources
	@tools/venv.sh test dev
	.venv/bin/ruff check --fix
	.venv/bin/ruff format
	git ls-files '*.c' '*.h' ':!native/native.c*' | xargs .venv/bin/clang-format -i

clean: ## remove .venv, build and all caches
	rm -rf .venv build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
