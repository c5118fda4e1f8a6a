# SPDX-License-Identifier: BSD-3-Clause
# What is done with a checkout. `make` lists it. Each target builds first what it needs; a second run starts at once.
#
#   PYTHON=python3.12   the interpreter of .venv (python3 by default)
#   ARGS="-k ring"      arguments for the program that the target runs
#   RUNS=1000000        with `make fuzz`: how many inputs
#   STRICT=1            with `make test`: a skipped test is a failure

RUNS ?= 1000000
export PYTHON STRICT
.NOTPARALLEL:
.PHONY: help demo demo-vm test bench fuzz lint format clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 15

demo: ## a host and a guest exchange messages through shared memory, on an emulated bus
	@tools/venv.sh
	@.venv/bin/ivshmem demo $(ARGS)

demo-vm: ## the same with a real QEMU virtual machine
	@tools/needs.sh install vm
	@tools/venv.sh
	@.venv/bin/ivshmem demo --vm $(ARGS)

test: ## all tests; as root with apt, installs what they need
	@tools/needs.sh install tests
	@tools/venv.sh test
	@tools/test.sh $(ARGS)

bench: ## rings and mempools beside DPDK, Python's rings beside their rivals
	@tools/needs.sh install dpdk
	@tools/needs.sh install vm
	@tools/venv.sh test bench
	@.venv/bin/python -P tests/benchmarks/run.py $(ARGS)
	@.venv/bin/python -P tests/benchmarks/bench_cpu_layout.py
	@.venv/bin/python -P tests/benchmarks/bench_scale.py --vm

fuzz: ## a million damaged headers and tables, in C under sanitizers, and as a guest takes them; RUNS= for another number
	@tools/needs.sh install tests
	@tools/venv.sh test
	@.venv/bin/python -P tests/fuzz/fuzz.py --runs $(RUNS) $(ARGS)

lint: ## ruff, mypy --strict, clang-format and shellcheck on all files
	@tools/venv.sh test dev
	.venv/bin/pre-commit run --all-files

format: ## lay out the Python and C sources
	@tools/venv.sh test dev
	.venv/bin/ruff check --fix
	.venv/bin/ruff format
	git ls-files '*.c' '*.h' ':!native/native.c*' | xargs .venv/bin/clang-format -i

clean: ## removes .venv, build and all caches
	rm -rf .venv build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
