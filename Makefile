# Everything runs from a virtual environment that the first target makes. No servers are assumed: tests
# and the demo start their own.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Processes that share the tests, each with servers of its own.
WORKERS ?= 3

.PHONY: demo football portfolio orders classroom strategy services test lint bench growth race simulate run clean

demo: $(VENV)/demo.stamp
	$(BIN)/python -m examples.airport

football portfolio orders classroom strategy: $(VENV)/demo.stamp
	$(BIN)/python -m examples.$@

# Lint and types are checked while the tests run, and are told after them.
test: $(VENV)/dev.stamp
	@mkdir -p build
	@$(MAKE) --no-print-directory lint >build/lint.log 2>&1 & lint=$$!; \
	$(BIN)/pytest -q --numprocesses=$(WORKERS) --dist=loadscope; tested=$$?; \
	wait $$lint; linted=$$?; cat build/lint.log; test $$tested -eq 0 -a $$linted -eq 0

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/dev.stamp
	$(BIN)/python -m bench

# How figures move with size; half an hour.
growth: $(VENV)/dev.stamp
	$(BIN)/python -m bench.growth

# Beside the peers, each in an environment of its own below build/race.
race: $(VENV)/dev.stamp
	$(BIN)/python -m race --rounds $(or $(ROUNDS),3)

# A seed is drawn and printed where none is given.
simulate: $(VENV)/dev.stamp
	$(BIN)/python -m simulation $(if $(SEED),--seed $(SEED)) --minutes $(or $(MINUTES),2)

# Four services, killed by a seeded schedule.
services: $(VENV)/dev.stamp
	$(BIN)/python -m simulation.services $(if $(SEED),--seed $(SEED)) --orders $(or $(ORDERS),5000)

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
