# `make check fast` before each commit; `make test` before a pull request. BIN=/other/venv/bin takes another environment.
BIN := .venv/bin
PYTEST := $(BIN)/pytest -n auto --dist loadgroup

.PHONY: check fast durations test fuzz docs site

check:  ## lint, format, types, floors, dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	for config in pyproject.toml $(wildcard .importlinter*.toml); do $(BIN)/lint-imports --no-cache --config $$config || exit 1; done
	$(BIN)/deptry .

fast:  ## the tests that are neither marked slow nor in tests/not_fast.txt, in less than a minute
	$(PYTEST) -m fast --durations=5

durations:  ## tests/not_fast.txt, measured anew in some five minutes
	$(BIN)/python tests/durations.py

test:  ## all tests, with branch coverage of the core by those that are not slow
	$(PYTEST) --cov=trainkit --cov-report=term:skip-covered

fuzz:  ## thousands of damaged files and changed recipes
	BIN=$(BIN) bash .ci/fuzz

docs:  ## the reference and the pictures of docs/, made by the functions that train, and the JSON Schema of recipes/
	$(BIN)/python docs/make_reference.py
	$(BIN)/trainkit schema --out recipes/recipe.schema.json
	$(BIN)/python docs/make_learning_rate_traces.py
	$(BIN)/python docs/make_ptychography_conventions.py

site:  ## docs/ as a site in site/; a link that leads nowhere is an error. It needs the extra docs
	$(BIN)/zensical build --strict
