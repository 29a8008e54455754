# make demo   creates .venv, installs the package and runs the main job
# make test   the same with the development tools, then the whole test suite
# make chaos  kills workers and database servers for some minutes, and compares with undisturbed runs
# make browser looks for a browser for the tests of pages, and installs Debian's where it may
# make docs   builds the documentation into site/; a warning is an error
# make lint, make examples, make clean
#
# VENV=path puts the environment elsewhere, PYTHON=python3.12 chooses the interpreter.
# Nothing is installed again before pyproject.toml or constraints.txt change.

PYTHON ?= python3
VENV ?= .venv
SITE ?= site
# Two processes of one torch thread each: a third faster than one process on two cores.
PYTEST ?= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

BIN := $(VENV)/bin
# An environment with the development tools carries both stamps, so that `make demo` is content with it.
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.PHONY: demo test browser chaos lint examples docs clean
.NOTPARALLEL:

demo: $(INSTALLED)
	$(BIN)/optuna-kd search

test: $(INSTALLED_DEV)
	$(PYTEST)

browser:
	@tests/browser/find_or_install.sh

chaos: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -m chaos

lint: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

examples: $(INSTALLED)
	@set -e; for file in examples/*.py; do echo "== $$file"; OMP_NUM_THREADS=1 $(BIN)/python "$$file"; done

# The theme advertises its successor at every build. Not --quiet: it mutes the warnings before --strict counts them.
docs: $(INSTALLED_DEV)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --site-dir $(SITE)

clean:
	rm -rf $(VENV) site build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

define create_venv
@command -v $(PYTHON) >/dev/null || { echo "There is no '$(PYTHON)' here. Name a Python >= 3.11: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("optuna_kd needs Python >= 3.11, but $(PYTHON) is %d.%d. Name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12" % v[:2])'
$(PYTHON) -m venv $(VENV)
endef

$(INSTALLED): pyproject.toml constraints.txt
	$(create_venv)
	$(PIP_INSTALL) -e .
	@touch $@

$(INSTALLED_DEV): pyproject.toml constraints.txt
	$(create_venv)
	$(PIP_INSTALL) -e ".[dev]"
	@touch $(INSTALLED) $@
