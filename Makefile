# Everything runs in .venv, which the first target makes: only make and Python 3.11 or newer have to be there.
# Where pip's index serves a CUDA build of PyTorch and a CPU build will do: make TORCH_INDEX=<PyTorch's CPU index> ...

PYTHON ?= python3
TORCH_INDEX ?=
PIP := .venv/bin/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint constraints.txt
INSTALLED := .venv/.installed

.PHONY: help demo test test-quick fuzz check bench docs clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' $(MAKEFILE_LIST) | awk -F@ '{ printf "%-18s %s\n", $$1, $$2 }'

demo: $(INSTALLED)  ## train, evaluate and predict on the shipped data, beside a baseline
	.venv/bin/peftide demo

# A process for each core, up to four, for each holds PyTorch; a file of tests, which may share a trained model, in one
PYTEST := OMP_WAIT_POLICY=passive .venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test: $(INSTALLED)  ## run every test
	$(PYTEST)

test-quick: $(INSTALLED)  ## run the tests that are not marked slow
	$(PYTEST) -m "not slow"

fuzz: $(INSTALLED)  ## try new cases, more than 10,000 broken files, settings and bundles (takes about a quarter of an hour)
	PEFTIDE_FUZZ_SCALE=20 OMP_WAIT_POLICY=passive .venv/bin/python -m pytest --hypothesis-show-statistics tests/properties tests/unit/test_config.py

check: $(INSTALLED)  ## format, lint, types, import layers, generated documentation
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/pyrefly check
	.venv/bin/lint-imports
	.venv/bin/python docs/make_settings.py --check

bench: $(INSTALLED)  ## run every benchmark with its defaults
	@set -e; for script in benchmarks/training_speed.py benchmarks/embedding_speed.py benchmarks/scaling.py; do echo "$$script"; .venv/bin/python "$$script"; done

docs: $(INSTALLED)  ## write the generated documentation
	.venv/bin/python docs/make_settings.py

clean:  ## remove caches and built packages; .venv and runs stay
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks experiments docs -name __pycache__ -prune -exec rm -rf {} +

# torch goes first and alone, so that its own index, where one is given, serves nothing else.
# A virtual environment whose making was interrupted has no pip and is made anew.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "peftide needs Python 3.11 or newer")'
	@echo "Installing into .venv; the first time takes a minute or two"
	@$(PIP) --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(INSTALL) --upgrade pip
	@$(INSTALL) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	@$(INSTALL) --build-constraint constraints.txt --editable . --group dev
	@touch $@
