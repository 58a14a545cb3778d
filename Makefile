# make demo | make test | make check | make site        each creates .venv when it is missing
PYTHON ?= python3
BIN := .venv/bin
export PYTHONDONTWRITEBYTECODE = 1

.PHONY: demo test check site format mutants clean

.venv/installed: pyproject.toml constraints/ci.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev,docs]" -c constraints/ci.txt
	touch .venv/installed

demo: .venv/installed
	$(BIN)/finepref demo --out demo

test: .venv/installed
	scripts/test

check: .venv/installed
	scripts/check

site: .venv/installed
	scripts/site

format: .venv/installed
	$(BIN)/ruff format src tests benchmarks scripts examples
	$(BIN)/ruff check --fix src tests benchmarks scripts examples

mutants: .venv/installed
	$(BIN)/python scripts/mutants

clean:
	rm -rf .venv demo site
