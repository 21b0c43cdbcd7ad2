# Everything runs from a virtual environment that the first target makes. No servers are assumed: tests
# and the demo start their own.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Processes that share the tests, each with servers of its own.
WORKERS ?= 3

.PHONY: demo football portfolio test lint bench run clean

demo: $(VENV)/demo.stamp
	$(BIN)/python -m examples.airport

football portfolio: $(VENV)/demo.stamp
	$(BIN)/python -m examples.$@

test: lint
	$(BIN)/pytest -q --numprocesses=$(WORKERS) --dist=loadgroup

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/dev.stamp
	$(BIN)/python -m bench

run: $(VENV)/demo.stamp
	HEADWATER_APP=examples.airport.app:app HEADWATER_HOME=build/demo $(BIN)/headwater up

clean:
	rm -rf $(VENV) build

$(VENV)/pip.stamp:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/demo.stamp: $(VENV)/pip.stamp pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	touch $@

$(VENV)/dev.stamp: $(VENV)/pip.stamp pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@ $(VENV)/demo.stamp
