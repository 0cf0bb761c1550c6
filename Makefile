.PHONY: help setup demo test lint bench bench-oracle docs clean

help:
	@echo "make setup   install what is missing; leaves .venv/bin/orchestrator"
	@echo "make demo    deploy examples/towns and print the URL it answers on"
	@echo "make test    run every test, the linters and the type checker"
	@echo "make lint    the linters and the type checker alone"
	@echo "make bench   measure, print the tables and save them in benchmarks/results"
	@echo "make bench-oracle   1,000 random edits against the cargo cache: is any build stale?"
	@echo "make docs    write the generated pages of docs/ anew"
	@echo "make clean   remove .venv and what tests left in this directory"

setup:
	@.ci/setup run

demo: setup
	@.ci/demo

test:
	@.ci/setup test
	.venv/bin/python -m pytest -n 2 --dist loadfile

lint: setup
	.venv/bin/python -m pytest tests/unit/test_style.py

bench:
	@.ci/setup test
	.venv/bin/python -m benchmarks startup deploy images assemble push container sources edge

bench-oracle:
	@.ci/setup test
	.venv/bin/python -m tests.integration.oracle 1000 1

docs: setup
	.venv/bin/python docs/generate.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache result
