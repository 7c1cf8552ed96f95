# Every target prepares what it needs first (tools/setup.py: quick when nothing changed).
PYTHON ?= python3
VENV := .venv/bin/python
# Passed on: make test PYTEST="-k doctor", make lab LAB="--no-browser --port 9000"
PYTEST ?=
LAB ?=

.PHONY: help book test bench lab labs pdf clean distclean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*##/    make \1 \t/p' Makefile | expand -t 20

book:  ## run the chapters, build the HTML book, print the path to open
	@$(PYTHON) tools/setup.py book
	@$(VENV) tools/book.py

test:  ## lint, types, every test (make test PYTEST="-k doctor" for some)
	@$(PYTHON) tools/setup.py test
	$(VENV) -m ruff check .
	$(VENV) -m ruff format --check .
	$(VENV) -m mypy
	$(VENV) tools/tests.py $(PYTEST)

bench:  ## the benchmarks at full count
	@$(PYTHON) tools/setup.py bench
	@set -e; for benchmark in benchmarks/*.py; do echo "== $$benchmark"; $(VENV) $$benchmark; done
	KERNELNOTES_EVERY_CHAPTER=1 $(VENV) -m pytest -q tests/book/test_lab.py

lab:  ## JupyterLab on the chapters
	@$(PYTHON) tools/setup.py lab
	$(VENV) -m jupyterlab $(shell [ "$$(id -u)" = 0 ] && echo --allow-root) $(LAB) book

labs:  ## the labs as students get them, in one zip
	@$(PYTHON) tools/setup.py test
	$(VENV) tools/labs.py

pdf:  ## the book on paper: a PDF of each page, and one of the whole
	@$(PYTHON) tools/setup.py test
	$(VENV) tools/pdf.py

clean:  ## remove what the builds made; .venv and _vendor stay
	rm -rf _build .mypy_cache .ruff_cache .pytest_cache .hypothesis

distclean: clean  ## remove .venv and _vendor too
	rm -rf .venv _vendor
